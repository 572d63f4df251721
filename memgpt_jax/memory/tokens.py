"""Recurrent state vectors: tokens read them by cross-attention, and a segment rewrites them by cross-attention."""

from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from memgpt_jax.config.memory import AttendedMemoryConfig
from memgpt_jax.memory.base import Memory, in_line, linear, where_rows
from memgpt_jax.memory.writer_conv import WriterConv
from memgpt_jax.ops import attend, map_rows, masked_bias, unit
from memgpt_jax.shapes import Array, Bool, Float, Float32

TokensUpdate = Literal["lstm", "fixed", "replace"]


@dataclass(frozen=True, kw_only=True)
class TokensMemoryConfig(AttendedMemoryConfig):
    """Recurrent state vectors, read and rewritten by cross-attention."""

    memory_size: int = 64
    """State vectors M of each layer and row, each of the model's width. A parameter belongs to each of them."""
    num_heads: int = 4
    """Heads of both attentions."""
    head_dim: int = 32
    """Width of a head."""
    update: TokensUpdate = "lstm"
    """How a state takes up what it found in a segment: with the input and forget gates of an `lstm`, with one learned
    `fixed` gate per channel, or `replace`d by it."""
    keep_bias: float = 3.0
    """Initial bias b_f of the forget gate, or b_g of the fixed one: how much of a state a segment leaves in place."""


class TokensState(NamedTuple):
    """Bytes per row: 4 M D + (writer_conv - 1) D itemsize."""

    states: Float32[Array, "B M D"]
    tail: Float[Array, "B W-1 D"]  # the tokens before the segment that the Writer's convolution still reaches


