"""Linear layers with adapters, normalisation, dropout and the feed-forward layer."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from memgpt_jax.config.model import MemoryLayerConfig, StackConfig
from memgpt_jax.memory.linear import linear
from memgpt_jax.shapes import Array, Stream


def adapted_linear(config: StackConfig, d_in: int, d_out: int, rngs: nnx.Rngs, *, use_bias: bool = False) -> nnx.Linear:
    """`linear` in the configured compute type, with a low-rank adapter of rank `adapter_rank` if that is not None."""
    dtype = jnp.dtype(config.dtype)
    return linear(d_in, d_out, use_bias=use_bias, dtype=dtype, rngs=rngs, adapter_rank=config.adapter_rank)


def make_norm(config: MemoryLayerConfig, width: int, rngs: nnx.Rngs) -> nnx.RMSNorm | nnx.LayerNorm:
    """The configured normalisation; statistics in float32."""
    kind = {"rmsnorm": nnx.RMSNorm, "layernorm": nnx.LayerNorm}[config.norm]
    return kind(width, epsilon=config.norm_epsilon, dtype=jnp.dtype(config.dtype), rngs=rngs)


def dropout(x: Array, rate: float, key: Array | None) -> Array:
    """Set each element to 0 with probability `rate` and divide the others by 1 - rate; the identity without a key."""
    if key is None or rate == 0.0:
        return x
    keep = jax.random.bernoulli(key, 1 - rate, x.shape)
    return jnp.where(keep, x / jnp.asarray(1 - rate, x.dtype), 0)


ACTIVATIONS = {
    "gelu": jax.nn.gelu,
    "gelu_exact": partial(jax.nn.gelu, approximate=False),
    "gelu_quick": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "relu": jax.nn.relu,
    "swiglu": jax.nn.silu,
    "geglu": jax.nn.gelu,
}


class FeedForward(nnx.Module):
    """W_2 a(W_1 x), or with a gate W_2 (a(W_1 x) * W_3 x); a: the activation, silu for SwiGLU, gelu for GeGLU."""

    def __init__(self, config: StackConfig, rngs: nnx.Rngs):
        self.config = config
        hidden = config.feed_forward_dim * (2 if config.gated_activation else 1)
        self.input = adapted_linear(config, config.d_model, hidden, rngs, use_bias=config.feed_forward_bias)
        self.output = adapted_linear(
            config, config.feed_forward_dim, config.d_model, rngs, use_bias=config.feed_forward_bias
        )

    def __call__(self, x: Stream) -> Stream:
        activation, hidden = ACTIVATIONS[self.config.activation], self.input(x)
        if self.config.gated_activation:
            gate, value = jnp.split(hidden, 2, axis=-1)
            return self.output(activation(gate) * value)
        hidden = jax.checkpoint(activation)(hidden)  # recomputed: storing it takes several arrays [B, L, 4 D]
        return self.output(hidden)
