"""The layers of a decoder block: each takes a stream and its own state, and returns both."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from memgpt_jax.config.model import MemoryLayerConfig, StackConfig
from memgpt_jax.ops.attention import attend_with_lse, full_attention, masked_bias, window_attention
from memgpt_jax.ops.attention.positions import rotate
from memgpt_jax.ops.linear import flat_dot_general
from memgpt_jax.ops.memory import gather_entries
from memgpt_jax.ops.mesh import HEADS, declare_axes
from memgpt_jax.shapes import Array, Bool, Flags, Float, Float32, Int32, Stream


def linear(config: MemoryLayerConfig, d_in: int, d_out: int, rngs: nnx.Rngs, kind=nnx.Linear, **options) -> nnx.Linear:
    """A fan-in initialised matmul in the compute type; no bias unless asked for."""
    options = {"use_bias": False, "dtype": jnp.dtype(config.dtype), "dot_general": flat_dot_general} | options
    return kind(d_in, d_out, kernel_init=jax.nn.initializers.normal(d_in**-0.5), rngs=rngs, **options)


def adapted(config: StackConfig, d_in: int, d_out: int, rngs: nnx.Rngs, **options) -> nnx.Linear:
    """`linear`, with a low-rank adapter beside it where the config wants one: W x + b + B A x, B = 0 at first."""
    if config.adapter_rank is None:
        return linear(config, d_in, d_out, rngs, **options)
    dtype = jnp.dtype(config.dtype)
    kind = partial(nnx.LoRALinear, lora_rank=config.adapter_rank, lora_dtype=dtype)
    return linear(config, d_in, d_out, rngs, kind=kind, **options)


def norm(config: MemoryLayerConfig, width: int, rngs: nnx.Rngs) -> nnx.RMSNorm | nnx.LayerNorm:
    """The configured normalisation; statistics in float32."""
    kind = {"rmsnorm": nnx.RMSNorm, "layernorm": nnx.LayerNorm}[config.norm]
    return kind(width, epsilon=config.norm_epsilon, dtype=jnp.dtype(config.dtype), rngs=rngs)


def dropout(x: Array, rate: float, key: Array | None) -> Array:
    """Zero each element with probability `rate` and scale the rest; nothing without a key."""
    if key is None or rate == 0.0:
        return x
    keep = jax.random.bernoulli(key, 1 - rate, x.shape)
    return jnp.where(keep, x / jnp.asarray(1 - rate, x.dtype), 0)


class WindowCache(NamedTuple):
    """The last W tokens' keys and values: a ring of W slots per row."""

    keys: Float[Array, "B W G K"]  # rotated to their own positions
    values: Float[Array, "B W G K"]
    valid: Bool[Array, "B W"]  # the slot holds a token of the open document
    cursor: Int32[Array, "B"]  # the slot that the next token takes

    mesh_axes = declare_axes(keys=(None, HEADS), values=(None, HEADS))


def split_heads(x: Array, head_dim: int) -> Array:
    """[..., heads * head_dim] -> [..., heads, head_dim]."""
    return x.reshape(*x.shape[:-1], -1, head_dim)


def scaled(query: Float[Array, "B L H K"], config: StackConfig) -> Float[Array, "B L H K"]:
    """Queries for attention that multiplies by K ** -0.5, where `ModelConfig.attention_scale` is another."""
    if config.attention_scale is None:
        return query
    return (query.astype(jnp.float32) * (config.attention_scale * query.shape[-1] ** 0.5)).astype(query.dtype)


class Attention(nnx.Module):
    """The projections of self-attention."""

    def __init__(self, config: StackConfig, rngs: nnx.Rngs):
        self.config = config
        width, bias = config.attention_head_dim, config.attention_bias
        heads = config.num_heads + 2 * config.kv_heads
        self.query_key_value = adapted(config, config.d_model, heads * width, rngs, use_bias=bias != "none")
        self.output = adapted(config, config.num_heads * width, config.d_model, rngs, use_bias=bias == "all")
        if config.qk_norm:
            self.query_norm, self.key_norm = nnx.RMSNorm(width, rngs=rngs), nnx.RMSNorm(width, rngs=rngs)

    def project_in(self, x: Stream, positions: Int32[Array, "B L"]) -> tuple[Array, Array, Array]:
        """Queries [B, L, H, K], keys and values [B, L, G, K], turned to their positions."""
        config = self.config
        heads = split_heads(self.query_key_value(x), config.attention_head_dim)
        query, key, value = jnp.split(heads, [config.num_heads, config.num_heads + config.kv_heads], axis=2)
        if config.qk_norm:
            query, key = self.query_norm(query).astype(x.dtype), self.key_norm(key).astype(x.dtype)
        if config.position == "rotary":
            turn = lambda x: rotate(x, positions, config.rotary_base, config.rotary_scaling)  # noqa: E731
            query, key = turn(query), turn(key)
        return scaled(query, config), key, value

    def project_out(self, out: Float[Array, "B L H K"]) -> Stream:
        """Heads side by side, as a stream."""
        return self.output(out.reshape(*out.shape[:2], -1))


