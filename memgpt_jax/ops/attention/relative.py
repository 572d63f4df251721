"""Relative positions in buckets: what a distance adds to the logits of attention.

Source: Raffel et al., "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer" (2020),
section 2.1.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from memgpt_jax.shapes import Array, Float, Float32, Int


def relative_bucket(distance: np.ndarray, buckets: int, max_distance: int, causal: bool) -> np.ndarray:
    """The bucket, 0 to buckets - 1, of a key that stands so many tokens before its query.

        f(d) = d                                                                   for d < m = n // 2
        f(d) = min(n - 1, m + floor((n - m) log(d / m) / log(max_distance / m)))   for d >= m

    causal: f(d) with n = buckets. Otherwise n = buckets // 2, and keys that stand behind their query take n + f(-d).

    Arguments:
        distance: whole numbers, known when the model is compiled; at least 0 where `causal`.

    As in the models trained with it, f is computed in float32, which decides where it is a whole number.
    """
    number = buckets if causal else buckets // 2
    exact, length = number // 2, np.abs(distance)
    ratio = np.maximum(length, exact).astype(np.float32) / np.float32(exact)
    logarithm = np.log(ratio.astype(np.float64)).astype(np.float32)  # NumPy's own in float32 is not the nearest
    share = logarithm / np.float32(math.log(max_distance / exact))
    wide = np.minimum(exact + (share * np.float32(number - exact)).astype(np.int64), number - 1)
    place = np.where(length < exact, length, wide)
    return (place if causal else place + number * (distance < 0)).astype(np.int32)


def relative_bias(
    table: Float32[Array, "buckets H"], distance: np.ndarray, max_distance: int, causal: bool
) -> Float32[Array, "H N"]:
    """What N distances add to the logits of each head: the rows of a learned table, by `relative_bucket`."""
    return table[relative_bucket(distance, table.shape[0], max_distance, causal)].T


def relative_shift(scores: Float32[Array, "*b Q W"]) -> Float32[Array, "*b Q W-Q"]:
    """Scores by distance, largest first, as scores by key: out[i, j] = scores[i, Q - 1 - i + j].

    Row i is moved Q - 1 - i columns to the left, by one reshape: rows that are one column shorter begin one column
    later each. The last column stands for no key.

    Source: Dai et al., "Transformer-XL" (2019), appendix B.
    """
    *batch, queries, width = scores.shape
    flat = scores.reshape(*batch, queries * width)[..., queries - 1 : queries - 1 + queries * (width - 1)]
    return flat.reshape(*batch, queries, width - 1)[..., : width - queries]


def relative_logits(
    query: Float[Array, "Q H K"], keys: Float[Array, "distances H K"], first: Int[Array, ""]
) -> Float32[Array, "H Q (distances+1)//2"]:
    """q_i . r_(i - j) of Q queries, the one at place `first` and those that follow, and of all places j, 0 to L - 1.

    keys: r of the distances L - 1 down to 1 - L. Q (Q + L) products for each head, not Q L of them for each distance.
    """
    number, length = query.shape[0], (keys.shape[0] + 1) // 2
    keys = jnp.pad(keys, ((number, 1), (0, 0), (0, 0)))  # of no query behind the last place, and of no key
    near = jax.lax.dynamic_slice_in_dim(keys, length - first, number + length)
    return relative_shift(jnp.einsum("qhk,chk->hqc", query, near, preferred_element_type=jnp.float32))
