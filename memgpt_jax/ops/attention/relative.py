"""Relative positions: terms of attention logits that depend on the distance of query and key.

Source of the buckets: Raffel et al., "Exploring the Limits of Transfer Learning with a Unified Text-to-Text
Transformer" (2020), section 2.1.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from memgpt_jax.ops.attention.dense import masked_bias
from memgpt_jax.shapes import Array, Float, Float32, Int


def relative_bucket(distance: np.ndarray, buckets: int, max_distance: int, causal: bool) -> np.ndarray:
    """The bucket, 0 to buckets - 1, of each distance (query position minus key position).

        f(d) = d                                                                   for d < m = n // 2
        f(d) = min(n - 1, m + floor((n - m) log(d / m) / log(max_distance / m)))   for d >= m

    With `causal`, the bucket is f(d) with n = buckets. Otherwise n = buckets // 2, and keys behind their query (d < 0)
    have the bucket n + f(-d). f is computed in float32, as in the published models: its rounding decides at whole
    numbers.

    Args:
        distance: integers, known at compile time; at least 0 with `causal`.
    """
    number = buckets if causal else buckets // 2
    exact, length = number // 2, np.abs(distance)
    ratio = np.maximum(length, exact).astype(np.float32) / np.float32(exact)
    logarithm = np.log(ratio.astype(np.float64)).astype(np.float32)  # NumPy's float32 logarithm is not the nearest
    share = logarithm / np.float32(math.log(max_distance / exact))
    wide = np.minimum(exact + (share * np.float32(number - exact)).astype(np.int64), number - 1)
    place = np.where(length < exact, length, wide)
    return (place if causal else place + number * (distance < 0)).astype(np.int32)


def relative_bias(
    table: Float32[Array, "buckets H"], distance: np.ndarray, max_distance: int, causal: bool
) -> Float32[Array, "H N"]:
    """The logit bias of each head for N distances: rows of a learned table, by `relative_bucket`."""
    return table[relative_bucket(distance, table.shape[0], max_distance, causal)].T


def relative_shift(scores: Float32[Array, "*b Q W"]) -> Float32[Array, "*b Q W-Q"]:
    """Scores by distance, largest first, as scores by key: out[i, j] = scores[i, Q - 1 - i + j].

    Row i moves Q - 1 - i columns to the left, by one reshape: in rows that are one column shorter, each starts one
    column later. The last column of the input belongs to no key.

    Source: Dai et al., "Transformer-XL" (2019), appendix B.
    """
    *batch, queries, width = scores.shape
    flat = scores.reshape(*batch, queries * width)[..., queries - 1 : queries - 1 + queries * (width - 1)]
    return flat.reshape(*batch, queries, width - 1)[..., : width - queries]


def relative_logits(
    query: Float[Array, "Q H K"], keys: Float[Array, "distances H K"], first: Int[Array, ""]
) -> Float32[Array, "H Q (distances+1)//2"]:
    """q_i . r_(i - j) for Q consecutive queries, the first at place `first`, and all places j from 0 to L - 1.

    Computes Q (Q + L) products per head instead of Q L for each distance.

    keys: r of the 2 L - 1 distances from L - 1 down to 1 - L.
    """
    number, length = query.shape[0], (keys.shape[0] + 1) // 2
    keys = jnp.pad(keys, ((number, 1), (0, 0), (0, 0)))  # for queries behind the last place, and for the extra column
    near = jax.lax.dynamic_slice_in_dim(keys, length - first, number + length)
    return relative_shift(jnp.einsum("qhk,chk->hqc", query, near, preferred_element_type=jnp.float32))


class RelativeTerms(NamedTuple):
    """Logit terms of relative positions, token types and prediction order.

        bias_ij = ((q_i + v) . r_(i - j) + (q_i + s) . e_ij) / sqrt(K),    -inf where order_j > rank_i

    e_ij is e_0 if tokens i and j have the same type, else e_1.

    Sources: Dai et al., "Transformer-XL" (2019), section 3.3; Yang et al., "XLNet" (2019), sections 2.3 and 2.5.
    """

    query: Float[Array, "B L H K"]  # q, unscaled
    token_types: Int[Array, "B L"] | None  # None: no term of types
    order: Int[Array, "B L"] | None  # rank of each token as a key; None: every token is visible
    rank: Int[Array, "B L"] | None  # highest rank that each query sees
    distance_keys: Float[Array, "2*L-1 H K"] | None  # r of the distances from L - 1 down to 1 - L
    position_bias: Float32[Array, "H K"] | None  # v
    type_keys: Float32[Array, "2 H K"] | None  # e
    type_bias: Float32[Array, "H K"] | None  # s

    def without_parameters(self) -> "RelativeTerms":
        """The arrays with a batch axis alone."""
        return self._replace(distance_keys=None, position_bias=None, type_keys=None, type_bias=None)

    def with_parameters_of(self, other: "RelativeTerms") -> "RelativeTerms":
        """These arrays, and the parameters of `other`."""
        return other._replace(query=self.query, token_types=self.token_types, order=self.order, rank=self.rank)


def relative_term_logits(terms: RelativeTerms, place: Int[Array, " Q"]) -> Float32[Array, "H Q L"]:
    """bias_ij of `RelativeTerms` of one row (arrays without the batch axis) for Q consecutive queries at `place`."""
    query, types = terms.query[place], terms.token_types

    def plus(bias: Array):
        return query + bias.astype(query.dtype)[None]

    assert terms.position_bias is not None and terms.distance_keys is not None  # absent only in `without_parameters`
    logits = relative_logits(plus(terms.position_bias), terms.distance_keys, place[0])
    if types is not None:
        assert terms.type_keys is not None and terms.type_bias is not None
        keys = terms.type_keys.astype(query.dtype)
        by_type = jnp.einsum("qhk,shk->shq", plus(terms.type_bias), keys, preferred_element_type=jnp.float32)
        same, other = by_type[..., None]
        logits = logits + jnp.where((types[place][:, None] == types[None, :])[None], same, other)
    logits = logits * jnp.float32(query.shape[-1] ** -0.5)
    if terms.order is None or terms.rank is None:
        return logits
    return logits + masked_bias(terms.order[None, :] <= terms.rank[place][:, None])[None]
