"""Compressive Transformer: recent entries, and older entries that are compressed from them."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from memgpt_jax.config.checks import check
from memgpt_jax.config.memory import AttendedMemoryConfig
from memgpt_jax.memory.base import Explanation, Origins, OwnSegment
from memgpt_jax.memory.projected import AttendedMemory
from memgpt_jax.ops.attention import map_rows
from memgpt_jax.ops.memory import (
    Source,
    compress,
    gather_entries,
    read_entries,
    read_mass,
    read_weights,
    select_most_used,
)
from memgpt_jax.ops.mesh import ENTRIES, HEADS, declare_axes
from memgpt_jax.ops.trees import where_rows
from memgpt_jax.shapes import Array, Bool, Float, Float32, Int32

Compression = Literal["mean", "max", "conv", "most_used"]


@dataclass(frozen=True, kw_only=True)
class CompressiveMemoryConfig(AttendedMemoryConfig):
    """Two memories: recent entries, and older entries, each of which is compressed from `ratio` recent ones."""

    memory_size: int = 512
    """Entries M that each layer keeps for each row, recent and compressed together. 0: nothing is ever stored."""
    recent_size: int | None = None
    """Number R of uncompressed entries among the M, at most M; default: M / 2, rounded down."""
    ratio: int = 2
    """Number c of entries that are compressed into one."""
    compression: Compression = "conv"
    """Compression of c entries: their `mean`, the `max` of each channel, a learned `conv`olution of width and stride c
    (initially the mean), or the `most_used` entry, which received most attention."""
    temperature: float = 20.0
    """Initial temperature when `qk_norm` is on; without it logits are scaled by head_dim ** -0.5."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(
            self.recent_size is None or self.recent_size >= 0,
            f"recent_size must be None or at least 0, got {self.recent_size}",
        )
        check(self.ratio >= 1, f"ratio must be at least 1, got {self.ratio}")

    @property
    def sizes(self) -> tuple[int, int]:
        """(R, C): numbers of recent and of compressed entries; their sum is `memory_size`."""
        recent = self.memory_size // 2 if self.recent_size is None else min(self.recent_size, self.memory_size)
        return recent, self.memory_size - recent


class CompressiveState(NamedTuple):
    """R recent and C compressed entries, and up to c - 1 that wait until their group of c is complete.

    Entries are in the order of time from place 0 on, followed by zeros. Bytes per row: 2 (R + c - 1 + C) H K
    itemsize + (writer_conv - 1) D itemsize + 8, with 4 (R + c - 1) more for `most_used`. Without a compressed memory
    (C = 0) nothing waits: 2 R H K itemsize.
    """

    keys: Float[Array, "B recent H K"]
    values: Float[Array, "B recent H K"]
    count: Int32[Array, "B"]  # number of recent entries, including those that wait; recent = R + c - 1
    compressed_keys: Float[Array, "B C H K"]
    compressed_values: Float[Array, "B C H K"]
    compressed_count: Int32[Array, "B"]
    usage: Float32[Array, "B recent"] | None  # attention weight received, summed over tokens, mean over heads
    conv_cache: Float[Array, "B reach D"]  # the last writer_conv - 1 tokens before the segment

    mesh_axes = declare_axes(keys=(ENTRIES, HEADS), values=(ENTRIES, HEADS))


