"""Attention to all tokens of a call, or of another sequence."""

import jax
import jax.numpy as jnp

from memgpt_jax.ops.attention.dense import attend, map_rows, masked_bias
from memgpt_jax.ops.attention.relative import RelativeTerms, relative_term_logits
from memgpt_jax.shapes import Array, Float, Float32, Int

BLOCK = 128  # queries per block: memory is linear in L


def full_attention(
    query: Float[Array, "B L H K"],
    keys: Float[Array, "B E G K"],
    values: Float[Array, "B E G K"],
    query_document: Int[Array, "B L"],
    key_document: Int[Array, "B E"],
    *,
    distance_bias: Float32[Array, "H 2*L-1"] | None = None,
    relative: RelativeTerms | None = None,
) -> Float[Array, "B L H K"]:
    """Attention to all tokens of the same document, before and after the query.

        out_i = sum_j softmax_j(q_i . k_j / sqrt(K) + bias_ij) v_j,    j in the document of i

    Keys and values may have fewer heads (G divides H). A query whose document has no keys reads 0.

    Args:
        query_document, key_document: document number of each token; padding has a number that no query has.
        distance_bias: bias_ij of each head at index L - 1 + i - j; needs E = L.
        relative: bias_ij as in `RelativeTerms`; needs E = L.
    """
    batch, length, num_heads, width = query.shape
    kv_heads, block = keys.shape[2], min(BLOCK, length)
    number = -(-length // block)
    padding = number * block - length

    def blocks(x: Array, fill: int = 0):
        x = jnp.pad(x, ((0, padding), *((0, 0),) * (x.ndim - 1)), constant_values=fill)
        return x.reshape(number, block, *x.shape[1:])

    def of_row(row: tuple):
        query, keys, values, query_document, key_document, place, terms = row

        def of_block(part: tuple):
            query, document, place = part
            logits = masked_bias(document[:, None] == key_document[None, :])[None, None]
            bias = None
            if distance_bias is not None:
                bias = distance_bias[:, length - 1 + place[:, None] - jnp.arange(length)[None, :]]
            if terms is not None:
                bias = relative_term_logits(terms.with_parameters_of(relative), place)
            if bias is not None:
                logits = logits + bias.reshape(kv_heads, -1, block, keys.shape[0])
            query = query.reshape(block, kv_heads, -1, width).transpose(1, 2, 0, 3)
            out = attend(query, keys.swapaxes(0, 1), values.swapaxes(0, 1), logits)
            return out.transpose(2, 0, 1, 3).reshape(block, num_heads, width)

        parts = blocks(query), blocks(query_document, -2), blocks(place)
        return jax.lax.map(jax.checkpoint(of_block), parts).reshape(-1, num_heads, width)[:length]

    query = query * jnp.asarray(width**-0.5, query.dtype)
    # Each row has its own copy of the places: with a shared one, the gradient would compute the biases of all blocks,
    # which are quadratic in L, outside the loop over rows.
    place = jnp.broadcast_to(jnp.arange(length, dtype=jnp.int32), (batch, length))
    terms = None if relative is None else relative.without_parameters()
    rows = query, keys, values, query_document, key_document, place, terms
    return map_rows(of_row, rows, recompute=False)