class TokensMemory(Memory):
    """M state vectors s_i [D] that a segment reads, and rewrites when it is full.

        Reader   r_t = W_o sum_i softmax_i(q_t . k_i) v_i
                 q = unit(W_q x),  k_i = unit(W_k n(s_i)),  v_i = W_v n(s_i)
        Writer   a_i = sum_e softmax_e(q'_i . k'_e) v'_e        over e in [the segment's T tokens; the M states]
                 tokens:  k' = unit(W_tk c),  v' = W_tv [x; c],  c = conv(x)
                 states:  q'_i = unit(W_sq (n(s_i) + id_i)),  k' = unit(W_sk (n(s_i) + id_i)),  v' = W_sv n(s_i)
        Update   z = W_z a + b_z
                 fixed    s' = g s + (1 - g) z,     g = sigmoid(b_g) [D]
                 lstm     s' = f s + i tanh(z),     i = sigmoid(W_i a + b_i),  f = sigmoid(W_f a + b_f)
                 replace  s' = z

    `x` is the normalised stream, n(s) = s / rms(s); each softmax has its own learned temperature per head (without
    `qk_norm`: K^-1/2, and no unit length). A document begins with s_i and id_i [D] as learned.

    The states, their ids and both gates are those of the Block-Recurrent Transformer (Hutchins et al., 2022, sections
    3.1 and 3.2; its `skip` cell, which has no feed-forward layer and was its best), `replace` is the Recurrent Memory
    Transformer's (Bulatov et al., 2022, section 3.2). As in the latter, a state attends to tokens and states in one
    softmax; the former has two and joins them. The convolution is not theirs: there, a whole transformer layer stands
    before the write and binds neighbours.

    **Long streams.** The norm of the states stays constant, but a segment replaces only a part of them: with
    `keep_bias=3`, 5 % by either gate. The states of a fresh memory are small, so the first segments replace all of
    them. After 100,000 tokens of noise, pairs that are repeated for 15 segments change the reads 0.45 times as much as
    those of a fresh memory, and pairs repeated for 63 segments 0.79 times
    (`python tests/checkers/after_noise.py 100000 1 tokens`, and with 4 in place of 1).
    """

    def __init__(self, config: TokensMemoryConfig, *, d_model: int, segment_length: int, dtype, rngs: nnx.Rngs):
        super().__init__(config, d_model=d_model, segment_length=segment_length, dtype=dtype, rngs=rngs)
        heads, inner, size = config.num_heads, config.num_heads * config.head_dim, config.memory_size
        normal = jax.nn.initializers.normal
        project = partial(linear, use_bias=False, dtype=self.dtype, rngs=rngs)
        self.query, self.output = project(d_model, inner), project(inner, d_model)
        self.key, self.value = project(d_model, inner), project(d_model, inner)
        self.token_key = project(d_model, inner)
        self.token_value = project(d_model * (1 if config.writer_conv == 1 else 2), inner)
        self.state_query, self.state_key, self.state_value = (project(d_model, inner) for _ in range(3))
        self.update = project(inner, d_model, use_bias=True, dtype=jnp.float32)
        # A state that took up a token answers, from the first step, questions about what came before that token:
        # v' holds W_q c, and W_k undoes W_z.
        self.update.kernel[...] = jax.nn.initializers.orthogonal()(rngs.params(), (inner, d_model))
        self.key.kernel[...] = jnp.copy(self.update.kernel[...].T)
        if config.writer_conv > 1:
            self.token_value.kernel[...] = self.token_value.kernel[...].at[d_model:].set(self.query.kernel[...])
        self.conv = WriterConv(config.writer_conv, d_model, self.dtype)
        if config.update == "fixed":
            self.update_gate = nnx.Param(jnp.full(d_model, jnp.float32(config.keep_bias)))  # b_g
        elif config.update == "lstm":
            self.update_gate = project(inner, 2 * d_model, use_bias=True, dtype=jnp.float32)
            self.update_gate.bias[...] = jnp.repeat(jnp.array([-1.0, config.keep_bias], jnp.float32), d_model)
        if config.qk_norm:
            start = jnp.log(jnp.float32(config.temperature))
            self.log_temperature = nnx.Param(jnp.full(heads, start))
            self.write_log_temperature = nnx.Param(jnp.full(heads, start))
        self.initial_states = nnx.Param(normal(0.1)(rngs.params(), (size, d_model)))
        self.state_ids = nnx.Param(normal(1.0)(rngs.params(), (size, d_model)))

    def init_state(self, batch_size):
        return TokensState(
            jnp.zeros((batch_size, self.config.memory_size, self.d_model), jnp.float32),
            self.conv.init_state(batch_size),
        )

    def fresh(self, batch_size):
        states = jnp.broadcast_to(self.initial_states[...][None], (batch_size, *self.initial_states.shape))
        return self.init_state(batch_size)._replace(states=states)

    def read(self, x, state, own, counts):
        return self._read(self._question(x), state.states), state

    def write(self, x, state, live):
        document = jnp.where(live, 0, -1)
        states = self._rewrite(state.states, *self._written(x, document, state.tail), live)
        return TokensState(states, self.conv.next_tail(x, document, state.tail))

    def sequence(self, segments, state):
        """Equal to the scan over `segment`, of which only the rewriting of states is left in the scan.

        What tokens ask and offer is computed before it, and what they read after it, for all segments at once.
        """
        batch, num_segments, length, _ = segments.x.shape
        per_segment = lambda x: x.reshape(batch, num_segments, length, *x.shape[2:])  # noqa: E731
        x, document, live, open_document, num_written = in_line(segments)
        fresh = self.fresh(batch).states
        bptt = self.config.bptt_segments

        def step(states, segment):
            number, keys, values, live, has_reset, full = segment
            if bptt is not None:  # as in `Memory.sequence`
                states = jnp.where(number % (bptt + 1) == 0, jax.lax.stop_gradient(states), states)
            kept = where_rows(has_reset, fresh, states)
            return where_rows(full, self._rewrite(kept, keys, values, live), kept), states

        by_row = (
            *map(per_segment, (*self._written(x, document, state.tail), live)),
            jnp.any(segments.reset, axis=2),
            segments.full,
        )
        by_segment = jax.tree.map(lambda x: x.swapaxes(0, 1), by_row)
        numbers = jnp.arange(num_segments, dtype=jnp.int32)
        final, states = jax.lax.scan(jax.checkpoint(step, prevent_cse=False), state.states, (numbers, *by_segment))

        question = per_segment(self._question(x))
        question = question.reshape(batch * num_segments, *question.shape[2:])
        states = states.swapaxes(0, 1).reshape(batch * num_segments, *states.shape[2:])
        read = self._read(question, states).reshape(batch, num_segments, length, -1)

        def with_fresh(read):
            after_reset = jnp.cumsum(segments.reset, axis=2) > 0
            of_fresh = self._read(question, jnp.repeat(fresh, num_segments, axis=0)).reshape(read.shape)
            return jnp.where(after_reset[..., None], of_fresh, read)

        read = jax.lax.cond(jnp.any(segments.reset), with_fresh, lambda read: read, read)
        tail = self.conv.next_tail(x, document, state.tail, num_written, open_document)
        return read, TokensState(final, tail)

    def stats(self, state):
        """`similarity`: mean cosine of two different states of a row; near 1, they have collapsed into one."""
        directions, size = unit(state.states), state.states.shape[1]
        total = jnp.sum(jnp.sum(directions, axis=1) ** 2 - jnp.sum(directions**2, axis=1))
        return {
            "similarity": total / max(1, state.states.shape[0] * size * (size - 1)),
            "state_rms": jnp.sqrt(jnp.sum(state.states**2) / max(1, state.states.size)),
        } | super().stats(state)

    def _heads(self, x):
        return x.reshape(*x.shape[:-1], self.config.num_heads, self.config.head_dim)

    def _unit(self, x):
        return unit(self._heads(x)).astype(self.dtype) if self.config.qk_norm else self._heads(x)

    def _scaled(self, query, log_temperature: str):
        """The query at the temperature of that name, or divided by sqrt(K)."""
        if not self.config.qk_norm:
            return query * jnp.asarray(self.config.head_dim**-0.5, query.dtype)
        return query * jnp.exp(getattr(self, log_temperature)[...]).astype(query.dtype)[None, None, :, None]

    def _question(self, x):
        return self._scaled(self._unit(self.query(x)), "log_temperature")

    def _normed(self, states: Float32[Array, "B M D"]):
        """n(s)."""
        return states * jax.lax.rsqrt(jnp.mean(states * states, axis=-1, keepdims=True) + 1e-6)

    def _read(self, question: Float[Array, "B Q H K"], states: Float32[Array, "B M D"]):
        normed = self._normed(states).astype(self.dtype)
        keys, values = self._unit(self.key(normed)), self._heads(self.value(normed))
        out = _attend(question, keys, values, jnp.ones(keys.shape[:2], bool))
        return _side_by_side(out)

    def _written(self, x, document, tail):
        """What L tokens offer to the states: keys and values [B, L, H, K]."""
        bptt = self.config.bptt_segments
        stop = None if bptt is None else (bptt + 1) * self.segment_length  # where `Memory.sequence` cuts the tail
        convolved = self.conv(x, document, tail, stop)
        both = x if self.config.writer_conv == 1 else jnp.concatenate([x, convolved], axis=-1)
        return self._unit(self.token_key(convolved)), self._heads(self.token_value(both))

    def _rewrite(self, states, token_keys, token_values, live: Bool[Array, "B T"]) -> Float32[Array, "B M D"]:
        """The states after a segment."""
        normed = self._normed(states)
        told_apart = (normed + self.state_ids[...][None]).astype(self.dtype)
        query = self._scaled(self._unit(self.state_query(told_apart)), "write_log_temperature")
        keys = jnp.concatenate([token_keys, self._unit(self.state_key(told_apart))], axis=1)
        state_values = self._heads(self.state_value(normed.astype(self.dtype)))
        values = jnp.concatenate([token_values, state_values], axis=1)
        visible = jnp.concatenate([live, jnp.ones(states.shape[:2], bool)], axis=1)
        found = _side_by_side(_attend(query, keys, values, visible)).astype(jnp.float32)
        new = self.update(found)
        if self.config.update == "fixed":
            gate = jax.nn.sigmoid(self.update_gate[...])[None, None]
            return gate * states + (1 - gate) * new
        if self.config.update == "lstm":
            take_in, keep = jnp.split(self.update_gate(found), 2, axis=-1)
            return jax.nn.sigmoid(keep) * states + jax.nn.sigmoid(take_in) * jnp.tanh(new)
        return new


def _side_by_side(heads: Float[Array, "B Q H K"]) -> Float[Array, "B Q HK"]:
    return heads.reshape(*heads.shape[:2], heads.shape[2] * heads.shape[3])  # -1 cannot be had from no elements


def _attend(query: Float[Array, "B Q H K"], keys, values, visible: Bool[Array, "B E"]) -> Float[Array, "B Q H K"]:
    """Attention of Q vectors over E entries [B, E, H, K]."""

    def one_row(row):
        query, keys, values, visible = row
        query, keys, values = (x.swapaxes(0, 1) for x in (query, keys, values))
        return attend(query[:, None], keys, values, masked_bias(visible)[None, None, None])[:, 0].swapaxes(0, 1)

    return map_rows(one_row, (query, keys, values, visible))
