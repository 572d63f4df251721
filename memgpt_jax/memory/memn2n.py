"""End-to-end memory network: several hops of reading, each with the question that the last one left."""

from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from memgpt_jax.config.checks import check
from memgpt_jax.config.memory import AttendedMemoryConfig
from memgpt_jax.memory.base import Memory, in_line, linear, where_rows
from memgpt_jax.memory.writer_conv import WriterConv
from memgpt_jax.ops import Hops, map_rows, multi_hop_read, position_encoding, take, unit
from memgpt_jax.ops.memory.writer import OLDEST_AGE
from memgpt_jax.shapes import Array, Float, Int32

MemN2NEntry = Literal["token", "segment"]
MemN2NTying = Literal["adjacent", "layerwise"]


@dataclass(frozen=True, kw_only=True)
class MemN2NMemoryConfig(AttendedMemoryConfig):
    """End-to-end memory network: the newest entries, read in several hops."""

    memory_size: int = 1024
    """Entries M that each layer keeps for each row: the newest. 0: nothing is ever stored."""
    entry: MemN2NEntry = "token"
    """What an entry holds: one `token`, or a whole `segment` as the position-encoded sum of its tokens."""
    num_hops: int = 3
    """How many times the Reader looks into memory, each time with what it found before."""
    tying: MemN2NTying = "adjacent"
    """Which maps hops share: `adjacent`, the output map of one is the input map of the next; `layerwise`, all hops have
    the same two, and a learned map updates the question between them."""
    num_ages: int = 16
    """Ages, counted in segments, that have a temporal encoding of their own; older entries share the last. 0: none."""
    null_entry: bool = True
    """Add an always visible entry with a learned key and the value 0, so that a hop can leave the question as it is."""

    def __post_init__(self):
        super().__post_init__()
        check(self.num_hops >= 1, f"num_hops must be at least 1, got {self.num_hops}")
        check(self.num_ages >= 0, f"num_ages must be at least 0, got {self.num_ages}")


class MemN2NState(NamedTuple):
    """Bytes per row: M (2 H K itemsize + 4) + (writer_conv - 1) H K itemsize, whatever the number of hops."""

    keys: Float[Array, "B M H K"]  # z, in order of time, the newest last; 0 where there is no entry
    values: Float[Array, "B M H K"]  # y
    age: Int32[Array, "B M"]  # segments since it was written; 1 for the segment right after; 0: no entry
    tail: Float[Array, "B W-1 HK"]  # embedded tokens before the segment that the convolution still reaches