class CompressiveMemory(AttendedMemory[CompressiveMemoryConfig]):
    """Compressive Transformer memory (Rae et al., 2020, section 3), of keys and values instead of activations.

        q_t = a unit(W_q x_t),   k_t = unit(W_k conv(x)_t + b_k),   v_t = W_v x_t + b_v           [H, K] each
        Writer   the entries (k, v) of a segment are appended to the recent ones; a group of c consecutive entries that
                 have all left the R newest becomes one entry:  k' = unit(f(k_1 .. k_c)),  v' = f(v_1 .. v_c)
        Reader   r = W_o sum_i softmax_i(q . k_i) v_i    over recent entries (k, v), compressed ones (k' + e, v'), and
                 a null entry (learned key, value 0) instead of the paper's own sequence, so that a token can read
                 nothing; e [H, K] is learned and distinguishes the two kinds of entries

    f is `compression`, with separate kernels for keys and values. Entries that leave the compressed memory are
    lost. Groups count from the beginning of the document; an entry that has left the R newest before its group is
    complete is still read uncompressed. `most_used` keeps the entry of the group that received most attention weight
    since it was written. Keys carry no positions. `x` is the normalised stream; a is learned, one per head.

    **Training of f.** The paper trains f by an auxiliary loss (attention reconstruction), and compares it with
    backpropagation through time. Here it is trained by backpropagation through time: a read of a compressed entry
    passes its gradient through f to the Writer. Therefore f learns only from calls longer than R + c tokens, which read
    entries that they have compressed.
    """

    decayed: ClassVar[tuple[str, ...]] = ("compress_keys_kernel", "compress_values_kernel", "source_embedding")

    def __init__(
        self, config: CompressiveMemoryConfig, *, d_model: int, segment_length: int, dtype: Any, rngs: nnx.Rngs
    ):
        super().__init__(config, d_model=d_model, segment_length=segment_length, dtype=dtype, rngs=rngs)
        self.add_projections(rngs=rngs)
        heads, width = config.num_heads, config.head_dim
        self.recent_size, self.compressed_size = config.sizes
        self.ratio = config.ratio if self.compressed_size else 1  # without compressed entries, no entry waits
        self.null_key = nnx.Param(jnp.zeros((heads, width), jnp.float32))
        self.source_embedding = nnx.Param(jnp.zeros((heads, width), jnp.float32))
        if config.compression == "conv":
            mean = jnp.broadcast_to(
                jnp.eye(width, dtype=jnp.float32) / config.ratio, (config.ratio, heads, width, width)
            )
            self.compress_keys_kernel = nnx.Param(mean)
            self.compress_values_kernel = nnx.Param(jnp.copy(mean))

    def init_state(self, batch_size: int) -> CompressiveState:
        config, waiting = self.config, self.recent_size + self.ratio - 1

        def empty(size: int) -> Array:
            return jnp.zeros((batch_size, size, config.num_heads, config.head_dim), self.dtype)

        return CompressiveState(
            keys=empty(waiting),
            values=empty(waiting),
            count=jnp.zeros(batch_size, jnp.int32),
            compressed_keys=empty(self.compressed_size),
            compressed_values=empty(self.compressed_size),
            compressed_count=jnp.zeros(batch_size, jnp.int32),
            usage=jnp.zeros((batch_size, waiting), jnp.float32) if config.compression == "most_used" else None,
            conv_cache=self.conv.init_state(batch_size),
        )

    def read(
        self,
        x: Float[Array, "B Q D"],
        state: CompressiveState,
        own_segment: OwnSegment,
        update_mask: Bool[Array, "B Q"],
    ) -> tuple[Float[Array, "B Q R"], CompressiveState]:
        query = self.queries(x)
        rows = (query, *self._stored(state))
        if x.shape[1] == 1:
            out = self._read(*rows)
        else:
            out = map_rows(lambda row: self._read(*(a[None] for a in row))[0], rows)
        if state.usage is not None:
            mass = read_mass(query, self._sources(*rows), self.null_key[...], None, update_mask)
            mass = jax.lax.stop_gradient(mass)[:, : state.usage.shape[1]]
            state = state._replace(usage=state.usage + mass)
        return self.side_by_side(out), state

    def explain(self, x: Float[Array, "B Q D"], state: CompressiveState) -> Explanation:
        """Weights over the recent entries, then the compressed ones; the null entry has the rest of each softmax."""
        query, stored = self.queries(x), self._stored(state)
        recent, compressed = self._sources(query, *stored)
        weights = read_weights(query, [recent, compressed], self.null_key[...])
        values = jnp.concatenate([state.values, state.compressed_values], axis=1)
        valid = [
            _taken(state.keys, state.count),
            _taken(state.compressed_keys, state.compressed_count),
        ]
        return Explanation(weights, values[:, None], jnp.concatenate(valid, axis=1))

    def origins(self, state: CompressiveState) -> Origins:
        """The token of each recent entry, then the c tokens of each compressed one."""
        recent, older = (jnp.arange(x.shape[1], dtype=jnp.int32)[None] for x in (state.keys, state.compressed_keys))
        recent = state.count[:, None] - recent
        older = state.count[:, None] + self.ratio * (state.compressed_count[:, None] - older)
        length = jnp.concatenate([jnp.ones_like(recent), jnp.full_like(older, self.ratio)], axis=1)
        return Origins(jnp.concatenate([recent, older], axis=1), length)

    def write(
        self, x: Float[Array, "B T D"], state: CompressiveState, write_mask: Bool[Array, "B T"]
    ) -> CompressiveState:
        batch, length = write_mask.shape
        convolved, conv_cache = self.convolve_segment(x, write_mask, state.conv_cache)
        keys, values = self.keys_and_values(x, convolved)

        usage = None if state.usage is None else jnp.zeros((batch, length), jnp.float32)
        old, new = (state.keys, state.values, state.usage), (keys, values, usage)
        recent, count = _joined(old, state.count, new, jnp.sum(write_mask, axis=1, dtype=jnp.int32))
        num_groups = (length + self.ratio - 1) // self.ratio  # at most
        leaving = jnp.maximum(count - self.recent_size, 0) // self.ratio
        kept = jnp.arange(state.keys.shape[1], dtype=jnp.int32)[None, :] + (leaving * self.ratio)[:, None]
        kept = jnp.minimum(kept, state.keys.shape[1] + length - 1)
        count = count - leaving * self.ratio
        keys, values, usage = _clean(gather_entries(recent, kept), count)

        older, older_count = (state.compressed_keys, state.compressed_values), state.compressed_count
        if self.compressed_size:
            older, older_count = _joined(
                older, older_count, self._compressed(recent, num_groups), leaving, new_from_start=True
            )
            forgotten = jnp.maximum(older_count - self.compressed_size, 0)
            kept = jnp.arange(self.compressed_size, dtype=jnp.int32)[None, :] + forgotten[:, None]
            older_count = older_count - forgotten
            older = _clean(gather_entries(older, kept), older_count)
        older_keys, older_values = older
        return CompressiveState(keys, values, count, older_keys, older_values, older_count, usage, conv_cache)

    def stats(self, state: CompressiveState) -> dict[str, Array]:
        def mean(count: Array, size: int) -> Array:
            return jnp.mean(count.astype(jnp.float32)) / max(1, size)

        return {
            "recent_occupancy": mean(state.count, state.keys.shape[1]),
            "compressed_occupancy": mean(state.compressed_count, self.compressed_size),
        } | super().stats(state)

    def _read(self, query: Float[Array, "B Q H K"], *entries: Array) -> Float[Array, "B Q H K"]:
        return read_entries(query, self._sources(query, *entries), self.null_key[...])

    def _stored(self, state: CompressiveState) -> tuple[Array, ...]:
        """Keys, values and count of the recent entries, then of the compressed ones."""
        recent = (state.keys, state.values, state.count)
        return (*recent, state.compressed_keys, state.compressed_values, state.compressed_count)

    def _sources(self, query: Float[Array, "B Q H K"], *entries: Array) -> list[Source]:
        """Recent and compressed entries, given as by `_stored`, as sources of the Reader."""
        keys, values, count, compressed_keys, compressed_values, compressed_count = entries
        compressed_keys = compressed_keys + self.source_embedding[...].astype(self.dtype)[None, None]

        def source(keys: Array, values: Array, count: Array) -> Source:
            nothing = jnp.zeros(keys.shape[:2], jnp.int32)
            visible = jnp.broadcast_to(_taken(keys, count)[:, None], (*query.shape[:2], keys.shape[1]))
            return Source(keys, values, nothing.astype(jnp.float32), nothing, visible)

        return [source(keys, values, count), source(compressed_keys, compressed_values, compressed_count)]

    def _compressed(self, recent: tuple[Array, Array, Array | None], num_groups: int) -> tuple[Array, Array]:
        """Keys and values [B, N, H, K] of the first N groups of c entries."""

        def grouped(x: Array) -> Array:
            return x[:, : num_groups * self.ratio].reshape(x.shape[0], num_groups, self.ratio, *x.shape[2:])

        keys, values, usage = jax.tree.map(grouped, recent)
        kind = self.config.compression
        if kind == "most_used":
            return select_most_used(keys, usage), select_most_used(values, usage)
        kernels = (None, None)
        if kind == "conv":
            kernels = (self.compress_keys_kernel[...], self.compress_values_kernel[...])
            kernels = (kernel.astype(self.dtype) for kernel in kernels)
        keys, values = (compress(x, kind, kernel) for x, kernel in zip((keys, values), kernels, strict=True))
        return self.unit(keys).astype(self.dtype), values


