"""Self-attention: causal in a sliding window, or full within a call."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from memgpt_jax.config.model import ModelConfig, PositionedStackConfig, StackConfig
from memgpt_jax.models.layers import adapted_linear
from memgpt_jax.ops.attention import (
    attend_one_query,
    full_attention,
    masked_bias,
    weights_by_head,
    window_attention,
    window_attention_with_lse,
    window_weights,
)
from memgpt_jax.ops.attention.positions import Rotary
from memgpt_jax.ops.int8_vectors import as_floats, in_form_of, rounded, zero_vectors
from memgpt_jax.ops.memory import gather_entries
from memgpt_jax.ops.mesh import HEADS, declare_axes
from memgpt_jax.shapes import Array, Bool, Flags, Float, Float32, Int32, Stream


class Relations(NamedTuple):
    """Order and types of the tokens of a call, for `XLNet`; None: no order, or one type."""

    order: Int32[Array, "B L"] | None
    """Rank of each token in the order in which tokens are predicted."""
    token_types: Int32[Array, "B L"] | None


class CallInputs(NamedTuple):
    """The arrays of one call that all blocks of a model receive."""

    reset: Flags
    """True for the first token of a document."""
    valid: Flags
    """False for padding on the right."""
    document: Int32[Array, "B L"]
    """Number of resets in the call up to and including the token; 0: the document continues from the previous call."""
    positions: Int32[Array, "B L"] | None = None
    """Position of each token in its document."""
    distance_bias: Float32[Array, "H distances"] | None = None
    """Bias of attention logits by head and distance, for relative positions; see the classes of attention."""
    relations: Relations | None = None


def call_inputs(reset: Flags, valid: Flags, **others: Any) -> CallInputs:
    """`CallInputs` with `document` computed from `reset`."""
    return CallInputs(reset, valid, jnp.cumsum(reset, axis=1, dtype=jnp.int32), **others)


class WindowCache(NamedTuple):
    """The last W tokens' keys and values: a ring of W slots per row."""

    keys: Any  # rotated to their own positions: Float[Array, "B W G K"], or its `Int8Vectors` with `window_bits=8`
    values: Any  # Float[Array, "B W G K"], or its `Int8Vectors`
    valid: Bool[Array, "B W"]  # the slot holds a token of the open document
    cursor: Int32[Array, "B"]  # the slot that the next token takes

    mesh_axes = declare_axes(keys=(None, HEADS), values=(None, HEADS))


def split_heads(x: Array, head_dim: int) -> Array:
    """[..., heads * head_dim] -> [..., heads, head_dim]."""
    return x.reshape(*x.shape[:-1], -1, head_dim)


def scaled(query: Float[Array, "B L H K"], config: StackConfig) -> Float[Array, "B L H K"]:
    """Queries rescaled so that attention, which multiplies by K ** -0.5, multiplies by `attention_scale`."""
    if config.attention_scale is None:
        return query
    return (query.astype(jnp.float32) * (config.attention_scale * query.shape[-1] ** 0.5)).astype(query.dtype)


class Attention(nnx.Module):
    """The projections of self-attention."""

    def __init__(self, config: StackConfig, rngs: nnx.Rngs):
        self.config = config
        width, bias = config.attention_head_dim, config.attention_bias
        heads = config.num_heads + 2 * config.kv_heads
        self.query_key_value = adapted_linear(config, config.d_model, heads * width, rngs, use_bias=bias != "none")
        self.output = adapted_linear(config, config.num_heads * width, config.d_model, rngs, use_bias=bias == "all")
        if config.qk_norm:
            self.query_norm, self.key_norm = nnx.RMSNorm(width, rngs=rngs), nnx.RMSNorm(width, rngs=rngs)

    def heads(self, x: Stream) -> tuple[Float[Array, "B L H K"], Float[Array, "B L G K"], Float[Array, "B L G K"]]:
        """Queries, keys and values of x, without positions."""
        config = self.config
        heads = split_heads(self.query_key_value(x), config.attention_head_dim)
        query, key, value = jnp.split(heads, [config.num_heads, config.num_heads + config.kv_heads], axis=2)
        if config.qk_norm:
            query, key = self.query_norm(query).astype(x.dtype), self.key_norm(key).astype(x.dtype)
        return query, key, value

    def project_in(
        self, x: Stream, positions: Int32[Array, "B L"] | None
    ) -> tuple[Float[Array, "B L H K"], Float[Array, "B L G K"], Float[Array, "B L G K"]]:
        """Queries, keys and values of x; with rotary positions, queries and keys are rotated by them."""
        config = self.config
        query, key, value = self.heads(x)
        if (rotary := rotary_of(config)) is not None:
            assert positions is not None
            query, key = rotary(query, positions), rotary(key, positions)
        return scaled(query, config), key, value

    def project_out(self, out: Float[Array, "B L H K"]) -> Stream:
        """W_o on the concatenated heads."""
        return self.output(out.reshape(*out.shape[:2], -1))

    def init_state(self, batch_size: int) -> Any:
        """The state before the first token; default: none, attention does not reach beyond a call."""
        return ()

    def __call__(self, x: Stream, state: Any, inputs: CallInputs) -> tuple[Any, Any]:
        """The output of self-attention, and the state after the call."""
        raise NotImplementedError


