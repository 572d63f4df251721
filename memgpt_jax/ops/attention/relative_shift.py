"""Logits of attention that depend on the query and on how far a key is from it."""

import jax
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
    keys = jnp.pad(keys, ((number, 1), (0, 0), (0, 0)))  # of no query behind the last place, and of no key
    near = jax.lax.dynamic_slice_in_dim(keys, length - first, number + length)
    return relative_shift(jnp.einsum("qhk,chk->hqc", query, near, preferred_element_type=jnp.float32))