def _joined(
    old: Any, old_count: Int32[Array, "B"], new: Any, new_count: Int32[Array, "B"], *, new_from_start: bool = False
) -> tuple[Any, Int32[Array, "B"]]:
    """Old entries followed by new ones, from place 0 on, as pytrees of [B, E, ...], and their number.

    Old entries are at the start of their array; new ones at the end of theirs, or at the start (`new_from_start`).
    """
    old_size, new_size = (jax.tree.leaves(tree)[0].shape[1] for tree in (old, new))
    both = jax.tree.map(lambda a, b: jnp.concatenate([a, b.astype(a.dtype)], axis=1), old, new)
    place = jnp.arange(old_size + new_size, dtype=jnp.int32)[None, :]
    first_new = jnp.full_like(new_count, old_size) if new_from_start else old_size + new_size - new_count
    in_new = jnp.minimum(place - old_count[:, None] + first_new[:, None], old_size + new_size - 1)
    return gather_entries(both, jnp.where(place < old_count[:, None], place, in_new)), old_count + new_count


def _taken(entries: Array, count: Int32[Array, "B"]) -> Bool[Array, "B E"]:
    """Whether each of E places holds an entry, [B, E]."""
    return jnp.arange(entries.shape[1], dtype=jnp.int32)[None, :] < count[:, None]


def _clean(entries: Any, count: Int32[Array, "B"]) -> Any:
    """The first `count` entries of each row, followed by zeros, so that equal memories are equal arrays."""
    taken = _taken(jax.tree.leaves(entries)[0], count)
    return where_rows(taken, entries, jax.tree.map(jnp.zeros_like, entries))
