"""Memorizing Transformer: a very large store of keys and values, of which each token reads the best few."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from memgpt_jax.config.checks import check
from memgpt_jax.config.memory import AttendedMemoryConfig
from memgpt_jax.memory.base import Own, in_line, where_rows
from memgpt_jax.memory.projected import AttendedMemory
from memgpt_jax.ops import Source, entry_parts, map_rows, nearest_of_groups, own_visible, read_chosen
from memgpt_jax.ops.memory.nearest import nearest
from memgpt_jax.ops.memory.reader import read
from memgpt_jax.shapes import Array, Float, Int32

Search = Literal["exact", "approximate"]


@dataclass(frozen=True, kw_only=True)
class KNNMemoryConfig(AttendedMemoryConfig):
    """A very large store of keys and values, of which each token reads the few that match it best."""

    memory_size: int = 4096
    """Entries M that each layer keeps for each row, the oldest giving way. 0: nothing is ever stored."""
    top_k: int = 32
    """Entries that a head reads for a token; the whole store where it holds no more."""
    search: Search = "exact"
    """How they are found: the `exact` ones, or `approximate`ly: the best of so many bins that, if entries fall into
    bins at random, `recall_target` of them are expected to be found."""
    recall_target: float = 0.95
    """Expected share of the best `top_k` entries that an `approximate` search finds; above 0 and below 1. Where devices
    share out the entries, each searches its own exactly."""
    gate_bias: float = 0.0
    """Initial bias b of each head's gate g = sigmoid(b) between the store (g) and the token's own segment (1 - g)."""
    temperature: float = 20.0
    """Initial temperature when `qk_norm` is on; without it logits are scaled by head_dim ** -0.5."""

    def __post_init__(self):
        super().__post_init__()
        check(self.top_k >= 1, f"top_k must be at least 1, got {self.top_k}")
        check(0 < self.recall_target < 1, f"recall_target must be above 0 and below 1, got {self.recall_target}")


class KNNState(NamedTuple):
    """A ring of M entries. Bytes per row: 2 M H K itemsize + (writer_conv - 1) D itemsize + 8."""

    ring_keys: Float[Array, "B H M K"]
    ring_values: Float[Array, "B H M K"]
    next: Int32[Array, "B"]  # the place that the next entry takes, 0 <= next < M
    count: Int32[Array, "B"]  # places that are taken, at most M: those below `count`
    tail: Float[Array, "B W-1 D"]  # the tokens before the segment that the Writer's convolution still reaches

    def newest(self, tokens: int) -> "KNNState":
        """The state with the `tokens` entries that were written last, or all M if there are not more."""
        size = self.ring_keys.shape[2]
        if size <= tokens:
            return self
        place = (self.next[:, None] - 1 - jnp.arange(tokens, dtype=jnp.int32)[None]) % size

        def take(ring):
            return jnp.take_along_axis(ring, place[:, None, :, None], axis=2)

        return self._replace(ring_keys=take(self.ring_keys), ring_values=take(self.ring_values))


class Timeline(NamedTuple):
    """Entries of a call numbered from 0 in the order of writing; the store holds the numbers -count to -1.

    A segment sees an interval of numbers, and which one follows from time alone.
    """

    number: Int32[Array, "B L"]  # of each token's entry; `NEVER` where it is not written
    first: Int32[Array, "B S+1"]  # the lowest number that each segment sees, and that is stored in the end
    end: Int32[Array, "B S+1"]  # one above the highest
    begin: Int32[Array, "B S+1"]  # the number with which the document of that time began; -count: before the call


NEVER = 2**30


class KNNMemory(AttendedMemory):
    """Memorizing Transformer memory (Wu et al., 2022, section 3): top-k attention into a store, gated with a local one.

        q_t = c unit(W_q x_t),   k_t = unit(W_k conv(x)_t + b_k),   v_t = W_v x_t + b_v                 [H, K] each
        N_t = the top_k entries i of the store with the highest q_t . k_i                              for each head
        r_t = W_o (g * sum_{i in N_t} softmax_i(q_t . k_i) v_i + (1 - g) * sum_{j <= t} softmax_j(q_t . k_j) v_j)

    The second sum goes over the tokens of t's document in its own segment, t included. The gate g = sigmoid(b), b [H],
    is learned, one per head. Where the store is empty its read is 0. The oldest entries are overwritten. Keys carry no
    positions. `x` is the normalised stream; c is learned, one per head. Of equal scores any may be chosen.

    **Gradient.** None ever flows into what came in with the state: the paper's "non-differentiable memory". Its Writer
    learns by the local sum, which has the same projections. Here entries that the same call wrote pass gradient on
    too, wherever they are among the chosen, back to `bptt_segments` segments (default: all of the call), as
    in-context attention would; `bptt_segments=0` is the paper's rule, where what is stored is never told what it was
    good for. The choice itself has no gradient.
    """

    def __init__(self, config: KNNMemoryConfig, *, d_model: int, segment_length: int, dtype, rngs: nnx.Rngs):
        super().__init__(config, d_model=d_model, segment_length=segment_length, dtype=dtype, rngs=rngs)
        self.store_gate = nnx.Param(jnp.full(config.num_heads, config.gate_bias, jnp.float32))

    def init_state(self, batch_size):
        config = self.config
        stored = (batch_size, config.num_heads, config.memory_size, config.head_dim)
        return KNNState(
            ring_keys=jnp.zeros(stored, self.dtype),
            ring_values=jnp.zeros(stored, self.dtype),
            next=jnp.zeros(batch_size, jnp.int32),
            count=jnp.zeros(batch_size, jnp.int32),
            tail=self.conv.init_state(batch_size),
        )

    def read(self, x, state, own, counts):
        query = self.queries(x)
        local = _read_local(query, *self.keys_and_values(own.x, own.document, state.tail), own)

        def one_head(query, keys, values, count):
            if self._groups() == 1:
                index, found = self._search(query, keys, jnp.zeros_like(count), count)
            else:
                numbers = jnp.arange(keys.shape[0], dtype=jnp.int32)
                scores, index = self._search_groups(query, keys, numbers, jnp.zeros_like(count), count)
                found = scores > -jnp.inf
            return read_chosen(query, keys[index], values[index], found)

        over_heads = jax.vmap(one_head, in_axes=(1, 0, 0, None), out_axes=1)
        stored = jnp.zeros_like(local)
        if self.config.memory_size:
            stored = jax.vmap(over_heads)(query, state.ring_keys, state.ring_values, state.count)
        return self._fused(stored, local), state

    def write(self, x, state, live):
        document = jnp.where(live, 0, -1)
        keys, values = self.keys_and_values(x, document, state.tail)
        tail = self.conv.next_tail(x, document, state.tail)
        number = jnp.where(live, jnp.cumsum(live, axis=1, dtype=jnp.int32) - 1, NEVER)
        end = jnp.sum(live, axis=1, dtype=jnp.int32)
        first = jnp.maximum(-state.count, end - self.config.memory_size)
        return self._store(state, keys, values, number, first, end)._replace(tail=tail)

    def sequence(self, segments, state):
        """All segments at once, equal to the scan over `segment`, but with no gradient into the state that comes in.

        With the store laid out in the order of writing and the new entries behind it, each segment searches a range.
        """
        state = jax.lax.stop_gradient(state)
        batch, num_segments, length, _ = segments.x.shape
        x, document, live, open_document, written = in_line(segments)
        query, (keys, values) = self.queries(x), self.keys_and_values(x, document, state.tail)

        as_segments = lambda a: a.reshape(batch * num_segments, length, *a.shape[2:])  # noqa: E731
        rows = [as_segments(a) for a in (query, keys, values, document)]
        local = map_rows(_read_local_row, rows).reshape(query.shape)
        timeline, stored = self._timeline(segments, live, state.count), jnp.zeros_like(local)
        if self.config.memory_size:
            before_reset = jnp.cumsum(segments.reset, axis=2, dtype=jnp.int32).reshape(batch, -1) == 0
            read_store = self._read_store if self._groups() == 1 else self._read_store_in_groups
            stored = read_store(query, keys, values, state, timeline, before_reset)

        first, end, begin = (a[:, -1] for a in timeline[1:])
        state = self._restarted(state, jnp.any(segments.reset, axis=(1, 2)), begin)
        tail = self.conv.next_tail(x, document, state.tail, written, open_document)
        after = self._store(state, keys, values, timeline.number, first, end)._replace(tail=tail)
        return self._fused(stored, local).reshape(batch, num_segments, length, -1), after

    def stats(self, state):
        gate = jax.nn.sigmoid(self.store_gate[...])
        occupancy = jnp.mean(state.count.astype(jnp.float32)) / max(1, self.config.memory_size)
        return {"occupancy": occupancy, "store_gate_mean": jnp.mean(gate)} | super().stats(state)

    def _fused(self, stored, local):
        gate = jax.nn.sigmoid(self.store_gate[...])[None, None, :, None].astype(local.dtype)
        return self.side_by_side(gate * stored + (1 - gate) * local)

    def _search(self, query, keys, first, end):
        """`nearest` as configured: [Q, K] queries in the range [first, end) of [E, K] keys."""
        config = self.config
        return nearest(
            query,
            keys,
            first,
            end,
            top_k=min(config.top_k, config.memory_size),
            most=config.memory_size,
            recall_target=config.recall_target if config.search == "approximate" else None,
        )

    def _groups(self) -> int:
        """In how many parts, each on devices of its own, the store is searched."""
        parts = entry_parts()
        return parts if self.config.memory_size % parts == 0 else 1

    def _search_groups(self, query, keys, number, first, end):
        """`nearest_of_groups`, of a store [M, K] whose parts are on devices of their own."""
        parts = lambda x: x.reshape(self._groups(), -1, *x.shape[1:])  # noqa: E731
        return nearest_of_groups(query, parts(keys), parts(number), first, end, top_k=self.config.top_k)

    def _timeline(self, segments, live, count) -> Timeline:
        live = live.reshape(segments.reset.shape) & segments.full[..., None]
        flat = live.reshape(live.shape[0], -1)
        number = jnp.where(flat, jnp.cumsum(flat, axis=1, dtype=jnp.int32) - 1, NEVER)
        per_segment = jnp.sum(live, axis=2, dtype=jnp.int32)
        end = jnp.pad(jnp.cumsum(per_segment, axis=1, dtype=jnp.int32), ((0, 0), (1, 0)))
        begin = jnp.where(jnp.any(segments.reset, axis=2), end[:, :-1], -count[:, None])
        begin = jax.lax.cummax(jnp.concatenate([-count[:, None], begin], axis=1), axis=1)
        return Timeline(number, jnp.maximum(begin, end - self.config.memory_size), end, begin)

    def _read_store(self, query, keys, values, state, timeline, sees):
        """What all tokens read of the store as it is at their segment: [B, L, H, K]. One row and head at a time on CPU.

        The search is done once; only the read of what it found is repeated in the backward pass.
        """
        size, length, bptt = self.config.memory_size, self.segment_length, self.config.bptt_segments
        segment = jnp.arange(query.shape[1], dtype=jnp.int32) // length

        def in_play(ring, new, next_place, number):
            """Entries in the order of writing: number n stands at the place size + n."""
            ordered = jax.lax.dynamic_slice_in_dim(jnp.concatenate([ring, ring]), next_place, size)
            place = jnp.where(number < NEVER, size + number, size + new.shape[0] + jnp.arange(new.shape[0]))
            padded = jnp.concatenate([ordered, jnp.zeros_like(new)])
            return padded.at[place].set(new, mode="drop", unique_indices=True)

        def search_row(row):
            query, keys, ring, next_place, number, first, end = row

            def search_head(head):
                query, keys, ring = head
                entries = in_play(ring, keys, next_place, number)
                by_segment = (query.reshape(-1, length, query.shape[-1]), size + first[:-1], size + end[:-1])
                found = map_rows(lambda s: self._search(s[0], entries, s[1], s[2]), by_segment, recompute=False)
                return jax.tree.map(lambda a: a.reshape(query.shape[0], -1), found)

            return map_rows(search_head, (query, keys, ring), recompute=False)

        def read_row(row):
            query, keys, values, ring_keys, ring_values, next_place, number, index, found = row

            def read_head(head):
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
        found = found & sees[:, None, :, None]
        rows = (query, keys, values, state.ring_keys, state.ring_values, *times, index, found)
        return map_rows(read_row, rows, recompute=False).swapaxes(1, 2)

    def _read_store_in_groups(self, query, keys, values, state, timeline, sees):
        """`_read_store` where devices share out the store: none moves, but what is found, and the search is exact."""
        size, length, bptt = self.config.memory_size, self.segment_length, self.config.bptt_segments
        places = jnp.arange(size, dtype=jnp.int32)
        segment = jnp.arange(query.shape[1], dtype=jnp.int32) // length

        def one_head(query, keys, values, ring_keys, ring_values, next_place, number, first, end, sees):
            ring_number = (places - next_place) % size - size  # of the entry that stands there

            def search(query, first, end):
                stored = self._search_groups(query, ring_keys, ring_number, first, end)
                new = nearest_of_groups(query, keys[None], number[None], first, end, top_k=self.config.top_k)
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
            return read_chosen(query, *chosen, found & sees[:, None])

        over_heads = jax.vmap(one_head, in_axes=(1, 1, 1, 0, 0, *[None] * 5), out_axes=1)
        times = state.next, timeline.number, timeline.first, timeline.end, sees
        return jax.vmap(jax.checkpoint(over_heads))(query, keys, values, state.ring_keys, state.ring_values, *times)

    def _restarted(self, state, rows, begin):
        """The state with an empty store in the given rows, where the number `begin` will be its first entry.

        A loop that runs once or not at all works in place; a `cond` would copy what it passes on.
        """
        clear = lambda _, arrays: where_rows(rows, jax.tree.map(jnp.zeros_like, arrays), arrays)  # noqa: E731
        once = jnp.any(rows).astype(jnp.int32)
        keys, values = jax.lax.fori_loop(0, once, clear, (state.ring_keys, state.ring_values))
        return state._replace(ring_keys=keys, ring_values=values, next=jnp.where(rows, -begin, state.next))

    def _store(self, state, keys, values, number, first, end):
        """The state after the entries with first <= number < end, set in place: the number n at `next` + n."""
        size = self.config.memory_size
        if size == 0:
            return state._replace(next=jnp.zeros_like(state.next))
        batch, length = number.shape
        kept = (number >= first[:, None]) & (number < end[:, None])
        outside = size + jnp.arange(length, dtype=jnp.int32)[None, :]  # there is no such place: dropped
        place = jnp.where(kept, (state.next[:, None] + number) % size, outside)
        rows = jnp.arange(batch)[:, None]
        put = lambda old, new: old.at[rows, :, place].set(new, mode="drop", unique_indices=True)  # noqa: E731
        keys, values = put(state.ring_keys, keys), put(state.ring_values, values)
        return state._replace(ring_keys=keys, ring_values=values, next=(state.next + end) % size, count=end - first)


def _read_local(query, keys, values, own):
    """Attention of each token to the earlier ones of its document in its own segment, itself included."""
    nothing = jnp.zeros(keys.shape[:2], jnp.int32)
    return read(
        query, [Source(keys, values, nothing.astype(jnp.float32), nothing, own_visible(own.document, own.place))]
    )


def _read_local_row(row):
    """`_read_local` of one whole segment."""
    query, keys, values, document = (a[None] for a in row)
    place = jnp.arange(document.shape[1], dtype=jnp.int32)[None]
    return _read_local(query, keys, values, Own(None, document, place))[0]
