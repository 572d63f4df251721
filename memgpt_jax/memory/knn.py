"""Memorizing Transformer: a very large store of keys and values; each token reads its `top_k` best matches."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from memgpt_jax.config.checks import check
from memgpt_jax.config.memory import AttendedMemoryConfig
from memgpt_jax.memory.base import Explanation, OwnSegment, Segment, flatten_segments
from memgpt_jax.memory.projected import AttendedMemory
from memgpt_jax.ops.attention import attention_weights, map_rows, masked_bias
from memgpt_jax.ops.fusion import blend
from memgpt_jax.ops.memory import (
    Source,
    causal_visibility,
    find_nearest,
    find_nearest_in_groups,
    read_chosen,
    read_entries,
)
from memgpt_jax.ops.mesh import ENTRIES, HEADS, declare_axes, num_entry_parts
from memgpt_jax.ops.trees import where_rows
from memgpt_jax.shapes import Array, Bool, Float, Int32

Search = Literal["exact", "approximate"]


@dataclass(frozen=True, kw_only=True)
class KNNMemoryConfig(AttendedMemoryConfig):
    """A very large store of keys and values; each token reads its `top_k` best matches."""

    memory_size: int = 4096
    """Entries M that each layer keeps for each row; new entries replace the oldest. 0: nothing is ever stored."""
    top_k: int = 32
    """Entries that a head reads for a token; all entries if the store holds fewer."""
    search: Search = "exact"
    """`exact` top-k, or `approximate`: entries are distributed over bins and only the best of each bin is kept; the
    number of bins gives an expected recall of `recall_target`."""
    recall_target: float = 0.95
    """Expected recall of an `approximate` search, above 0 and below 1. If entries are split over devices, each device
    searches its own entries exactly."""
    gate_bias: float = 0.0
    """Initial bias b of each head's gate g = sigmoid(b) between the store (g) and the token's own segment (1 - g)."""
    temperature: float = 20.0
    """Initial temperature when `qk_norm` is on; without it logits are scaled by head_dim ** -0.5."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.top_k >= 1, f"top_k must be at least 1, got {self.top_k}")
        check(0 < self.recall_target < 1, f"recall_target must be above 0 and below 1, got {self.recall_target}")


class KNNState(NamedTuple):
    """A ring of M entries. Bytes per row: 2 M H K itemsize + (writer_conv - 1) D itemsize + 8."""

    ring_keys: Float[Array, "B H M K"]
    ring_values: Float[Array, "B H M K"]
    next: Int32[Array, "B"]  # place of the next entry, 0 <= next < M
    count: Int32[Array, "B"]  # number of entries, at most M; they are at the places below `count`
    conv_cache: Float[Array, "B reach D"]  # the last writer_conv - 1 tokens before the segment

    mesh_axes = declare_axes(ring_keys=(HEADS, ENTRIES), ring_values=(HEADS, ENTRIES))

    def newest(self, tokens: int) -> "KNNState":
        """The state with the last `tokens` entries only, or all M if M is smaller."""
        size = self.ring_keys.shape[2]
        if size <= tokens:
            return self
        place = (self.next[:, None] - 1 - jnp.arange(tokens, dtype=jnp.int32)[None]) % size

        def take(ring: Array) -> Array:
            return jnp.take_along_axis(ring, place[:, None, :, None], axis=2)

        return self._replace(ring_keys=take(self.ring_keys), ring_values=take(self.ring_values))


class Timeline(NamedTuple):
    """Index of each entry in a call: new entries are 0, 1, ...; entries already in the store are -count ... -1.

    Each segment attends to a contiguous index range, known before any attention is computed.
    """

    number: Int32[Array, "B L"]  # index of each token's entry; `NEVER` if the token is not written
    # lowest index that each of S segments may read, then the lowest that is stored after the call
    first: Int32[Array, "B boundaries"]
    end: Int32[Array, "B boundaries"]  # one above the highest index
    begin: Int32[Array, "B boundaries"]  # index at which the open document began; -count: before the call


