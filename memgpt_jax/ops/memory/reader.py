"""The Reader: attention of a block of tokens over the entries of a memory."""

from functools import reduce
from typing import Any, NamedTuple

import jax.numpy as jnp

from memgpt_jax.ops.attention.dense import (
    attend_one_query,
    attend_with_lse,
    attention_weights,
    masked_bias,
    null_logits,
)
from memgpt_jax.ops.fusion import joint_softmax
from memgpt_jax.ops.int8_vectors import as_floats
from memgpt_jax.shapes import Array, Bool, Float, Float32, Int32


class ReadableEntries(NamedTuple):
    """Keys, values and logit biases of entries."""

    keys: Any  # Float[Array, "B E G K"], or its `Int8Vectors`
    values: Any  # Float[Array, "B E G K"], or its `Int8Vectors`
    bias: Float32[Array, "B E"]  # added to the logits: log g, or 0


class Source(NamedTuple):
    """Entries that a block of Q tokens may read: their biases, their ages, and which of them each token sees."""

    keys: Any  # Float[Array, "B E G K"], or its `Int8Vectors`
    values: Any  # Float[Array, "B E G K"], or its `Int8Vectors`
    bias: Float32[Array, "B E"]  # log g, or 0
    age: Int32[Array, "B E"]  # segments since the entry was written
    visible: Bool[Array, "B Q E"]


def read_entries(
    query: Float[Array, "B Q H K"],
    sources: list[Source],
    null_key: Float[Array, "G K"] | None = None,
    recency: Float32[Array, "H"] | None = None,
) -> Float[Array, "B Q H K"]:
    """One softmax over the visible entries of all sources and the null entry.

        r = sum_e softmax_e(q . k_e + bias_e - recency_h log(1 + age_e)) v_e

    The null entry has the key `null_key` and the value 0; None: there is none. A token that sees nothing reads 0.

    recency: slope of each head, at least 0; None: no penalty of age.
    """
    return read_entries_with_lse(query, sources, null_key, recency)[0]


def read_entries_with_lse(
    query: Float[Array, "B Q H K"],
    sources: list[Source],
    null_key: Float[Array, "G K"] | None = None,
    recency: Float32[Array, "H"] | None = None,
) -> tuple[Float[Array, "B Q H K"], Float32[Array, "B Q H"]]:
    """`read_entries`, and the log-sum-exp of each query's logits (see `attend_with_lse`)."""
    one = query.shape[1] == 1
    out, lse = (_read_by_one if one else _read_by_several)(query, sources, null_key, recency)
    return _heads_last(out), _heads_last(lse[..., None])[..., 0]


def read_weights(
    query: Float[Array, "B Q H K"],
    sources: list[Source],
    null_key: Float[Array, "G K"] | None = None,
    recency: Float32[Array, "H"] | None = None,
) -> Float32[Array, "B Q H E"]:
    """The weight of each entry in `read_entries`; the null entry has the rest of the softmax."""
    query, keys, _, bias, sink = _prepare(query, sources, null_key, recency)
    return _heads_last(attention_weights(query, keys, bias, sink))


def read_mass(
    query: Float[Array, "B Q H K"],
    sources: list[Source],
    null_key: Float[Array, "G K"] | None,
    recency: Float32[Array, "H"] | None,
    counts: Bool[Array, "B Q"],
) -> Float32[Array, "B E"]:
    """Attention weight of each entry in `read_entries`: sum over the tokens with `counts`, mean over heads."""
    query, keys, _, bias, sink = _prepare(query, sources, null_key, recency)
    weights = attention_weights(query, keys, bias, sink)  # [B, G, R, Q, E]
    heads = weights.shape[1] * weights.shape[2]
    return jnp.einsum("bgrqe,bq->be", weights, counts.astype(jnp.float32)) / heads


def _read_by_several(query: Array, sources: list[Source], null_key: Array | None, recency: Array | None):
    return attend_with_lse(*_prepare(query, sources, null_key, recency))


def _read_by_one(query: Array, sources: list[Source], null_key: Array | None, recency: Array | None):
    """Each source by itself: in decoding, a copy of all entries in one array would take as long as the read."""
    query = _heads_first(query, sources[0].keys.shape[2])
    sink = None if null_key is None else null_logits(query, null_key)
    found = []
    for source in sources:
        bias = _bias(source, query.shape[1], recency)
        found.append(attend_one_query(query, source.keys, source.values, bias, None if found else sink))
    return reduce(_merged, found)


def _merged(first: tuple[Array, Array], second: tuple[Array, Array]):
    """Two reads as one softmax over the entries of both."""
    (out, lse), (other, other_lse) = first, second
    both, _ = joint_softmax(out, lse, other, other_lse)
    return both, jnp.logaddexp(lse, other_lse)


def _prepare(query: Array, sources: list[Source], null_key: Array | None, recency: Array | None):
    """The arguments of `attend`, with batch axes [B, G]: heads first, sources concatenated."""
    kv_heads = sources[0].keys.shape[2]
    query, dtype = _heads_first(query, kv_heads), query.dtype
    keys, values = (
        jnp.concatenate([as_floats(getattr(source, name), dtype) for source in sources], axis=1).swapaxes(1, 2)
        for name in ("keys", "values")
    )
    bias = [_bias(source, kv_heads, recency) for source in sources]
    sink = None if null_key is None else null_logits(query, null_key)
    return query, keys, values, jnp.concatenate(bias, axis=-1), sink


def _bias(source: Source, kv_heads: int, recency: Array | None):
    """What is added to the logits of the entries of a source: [B, 1, 1, Q, E], or with `recency` [B, G, R, Q, E]."""
    bias = (masked_bias(source.visible) + source.bias[:, None, :])[:, None, None]
    if recency is None:
        return bias
    slope = recency.reshape(1, kv_heads, -1, 1, 1)
    return bias - slope * jnp.log1p(source.age.astype(jnp.float32))[:, None, None, None, :]


def null_sink(query: Float[Array, "B Q H K"], null_key: Float[Array, "G K"] | None) -> Float32[Array, "B Q H"] | None:
    """Logit of the null entry for each query; None without a null entry."""
    if null_key is None:
        return None
    return _heads_last(null_logits(_heads_first(query, null_key.shape[0]), null_key)[..., None])[..., 0]


def _heads_first(query: Array, kv_heads: int):
    """[B, Q, H, K] -> [B, G, R, Q, K]."""
    batch, length, _, head_dim = query.shape
    return query.reshape(batch, length, kv_heads, -1, head_dim).transpose(0, 2, 3, 1, 4)


def _heads_last(out: Array):
    """[B, G, R, Q, K] -> [B, Q, H, K]."""
    batch, kv_heads, group, length, head_dim = out.shape
    return out.transpose(0, 3, 1, 2, 4).reshape(batch, length, kv_heads * group, head_dim)