def rotary_of(config: StackConfig) -> Rotary | None:
    """The rotary positions of a stack; None: it has others, or none."""
    if not isinstance(config, PositionedStackConfig) or config.position != "rotary":
        return None
    return Rotary(config.attention_head_dim, config.rotary_base, config.rotary_scaling)


class SelfAttention(Attention):
    """Causal sliding-window self-attention with a window cache.

    out_i = W_o concat_h sum_j softmax_j(q_i . k_j / sqrt(K) + bias_ij) v_j over the last `window_size` tokens of i's
    document. bias_ij: `CallInputs.distance_bias` [H, W] of the distance i - j.
    """

    config: ModelConfig

    def project_in(
        self, x: Stream, positions: Int32[Array, "B L"] | None
    ) -> tuple[Float[Array, "B L H K"], Float[Array, "B L G K"], Float[Array, "B L G K"]]:
        """`Attention.project_in`, with keys and values rounded to `window_bits`."""
        query, key, value = super().project_in(x, positions)
        return (query, key, value) if self.config.window_bits is None else (query, rounded(key), rounded(value))

    def init_state(self, batch_size: int) -> WindowCache:
        """An empty window."""
        config = self.config
        shape = (batch_size, config.window_size, config.kv_heads, config.attention_head_dim)
        dtype = jnp.dtype(config.dtype)
        return WindowCache(  # separate arrays, so that a state can be donated
            keys=zero_vectors(shape, dtype, config.window_bits),
            values=zero_vectors(shape, dtype, config.window_bits),
            valid=jnp.zeros(shape[:2], bool),
            cursor=jnp.zeros(batch_size, jnp.int32),
        )

    def __call__(
        self,
        x: Stream,
        cache: WindowCache,
        inputs: CallInputs,
    ) -> tuple[Stream, WindowCache]:
        out, _, cache = self._attend(x, cache, inputs, needs_lse=False)
        return self.project_out(out), cache

    def attend_with_lse(
        self, x: Stream, cache: WindowCache, inputs: CallInputs
    ) -> tuple[Float[Array, "B L H K"], Float32[Array, "B L H"], WindowCache]:
        """The output of each head before W_o, the log-sum-exp of its logits, and the new window."""
        return self._attend(x, cache, inputs, needs_lse=True)

    def weights(self, x: Stream, cache: WindowCache, inputs: CallInputs) -> Float32[Array, "B H L W+L"]:
        """The softmax weights of a call's tokens: of the W tokens before the call, oldest first, and of its own."""
        query, key, value = self.project_in(x, inputs.positions)
        keys, _, documents = self._from_oldest(cache, key, value, inputs.document)
        options = {"window_size": self.config.window_size, "distance_bias": inputs.distance_bias}
        return window_weights(query, keys, inputs.document, documents, **options)

    def _from_oldest(
        self, cache: WindowCache, key: Float[Array, "B L G K"], value: Float[Array, "B L G K"], document: Array
    ) -> tuple[Float[Array, "B W+L G K"], Float[Array, "B W+L G K"], Int32[Array, "B W+L"]]:
        """Keys, values and documents of the W tokens before a call and of its own; document -1: there is no token."""
        slot = ring_places(cache.cursor, self.config.window_size)  # from the oldest token to the newest
        valid, *vectors = gather_entries((cache.valid, cache.keys, cache.values), slot)
        before = jnp.where(valid, 0, -1)
        keys, values = (
            jnp.concatenate([as_floats(old, new.dtype), new], axis=1)
            for old, new in zip(vectors, (key, value), strict=True)
        )
        return keys, values, jnp.concatenate([before, document], axis=1)

    def _attend(
        self, x: Stream, cache: WindowCache, inputs: CallInputs, needs_lse: bool
    ) -> tuple[Float[Array, "B L H K"], Any, WindowCache]:
        """The output of each head, the log-sum-exp of its logits (always present with `needs_lse`), the new window."""
        config = self.config
        query, key, value = self.project_in(x, inputs.positions)
        document, valid, lse = inputs.document, inputs.valid, None
        if x.shape[1] == 1:
            cache = push_token(cache, key, value, inputs.reset, valid)
            out, lse = read_window(query, cache, inputs.distance_bias)
        else:
            keys, values, documents = self._from_oldest(cache, key, value, document)
            options = {"window_size": config.window_size, "implementation": config.attention_implementation}
            options |= {"distance_bias": inputs.distance_bias}
            if needs_lse:
                out, lse = window_attention_with_lse(query, keys, values, document, documents, **options)
            else:
                out = window_attention(query, keys, values, document, documents, **options)
            cache = last_window(keys, values, documents, cache, valid)
        return out, lse, cache


