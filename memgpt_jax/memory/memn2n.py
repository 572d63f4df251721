"""End-to-end memory network: several reads (hops) per token, each with a query that contains the last answer."""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from memgpt_jax.config.checks import check
from memgpt_jax.config.memory import AttendedMemoryConfig
from memgpt_jax.memory.base import Explanation, OwnSegment, Segment, flatten_segments, stop_gradient_where
from memgpt_jax.memory.linear import linear
from memgpt_jax.memory.projected import AttendedMemory
from memgpt_jax.memory.writer_conv import WriterConv
from memgpt_jax.ops.attention import map_rows
from memgpt_jax.ops.memory import Hops, gather_entries, multi_hop_read, multi_hop_weights, position_encoding
from memgpt_jax.ops.memory.writer import OLDEST_AGE
from memgpt_jax.ops.mesh import ENTRIES, HEADS, declare_axes
from memgpt_jax.shapes import Array, Bool, Float, Int32

MemN2NEntry = Literal["token", "segment"]
MemN2NTying = Literal["adjacent", "layerwise"]


@dataclass(frozen=True, kw_only=True)
class MemN2NMemoryConfig(AttendedMemoryConfig):
    """End-to-end memory network: the newest entries, read in several hops."""

    memory_size: int = 1024
    """Entries M that each layer keeps for each row: the newest. 0: nothing is ever stored."""
    entry: MemN2NEntry = "token"
    """Content of an entry: one `token`, or a whole `segment` as the position-encoded sum of its tokens."""
    num_hops: int = 3
    """Number of reads; the question of each contains the answer of the one before."""
    tying: MemN2NTying = "adjacent"
    """Maps that hops share: `adjacent`, the output map of a hop is the input map of the next; `layerwise`, all hops
    have the same two maps, and a learned map updates the question between them."""
    num_ages: int = 16
    """Ages, in segments, with a temporal encoding each; all older entries share the last. 0: no encoding."""
    null_entry: bool = True
    """Add an always visible entry with a learned key and the value 0, so that a hop may change nothing."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.num_hops >= 1, f"num_hops must be at least 1, got {self.num_hops}")
        check(self.num_ages >= 0, f"num_ages must be at least 0, got {self.num_ages}")


class MemN2NState(NamedTuple):
    """Bytes per row: M (2 H K itemsize + 4) + (writer_conv - 1) H K itemsize, for any number of hops."""

    keys: Float[Array, "B M H K"]  # z, in order of time, the newest last; 0 where there is no entry
    values: Float[Array, "B M H K"]  # y
    age: Int32[Array, "B M"]  # segments since it was written; 1 for the segment right after; 0: no entry
    conv_cache: Float[Array, "B reach HK"]  # the last writer_conv - 1 embedded tokens before the segment

    mesh_axes = declare_axes(keys=(ENTRIES, HEADS), values=(ENTRIES, HEADS))


class MemN2NMemory(AttendedMemory[MemN2NMemoryConfig]):
    """End-to-end memory network (Sukhbaatar et al., 2015, section 2) over the last M entries of a stream.

        Writer   y_t = E x_t,  z_t = unit(conv(y)_t)                            entry="token": append (z_t, y_t)
                 y = sum_t l_t * (E x_t),  z = unit(sum_t l_t * conv(Ex)_t)     entry="segment": append (z, y)
        Reader   u_1 = B x
                 p_i = softmax_i(t_h unit(A_n^T u_n) . z_i + u_n . T_A,n[age_i])                      hops n = 1..N
                 u_{n+1} = U u_n + sum_i p_i (C_n y_i + T_C,n[age_i])
                 r = W u_{N+1}

    `x` [D] is the normalised stream; a sentence of the paper is one token or one segment. l is the position encoding
    (section 4.1), T_A and T_C are the temporal encodings. u, z and y have H heads of width K; A, C, U map within a
    head. Without `qk_norm`, z is not normalised and q_n = A_n^T u_n / sqrt(K).

    The paper embeds an entry with different matrices in each hop, A_n x_i and C_n x_i. Here these are A_n E and C_n E
    with one E [H K, D]: only z and y are stored, so that hops need no bytes, and a hop is one attention over them.
    `tying` is the paper's: `adjacent` A_{n+1} = C_n and U = 1; `layerwise` one A and one C for all hops and a learned
    U. (In the paper adjacent tying also binds B to A_1 and W to C_N; here both are free.) The convolution (an entry
    of one token does not contain the token before it) and the null entry (a hop may read 0) are additions.
    """

    cuts_by_age = True

    def __init__(self, config: MemN2NMemoryConfig, *, d_model: int, segment_length: int, dtype: Any, rngs: nnx.Rngs):
        super().__init__(config, d_model=d_model, segment_length=segment_length, dtype=dtype, rngs=rngs)
        heads, width = config.num_heads, config.head_dim
        self.adjacent = config.tying == "adjacent"
        project = partial(linear, use_bias=False, dtype=self.dtype, rngs=rngs)

        # As in `kv`, a token initially reads what followed the entries that resemble it: E is a copy of B, A_1 the
        # identity and the convolution a shift by one. Further maps are initially rotations, so that the answers of
        # hops lie in different directions, and as A_{n+1} = C_n, hop n + 1 starts from the answer of hop n.
        self.query = project(d_model, heads * width)
        self.entry = project(d_model, heads * width)
        self.entry.kernel[...] = jnp.copy(self.query.kernel[...])
        self.output = project(heads * width, d_model)
        num_maps = config.num_hops + 1 if self.adjacent else 2
        maps = jax.nn.initializers.orthogonal(dtype=jnp.float32)(rngs.params(), (num_maps, heads, width, width))
        self.maps = nnx.Param(maps.at[0].set(jnp.eye(width, dtype=jnp.float32)))
        self.age_encoding = nnx.Param(jnp.zeros((num_maps, config.num_ages, heads, width), jnp.float32))
        if not self.adjacent:
            self.update = nnx.Param(jnp.tile(jnp.eye(width, dtype=jnp.float32), (heads, 1, 1)))
        self.conv = WriterConv(config.writer_conv, heads * width, self.dtype)
        if config.qk_norm:
            self.log_temperature = self.initial_log_temperature()
        if config.null_entry:
            self.null_key = nnx.Param(jnp.zeros((heads, width), jnp.float32))

    def init_state(self, batch_size: int) -> MemN2NState:
        config = self.config
        stored = (batch_size, config.memory_size, config.num_heads, config.head_dim)
        return MemN2NState(  # no array twice, so that a state can be donated
            keys=jnp.zeros(stored, self.dtype),
            values=jnp.zeros(stored, self.dtype),
            age=jnp.zeros(stored[:2], jnp.int32),
            conv_cache=self.conv.init_state(batch_size),
        )

    def read(
        self, x: Float[Array, "B Q D"], state: MemN2NState, own_segment: OwnSegment, update_mask: Bool[Array, "B Q"]
    ) -> tuple[Float[Array, "B Q R"], MemN2NState]:
        visible = jnp.broadcast_to(state.age[:, None] > 0, (*x.shape[:2], state.age.shape[1]))
        answer = self._hop(self.heads(self.query(x)), state.keys, state.values, state.age, visible)
        return answer.reshape(*x.shape[:2], -1), state

    def write(self, x: Float[Array, "B T D"], state: MemN2NState, write_mask: Bool[Array, "B T"]) -> MemN2NState:
        embedded = self.entry(x)
        convolved, conv_cache = self.convolve_segment(embedded, write_mask, state.conv_cache)
        keys, values, valid = self._entries(embedded, convolved, write_mask)

        def newest(old: Array, new: Array) -> Array:
            return jnp.concatenate([old, new], axis=1)[:, new.shape[1] :]

        older = jnp.where(state.age > 0, jnp.minimum(state.age + 1, OLDEST_AGE), 0)
        return MemN2NState(
            keys=newest(state.keys, keys),
            values=newest(state.values, values),
            age=newest(older, valid.astype(jnp.int32)),
            conv_cache=conv_cache,
        )

    def explain(self, x: Float[Array, "B Q D"], state: MemN2NState) -> Explanation:
        """Weights of all hops, N H heads: H of the first hop, then H of the second, ...; the residual is U^N u_1.

        The value of an entry in hop n is its contribution to the read, U^(N-n) (C_n y + T_C,n[age]).
        """
        valid, hops = state.age > 0, self._hops()
        visible = jnp.broadcast_to(valid[:, None], (*x.shape[:2], valid.shape[1]))
        question = self.heads(self.query(x))
        weights = multi_hop_weights(question, state.keys, state.values, state.age, visible, hops)
        hops = jax.tree.map(lambda a: a.astype(jnp.float32), hops)
        values = jnp.einsum("bmhj,nhij->nbmhi", state.values.astype(jnp.float32), hops.outputs)
        if self.config.num_ages:
            index = jnp.clip(state.age, 1, self.config.num_ages) - 1
            values = values + hops.output_ages[:, index]
        residual = question.astype(jnp.float32)
        if hops.update is not None:
            for n in range(self.config.num_hops):
                residual = jnp.einsum("bqhj,hij->bqhi", residual, hops.update)
                values = values.at[:n].set(jnp.einsum("nbmhj,hij->nbmhi", values[:n], hops.update))
        batch, length = x.shape[:2]
        num = valid.shape[1]
        return Explanation(
            jnp.moveaxis(weights, 0, 2).reshape(batch, length, -1, num),
            jnp.moveaxis(values, 0, 2).reshape(batch, 1, num, -1, values.shape[-1]),
            valid,
            residual.reshape(batch, length, -1),
        )

    def sequence(self, segments: Segment, state: MemN2NState) -> tuple[Float[Array, "B S T R"], MemN2NState]:
        """All segments at once, equal to the scan over `segment`: write everything, then read in parallel.

        Entries are ordered by time: M old ones, then S N new ones (N = T, or 1 for entry="segment"). Segment s reads
        the entries of its own document among the M before its own. (An entry without a written token also has a place
        in this order, but all entries before it belong to other documents.)
        """
        batch, num_segments, length, _ = segments.x.shape
        call = flatten_segments(segments)
        call = call._replace(x=self.entry(call.x))
        convolved, conv_cache = self.convolve_call(call, state.conv_cache)

        def by_segment(x: Array) -> Array:
            return x.reshape(batch * num_segments, length, *x.shape[2:])

        keys, values, valid = self._entries(*map(by_segment, (call.x, convolved, call.write_mask)))
        last = jnp.max(by_segment(call.document), axis=1, keepdims=True)  # document of the written tokens, if any

        size, num_new = self.config.memory_size, keys.shape[1]
        written = jnp.broadcast_to(jnp.arange(num_segments, dtype=jnp.int32)[:, None], (num_segments, num_new))
        written = jnp.broadcast_to(written.reshape(1, -1), (batch, num_segments * num_new))

        def after(old: Array, new: Array) -> Array:
            return jnp.concatenate([old, new.reshape(batch, -1, *new.shape[2:])], axis=1)

        in_play = {
            "keys": after(state.keys, keys),
            "values": after(state.values, values),
            "document": after(jnp.where(state.age > 0, 0, -1), jnp.where(valid, last, -1)),
            "written": after(-state.age, written),  # segment of this call in which the entry was written
        }

        def read_row(row: dict[str, Any]) -> Array:
            def read_segment(segment: dict[str, Array]) -> Array:
                start = segment["number"] * num_new
                entries = {k: jax.lax.dynamic_slice_in_dim(v, start, size)[None] for k, v in row["in_play"].items()}
                document = segment["document"][None, :, None]
                visible = (entries["document"][:, None] == document) & (document >= 0)
                age = segment["number"] - entries["written"]
                return self._hop(segment["question"][None], entries["keys"], entries["values"], age, visible)[0]

            return map_rows(read_segment, row["segments"])

        per_segment = (batch, num_segments, length)
        question = self.heads(self.query(segments.x.reshape(batch, num_segments * length, -1)))
        numbers = jnp.broadcast_to(jnp.arange(num_segments, dtype=jnp.int32), (batch, num_segments))
        reader = {"question": question.reshape(*per_segment, *question.shape[2:])}
        reader |= {"document": call.document.reshape(per_segment), "number": numbers}
        out = map_rows(read_row, {"in_play": in_play, "segments": reader}, recompute=False)

        num_full = call.num_written // length
        kept = gather_entries(in_play, num_full * num_new + jnp.arange(size, dtype=jnp.int32)[None, :])
        is_open = kept["document"] == call.open_document
        return out.reshape(*per_segment, -1), MemN2NState(
            keys=jnp.where(is_open[..., None, None], kept["keys"], 0),
            values=jnp.where(is_open[..., None, None], kept["values"], 0),
            age=jnp.where(is_open, jnp.minimum(num_full - kept["written"], OLDEST_AGE), 0),
            conv_cache=conv_cache,
        )

    def stats(self, state: MemN2NState) -> dict[str, Array]:
        valid = (state.age > 0).astype(jnp.float32)
        return {
            "occupancy": jnp.sum(valid) / max(1, valid.size),
            "age_mean": jnp.sum(state.age.astype(jnp.float32)) / jnp.maximum(jnp.sum(valid), 1),
        } | super().stats(state)

    def _entries(
        self, embedded: Float[Array, "B T HK"], convolved: Float[Array, "B T HK"], write_mask: Bool[Array, "B T"]
    ) -> tuple[Float[Array, "B N H K"], Float[Array, "B N H K"], Bool[Array, "B N"]]:
        """z and y [B, N, H, K] of the written tokens of a segment, and which of the N entries exist, [B, N]."""
        if self.config.entry == "segment":
            encoding = jnp.asarray(position_encoding(*embedded.shape[1:]))[None]
            weights = encoding * write_mask[..., None].astype(jnp.float32)

            def pool(x: Array) -> Array:
                return jnp.sum(x.astype(jnp.float32) * weights, axis=1, keepdims=True)

            embedded, convolved = pool(embedded), pool(convolved)
            write_mask = jnp.any(write_mask, axis=1, keepdims=True)

        def clean(x: Array) -> Array:
            return jnp.where(write_mask[..., None, None], x, 0).astype(self.dtype)

        return clean(self.unit(self.heads(convolved))), clean(self.heads(embedded)), write_mask

    def _hop(
        self,
        question: Float[Array, "B Q H K"],
        keys: Float[Array, "B M H K"],
        values: Float[Array, "B M H K"],
        age: Int32[Array, "B M"],
        visible: Bool[Array, "B Q M"],
    ) -> Float[Array, "B Q H K"]:
        """`multi_hop_read` without a gradient into entries older than `bptt_segments`."""
        if self.bptt_segments is not None:
            keys, values = stop_gradient_where(age > self.bptt_segments, (keys, values))
        return multi_hop_read(question, keys, values, age, visible, self._hops())

    def _hops(self) -> Hops:
        """The maps of all hops."""
        config, maps, ages = self.config, self.maps[...], self.age_encoding[...]
        first, second = slice(0, -1), slice(1, None)
        if not self.adjacent:
            maps, ages = (jnp.repeat(x, config.num_hops, axis=0) for x in (maps, ages))
            first, second = slice(0, config.num_hops), slice(config.num_hops, None)
        scale = jnp.float32(1 if config.qk_norm else config.head_dim**-0.5)
        return Hops(
            inputs=maps[first] * scale,
            outputs=maps[second],
            input_ages=ages[first],
            output_ages=ages[second],
            update=None if self.adjacent else self.update[...],
            temperature=jnp.exp(self.log_temperature[...]) if config.qk_norm else None,
            null_key=self.null_key[...] if config.null_entry else None,
        )