class SelfAttention(Attention):
    """Causal sliding-window self-attention with a window cache.

    out_i = W_o concat_h sum_j softmax_j(q_i . k_j / sqrt(K) + bias_ij) v_j over the last `window_size` tokens of i's
    document. distance_bias: bias_ij of each head by i - j, of relative positions.
    """

    def init_state(self, batch_size: int) -> WindowCache:
        """An empty window."""
        config = self.config
        shape = (batch_size, config.window_size, config.kv_heads, config.attention_head_dim)
        dtype = jnp.dtype(config.dtype)
        return WindowCache(  # no array twice: a state can be donated
            keys=jnp.zeros(shape, dtype),
            values=jnp.zeros(shape, dtype),
            valid=jnp.zeros(shape[:2], bool),
            cursor=jnp.zeros(batch_size, jnp.int32),
        )

    def __call__(
        self,
        x: Stream,
        cache: WindowCache,
        positions: Int32[Array, "B L"],
        reset: Flags,
        valid: Flags,
        distance_bias: Float32[Array, "H W"] | None = None,
    ) -> tuple[Stream, WindowCache]:
        (out, _), cache = self.look(x, cache, positions, reset, valid, distance_bias)
        return self.project_out(out), cache

    def look(
        self, x: Stream, cache: WindowCache, positions, reset: Flags, valid: Flags, distance_bias=None, with_lse=False
    ) -> tuple[tuple[Float[Array, "B L H K"], Float32[Array, "B L H"] | None], WindowCache]:
        """What each head finds, in front of W_o; with_lse: and log of what its softmax divides by; and the window."""
        config = self.config
        query, key, value = self.project_in(x, positions)
        document = jnp.cumsum(reset, axis=1, dtype=jnp.int32)
        if x.shape[1] == 1:
            cache = push_token(cache, key, value, reset, valid)
            found = read_window(query, cache, distance_bias)
        else:
            slot = ring_places(cache.cursor, config.window_size)  # of the oldest token first
            keys = jnp.concatenate([gather_entries(cache.keys, slot), key], axis=1)
            values = jnp.concatenate([gather_entries(cache.values, slot), value], axis=1)
            documents = jnp.concatenate([jnp.where(gather_entries(cache.valid, slot), 0, -1), document], axis=1)
            options = {"window_size": config.window_size, "implementation": config.attention_implementation}
            options |= {"distance_bias": distance_bias, "with_lse": with_lse}
            found = window_attention(query, keys, values, document, documents, **options)
            found = found if with_lse else (found, None)
            cache = last_window(keys, values, documents, cache.cursor, valid)
        return found, cache


class FullAttention(Attention):
    """Self-attention to all tokens of the call that are of the same document, before and after.

    out_i = W_o concat_h sum_j softmax_j(q_i . k_j / sqrt(K) + bias_ij) v_j

    distance_bias: bias_ij of each head by L - 1 + i - j, of relative positions.
    """

    def init_state(self, batch_size: int) -> tuple[()]:
        """Nothing: each call is a window of its own."""
        return ()

    def __call__(
        self,
        x: Stream,
        state,
        positions: Int32[Array, "B L"],
        reset: Flags,
        valid: Flags,
        distance_bias: Float32[Array, "H 2*L-1"] | None = None,
    ):
        query, key, value = self.project_in(x, positions)
        document = jnp.cumsum(reset, axis=1, dtype=jnp.int32)
        last = x.shape[1] - 1

        def bias(place):
            return distance_bias[:, last + place[:, None] - jnp.arange(last + 1)[None, :]]

        documents = document, jnp.where(valid, document, -1)
        out = full_attention(query, key, value, *documents, bias=None if distance_bias is None else bias)
        return self.project_out(out), state


