"""MemGPT's memory: gated key-value entries, appended segment by segment and read by attention."""

from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from memgpt_jax.config.checks import check
from memgpt_jax.config.memory import KVMemoryConfig
from memgpt_jax.memory.base import Explanation, Origins, OwnSegment, Segment, flatten_segments
from memgpt_jax.memory.knowledge import KnowledgeMemory
from memgpt_jax.memory.linear import linear
from memgpt_jax.ops.attention.positions import Rotary
from memgpt_jax.ops.int8_vectors import as_floats, in_form_of, rounded, zero_vectors
from memgpt_jax.ops.memory import (
    Entries,
    KnowledgeEntries,
    ReadableEntries,
    SeenEntries,
    SegmentReads,
    Source,
    append_entries,
    causal_visibility,
    clean_entries,
    gather_entries,
    make_source,
    places_to_keep,
    pool_entries,
    read_entries,
    read_entries_with_lse,
    read_mass,
    read_segments,
    read_segments_with_lse,
    read_weights,
    select_highest_gate,
)
from memgpt_jax.ops.trees import where_rows
from memgpt_jax.shapes import Array, Bool, Float, Float32, Int32


class KVState(NamedTuple):
    """Bytes per row: M (2 G K itemsize + 9) + (writer_conv - 1) D itemsize, with 4 M more for `least_read`, 4 more with
    `continues_window`; with `entry_bits=8`, 2 G (K + 1) bytes are in place of 2 G K itemsize.

    N entries of knowledge add N (2 G K itemsize + 8), and an index of C cells about 4 G (C K + N) more.
    """

    entries: Entries  # with `entry_bits=8`, keys and values are `Int8Vectors`
    conv_cache: Float[Array, "B reach D"]  # the last writer_conv - 1 tokens before the segment
    knowledge: KnowledgeEntries | None = None  # if `knowledge_size` is not 0
    clock: Int32[Array, "B"] | None = None  # with `continues_window`: tokens of all full segments, also before a reset