class MemN2NMemory(Memory):
    """End-to-end memory network (Sukhbaatar et al., 2015, section 2) over the last M entries of a stream.

        Writer   y_t = E x_t,  z_t = unit(conv(y)_t)                            entry="token": append (z_t, y_t)
                 y = sum_t l_t * (E x_t),  z = unit(sum_t l_t * conv(Ex)_t)     entry="segment": append (z, y)
        Reader   u_1 = B x
                 p_i = softmax_i(t_h unit(A_n^T u_n) . z_i + u_n . T_A,n[age_i])                      hops n = 1..N
                 u_{n+1} = U u_n + sum_i p_i (C_n y_i + T_C,n[age_i])
                 r = W u_{N+1}

    `x` [D] is the normalised stream, a sentence of the paper one token or one segment, l its position encoding (section
    4.1), T_A and T_C its temporal encoding. u, z and y have H heads of width K; A, C, U map within a head. Without
    `qk_norm`, z is not normalised and q_n = A_n^T u_n / sqrt(K).

    The paper embeds an entry with matrices of its own for each hop, A_n x_i and C_n x_i. Here these are A_n E and C_n E
    with one E [H K, D]: what is stored are z and y alone, so that hops take no bytes, and a hop is one attention over
    them. `tying` is the paper's: `adjacent` A_{n+1} = C_n and U = 1; `layerwise` one A and one C for all hops and a
    learned U. (There, adjacent tying also binds B to A_1 and W to C_N; here both are free.) The convolution (an entry
    made of one token cannot say what came before it) and the null entry (a hop may find nothing) are not the paper's.
    """

    cuts_by_age = True

    def __init__(self, config: MemN2NMemoryConfig, *, d_model: int, segment_length: int, dtype, rngs: nnx.Rngs):
        super().__init__(config, d_model=d_model, segment_length=segment_length, dtype=dtype, rngs=rngs)
        heads, width = config.num_heads, config.head_dim
        self.adjacent = config.tying == "adjacent"
        project = partial(linear, use_bias=False, dtype=self.dtype, rngs=rngs)

        # As in `kv`, a token starts by reading what followed the entries that resemble it: E is a copy of B, A_1 the
        # identity and the convolution a shift by one. Further maps start as rotations: what each hop found then lies
        # in directions of its own, and as A_{n+1} = C_n, hop n + 1 starts from what hop n found.
        self.query = project(d_model, heads * width)
        self.entry = project(d_model, heads * width)
        self.entry.kernel[...] = jnp.copy(self.query.kernel[...])
        self.output = project(heads * width, d_model)
        num_maps = config.num_hops + 1 if self.adjacent else 2
        maps = jax.nn.initializers.orthogonal()(rngs.params(), (num_maps, heads, width, width))
        self.maps = nnx.Param(maps.at[0].set(jnp.eye(width)))
        self.age_encoding = nnx.Param(jnp.zeros((num_maps, config.num_ages, heads, width), jnp.float32))
        if not self.adjacent:
            self.update = nnx.Param(jnp.tile(jnp.eye(width, dtype=jnp.float32), (heads, 1, 1)))
        self.conv = WriterConv(config.writer_conv, heads * width, self.dtype)
        if config.qk_norm:
            self.log_temperature = nnx.Param(jnp.full(heads, jnp.log(jnp.float32(config.temperature))))
        if config.null_entry:
            self.null_key = nnx.Param(jnp.zeros((heads, width), jnp.float32))

    def init_state(self, batch_size):
        config = self.config
        stored = (batch_size, config.memory_size, config.num_heads, config.head_dim)
        return MemN2NState(  # no array twice: a state can be donated
            keys=jnp.zeros(stored, self.dtype),
            values=jnp.zeros(stored, self.dtype),
            age=jnp.zeros(stored[:2], jnp.int32),
            tail=self.conv.init_state(batch_size),
        )

    def read(self, x, state, own, counts):
        visible = jnp.broadcast_to(state.age[:, None] > 0, (*x.shape[:2], state.age.shape[1]))
        answer = self._hop(self._question(x), state.keys, state.values, state.age, visible)
        return answer.reshape(*x.shape[:2], -1), state

    def write(self, x, state, live):
        document = jnp.where(live, 0, -1)
        embedded = self.entry(x)
        keys, values, valid = self._entries(embedded, self._convolved(embedded, document, state.tail), live)
        last = lambda old, new: jnp.concatenate([old, new], axis=1)[:, new.shape[1] :]  # noqa: E731
        older = jnp.where(state.age > 0, jnp.minimum(state.age + 1, OLDEST_AGE), 0)
        return MemN2NState(
            keys=last(state.keys, keys),
            values=last(state.values, values),
            age=last(older, valid.astype(jnp.int32)),
            tail=self.conv.next_tail(embedded, document, state.tail),
        )

    def sequence(self, segments, state):
        """All segments at once, equal to the scan over `segment`: write everything, then read in parallel.

        Entries in play stand in one line of time: M old ones, then S N new ones (N = T, or 1 for entry="segment").
        Segment s sees, of its own document, the M that end where its own begin. (An entry without a live token takes a
        place in the line, but all that come before it are of other documents.)
        """
        batch, num_segments, length, _ = segments.x.shape
        x, document, live, open_document, num_written = in_line(segments)
        embedded = self.entry(x)
        by_segment = lambda x: x.reshape(batch * num_segments, length, *x.shape[2:])  # noqa: E731
        convolved = self._convolved(embedded, document, state.tail)
        keys, values, valid = self._entries(by_segment(embedded), by_segment(convolved), by_segment(live))
        last = jnp.max(by_segment(document), axis=1, keepdims=True)  # of its live tokens, where it has one

        size, num_new = self.config.memory_size, keys.shape[1]
        written = jnp.broadcast_to(jnp.arange(num_segments, dtype=jnp.int32)[:, None], (num_segments, num_new))
        written = jnp.broadcast_to(written.reshape(1, -1), (batch, num_segments * num_new))
        after = lambda old, new: jnp.concatenate([old, new.reshape(batch, -1, *new.shape[2:])], axis=1)  # noqa: E731
        line = {
            "keys": after(state.keys, keys),
            "values": after(state.values, values),
            "document": after(jnp.where(state.age > 0, 0, -1), jnp.where(valid, last, -1)),
            "written": after(-state.age, written),  # in which segment of this call
        }

        def read_row(row):
            def read_segment(segment):
                start = segment["number"] * num_new
                entries = {k: jax.lax.dynamic_slice_in_dim(v, start, size)[None] for k, v in row["line"].items()}
                own = segment["document"][None, :, None]
                visible = (entries["document"][:, None] == own) & (own >= 0)
                age = segment["number"] - entries["written"]
                return self._hop(segment["question"][None], entries["keys"], entries["values"], age, visible)[0]

            return map_rows(read_segment, row["segments"])

        per_segment = (batch, num_segments, length)
        question = self._question(x)
        numbers = jnp.broadcast_to(jnp.arange(num_segments, dtype=jnp.int32), (batch, num_segments))
        reader = {"question": question.reshape(*per_segment, *question.shape[2:])}
        reader |= {"document": document.reshape(per_segment), "number": numbers}
        out = map_rows(read_row, {"line": line, "segments": reader}, recompute=False)

        num_full = num_written // length
        kept = take(line, num_full * num_new + jnp.arange(size, dtype=jnp.int32)[None, :])
        is_open = kept["document"] == open_document
        return out.reshape(*per_segment, -1), MemN2NState(
            keys=jnp.where(is_open[..., None, None], kept["keys"], 0),
            values=jnp.where(is_open[..., None, None], kept["values"], 0),
            age=jnp.where(is_open, jnp.minimum(num_full - kept["written"], OLDEST_AGE), 0),
            tail=self.conv.next_tail(embedded, document, state.tail, num_written, open_document),
        )

    def stats(self, state):
        valid = (state.age > 0).astype(jnp.float32)
        return {
            "occupancy": jnp.sum(valid) / max(1, valid.size),
            "age_mean": jnp.sum(state.age.astype(jnp.float32)) / jnp.maximum(jnp.sum(valid), 1),
        } | super().stats(state)

    def _heads(self, x):
        return x.reshape(*x.shape[:-1], self.config.num_heads, self.config.head_dim)

    def _question(self, x):
        return self._heads(self.query(x))

    def _convolved(self, embedded, document, tail):
        stop = None if self.config.bptt_segments is None else self.segment_length
        return self.conv(embedded, document, tail, stop)

    def _entries(self, embedded, convolved, live):
        """z and y [B, N, H, K] of a segment's live tokens, and which of the N entries there are [B, N]."""
        if self.config.entry == "segment":
            weights = jnp.asarray(position_encoding(*embedded.shape[1:]))[None] * live[..., None].astype(jnp.float32)
            pool = lambda x: jnp.sum(x.astype(jnp.float32) * weights, axis=1, keepdims=True)  # noqa: E731
            embedded, convolved, live = pool(embedded), pool(convolved), jnp.any(live, axis=1, keepdims=True)
        keys, values = self._heads(convolved), self._heads(embedded)
        keys = unit(keys) if self.config.qk_norm else keys
        clean = lambda x: jnp.where(live[..., None, None], x, 0).astype(self.dtype)  # noqa: E731
        return clean(keys), clean(values), live

    def _hop(self, question, keys, values, age, visible):
        """`multi_hop_read` without a gradient into entries older than `bptt_segments`."""
        config, maps, ages = self.config, self.maps[...], self.age_encoding[...]
        if config.bptt_segments is not None:
            entries = keys, values
            keys, values = where_rows(age <= config.bptt_segments, entries, jax.lax.stop_gradient(entries))
        first, second = slice(0, -1), slice(1, None)
        if not self.adjacent:
            maps, ages = (jnp.repeat(x, config.num_hops, axis=0) for x in (maps, ages))
            first, second = slice(0, config.num_hops), slice(config.num_hops, None)
        scale = jnp.float32(1 if config.qk_norm else config.head_dim**-0.5)
        hops = Hops(
            inputs=maps[first] * scale,
            outputs=maps[second],
            input_ages=ages[first],
            output_ages=ages[second],
            update=None if self.adjacent else self.update[...],
            temperature=jnp.exp(self.log_temperature[...]) if config.qk_norm else None,
            null_key=self.null_key[...] if config.null_entry else None,
        )
        return multi_hop_read(question, keys, values, age, visible, hops)
