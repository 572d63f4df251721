"""Causal sliding-window attention."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from memgpt_jax.ops.attention.dense import attend, attend_with_lse, map_rows, masked_bias, weights_by_head
from memgpt_jax.ops.attention.implementation import Implementation, choose
from memgpt_jax.ops.attention.intervals import Interval, default_blocks, interval_attention
from memgpt_jax.ops.mesh import on_each_device, row_and_head_axes
from memgpt_jax.shapes import Array, Bool, Float, Float32, Int, Shaped


def window_attention(
    query: Float[Array, "B L H K"],
    keys: Float[Array, "B E G K"],
    values: Float[Array, "B E G K"],
    query_document: Int[Array, "B L"],
    key_document: Int[Array, "B E"],
    *,
    window_size: int,
    block_size: int | None = None,
    implementation: Implementation = "auto",
    distance_bias: Float32[Array, "H {window_size}"] | None = None,
) -> Float[Array, "B L H K"]:
    """Causal sliding-window attention of L tokens that follow P cached ones, E = P + L; memory is linear in L.

        out_i = sum_j softmax_j(q_i . k_j / sqrt(K) + bias_ij) v_j,    j in (P + i - window_size, P + i], same document

    Query i has key position P + i. Keys and values may have fewer heads (G divides H).

    Args:
        query_document, key_document: document number of each token; the tokens of a document are contiguous.
        block_size: queries per block of `portable` and `cudnn`; a block meets only the keys within its window.
            None: `window_size`, at least 16 and at most 128; for `cudnn`, at least 128 and `window_size`.
        implementation: see `Implementation`.
        distance_bias: bias_ij of each head by the distance P + i - j; needs `portable`.

    Raises:
        ValueError: the implementation does not run here.
    """
    tokens = _Tokens(query, keys, values, query_document, key_document, distance_bias)
    kernels = ("pallas", "cudnn") if distance_bias is None else ()
    chosen = choose(implementation, kernels, query.dtype, query.shape[3])
    if chosen == "portable":
        return _portable(tokens, attend, window_size, block_size)
    if chosen == "cudnn":
        return _by_library(tokens, window_size, block_size or max(128, window_size + window_size % 2), "cudnn")
    return _by_kernel(tokens, window_size, interpret=chosen == "interpret")


def window_attention_with_lse(
    query: Float[Array, "B L H K"],
    keys: Float[Array, "B E G K"],
    values: Float[Array, "B E G K"],
    query_document: Int[Array, "B L"],
    key_document: Int[Array, "B E"],
    *,
    window_size: int,
    block_size: int | None = None,
    implementation: Implementation = "auto",
    distance_bias: Float32[Array, "H {window_size}"] | None = None,
) -> tuple[Float[Array, "B L H K"], Float32[Array, "B L H"]]:
    """`window_attention`, and the log-sum-exp of each query's logits (see `attend_with_lse`).

    Only the portable implementation computes it.
    """
    choose(implementation, (), query.dtype, query.shape[3])
    tokens = _Tokens(query, keys, values, query_document, key_document, distance_bias)
    return _portable(tokens, attend_with_lse, window_size, block_size)


def window_weights(
    query: Float[Array, "B L H K"],
    keys: Float[Array, "B E G K"],
    query_document: Int[Array, "B L"],
    key_document: Int[Array, "B E"],
    *,
    window_size: int,
    distance_bias: Float32[Array, "H {window_size}"] | None = None,
) -> Float32[Array, "B H L E"]:
    """The softmax weights of `window_attention`, of each query and each key: memory grows with L E."""
    length, entries = query.shape[1], keys.shape[1]
    distance = jnp.arange(length)[:, None] + entries - length - jnp.arange(entries)[None, :]
    in_window = ((distance >= 0) & (distance < window_size))[None]
    bias = masked_bias((query_document[:, :, None] == key_document[:, None, :]) & in_window)[:, None]
    if distance_bias is not None:
        bias = bias + distance_bias[None, :, jnp.clip(distance, 0, window_size - 1)]
    return weights_by_head(query, keys, bias)


class _Tokens(NamedTuple):
    """Arguments of `window_attention`."""

    query: Float[Array, "B L H K"]
    keys: Float[Array, "B E G K"]
    values: Float[Array, "B E G K"]
    query_document: Int[Array, "B L"]
    key_document: Int[Array, "B E"]
    distance_bias: Float32[Array, "H W"] | None


class _Blocks:
    """Blocks of queries, and for each block the keys within its window, oldest first."""

    def __init__(self, length: int, past: int, window_size: int, block: int):
        self.block, self.number = block, -(-length // block)
        self.reach = -(-(window_size - 1) // block)  # how many earlier blocks a block can see
        self.padding, self.missing = self.number * block - length, self.reach * block - past
        self.keys_per_block = (self.reach + 1) * block
        keys = jnp.arange(self.keys_per_block)
        self.distance = jnp.arange(block)[:, None] + self.reach * block - keys[None, :]
        self.in_window = (self.distance >= 0) & (self.distance < window_size)

    def queries(self, x: Shaped[Array, "L ..."], fill: int = 0) -> Shaped[Array, "{self.number} {self.block} ..."]:
        x = jnp.pad(x, ((0, self.padding), *((0, 0),) * (x.ndim - 1)), constant_values=fill)
        return x.reshape(self.number, self.block, *x.shape[1:])

    def reachable(
        self, x: Shaped[Array, "E ..."], fill: int = 0
    ) -> Shaped[Array, "{self.number} {self.keys_per_block} ..."]:
        x = x[max(0, -self.missing) :]
        x = jnp.pad(x, ((max(0, self.missing), self.padding), *((0, 0),) * (x.ndim - 1)), constant_values=fill)
        x = x.reshape(self.reach + self.number, self.block, *x.shape[1:])
        return jnp.concatenate([x[i : i + self.number] for i in range(self.reach + 1)], axis=1)

    def visible(
        self, query_document: Array, key_document: Array
    ) -> Bool[Array, "{self.number} {self.block} {self.keys_per_block}"]:
        """Which keys each query sees. Padding has document -1 and sees padding only, so that its softmax is finite."""
        query_document, key_document = self.queries(query_document, -1), self.reachable(key_document, -1)
        return (query_document[:, :, None] == key_document[:, None, :]) & self.in_window[None]


def _portable(tokens: _Tokens, attend: Callable, window_size: int, block_size: int | None):
    """`attend`, or `attend_with_lse`, block by block. On a mesh each device takes its own rows and heads."""
    block = block_size or max(16, min(128, window_size))
    run = partial(_by_blocks, attend=attend, window_size=window_size, block=block)
    rows, heads = row_and_head_axes(tokens.query.shape[0], tokens.keys.shape[2])
    of_row: Any = PartitionSpec(rows)  # specs in the places of the arrays
    of_heads: Any = PartitionSpec(rows, None, heads)
    by_heads: Any = PartitionSpec(heads)
    specs = _Tokens(of_heads, of_heads, of_heads, of_row, of_row, by_heads)
    return on_each_device(run, (tokens,), (specs,), of_heads)


def _by_blocks(tokens: _Tokens, *, attend: Callable, window_size: int, block: int):
    query, keys, values, query_document, key_document, distance_bias = tokens
    batch, length, num_heads, head_dim = query.shape
    kv_heads = keys.shape[2]
    blocks = _Blocks(length, keys.shape[1] - length, window_size, min(block, length))

    def one_head(row: tuple):
        """query [R, L, K]; keys, values [E, K]; document numbers [L] and [E]; bias [R, block, keys] or None."""
        query, keys, values, query_document, key_document, of_distance = row
        query = blocks.queries(query.swapaxes(0, 1)).swapaxes(1, 2)
        bias = masked_bias(blocks.visible(query_document, key_document))[:, None]
        bias = bias if of_distance is None else bias + of_distance[None]
        found = attend(query, blocks.reachable(keys), blocks.reachable(values), bias)

        def in_line(x: Array):
            """[blocks, R, block, ...] -> [R, L, ...]."""
            return x.swapaxes(0, 1).reshape(x.shape[1], -1, *x.shape[3:])[:, :length]

        return jax.tree.map(in_line, found)

    query = (query * jnp.asarray(head_dim**-0.5, query.dtype)).reshape(batch, length, kv_heads, -1, head_dim)
    query = query.transpose(0, 2, 3, 1, 4).reshape(batch * kv_heads, -1, length, head_dim)
    keys, values = (x.swapaxes(1, 2).reshape(batch * kv_heads, -1, head_dim) for x in (keys, values))
    documents = (jnp.repeat(x, kv_heads, axis=0) for x in (query_document, key_document))
    biases = None
    if distance_bias is not None:  # equal in all blocks
        biases = distance_bias[:, jnp.clip(blocks.distance, 0, window_size - 1)]
        biases = jnp.tile(biases.reshape(kv_heads, -1, *biases.shape[1:]), (batch, 1, 1, 1))
    found = map_rows(one_head, (query, keys, values, *documents, biases))

    def heads_last(x: Array):
        """[B G, R, L, ...] -> [B, L, H, ...]."""
        return jnp.moveaxis(x.reshape(batch, num_heads, length, *x.shape[3:]), 1, 2)

    return jax.tree.map(heads_last, found)


def _by_library(tokens: _Tokens, window_size: int, block: int, library: Literal["cudnn", "xla"]):
    """`jax.nn.dot_product_attention` of each block of queries, with a mask [blocks, 1, block, keys]."""
    query, keys, values, query_document, key_document, _ = tokens
    batch, length = query.shape[:2]
    block = min(block, length + length % 2)  # cuDNN's backward pass needs even lengths
    blocks = _Blocks(length, keys.shape[1] - length, window_size, block)

    def of_row(query: Array, keys: Array, values: Array, query_document: Array, key_document: Array):
        visible = blocks.visible(query_document, key_document)[:, None]
        return blocks.queries(query), blocks.reachable(keys), blocks.reachable(values), visible

    rows = jax.vmap(of_row)(query, keys, values, query_document, key_document)
    query, keys, values, visible = (x.reshape(-1, *x.shape[2:]) for x in rows)
    out = jax.nn.dot_product_attention(query, keys, values, mask=visible, implementation=library)
    return out.reshape(batch, -1, *out.shape[2:])[:, :length]


def _by_kernel(tokens: _Tokens, window_size: int, *, interpret: bool):
    """`interval_attention` with the token's place as time.

    A key is visible from its own place to the end of its window or of its document.
    """
    query, keys, values, _, key_document, _ = tokens
    batch, length, _, width = query.shape
    number = keys.shape[1]
    place = jnp.broadcast_to(jnp.arange(number, dtype=jnp.int32), (batch, number))
    is_last = jnp.pad(key_document[:, 1:] != key_document[:, :-1], ((0, 0), (0, 1)), constant_values=True)
    end = jax.lax.cummin(jnp.where(is_last, place, number), axis=1, reverse=True)
    interval = Interval(place, jnp.minimum(place + (window_size - 1), end))
    blocks = default_blocks(query.dtype, interpret)
    query = query * jnp.asarray(width**-0.5, query.dtype)
    return interval_attention(query, keys, values, place[:, number - length :], interval, blocks)