class FullAttention(Attention):
    """Self-attention to all tokens of the call in the same document, earlier and later ones.

    out_i = W_o concat_h sum_j softmax_j(q_i . k_j / sqrt(K) + bias_ij) v_j

    bias_ij: `CallInputs.distance_bias` [H, 2 L - 1] at the index L - 1 + i - j.
    """

    def __call__(
        self,
        x: Stream,
        state: tuple[()],
        inputs: CallInputs,
    ) -> tuple[Stream, tuple[()]]:
        query, key, value = self.project_in(x, inputs.positions)
        out = full_attention(query, key, value, *self._documents(inputs), distance_bias=inputs.distance_bias)
        return self.project_out(out), state

    def weights(self, x: Stream, inputs: CallInputs) -> Float32[Array, "B H L L"]:
        """The weight softmax_j(...) of each token j for each token i, float32; 0 where a token attends to none."""
        query, key, _ = self.project_in(x, inputs.positions)
        of_query, of_key = self._documents(inputs)
        bias = masked_bias(of_query[:, :, None] == of_key[:, None, :])[:, None]
        if inputs.distance_bias is not None:
            length, place = x.shape[1], jnp.arange(x.shape[1], dtype=jnp.int32)
            bias = bias + inputs.distance_bias[None, :, length - 1 + place[:, None] - place[None, :]]
        return weights_by_head(query, key, bias)

    def _documents(self, inputs: CallInputs) -> tuple[Int32[Array, "B L"], Int32[Array, "B L"]]:
        """The document of each token as a query and as a key."""
        return inputs.document, jnp.where(inputs.valid, inputs.document, -1)


def ring_places(first: Int32[Array, "B"], size: int) -> Int32[Array, "B W"]:
    """The slots of a ring of W slots, in order from slot `first`."""
    return (first[:, None] + jnp.arange(size, dtype=jnp.int32)[None, :]) % size


def push_token(
    cache: WindowCache, key: Float[Array, "B 1 G K"], value: Float[Array, "B 1 G K"], reset: Flags, valid: Flags
) -> WindowCache:
    """The window after one more token, written in place; rows whose token is not valid are unchanged."""
    batch, size = cache.valid.shape
    row = jnp.arange(batch)
    slot = jnp.where(valid[:, 0], cache.cursor, size)  # slot `size` does not exist: dropped

    def put(old: Array, new: Array | bool) -> Array:
        return old.at[row, slot].set(new, mode="drop")

    return WindowCache(
        keys=jax.tree.map(put, cache.keys, in_form_of(cache.keys, key[:, 0])),
        values=jax.tree.map(put, cache.values, in_form_of(cache.values, value[:, 0])),
        valid=put(cache.valid & ~reset, True),
        cursor=(cache.cursor + valid[:, 0].astype(jnp.int32)) % size,
    )


def last_window(
    keys: Float[Array, "B W+L G K"],
    values: Float[Array, "B W+L G K"],
    documents: Int32[Array, "B W+L"],
    before: WindowCache,
    valid: Flags,
) -> WindowCache:
    """The window after a call, given the W tokens before the call and the L tokens of the call in order."""
    size = keys.shape[1] - valid.shape[1]
    tokens = jnp.sum(valid, axis=1, dtype=jnp.int32)
    cursor = (before.cursor + tokens) % size
    place = tokens[:, None] + ring_places(-cursor, size)  # slot s holds the token (s - cursor) % W after the oldest
    newest = gather_entries(documents, (tokens + size - 1)[:, None])
    keys, values, documents = gather_entries((keys, values, documents), place)
    keys, values = in_form_of(before.keys, keys), in_form_of(before.values, values)
    return WindowCache(keys, values, (documents == newest) & (newest >= 0), cursor)


def read_window(
    query: Float[Array, "B 1 H K"], cache: WindowCache, distance_bias: Float32[Array, "H W"] | None = None
) -> tuple[Float[Array, "B 1 H K"], Float32[Array, "B 1 H"]]:
    """Attention of one token over a window that includes it, and the log-sum-exp of its logits."""
    batch, _, num_heads, head_dim = query.shape
    query = (query * jnp.asarray(head_dim**-0.5, query.dtype)).reshape(batch, cache.keys.shape[2], -1, 1, head_dim)
    bias = masked_bias(cache.valid)[:, None, None, None, :]
    if distance_bias is not None:
        size = distance_bias.shape[1]
        age = (cache.cursor[:, None] - 1 - jnp.arange(size, dtype=jnp.int32)[None, :]) % size
        bias = bias + distance_bias.T[age].swapaxes(1, 2).reshape(*query.shape[:3], 1, size)
    out, lse = attend_one_query(query, cache.keys, cache.values, bias)
    return out.reshape(batch, 1, num_heads, head_dim), lse.reshape(batch, 1, num_heads)