def ring_places(first: Int32[Array, "B"], size: int) -> Int32[Array, "B W"]:
    """The numbers 0 to W - 1 in a ring, from `first` on."""
    return (first[:, None] + jnp.arange(size, dtype=jnp.int32)[None, :]) % size


def push_token(cache: WindowCache, key, value, reset: Flags, valid: Flags) -> WindowCache:
    """The window after one more token, written in place; where it is not valid, the window as it was."""
    batch, size = cache.valid.shape
    row = jnp.arange(batch)
    slot = jnp.where(valid[:, 0], cache.cursor, size)  # slot `size` does not exist: dropped
    put = lambda old, new: old.at[row, slot].set(new, mode="drop")  # noqa: E731
    return WindowCache(
        keys=put(cache.keys, key[:, 0]),
        values=put(cache.values, value[:, 0]),
        valid=put(cache.valid & ~reset, True),
        cursor=(cache.cursor + valid[:, 0].astype(jnp.int32)) % size,
    )


def last_window(keys, values, documents: Int32[Array, "B W+L"], cursor, valid: Flags) -> WindowCache:
    """The window after a call, from the W tokens before it and its own, in order of time."""
    size = keys.shape[1] - valid.shape[1]
    tokens = jnp.sum(valid, axis=1, dtype=jnp.int32)
    cursor = (cursor + tokens) % size
    place = tokens[:, None] + ring_places(-cursor, size)  # slot s holds the token (s - cursor) % W after the oldest
    newest = gather_entries(documents, (tokens + size - 1)[:, None])
    keys, values, documents = gather_entries((keys, values, documents), place)
    return WindowCache(keys, values, (documents == newest) & (newest >= 0), cursor)


def read_window(
    query: Float[Array, "B 1 H K"], cache: WindowCache, distance_bias: Float32[Array, "H W"] | None = None
) -> tuple[Float[Array, "B 1 H K"], Float32[Array, "B 1 H"]]:
    """Attention of one token over a window that already holds it, and log of what its softmax divides by."""
    batch, _, num_heads, head_dim = query.shape
    query = (query * jnp.asarray(head_dim**-0.5, query.dtype)).reshape(batch, cache.keys.shape[2], -1, 1, head_dim)
    bias = masked_bias(cache.valid)[:, None, None, None, :]
    if distance_bias is not None:
        size = distance_bias.shape[1]
        age = (cache.cursor[:, None] - 1 - jnp.arange(size, dtype=jnp.int32)[None, :]) % size
        bias = bias + distance_bias.T[age].swapaxes(1, 2).reshape(*query.shape[:3], 1, size)
    out, lse = attend_with_lse(query, cache.keys.swapaxes(1, 2), cache.values.swapaxes(1, 2), bias)
    return out.reshape(batch, 1, num_heads, head_dim), lse.reshape(batch, 1, num_heads)


ACTIVATIONS = {
    "gelu": jax.nn.gelu,
    "gelu_exact": partial(jax.nn.gelu, approximate=False),
    "relu": jax.nn.relu,
    "swiglu": jax.nn.silu,
    "geglu": jax.nn.gelu,
}


class FeedForward(nnx.Module):
    """W_2 a(W_1 x), or with a gate W_2 (a(W_1 x) * W_3 x); a: the activation, silu for SwiGLU, gelu for GeGLU."""

    def __init__(self, config: StackConfig, rngs: nnx.Rngs):
        self.config = config
        hidden = config.feed_forward_dim * (2 if config.gated_activation else 1)
        self.input = adapted(config, config.d_model, hidden, rngs, use_bias=config.feed_forward_bias)
        self.output = adapted(config, config.feed_forward_dim, config.d_model, rngs, use_bias=config.feed_forward_bias)

    def __call__(self, x: Stream) -> Stream:
        activation, hidden = ACTIVATIONS[self.config.activation], self.input(x)
        if self.config.gated_activation:
            gate, value = jnp.split(hidden, 2, axis=-1)
            return self.output(activation(gate) * value)
        return self.output(jax.checkpoint(activation)(hidden))  # repeated, not stored: [B, L, 4D] several times over
