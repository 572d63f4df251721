"""Softmax attention: the dense form on small blocks, and the sliding window built from it."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from memgpt_jax.shapes import Array, Bool, Float, Float32, Int

MASKED = -1e30  # a finite "minus infinity": sums and differences of masked logits stay finite
FEW_QUERIES = 16  # below, as in decoding, transposing the keys would cost more than multiplying them
FLOOR = -1e20  # the running maximum never goes below this, so a fully masked row has weights 0, not uniform ones


def map_rows(function: Callable, arrays, recompute: bool = True):
    """Apply `function` to each leading-axis slice of a pytree of arrays; `recompute` it in the backward pass.

    On one CPU device the rows run one after the other, which keeps each row's logits in cache and each matmul
    two-dimensional; accelerators, and the devices of a mesh, which share out the rows, run them all at once.
    """
    if recompute:
        function = jax.checkpoint(function)
    if jax.default_backend() == "cpu" and jax.sharding.get_abstract_mesh().size <= 1:
        return jax.lax.map(function, arrays)
    return jax.vmap(function)(arrays)


def unit(x: Float[Array, "*b K"]) -> Float32[Array, "*b K"]:
    """x at unit length, in float32: x / sqrt(x . x + 1e-6)."""
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.sum(x * x, axis=-1, keepdims=True) + 1e-6)


def attention_weights(
    query: Float[Array, "*b R Q K"],
    keys: Float[Array, "*b E K"],
    bias: Float32[Array, "*b #R #Q E"],
    sink: Float32[Array, "*b R Q"] | None = None,
) -> Float32[Array, "*b R Q E"]:
    """Softmax weights in float32: softmax over e of (q . k_e + bias_e), with an optional logit that has no entry.

        w_e = exp(l_e) / (exp(sink) + sum_j exp(l_j)),    l_e = q . k_e + bias_e

    A bias of `MASKED` hides an entry. If every entry is hidden and there is no sink, all weights are 0.
    The query carries the scale (head_dim ** -0.5, or a temperature).
    """
    weights, total = _softmax_parts(query, keys, bias, sink)
    return weights / total[..., None]


def attend(
    query: Float[Array, "*b R Q K"],
    keys: Float[Array, "*b E K"],
    values: Float[Array, "*b E K"],
    bias: Float32[Array, "*b #R #Q E"],
    sink: Float32[Array, "*b R Q"] | None = None,
) -> Float[Array, "*b R Q K"]:
    """Attention read r = sum_e w_e v_e, with w from `attention_weights`."""
    weights, total = _softmax_parts(query, keys, bias, sink)
    summed = jnp.einsum("...rqe,...ek->...rqk", weights.astype(values.dtype), values)
    return summed / total[..., None].astype(values.dtype)  # dividing [Q, K] is cheaper than dividing [Q, E]


def _softmax_parts(query, keys, bias, sink):
    """exp(l_e - highest) and its sum over e and the sink: the softmax before the division, both in float32."""
    if query.shape[-3] * query.shape[-2] < FEW_QUERIES:
        logits = jnp.einsum("...ek,...rqk->...erq", keys, query, preferred_element_type=jnp.float32)
        logits = jnp.moveaxis(logits, -3, -1) + bias
    else:
        logits = jnp.einsum("...rqk,...ek->...rqe", query, keys, preferred_element_type=jnp.float32) + bias
    highest = jnp.max(logits, axis=-1, initial=FLOOR)
    if sink is not None:
        highest = jnp.maximum(highest, sink)
    highest = jax.lax.stop_gradient(highest)
    weights = jnp.exp(logits - highest[..., None])
    total = jnp.sum(weights, axis=-1)
    if sink is not None:
        total = total + jnp.exp(sink - highest)
    return weights, jnp.where(total > 0, total, 1)  # total is 0 or at least 1; where keeps gradients finite


def window_attention(
    query: Float[Array, "B L H K"],
    keys: Float[Array, "B P+L G K"],
    values: Float[Array, "B P+L G K"],
    query_document: Int[Array, "B L"],
    key_document: Int[Array, "B P+L"],
    *,
    window_size: int,
    block_size: int | None = None,
) -> Float[Array, "B L H K"]:
    """Causal sliding-window attention of L tokens that follow P cached ones; memory is linear in L.

        out_i = sum_j softmax_j(q_i . k_j / sqrt(K)) v_j,    j in (P + i - window_size, P + i], same document

    Query i stands at key position P + i. Queries are taken in blocks of `block_size` (default: up to 128); a block
    meets only the keys within its reach. Keys and values may have fewer heads (G divides H).
    """
    batch, length, num_heads, head_dim = query.shape
    past, kv_heads = keys.shape[1] - length, keys.shape[2]
    block = min(block_size or max(16, min(128, window_size)), length)
    num_blocks = -(-length // block)
    reach = -(-(window_size - 1) // block)  # how many earlier blocks a block can see
    padding = num_blocks * block - length

    def reachable(x: Float[Array, "P+L ..."], fill) -> Float[Array, "blocks (reach+1)*block ..."]:
        """For each block of queries, what the sequence holds within its reach, oldest first."""
        missing = reach * block - past
        x = x[max(0, -missing) :]
        x = jnp.pad(x, ((max(0, missing), padding), *((0, 0),) * (x.ndim - 1)), constant_values=fill)
        x = x.reshape(reach + num_blocks, block, *x.shape[1:])
        return jnp.concatenate([x[i : i + num_blocks] for i in range(reach + 1)], axis=1)

    distance = jnp.arange(block)[:, None] + reach * block - jnp.arange((reach + 1) * block)[None, :]
    in_window = (distance >= 0) & (distance < window_size)

    def one_head(row):
        """query [R, L, K]; keys, values [P+L, K]; document numbers [L] and [P+L]."""
        query, keys, values, query_document, key_document = row
        query = jnp.pad(query, ((0, 0), (0, padding), (0, 0)))
        query = query.reshape(-1, num_blocks, block, head_dim).swapaxes(0, 1)
        query_document = jnp.pad(query_document, (0, padding)).reshape(num_blocks, block)
        visible = (query_document[:, :, None] == reachable(key_document, -1)[:, None, :]) & in_window[None]
        out = attend(query, reachable(keys, 0), reachable(values, 0), masked_bias(visible)[:, None])
        return out.swapaxes(0, 1).reshape(-1, num_blocks * block, head_dim)[:, :length]

    query = (query * jnp.asarray(head_dim**-0.5, query.dtype)).reshape(batch, length, kv_heads, -1, head_dim)
    query = query.transpose(0, 2, 3, 1, 4).reshape(batch * kv_heads, -1, length, head_dim)
    keys, values = (x.swapaxes(1, 2).reshape(batch * kv_heads, -1, head_dim) for x in (keys, values))
    documents = (jnp.repeat(x, kv_heads, axis=0) for x in (query_document, key_document))
    out = map_rows(one_head, (query, keys, values, *documents)).reshape(batch, kv_heads, -1, length, head_dim)
    return out.transpose(0, 3, 1, 2, 4).reshape(batch, length, num_heads, head_dim)


def masked_bias(visible: Bool[Array, "*s"]) -> Float32[Array, "*s"]:
    """0 where visible, `MASKED` elsewhere."""
    return jnp.where(visible, jnp.float32(0), jnp.float32(MASKED))
