"""Recurrent state vectors: tokens read them by cross-attention, and a segment rewrites them by cross-attention."""

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from memgpt_jax.config.memory import AttendedMemoryConfig
from memgpt_jax.memory.base import Explanation, OwnSegment, Segment, flatten_segments, stop_gradient_where
from memgpt_jax.memory.linear import linear
from memgpt_jax.memory.projected import AttendedMemory
from memgpt_jax.memory.writer_conv import WriterConv
from memgpt_jax.ops.attention import attend, attention_weights, map_rows, masked_bias, normalize
from memgpt_jax.ops.trees import where_rows
from memgpt_jax.shapes import Array, Bool, Float, Float32

TokensUpdate = Literal["lstm", "fixed", "replace"]


@dataclass(frozen=True, kw_only=True)
class TokensMemoryConfig(AttendedMemoryConfig):
    """Recurrent state vectors, read and rewritten by cross-attention."""

    memory_size: int = 64
    """State vectors M of each layer and row, each of the model's width; each has its own parameters."""
    num_heads: int = 4
    """Heads of both attentions."""
    head_dim: int = 32
    """Width of a head."""
    update: TokensUpdate = "lstm"
    """Update of a state by its read of a segment: input and forget gates of an `lstm`, one learned `fixed` gate per
    channel, or `replace`."""
    keep_bias: float = 3.0
    """Initial bias b_f of the forget gate, or b_g of the fixed gate: the larger, the more of a state is kept."""


class TokensState(NamedTuple):
    """Bytes per row: 4 M D + (writer_conv - 1) D itemsize."""

    states: Float32[Array, "B M D"]
    conv_cache: Float[Array, "B reach D"]  # the last writer_conv - 1 tokens before the segment


