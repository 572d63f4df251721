"""Attention over all tokens of a call, or of another sequence."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from memgpt_jax.ops.attention.dense import attend, map_rows, masked_bias
from memgpt_jax.shapes import Array, Float, Float32, Int

BLOCK = 128  # queries at once: memory is linear in L


def full_attention(
    query: Float[Array, "B L H K"],
    keys: Float[Array, "B E G K"],
    values: Float[Array, "B E G K"],
    query_document: Int[Array, "B L"],
    key_document: Int[Array, "B E"],
    bias: Callable[..., Float32[Array, "H L E"]] | None = None,
    bias_inputs: tuple = (),
) -> Float[Array, "B L H K"]:
    """Attention to everything in the same document, before and after.

        out_i = sum_j softmax_j(q_i . k_j / sqrt(K) + bias_ij) v_j,    j of i's document

    Keys and values may have fewer heads (G divides H). A query whose document has no keys reads 0.

    Arguments:
        query_document, key_document: a number for each token; those of padding are equal to no other's.
        bias: what is added to the logits of queries at the given places [L], which follow each other, for each head;
            called with these places, and with what `bias_inputs` hold of the row.
        bias_inputs: pytrees of arrays [B, ...] that the bias needs, such as the queries.
    """
    batch, length, num_heads, width = query.shape
    kv_heads, block = keys.shape[2], min(BLOCK, length)
    number = -(-length // block)
    padding = number * block - length

    def blocks(x, fill=0):
        x = jnp.pad(x, ((0, padding), *((0, 0),) * (x.ndim - 1)), constant_values=fill)
        return x.reshape(number, block, *x.shape[1:])

    def of_row(row):
        query, keys, values, query_document, key_document, place, *own = row

        def of_block(part):
            query, document, place = part
            logits = masked_bias(document[:, None] == key_document[None, :])[None, None]
            if bias is not None:
                logits = logits + bias(place, *own).reshape(kv_heads, -1, block, keys.shape[0])
            query = query.reshape(block, kv_heads, -1, width).transpose(1, 2, 0, 3)
            out = attend(query, keys.swapaxes(0, 1), values.swapaxes(0, 1), logits)
            return out.transpose(2, 0, 1, 3).reshape(block, num_heads, width)

        parts = blocks(query), blocks(query_document, -2), blocks(place)
        return jax.lax.map(jax.checkpoint(of_block), parts).reshape(-1, num_heads, width)[:length]

    query = query * jnp.asarray(width**-0.5, query.dtype)
    # A place of each row's own: were it the same for all, the gradient would take the biases of all blocks, which are
    # quadratic in L, out of the loop over rows.
    place = jnp.broadcast_to(jnp.arange(length, dtype=jnp.int32), (batch, length))
    rows = query, keys, values, query_document, key_document, place, *bias_inputs
    return map_rows(of_row, rows, recompute=False)
