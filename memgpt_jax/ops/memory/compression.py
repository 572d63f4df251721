"""Compression of each group of vectors to one vector (Rae et al., "Compressive Transformers", 2020, section 3.2)."""

from typing import Literal

import jax.numpy as jnp

from memgpt_jax.shapes import Array, Float, Float32

Kind = Literal["mean", "max", "conv"]


def compress(
    groups: Float[Array, "B N C H K"],
    kind: Kind,
    kernel: Float[Array, "C H K K"] | None = None,
) -> Float[Array, "B N H K"]:
    """One vector for each group of C vectors.

        mean:  1/C sum_j x_j        max:  max_j x_j, channel by channel        conv:  sum_j x_j kernel_j

    `conv` over consecutive groups is a 1D convolution of width and stride C within each head.
    """
    if kind == "mean":
        return jnp.mean(groups, axis=2)
    if kind == "max":
        return jnp.max(groups, axis=2)
    if kind == "conv":
        return jnp.einsum("bnchk,chkq->bnhq", groups, kernel)
    raise ValueError(f"kind must be 'mean', 'max' or 'conv', got {kind!r}")


def select_most_used(groups: Float[Array, "B N C H K"], usage: Float32[Array, "B N C"]) -> Float[Array, "B N H K"]:
    """The vector of each group with the highest usage; of equal ones, the earliest."""
    best = jnp.argmax(usage, axis=2)[:, :, None, None, None]
    return jnp.take_along_axis(groups, best, axis=2)[:, :, 0]