class TokensMemory(AttendedMemory[TokensMemoryConfig]):
    """M state vectors s_i [D] that the tokens of a segment read and that a full segment rewrites.

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
    `qk_norm`: K^-1/2, and no unit length). The initial s_i and id_i [D] of a document are parameters.

    The states, their ids and both gates are those of the Block-Recurrent Transformer (Hutchins et al., 2022, sections
    3.1 and 3.2; its `skip` cell, which has no feed-forward layer and was its best), `replace` is the Recurrent Memory
    Transformer's (Bulatov et al., 2022, section 3.2). As in the latter, a state attends to tokens and states in one
    softmax; the former has two softmaxes. The convolution is an addition: in the papers a whole transformer layer
    before the write combines neighbouring tokens.

    **Long streams.** The norm of the states stays constant, but a segment replaces only a part of them: with
    `keep_bias=3`, 5 % by either gate. The initial states are small, so the first segments replace all of them. After
    100,000 tokens of noise, pairs that are repeated for 15 segments change the reads 0.45 times as much as those of an
    initial memory, and pairs repeated for 63 segments 0.79 times
    (`python tests/laws/after_noise.py 100000 1 tokens`, and with 4 in place of 1).
    """

    gates: ClassVar[tuple[str, ...]] = ("update_gate",)
    update_gate: Any
    """The bias b_g [D] with `update="fixed"`, a layer with `lstm`; not there with `replace`."""

    def __init__(self, config: TokensMemoryConfig, *, d_model: int, segment_length: int, dtype: Any, rngs: nnx.Rngs):
        super().__init__(config, d_model=d_model, segment_length=segment_length, dtype=dtype, rngs=rngs)
        inner, size = config.num_heads * config.head_dim, config.memory_size
        normal = partial(jax.nn.initializers.normal, dtype=jnp.float32)
        project = partial(linear, use_bias=False, dtype=self.dtype, rngs=rngs)
        self.query, self.output = project(d_model, inner), project(inner, d_model)
        self.key, self.value = project(d_model, inner), project(d_model, inner)
        self.token_key = project(d_model, inner)
        self.token_value = project(d_model * (1 if config.writer_conv == 1 else 2), inner)
        self.state_query, self.state_key, self.state_value = (project(d_model, inner) for _ in range(3))
        self.update = project(inner, d_model, use_bias=True, dtype=jnp.float32)
        # Initially, a state that was updated by a token matches the queries of tokens like the one before it:
        # v' contains W_q c, and W_k inverts W_z.
        self.update.kernel[...] = jax.nn.initializers.orthogonal(dtype=jnp.float32)(rngs.params(), (inner, d_model))
        self.key.kernel[...] = jnp.copy(self.update.kernel[...].T)
        if config.writer_conv > 1:
            self.token_value.kernel[...] = self.token_value.kernel[...].at[d_model:].set(self.query.kernel[...])
        self.conv = WriterConv(config.writer_conv, d_model, self.dtype)
        if config.update == "fixed":
            self.update_gate = nnx.Param(jnp.full(d_model, jnp.float32(config.keep_bias)))  # b_g
        elif config.update == "lstm":
            bias = jnp.repeat(jnp.array([-1.0, config.keep_bias], jnp.float32), d_model)
            gate = project(inner, 2 * d_model, use_bias=True, bias_init=lambda *_: bias, dtype=jnp.float32)
            self.update_gate = gate
        if config.qk_norm:
            self.log_temperature = self.initial_log_temperature()
            self.write_log_temperature = self.initial_log_temperature()
        self.initial_states = nnx.Param(normal(0.1)(rngs.params(), (size, d_model)))
        self.state_ids = nnx.Param(normal(1.0)(rngs.params(), (size, d_model)))

    def init_state(self, batch_size: int) -> TokensState:
        return TokensState(
            jnp.zeros((batch_size, self.config.memory_size, self.d_model), jnp.float32),
            self.conv.init_state(batch_size),
        )

    def initial_state(self, batch_size: int) -> TokensState:
        states = jnp.broadcast_to(self.initial_states[...][None], (batch_size, *self.initial_states.shape))
        return self.init_state(batch_size)._replace(states=states)

    def read(
        self, x: Float[Array, "B Q D"], state: TokensState, own_segment: OwnSegment, update_mask: Bool[Array, "B Q"]
    ) -> tuple[Float[Array, "B Q R"], TokensState]:
        return self._read(self.queries(x), state.states), state

    def write(self, x: Float[Array, "B T D"], state: TokensState, write_mask: Bool[Array, "B T"]) -> TokensState:
        convolved, conv_cache = self.convolve_segment(x, write_mask, state.conv_cache)
        states = self._rewrite(state.states, *self._written(x, convolved), write_mask)
        return TokensState(states, conv_cache)

    def explain(self, x: Float[Array, "B Q D"], state: TokensState) -> Explanation:
        """Weights over the M states; the value of a state is W_v n(s)."""
        keys, values = self._keys_and_values_of(state.states)
        query, keys = self.queries(x).swapaxes(1, 2)[:, :, None], keys.swapaxes(1, 2)
        weights = attention_weights(query, keys, jnp.zeros((len(x), 1, 1, 1, keys.shape[2]), jnp.float32))
        return Explanation(weights[:, :, 0].swapaxes(1, 2), values[:, None], jnp.ones(state.states.shape[:2], bool))

    def sequence(self, segments: Segment, state: TokensState) -> tuple[Float[Array, "B S T R"], TokensState]:
        """Equal to the scan over `segment`; the scan contains only the update of the states.

        The tokens' queries, keys and values are computed before the scan and their reads after it, for all segments at
        once.
        """
        batch, num_segments, length, _ = segments.x.shape

        def per_segment(x: Array) -> Array:
            return x.reshape(batch, num_segments, length, *x.shape[2:])

        call = flatten_segments(segments)
        convolved, conv_cache = self.convolve_call(call, state.conv_cache)
        initial = self.initial_state(batch).states

        def step(states: Array, segment: tuple[Array, ...]) -> tuple[Array, Array]:
            number, keys, values, write_mask, has_reset, full = segment
            if self.bptt_segments is not None:
                states = stop_gradient_where(self.cut_before(number), states)
            kept = where_rows(has_reset, initial, states)
            return where_rows(full, self._rewrite(kept, keys, values, write_mask), kept), states

        by_row = (
            *map(per_segment, (*self._written(call.x, convolved), call.write_mask)),
            jnp.any(segments.reset, axis=2),
            segments.full,
        )
        by_segment = jax.tree.map(lambda x: x.swapaxes(0, 1), by_row)
        numbers = jnp.arange(num_segments, dtype=jnp.int32)
        final, states = jax.lax.scan(jax.checkpoint(step, prevent_cse=False), state.states, (numbers, *by_segment))

        query = per_segment(self.queries(call.x))
        query = query.reshape(batch * num_segments, *query.shape[2:])
        states = states.swapaxes(0, 1).reshape(batch * num_segments, *states.shape[2:])
        read = self._read(query, states).reshape(batch, num_segments, length, -1)

        def with_initial(read: Array) -> Array:
            after_reset = jnp.cumsum(segments.reset, axis=2) > 0
            of_initial = self._read(query, jnp.repeat(initial, num_segments, axis=0)).reshape(read.shape)
            return jnp.where(after_reset[..., None], of_initial, read)

        def unchanged(read: Array) -> Array:
            return read

        read = jax.lax.cond(jnp.any(segments.reset), with_initial, unchanged, read)
        return read, TokensState(final, conv_cache)

    def stats(self, state: TokensState) -> dict[str, Array]:
        """`similarity`: mean cosine of two different states of a row; close to 1 if all states are nearly equal."""
        directions, size = normalize(state.states), state.states.shape[1]
        total = jnp.sum(jnp.sum(directions, axis=1) ** 2 - jnp.sum(directions**2, axis=1))
        return {
            "similarity": total / max(1, state.states.shape[0] * size * (size - 1)),
            "state_rms": jnp.sqrt(jnp.sum(state.states**2) / max(1, state.states.size)),
        } | super().stats(state)

    def _unit(self, x: Float[Array, "B N HK"]) -> Float[Array, "B N H K"]:
        """Heads of a projection, of unit length with `qk_norm`."""
        return self.unit(self.heads(x)).astype(self.dtype)

    def _normed(self, states: Float32[Array, "B M D"]):
        """n(s) = s / rms(s)."""
        return states * jax.lax.rsqrt(jnp.mean(states * states, axis=-1, keepdims=True) + 1e-6)

    def _keys_and_values_of(self, states: Float32[Array, "B M D"]):
        """Keys and values [B, M, H, K] with which tokens read the states."""
        normed = self._normed(states).astype(self.dtype)
        return self._unit(self.key(normed)), self.heads(self.value(normed))

    def _read(self, query: Float[Array, "B Q H K"], states: Float32[Array, "B M D"]):
        keys, values = self._keys_and_values_of(states)
        return self.side_by_side(_attend(query, keys, values, jnp.ones(keys.shape[:2], bool)))

    def _written(
        self, x: Float[Array, "B L D"], convolved: Float[Array, "B L D"]
    ) -> tuple[Float[Array, "B L H K"], Float[Array, "B L H K"]]:
        """Keys and values [B, L, H, K] of L tokens for the update of the states."""
        both = x if self.config.writer_conv == 1 else jnp.concatenate([x, convolved], axis=-1)
        return self._unit(self.token_key(convolved)), self.heads(self.token_value(both))

    def _rewrite(
        self,
        states: Float32[Array, "B M D"],
        token_keys: Float[Array, "B T H K"],
        token_values: Float[Array, "B T H K"],
        write_mask: Bool[Array, "B T"],
    ) -> Float32[Array, "B M D"]:
        """The states after a segment."""
        normed = self._normed(states)
        identified = (normed + self.state_ids[...][None]).astype(self.dtype)
        log_temperature = self.write_log_temperature[...] if self.config.qk_norm else None
        query = self.scaled(self._unit(self.state_query(identified)), log_temperature)
        keys = jnp.concatenate([token_keys, self._unit(self.state_key(identified))], axis=1)
        state_values = self.heads(self.state_value(normed.astype(self.dtype)))
        values = jnp.concatenate([token_values, state_values], axis=1)
        visible = jnp.concatenate([write_mask, jnp.ones(states.shape[:2], bool)], axis=1)
        found = self.side_by_side(_attend(query, keys, values, visible)).astype(jnp.float32)
        new = self.update(found)
        if self.config.update == "fixed":
            gate = jax.nn.sigmoid(self.update_gate[...])[None, None]
            return gate * states + (1 - gate) * new
        if self.config.update == "lstm":
            take_in, keep = jnp.split(self.update_gate(found), 2, axis=-1)
            return jax.nn.sigmoid(keep) * states + jax.nn.sigmoid(take_in) * jnp.tanh(new)
        return new


def _attend(
    query: Float[Array, "B Q H K"],
    keys: Float[Array, "B E H K"],
    values: Float[Array, "B E H K"],
    visible: Bool[Array, "B E"],
) -> Float[Array, "B Q H K"]:
    """Attention of Q vectors over E entries [B, E, H, K]."""

    def one_row(row: tuple[Array, ...]) -> Array:
        query, keys, values, visible = row
        query, keys, values = (x.swapaxes(0, 1) for x in (query, keys, values))
        return attend(query[:, None], keys, values, masked_bias(visible)[None, None, None])[:, 0].swapaxes(0, 1)

    return map_rows(one_row, (query, keys, values, visible))
