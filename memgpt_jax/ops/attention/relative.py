"""Relative positions in buckets: what a distance adds to the logits of attention.

Source: Raffel et al., "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer" (2020),
section 2.1.
"""

import math

import numpy as np

from memgpt_jax.shapes import Array, Float32


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
