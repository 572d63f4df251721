"""Logits of attention that depend on the query and on how far a key is from it."""

import jax.numpy as jnp

from memgpt_jax.shapes import Array, Float, Float32, Int


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
    query: Float[Array, "Q H K"], keys: Float[Array, "2L-1 H K"], first: Int[Array, ""]
) -> Float32[Array, "H Q L"]:
    """q_i . r_(i - j) of Q queries, the one at place `first` and those that follow, and of all places j, 0 to L - 1.

    keys: r of the distances L - 1 down to 1 - L. Q (Q + L) products for each head, not Q L of them for each distance.
    """
    number, length = query.shape[0], (keys.shape[0] + 1) // 2
    index = length - first - number + jnp.arange(number + length, dtype=jnp.int32)
    near = jnp.take(keys, index, axis=0, mode="clip")  # what is outside stands for no query or for no key
    return relative_shift(jnp.einsum("qhk,chk->hqc", query, near, preferred_element_type=jnp.float32))