class KVMemory(KnowledgeMemory):
    """Gated append key-value memory.

        Reader   r = W_o sum_i softmax_i(t_h q . k_i + [log g_i]) v_i,                q = W_q x
        Writer   g = sigmoid(W_g x + b_g),  k = W_k conv(x) + b_k,  v = W_v x + b_v;  append

    `x` is the normalised stream. With `qk_norm`, q and k have unit length and t_h is learned, else t = K^-1/2.
    Keys carry no positions, except with `continues_window`. Each of the G keys and values of an entry is read by H / G
    heads. See `KVMemoryConfig` for the choices.
    """

    gates: ClassVar[tuple[str, ...]] = ("write_gate",)
    cuts_by_age = True
    rotary: Rotary | None = None
    """Rotates queries and keys with `continues_window`, if self-attention has rotary positions."""

    def __init__(self, config: KVMemoryConfig, *, d_model: int, segment_length: int, dtype: Any, rngs: nnx.Rngs):
        super().__init__(config, d_model=d_model, segment_length=segment_length, dtype=dtype, rngs=rngs)
        self.add_projections(rngs=rngs)
        heads, width = config.kv_heads, config.head_dim
        normal = partial(jax.nn.initializers.normal, dtype=jnp.float32)
        if config.gate != "none":
            bias_init = jax.nn.initializers.constant(config.gate_bias)
            self.write_gate = linear(d_model, 1, use_bias=True, dtype=jnp.float32, rngs=rngs, bias_init=bias_init)
        if config.recency_bias:
            self.recency_bias = nnx.Param(jnp.full(config.num_heads, -2.0, jnp.float32))
        if config.null_entry:
            self.null_key = nnx.Param(jnp.zeros((heads, width), jnp.float32))
        if config.initial_entries:
            shape = (config.initial_entries, heads, width)
            self.initial_keys = nnx.Param(normal(width**-0.5)(rngs.params(), shape))
            self.initial_values = nnx.Param(normal(1.0)(rngs.params(), shape))
        if config.select == "pool":
            shape = (config.select_size, heads, width)
            self.pool_queries = nnx.Param(normal(width**-0.5)(rngs.params(), shape))

    def join_attention(self, query_bias: bool, rotary: Rotary | None = None) -> None:
        """Share self-attention's softmax and output projection; with `query_bias`, q = W_q x + b_q."""
        self.joins_attention, self.output = True, None
        self.rotary = rotary if self.config.continues_window else None
        if query_bias:
            kernel = self.query.kernel
            self.query = linear(*kernel.shape, use_bias=True, dtype=self.dtype, rngs=nnx.Rngs(0))
            self.query.kernel = kernel

    def init_state(self, batch_size: int) -> KVState:
        config, size = self.config, self.config.memory_size
        stored = (batch_size, size, config.kv_heads, config.head_dim)
        entries = Entries(
            keys=zero_vectors(stored, self.dtype, config.entry_bits),
            values=zero_vectors(stored, self.dtype, config.entry_bits),
            log_gate=jnp.zeros((batch_size, size), jnp.float32),
            valid=jnp.zeros((batch_size, size), bool),
            age=jnp.zeros((batch_size, size), jnp.int32),
            read_mass=self._no_mass(batch_size, size),
        )
        clock = jnp.zeros(batch_size, jnp.int32) if config.continues_window else None
        return KVState(entries, self.conv.init_state(batch_size), self.no_knowledge(batch_size), clock)

    def initial_state(self, batch_size: int) -> KVState:
        return self.restarted(self.init_state(batch_size), batch_size)

    def restarted(self, state: KVState, batch_size: int) -> KVState:
        initial = self.init_state(batch_size)
        entries = self._initial_entries(batch_size) if self.config.initial_entries else initial.entries
        entries = in_form_of(state.entries, entries)
        return initial._replace(entries=entries, knowledge=state.knowledge, clock=state.clock)

    def _initial_entries(self, batch_size: int) -> Entries:
        """The learned entries, if there are any, in an otherwise empty memory; keys and values are arrays."""
        config, empty, num = self.config, self.init_state(batch_size).entries, self.config.initial_entries
        keys = values = jnp.zeros((batch_size, config.memory_size, config.kv_heads, config.head_dim), self.dtype)
        valid = empty.valid
        if num:
            keys = keys.at[:, -num:].set(self.unit(self.initial_keys[...]).astype(self.dtype)[None])
            values = values.at[:, -num:].set(self.initial_values[...].astype(self.dtype)[None])
            valid = valid.at[:, -num:].set(True)
        return self._rounded(empty._replace(keys=keys, values=values, valid=valid))

    def read(
        self, x: Float[Array, "B Q D"], state: KVState, own_segment: OwnSegment, update_mask: Bool[Array, "B Q"]
    ) -> tuple[Float[Array, "B Q R"], KVState]:
        query, entries = self._rotated(self.queries(x), state.clock, own_segment.position), state.entries
        visible = jnp.broadcast_to(entries.valid[:, None], (*x.shape[:2], entries.valid.shape[1]))
        sources = [self._source(entries, visible)]
        if self.config.visibility == "token":
            convolved = self.convolve_own(own_segment.x, own_segment.document, state.conv_cache)
            written = self._rounded(self._gated(self._entries(own_segment.x, convolved, own_segment.document >= 0)))
            sources.append(self._source(written, causal_visibility(own_segment.document, own_segment.position)))
        sources += self.knowledge_source(state.knowledge, x.shape[1])
        found = (read_entries_with_lse if self._needs_lse(state) else read_entries)(
            query, sources, *self._null_and_recency()
        )
        found = self.with_nearest(query, state.knowledge, found)
        if entries.read_mass is not None:  # evict="least_read"
            mass = read_mass(query, sources, *self._null_and_recency(), update_mask)[:, : self.config.memory_size]
            entries = entries._replace(read_mass=entries.read_mass + jax.lax.stop_gradient(mass))
        return self._packed(found), state._replace(entries=entries)

    def write(self, x: Float[Array, "B T D"], state: KVState, write_mask: Bool[Array, "B T"]) -> KVState:
        new, conv_cache = self.new_entries(x, state, write_mask)
        clock = None if state.clock is None else state.clock + self.segment_length
        entries = append_entries(state.entries, in_form_of(state.entries, new), self.config.evict)
        return state._replace(entries=entries, conv_cache=conv_cache, clock=clock)

    def new_entries(
        self, x: Float[Array, "B T D"], state: KVState, write_mask: Bool[Array, "B T"]
    ) -> tuple[Entries, Float[Array, "B reach D"]]:
        """The N entries that `write` appends, keys and values as arrays, and the convolution's cache after them."""
        convolved, conv_cache = self.convolve_segment(x, write_mask, state.conv_cache)
        entries = self._entries(x, convolved, write_mask)
        place = jnp.arange(x.shape[1], dtype=jnp.int32)[None]
        return self._select(entries._replace(keys=self._rotated(entries.keys, state.clock, place))), conv_cache

    def explain(self, x: Float[Array, "B Q D"], state: KVState) -> Explanation:
        """Weights over the M entries, then those of knowledge; the null entry has the rest of each softmax.

        With `continues_window`, x are the tokens from `clock` on; `after` moves it behind those of an open segment.
        """
        entries = as_floats(state.entries, self.dtype)
        values, valid = entries.values, entries.valid
        visible = jnp.broadcast_to(valid[:, None], (*x.shape[:2], valid.shape[1]))
        sources = [self._source(entries, visible), *self.knowledge_source(state.knowledge, x.shape[1])]
        query = self._rotated(self.queries(x), state.clock, jnp.arange(x.shape[1], dtype=jnp.int32)[None])
        weights = read_weights(query, sources, *self._null_and_recency())
        if (nearest := self.nearest(query, state.knowledge)) is not None:
            _, lse = read_entries_with_lse(query, sources, *self._null_and_recency())
            share = jax.nn.sigmoid(lse - nearest.lse)[..., None]
            batch, length, heads, top_k = nearest.place.shape
            rows = jnp.arange(batch * length * heads)[:, None]
            known = jnp.zeros((len(rows), self.config.knowledge_size), jnp.float32)
            known = known.at[rows, nearest.place.reshape(-1, top_k)].add(nearest.weights.reshape(-1, top_k))
            weights = [share * weights, (1 - share) * known.reshape(batch, length, heads, -1)]
            weights = jnp.concatenate(weights, axis=-1)
        if state.knowledge is not None:
            values = jnp.concatenate([values, state.knowledge.values], axis=1)
            valid = jnp.concatenate([valid, state.knowledge.source > 0], axis=1)
        return Explanation(weights, self._per_head(values)[:, None], valid)

    def after(self, state: KVState, tokens: Int32[Array, "B"]) -> KVState:
        return state if state.clock is None else state._replace(clock=state.clock + tokens)

    def write_gates(self, x: Float[Array, "B L D"]) -> Float32[Array, "B L"]:
        if self.config.gate == "none":
            return jnp.ones(x.shape[:2], jnp.float32)
        return jax.nn.sigmoid(self.write_gate(x.astype(jnp.float32))[..., 0])

    def origins(self, state: KVState) -> Origins:
        """The token of each entry; its segment, if tokens of the segment have been pooled, left out or evicted.

        With `select="all"` and `evict="oldest"` the token is always known, but not in a `compressed` memory: there,
        origins are whole segments where entries are missing, and everywhere after `merge`; that of a merged entry is
        the segment of one of its tokens.

        Raises:
            ValueError: with `visibility="token"`, whose reads `explain` does not describe, or with `initial_entries`,
                which have no token.
        """
        config, length = self.config, self.segment_length
        check(config.visibility == "segment", "reads with memory.visibility='token' have no origins: take 'segment'")
        check(
            config.initial_entries == 0, f"memory.initial_entries={config.initial_entries} have no origins: take none"
        )
        age, size = state.entries.age, config.memory_size
        # A place for each token, M - 1 for the last.
        if config.select == "all" and config.evict == "oldest" and config.compressed is None:
            start = jnp.broadcast_to(size - jnp.arange(size, dtype=jnp.int32), age.shape)
            return Origins(start, jnp.ones_like(start))
        rank, number = jax.vmap(_rank_of_equal)(jnp.where(state.entries.valid, age, 0))
        known = (config.select == "all" and config.compressed != "merge") & (number == length)
        start = length * age - jnp.where(known, length - number + rank, 0)
        return Origins(start, jnp.where(known, 1, jnp.full_like(start, length)))

    def write_entries(
        self,
        keys: Float[Array, "B N G K"],
        values: Float[Array, "B N G K"],
        state: KVState,
        valid: Bool[Array, "B N"] | None = None,
    ) -> KVState:
        """Append entries with a gate of 1, as one segment; `evict` decides what leaves a full memory."""
        batch, num = keys.shape[:2]
        valid = jnp.ones((batch, num), bool) if valid is None else valid
        check(
            not self.config.continues_window, "entries without tokens have no positions: continues_window must be False"
        )
        new = Entries(
            keys=in_form_of(state.entries.keys, self.unit(keys).astype(self.dtype)),
            values=in_form_of(state.entries.values, values.astype(self.dtype)),
            log_gate=jnp.zeros((batch, num), jnp.float32),
            valid=valid,
            age=jnp.zeros((batch, num), jnp.int32),
            read_mass=self._no_mass(batch, num),
        )
        invalid_first = jnp.argsort(valid, axis=1, stable=True).astype(jnp.int32)  # as `append_entries` expects
        new = gather_entries(new, invalid_first)
        return state._replace(entries=append_entries(state.entries, clean_entries(new), self.config.evict))

    def segment(self, segment: Segment, state: KVState) -> tuple[Float[Array, "B T R"], KVState]:
        """`Memory.segment`, recomputed in the backward pass, which is faster and halves peak memory."""
        return jax.checkpoint(super().segment)(segment, state)

    def sequence(self, segments: Segment, state: KVState) -> tuple[Float[Array, "B S T R"], KVState]:
        """All segments at once, equal to the scan over `segment`: write everything, then read in parallel.

        The entries that a segment reads depend on gates, resets and time only. A scan over these small arrays finds
        their places among E entries: M old ones, the initial ones, S N new ones. Only `least_read` depends on reads; it
        uses the scan over `segment`.
        """
        if self.config.evict == "least_read":
            return super().sequence(segments, state)
        batch, num_segments, length, _ = segments.x.shape
        per_segment = (batch, num_segments, length)
        call = flatten_segments(segments)
        convolved, conv_cache = self.convolve_call(call, state.conv_cache)
        written = self._entries(call.x, convolved, call.document >= 0)
        place = jnp.arange(call.x.shape[1], dtype=jnp.int32)[None]
        written = written._replace(keys=self._rotated(written.keys, state.clock, place))
        new = written._replace(valid=call.write_mask)
        new = jax.tree.map(lambda x: x.reshape(batch * num_segments, length, *x.shape[2:]), new)
        new = jax.tree.map(lambda x: x.reshape(batch, num_segments, *x.shape[1:]), self._select(new))

        start = self._initial_entries(batch)
        initial = jax.tree.map(lambda x: x[:, self.config.memory_size - self.config.initial_entries :], start)
        flat_new = jax.tree.map(lambda x: x.reshape(batch, -1, *x.shape[3:]), new)
        in_play = jax.tree.map(lambda *parts: jnp.concatenate(parts, axis=1), state.entries, initial, flat_new)
        contiguous = self.config.evict == "oldest" and self.config.initial_entries == 0 < self.config.memory_size
        gap = jnp.zeros(batch, jnp.int32)
        if contiguous:
            gap = jnp.sum(~new.valid[:, 0], axis=1, dtype=jnp.int32)
            in_play = jax.lax.cond(jnp.any(gap > 0), self._without_gap, lambda entries, _: entries, in_play, gap)
        seen, final = self._places(segments, state.entries, start, new, gap)

        null_key, recency = self._null_and_recency()
        own = own_document = None
        if self.config.visibility == "token":
            own, own_document = self._own_entries(written, call.document, per_segment)
        query, whole = self._rotated(self.queries(call.x), state.clock, place), self.config.knowledge_top_k is None
        knowledge = self.readable_knowledge(state.knowledge) if state.knowledge is not None and whole else None
        reads = SegmentReads(
            query.reshape(*per_segment, self.config.num_heads, -1),
            self.readable(in_play),
            seen,
            jnp.cumsum(segments.reset, axis=2) > 0,
            initial=self.readable(initial) if self.config.initial_entries else None,
            own=own,
            own_document=own_document,
            knowledge=knowledge,
            null_key=null_key,
            recency=recency,
        )
        found = (read_segments_with_lse if self._needs_lse(state) else read_segments)(
            reads,
            bptt_segments=self.bptt_segments,
            contiguous=contiguous,
            implementation=self.config.read_implementation,
        )
        if self.searches(state.knowledge):
            out, lse = (x.reshape(batch, -1, *x.shape[3:]) for x in found)
            found = self.with_nearest(query, state.knowledge, (out, lse))
            found = jax.tree.map(lambda x: x.reshape(*per_segment, *x.shape[2:]), found)
        entries = gather_entries(in_play, final.place)._replace(valid=final.valid, age=final.age)
        clock = None if state.clock is None else state.clock + call.num_written[:, 0]
        return self._packed(found), KVState(clean_entries(entries), conv_cache, state.knowledge, clock)

    def _without_gap(self, in_play: Entries, gap: Int32[Array, "B"]) -> Entries:
        """The E entries of `sequence` with the first `gap` new ones, which are never kept, before the old ones.

        The open segment of a state may begin with tokens of an earlier document, and its memory hold entries that were
        written directly. So the entries that a segment reads follow one another.
        """
        size, place = self.config.memory_size, jnp.arange(in_play.valid.shape[1], dtype=jnp.int32)[None]
        old = jnp.where(place < size + gap[:, None], place - gap[:, None], place)
        return gather_entries(in_play, jnp.where(place < gap[:, None], place + size, old))

    def _places(
        self, segments: Segment, old: Entries, start: Entries, new: Entries, first: Int32[Array, "B"]
    ) -> tuple[SeenEntries, SeenEntries]:
        """The places of the entries that the memory holds, among the E entries of `sequence`.

        Args:
            segments, old, start, new: as in `sequence`.
            first: the place of the first old entry.

        Returns the `SeenEntries` at the start of each segment, [B, S, M], and after the last full one, [B, M].
        """
        batch, num_segments, num_new = new.valid.shape
        size, num_initial = self.config.memory_size, self.config.initial_entries
        index = first[:, None] + jnp.arange(size, dtype=jnp.int32)[None]
        places = jnp.arange(num_segments * num_new, dtype=jnp.int32).reshape(1, num_segments, num_new)
        places = jnp.broadcast_to(size + num_initial + places, (batch, num_segments, num_new))
        old, start, new = (entries._replace(keys=None, values=None, read_mass=None) for entries in (old, start, new))

        def step(seen: tuple[Array, Entries], segment: Any) -> tuple[tuple[Array, Entries], tuple[Array, Entries]]:
            new_place, new, has_reset, full = segment
            restarted = jnp.where(start.valid, index + num_initial, seen[0]), start
            place, entries = where_rows(has_reset, restarted, seen)
            staying = places_to_keep(entries, new, self.config.evict)
            after_place = gather_entries(jnp.concatenate([place, new_place], axis=1), staying)
            after = append_entries(entries, new, self.config.evict, staying)
            return where_rows(full, (after_place, after), (place, entries)), seen

        by_segment = (places, new, jnp.any(segments.reset, axis=2), segments.full)
        by_segment = jax.tree.map(lambda x: x.swapaxes(0, 1), jax.lax.stop_gradient(by_segment))
        last, by_start = jax.lax.scan(step, jax.lax.stop_gradient((index, old)), by_segment)
        place, entries = jax.tree.map(lambda x: x.swapaxes(0, 1), by_start)
        seen = SeenEntries(place, entries.valid, entries.age)
        return seen, SeenEntries(last[0], last[1].valid, last[1].age)

    def _own_entries(
        self, written: Entries, document: Int32[Array, "B L"], per_segment: tuple[int, int, int]
    ) -> tuple[ReadableEntries, Int32[Array, "B S T"]]:
        """The entries of each segment's own tokens, as these tokens read them."""
        own = self.readable(self._rounded(self._gated(written)))
        stored = jax.tree.map(lambda x: x.reshape(*per_segment, *x.shape[2:]), own)
        return stored, document.reshape(per_segment)

    def stats(self, state: KVState) -> dict[str, Array]:
        entries = state.entries
        valid = entries.valid.astype(jnp.float32)
        bins = jnp.clip((jnp.exp(entries.log_gate) * 10).astype(jnp.int32), 0, 9)
        histogram = jnp.sum(jax.nn.one_hot(bins, 10) * valid[..., None], axis=(0, 1))
        return {
            "occupancy": jnp.sum(valid) / max(1, valid.size),
            "write_gate_histogram": histogram / jnp.maximum(jnp.sum(valid), 1),
            "age_mean": jnp.sum(entries.age.astype(jnp.float32) * valid) / jnp.maximum(jnp.sum(valid), 1),
        } | super().stats(state)

    def _packed(self, found: Any) -> Array:
        """Heads side by side, [..., H K]; with `joins_attention` [..., H (K + 1)], each with its log-sum-exp."""
        if self.joins_attention:
            out, lse = found
            found = jnp.concatenate([out.astype(jnp.float32), lse[..., None]], axis=-1)
        packed = found.reshape(*found.shape[:-2], -1)
        return packed if self.joins_attention else packed.astype(self.dtype)

    def _rotated(
        self, x: Float[Array, "B L heads K"], clock: Int32[Array, "B"] | None, place: Int32[Array, "#B L"]
    ) -> Float[Array, "B L heads K"]:
        """Queries or keys, rotated to the position clock + place if self-attention has rotary positions."""
        return x if self.rotary is None or clock is None else self.rotary(x, clock[:, None] + place)

    def _null_and_recency(self):
        """The null entry's key and the recency slopes; None if not configured."""
        null_key = self.null_key[...] if self.config.null_entry else None
        recency = jax.nn.softplus(self.recency_bias[...]) if self.config.recency_bias else None
        return null_key, recency

    def _no_mass(self, batch_size: int, num: int) -> Float[Array, "B N"] | None:
        """Read statistics of new entries: 0, or None if eviction does not use them."""
        return jnp.zeros((batch_size, num), jnp.float32) if self.config.evict == "least_read" else None

    def _entries(
        self, x: Float[Array, "B L D"], convolved: Float[Array, "B L D"], valid: Bool[Array, "B L"]
    ) -> Entries:
        """The entries of L tokens, before selection and gating."""
        batch, length, _ = x.shape
        keys, values = self.keys_and_values(x, convolved)
        log_gate = jnp.zeros((batch, length), jnp.float32)
        if self.config.gate != "none":
            log_gate = jax.nn.log_sigmoid(self.write_gate(x.astype(jnp.float32))[..., 0])
        return Entries(
            keys=keys,
            values=values,
            log_gate=log_gate,
            valid=valid,
            age=jnp.zeros((batch, length), jnp.int32),
            read_mass=self._no_mass(batch, length),
        )

    def _select(self, entries: Entries) -> Entries:
        """The N of its T entries that a segment stores, gated."""
        if self.config.select == "highest_gate":
            entries = select_highest_gate(entries, self.config.select_size)
        elif self.config.select == "pool":
            entries = pool_entries(entries, self.pool_queries[...])
            entries = entries._replace(keys=self.unit(entries.keys).astype(self.dtype))
            if self.config.gate == "none":  # exactly 1, not a rounded sum of weights, so that the newer of two stays
                entries = entries._replace(log_gate=jnp.zeros_like(entries.log_gate))
        return clean_entries(self._rounded(self._gated(entries)))

    def _gated(self, entries: Entries) -> Entries:
        """Entries scaled by their gates; with gate `log_bias`, the read logits change instead."""
        gate = jnp.exp(entries.log_gate)[..., None, None].astype(self.dtype)
        if self.config.gate == "scale":
            entries = entries._replace(keys=entries.keys * gate)
        if self.config.gate in ("scale", "scale_value"):
            entries = entries._replace(values=entries.values * gate)
        return entries

    def _rounded(self, entries: Entries) -> Entries:
        """Entries with keys and values as they are stored: rounded to `entry_bits`."""
        if self.config.entry_bits is None:
            return entries
        return entries._replace(keys=rounded(entries.keys), values=rounded(entries.values))

    def _source(self, entries: Entries, visible: Bool[Array, "B Q E"]) -> Source:
        """Entries as a `Source` of the Reader."""
        return make_source(self.readable(entries), entries.age, visible, self.bptt_segments)

    def _needs_lse(self, state: KVState) -> bool:
        return self.joins_attention or self.searches(state.knowledge)

    def _per_head(self, values: Float[Array, "B M G K"]) -> Float[Array, "B M H K"]:
        """The value that each head reads."""
        return jnp.repeat(values, self.config.num_heads // self.config.kv_heads, axis=2)


def _rank_of_equal(values: Int32[Array, " M"]) -> tuple[Int32[Array, " M"], Int32[Array, " M"]]:
    """For each value, how many equal ones come before it, and how many equal ones there are."""
    order = jnp.argsort(values, stable=True)
    first, last = (jnp.searchsorted(values[order], values, side=side).astype(jnp.int32) for side in ("left", "right"))
    return jnp.argsort(order).astype(jnp.int32) - first, last - first