NEVER = 2**30


class KNNMemory(AttendedMemory[KNNMemoryConfig]):
    """Memorizing Transformer memory (Wu et al., 2022, section 3): top-k attention into a store, gated with a local one.

        q_t = c unit(W_q x_t),   k_t = unit(W_k conv(x)_t + b_k),   v_t = W_v x_t + b_v                 [H, K] each
        N_t = the top_k entries i of the store with the highest q_t . k_i                              for each head
        r_t = W_o (g * sum_{i in N_t} softmax_i(q_t . k_i) v_i + (1 - g) * sum_{j <= t} softmax_j(q_t . k_j) v_j)

    The second sum is over the tokens of t's document in its own segment, t included. The gate g = sigmoid(b), b [H], is
    learned, one per head. The read of an empty store is 0. The oldest entries are overwritten. Keys carry no positions.
    `x` is the normalised stream; c is learned, one per head. Ties between equal scores are broken arbitrarily.

    **Gradient.** No gradient flows into the state that comes in: the paper's "non-differentiable memory", whose Writer
    learns through the local sum, which has the same projections. Here entries that the same call wrote also pass
    gradient if they are among those read, back to `bptt_segments` segments (default: all of the call), as in-context
    attention would. `bptt_segments=0` is the paper's rule. The selection itself has no gradient.
    """

    gates: ClassVar[tuple[str, ...]] = ("store_gate",)
    cuts_by_age = True

    def __init__(self, config: KNNMemoryConfig, *, d_model: int, segment_length: int, dtype: Any, rngs: nnx.Rngs):
        super().__init__(config, d_model=d_model, segment_length=segment_length, dtype=dtype, rngs=rngs)
        self.add_projections(rngs=rngs)
        self.store_gate = nnx.Param(jnp.full(config.num_heads, config.gate_bias, jnp.float32))

    def init_state(self, batch_size: int) -> KNNState:
        config = self.config
        stored = (batch_size, config.num_heads, config.memory_size, config.head_dim)
        return KNNState(
            ring_keys=jnp.zeros(stored, self.dtype),
            ring_values=jnp.zeros(stored, self.dtype),
            next=jnp.zeros(batch_size, jnp.int32),
            count=jnp.zeros(batch_size, jnp.int32),
            conv_cache=self.conv.init_state(batch_size),
        )

    def read(
        self, x: Float[Array, "B Q D"], state: KNNState, own_segment: OwnSegment, update_mask: Bool[Array, "B Q"]
    ) -> tuple[Float[Array, "B Q R"], KNNState]:
        query = self.queries(x)
        convolved = self.convolve_own(own_segment.x, own_segment.document, state.conv_cache)
        keys, values = self.keys_and_values(own_segment.x, convolved)
        local = _read_local(query, keys, values, own_segment.document, own_segment.position)

        def one_head(query: Array, keys: Array, values: Array, count: Array) -> Array:
            index, found = self._search_stored(query, keys, count)
            return read_chosen(query, keys[index], values[index], found)

        over_heads = jax.vmap(one_head, in_axes=(1, 0, 0, None), out_axes=1)
        stored = jnp.zeros_like(local)
        if self.config.memory_size:
            stored = jax.vmap(over_heads)(query, state.ring_keys, state.ring_values, state.count)
        return self._fused(stored, local), state

    def write(self, x: Float[Array, "B T D"], state: KNNState, write_mask: Bool[Array, "B T"]) -> KNNState:
        convolved, conv_cache = self.convolve_segment(x, write_mask, state.conv_cache)
        keys, values = self.keys_and_values(x, convolved)
        return self._append(keys, values, state, write_mask)._replace(conv_cache=conv_cache)

    def explain(self, x: Float[Array, "B Q D"], state: KNNState) -> Explanation:
        """Weights over the places of the store. They sum to g; the token's own segment has the remaining 1 - g."""
        size = self.config.memory_size
        gate = jax.nn.sigmoid(self.store_gate[...])

        def one_head(query: Array, keys: Array, count: Array, gate: Array) -> Array:
            index, found = self._search_stored(query, keys, count)
            bias = masked_bias(found)[:, None, None]
            weights = gate * attention_weights(query[:, None, None], keys[index], bias)[:, 0, 0]
            rows = jnp.arange(len(query))[:, None]
            return jnp.zeros((len(query), size), jnp.float32).at[rows, index].add(jnp.where(found, weights, 0))

        weights = jnp.zeros((*x.shape[:2], self.config.num_heads, size), jnp.float32)
        if size:
            over_heads = jax.vmap(one_head, in_axes=(1, 0, None, 0), out_axes=1)
            over_rows = jax.vmap(over_heads, in_axes=(0, 0, 0, None))
            weights = over_rows(self.queries(x), state.ring_keys, state.count, gate)
        valid = jnp.arange(size)[None, :] < state.count[:, None]
        return Explanation(weights, state.ring_values.swapaxes(1, 2)[:, None], valid)

    def write_entries(
        self,
        keys: Float[Array, "B N H K"],
        values: Float[Array, "B N H K"],
        state: KNNState,
        valid: Bool[Array, "B N"] | None = None,
    ) -> KNNState:
        """Append entries; they replace the oldest ones of a full store."""
        valid = jnp.ones(keys.shape[:2], bool) if valid is None else valid
        return self._append(self.unit(keys).astype(self.dtype), values.astype(self.dtype), state, valid)

    def _append(
        self, keys: Float[Array, "B N H K"], values: Float[Array, "B N H K"], state: KNNState, valid: Bool[Array, "B N"]
    ) -> KNNState:
        """The state after appending the valid ones of N entries [B, N, H, K]; `conv_cache` is unchanged."""
        number = jnp.where(valid, jnp.cumsum(valid, axis=1, dtype=jnp.int32) - 1, NEVER)
        end = jnp.sum(valid, axis=1, dtype=jnp.int32)
        first = jnp.maximum(-state.count, end - self.config.memory_size)
        return self._store(state, keys, values, number, first, end)

    def incoming(self, state: KNNState, begins: Bool[Array, "B"]) -> KNNState:
        """The state without gradient, whatever `bptt_segments`; an initial state has no learned entries."""
        return jax.lax.stop_gradient(state)

    def sequence(self, segments: Segment, state: KNNState) -> tuple[Float[Array, "B S T R"], KNNState]:
        """All segments at once, equal to the scan over `segment`, but with no gradient into the state that comes in.

        Entries are ordered by time, the stored ones before the new ones, so that each segment searches a range of them.
        """
        state = jax.lax.stop_gradient(state)
        batch, num_segments, length, _ = segments.x.shape
        call = flatten_segments(segments)
        convolved, conv_cache = self.convolve_call(call, state.conv_cache)
        query, (keys, values) = self.queries(call.x), self.keys_and_values(call.x, convolved)

        def as_segments(a: Array) -> Array:
            return a.reshape(batch * num_segments, length, *a.shape[2:])

        rows = [as_segments(a) for a in (query, keys, values, call.document)]
        local = map_rows(_read_local_row, rows).reshape(query.shape)
        timeline, stored = self._timeline(segments, call.write_mask, state.count), jnp.zeros_like(local)
        if self.config.memory_size:
            before_reset = jnp.cumsum(segments.reset, axis=2, dtype=jnp.int32).reshape(batch, -1) == 0
            read_store = self._read_store if self._groups() == 1 else self._read_store_in_groups
            stored = read_store(query, keys, values, state, timeline, before_reset)

        first, end, begin = (a[:, -1] for a in timeline[1:])
        state = self._restarted(state, jnp.any(segments.reset, axis=(1, 2)), begin)
        after = self._store(state, keys, values, timeline.number, first, end)._replace(conv_cache=conv_cache)
        return self._fused(stored, local).reshape(batch, num_segments, length, -1), after

    def stats(self, state: KNNState) -> dict[str, Array]:
        gate = jax.nn.sigmoid(self.store_gate[...])
        occupancy = jnp.mean(state.count.astype(jnp.float32)) / max(1, self.config.memory_size)
        return {"occupancy": occupancy, "store_gate_mean": jnp.mean(gate)} | super().stats(state)

    def _fused(self, stored: Float[Array, "B Q H K"], local: Float[Array, "B Q H K"]) -> Float[Array, "B Q HK"]:
        gate = jax.nn.sigmoid(self.store_gate[...])[None, None, :, None]
        return self.side_by_side(blend(gate, stored, local))

    def _search(
        self, query: Float[Array, "Q K"], keys: Float[Array, "E K"], first: Int32[Array, ""], end: Int32[Array, ""]
    ) -> tuple[Int32[Array, "Q k"], Bool[Array, "Q k"]]:
        """`find_nearest` as configured: queries [Q, K] in the range [first, end) of keys [E, K]."""
        config = self.config
        return find_nearest(
            query,
            keys,
            first,
            end,
            top_k=min(config.top_k, config.memory_size),
            most=config.memory_size,
            recall_target=config.recall_target if config.search == "approximate" else None,
        )

    def _groups(self) -> int:
        """Number of parts, each on its own devices, in which the store is searched."""
        parts = num_entry_parts()
        return parts if self.config.memory_size % parts == 0 else 1

    def _search_groups(
        self,
        query: Float[Array, "Q K"],
        keys: Float[Array, "M K"],
        number: Int32[Array, "M"],
        first: Int32[Array, ""],
        end: Int32[Array, ""],
    ) -> tuple[Array, Array]:
        """`find_nearest_in_groups` for a store [M, K] whose parts are on different devices."""

        def parts(x: Array) -> Array:
            return x.reshape(self._groups(), -1, *x.shape[1:])

        return find_nearest_in_groups(query, parts(keys), parts(number), first, end, top_k=self.config.top_k)

    def _search_stored(
        self, query: Float[Array, "Q K"], keys: Float[Array, "M K"], count: Int32[Array, ""]
    ) -> tuple[Int32[Array, "Q k"], Bool[Array, "Q k"]]:
        """Places [Q, top_k] of the best of M stored entries, and whether each place holds an entry."""
        if self._groups() == 1:
            return self._search(query, keys, jnp.zeros_like(count), count)
        numbers = jnp.arange(keys.shape[0], dtype=jnp.int32)
        scores, index = self._search_groups(query, keys, numbers, jnp.zeros_like(count), count)
        return index, scores > -jnp.inf

    def _timeline(self, segments: Segment, write_mask: Bool[Array, "B L"], count: Int32[Array, "B"]) -> Timeline:
        written = write_mask.reshape(segments.reset.shape) & segments.full[..., None]
        flat = written.reshape(written.shape[0], -1)
        number = jnp.where(flat, jnp.cumsum(flat, axis=1, dtype=jnp.int32) - 1, NEVER)
        per_segment = jnp.sum(written, axis=2, dtype=jnp.int32)
        end = jnp.pad(jnp.cumsum(per_segment, axis=1, dtype=jnp.int32), ((0, 0), (1, 0)))
        begin = jnp.where(jnp.any(segments.reset, axis=2), end[:, :-1], -count[:, None])
        begin = jax.lax.cummax(jnp.concatenate([-count[:, None], begin], axis=1), axis=1)
        return Timeline(number, jnp.maximum(begin, end - self.config.memory_size), end, begin)

    def _read_store(
        self,
        query: Float[Array, "B L H K"],
        keys: Float[Array, "B L H K"],
        values: Float[Array, "B L H K"],
        state: KNNState,
        timeline: Timeline,
        before_reset: Bool[Array, "B L"],
    ) -> Float[Array, "B L H K"]:
        """Read of the store at each token's segment: [B, L, H, K]. One row and head at a time on CPU.

        The search is done once; only the read of the entries found is recomputed in the backward pass.
        """
        size, length, bptt = self.config.memory_size, self.segment_length, self.bptt_segments
        segment = jnp.arange(query.shape[1], dtype=jnp.int32) // length

        def in_play(ring: Array, new: Array, next_place: Array, number: Array) -> Array:
            """Entries in the order of writing: index n is at the place size + n."""
            ordered = jax.lax.dynamic_slice_in_dim(jnp.concatenate([ring, ring]), next_place, size)
            place = jnp.where(number < NEVER, size + number, size + new.shape[0] + jnp.arange(new.shape[0]))
            padded = jnp.concatenate([ordered, jnp.zeros_like(new)])
            return padded.at[place].set(new, mode="drop", unique_indices=True)

        def search_row(row: tuple[Array, ...]) -> tuple[Array, Array]:
            query, keys, ring, next_place, number, first, end = row

            def search_head(head: tuple[Array, ...]) -> tuple[Array, Array]:
                query, keys, ring = head
                entries = in_play(ring, keys, next_place, number)
                by_segment = (query.reshape(-1, length, query.shape[-1]), size + first[:-1], size + end[:-1])
                found = map_rows(lambda s: self._search(s[0], entries, s[1], s[2]), by_segment, recompute=False)
                return jax.tree.map(lambda a: a.reshape(query.shape[0], -1), found)

            return map_rows(search_head, (query, keys, ring), recompute=False)

        def read_row(row: tuple[Array, ...]) -> Array:
            query, keys, values, ring_keys, ring_values, next_place, number, index, found = row

            def read_head(head: tuple[Array, ...]) -> Array:
                query, keys, values, ring_keys, ring_values, index, found = head
                chosen = [
                    in_play(ring, new, next_place, number).at[index].get(mode="promise_in_bounds")
                    for ring, new in ((ring_keys, keys), (ring_values, values))
                ]
                if bptt is not None:
                    written_in = in_play(jnp.full(size, -NEVER), segment, next_place, number)[index]
                    recent = (segment[:, None] - written_in <= bptt)[..., None]
                    chosen = [jnp.where(recent, a, jax.lax.stop_gradient(a)) for a in chosen]
                return read_chosen(query, *chosen, found)

            return map_rows(read_head, (query, keys, values, ring_keys, ring_values, index, found))

        query, keys, values = (a.swapaxes(1, 2) for a in (query, keys, values))
        times = (state.next, timeline.number)
        searched = (*jax.lax.stop_gradient((query, keys)), state.ring_keys, *times, timeline.first, timeline.end)
        index, found = map_rows(search_row, searched, recompute=False)
        found = found & before_reset[:, None, :, None]
        rows = (query, keys, values, state.ring_keys, state.ring_values, *times, index, found)
        return map_rows(read_row, rows, recompute=False).swapaxes(1, 2)

    def _read_store_in_groups(
        self,
        query: Float[Array, "B L H K"],
        keys: Float[Array, "B L H K"],
        values: Float[Array, "B L H K"],
        state: KNNState,
        timeline: Timeline,
        before_reset: Bool[Array, "B L"],
    ) -> Float[Array, "B L H K"]:
        """`_read_store` for a store that is split over devices: an exact search that moves only the entries found."""
        size, length, bptt = self.config.memory_size, self.segment_length, self.bptt_segments
        places = jnp.arange(size, dtype=jnp.int32)
        segment = jnp.arange(query.shape[1], dtype=jnp.int32) // length

        def one_head(head: tuple[Array, ...], times: tuple[Array, ...]) -> Array:
            query, keys, values, ring_keys, ring_values = head
            next_place, number, first, end, before_reset = times
            ring_number = (places - next_place) % size - size  # index of the entry at each place

            def search(query: Array, first: Array, end: Array) -> tuple[Array, Array]:
                stored = self._search_groups(query, ring_keys, ring_number, first, end)
                new = find_nearest_in_groups(query, keys[None], number[None], first, end, top_k=self.config.top_k)
                scores, place = (
                    jnp.concatenate(pair, axis=1) for pair in zip(stored, (new[0], size + new[1]), strict=True)
                )
                scores, column = jax.lax.top_k(scores, min(self.config.top_k, size, scores.shape[1]))
                return jnp.take_along_axis(place, column, axis=1), scores > -jnp.inf

            found = jax.vmap(search)(query.reshape(-1, length, query.shape[-1]), first[:-1], end[:-1])
            index, found = (x.reshape(query.shape[0], -1) for x in found)
            is_new, of_ring, of_new = index >= size, jnp.minimum(index, size - 1), jnp.maximum(index - size, 0)
            chosen = [
                jnp.where(is_new[..., None], new[of_new], ring[of_ring])
                for ring, new in ((ring_keys, keys), (ring_values, values))
            ]
            if bptt is not None:
                recent = (is_new & (segment[:, None] - segment[of_new] <= bptt))[..., None]
                chosen = [jnp.where(recent, a, jax.lax.stop_gradient(a)) for a in chosen]
            chosen_keys, chosen_values = chosen
            return read_chosen(query, chosen_keys, chosen_values, found & before_reset[:, None])

        over_heads = jax.vmap(one_head, in_axes=((1, 1, 1, 0, 0), None), out_axes=1)
        rows = query, keys, values, state.ring_keys, state.ring_values
        times = state.next, timeline.number, timeline.first, timeline.end, before_reset
        return jax.vmap(jax.checkpoint(over_heads))(rows, times)

    def _restarted(self, state: KNNState, rows: Bool[Array, "B"], begin: Int32[Array, "B"]) -> KNNState:
        """The state with an empty store in the given rows; its first entry will have the index `begin`.

        A loop of one or no iteration works in place; a `cond` would copy its operands.
        """

        def clear(_: Array, arrays: tuple[Array, Array]) -> tuple[Array, Array]:
            return where_rows(rows, jax.tree.map(jnp.zeros_like, arrays), arrays)

        once = jnp.any(rows).astype(jnp.int32)
        keys, values = jax.lax.fori_loop(0, once, clear, (state.ring_keys, state.ring_values))
        return state._replace(ring_keys=keys, ring_values=values, next=jnp.where(rows, -begin, state.next))

    def _store(
        self,
        state: KNNState,
        keys: Float[Array, "B N H K"],
        values: Float[Array, "B N H K"],
        number: Int32[Array, "B N"],
        first: Int32[Array, "B"],
        end: Int32[Array, "B"],
    ) -> KNNState:
        """The state after storing the entries with first <= index < end in place: index n at `next` + n."""
        size = self.config.memory_size
        if size == 0:
            return state._replace(next=jnp.zeros_like(state.next))
        batch, length = number.shape
        kept = (number >= first[:, None]) & (number < end[:, None])
        outside = size + jnp.arange(length, dtype=jnp.int32)[None, :]  # out of range: dropped
        place = jnp.where(kept, (state.next[:, None] + number) % size, outside)
        rows = jnp.arange(batch)[:, None]

        def put(old: Array, new: Array) -> Array:
            return old.at[rows, :, place].set(new, mode="drop", unique_indices=True)

        keys, values = put(state.ring_keys, keys), put(state.ring_values, values)
        return state._replace(ring_keys=keys, ring_values=values, next=(state.next + end) % size, count=end - first)


def _read_local(query: Array, keys: Array, values: Array, document: Array, place: Array):
    """Attention of each token to the earlier ones of its document in its own segment, itself included.

    `document` and `place` are those of `OwnSegment`.
    """
    age, visible = jnp.zeros(keys.shape[:2], jnp.int32), causal_visibility(document, place)
    return read_entries(query, [Source(keys, values, age.astype(jnp.float32), age, visible)])


def _read_local_row(row: Sequence[Array]) -> Array:
    """`_read_local` for one whole segment."""
    query, keys, values, document = (a[None] for a in row)
    place = jnp.arange(document.shape[1], dtype=jnp.int32)[None]
    return _read_local(query, keys, values, document, place)[0]
