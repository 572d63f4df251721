"""Attention to a source sequence, whose keys and values are part of the state."""

from typing import NamedTuple

import jax.numpy as jnp
from flax import nnx

from memgpt_jax.config.model import ModelConfig
from memgpt_jax.models.attention import scaled, split_heads
from memgpt_jax.models.layers import adapted_linear
from memgpt_jax.ops.attention import full_attention
from memgpt_jax.ops.mesh import HEADS, declare_axes
from memgpt_jax.shapes import Array, Bool, Flags, Float, Stream


class SourceCache(NamedTuple):
    """Keys and values of a source of at most S tokens (`ModelConfig.source_length`)."""

    keys: Float[Array, "B S G K"]
    values: Float[Array, "B S G K"]
    valid: Bool[Array, "B S"]  # False for padding

    mesh_axes = declare_axes(keys=(None, HEADS), values=(None, HEADS))


class CrossAttention(nnx.Module):
    """Attention to all tokens of a source y, without positions. Its biases are those of self-attention.

    out_i = W_o concat_h sum_j softmax_j(W_q x_i . W_k y_j / sqrt(K)) W_v y_j
    """

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        assert config.source_length is not None
        self.config, self.source_length = config, config.source_length
        width, heads, bias = config.attention_head_dim, config.num_heads, config.attention_bias
        inputs, outputs = {"use_bias": bias != "none"}, {"use_bias": bias == "all"}
        self.query = adapted_linear(config, config.d_model, heads * width, rngs, **inputs)
        self.key_value = adapted_linear(config, config.d_model, 2 * config.kv_heads * width, rngs, **inputs)
        self.output = adapted_linear(config, heads * width, config.d_model, rngs, **outputs)

    def init_state(self, batch_size: int) -> SourceCache:
        """No source: reads are 0."""
        config = self.config
        shape = (batch_size, self.source_length, config.kv_heads, config.attention_head_dim)
        dtype = jnp.dtype(config.dtype)
        return SourceCache(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype), jnp.zeros(shape[:2], bool))

    def read_source(self, source: Stream, valid: Flags) -> SourceCache:
        """The keys and values of a source [B, L, D] of at most `source_length` tokens."""
        heads = split_heads(self.key_value(source), self.config.attention_head_dim)
        rest = self.source_length - source.shape[1]

        def padded(x: Array) -> Array:
            return jnp.pad(x, ((0, 0), (0, rest), *((0, 0),) * (x.ndim - 2)))

        return SourceCache(*map(padded, (*jnp.split(heads, 2, axis=2), valid)))

    def __call__(self, x: Stream, source: SourceCache) -> Stream:
        query = scaled(split_heads(self.query(x), self.config.attention_head_dim), self.config)
        everywhere = jnp.zeros(x.shape[:2], jnp.int32)
        out = full_attention(query, source.keys, source.values, everywhere, jnp.where(source.valid, 0, -1))
        return self.output(out.reshape(*x.shape[:2], -1))
