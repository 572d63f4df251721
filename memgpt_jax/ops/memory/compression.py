"""Compression of groups of vectors to one each (Rae et al., 2020, "Compressive Transformers", section 3.2)."""

import jax.numpy as jnp

from memgpt_jax.shapes import Array, Float, Float32


def compress(
    groups: Float[Array, "B N C H K"], kind: str, kernel: Float[Array, "C H K K"] | None = None
) -> Float[Array, "B N H K"]:
    """One vector for each group of C.

        mean:  1/C sum_j x_j        max:  max_j x_j, channel by channel        conv:  sum_j x_j kernel_j

    `conv` over consecutive groups is the 1D convolution of width and stride C, on each head alone.
    """
    if kind == "mean":
        return jnp.mean(groups, axis=2)
    if kind == "max":
        return jnp.max(groups, axis=2)
    return jnp.einsum("bnchk,chkq->bnhq", groups, kernel)


def select_most_used(groups: Float[Array, "B N C H K"], usage: Float32[Array, "B N C"]) -> Float[Array, "B N H K"]:
    """Of each group the vector with the highest usage; the earlier of equal ones."""
    best = jnp.argmax(usage, axis=2)[:, :, None, None, None]
    return jnp.take_along_axis(groups, best, axis=2)[:, :, 0]
