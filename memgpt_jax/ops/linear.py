"""Matmuls on flattened operands, and with stored matrices."""

from typing import Any

import jax

from memgpt_jax.ops.quantized import StoredMatrix, stored_matmul
from memgpt_jax.shapes import Array, Float


def flat_dot_general(lhs: Array, rhs: Array | StoredMatrix, dimension_numbers: Any, **options: Any) -> Array:
    """`lax.dot_general` of [..., D] with [D, F] as one two-dimensional matmul, which is twice as fast on CPU.

    For the `dot_general` argument of `nnx.Linear`. Arguments are those of `lax.dot_general`; if they describe another
    product, it is computed by `lax.dot_general` itself. A `StoredMatrix` is [F, D]; of the options, its product has
    `preferred_element_type`.
    """
    if isinstance(rhs, StoredMatrix):
        return stored_matmul(lhs, rhs).astype(options.get("preferred_element_type") or lhs.dtype)
    (contracted, _), _ = dimension_numbers
    if lhs.ndim == 2 or tuple(contracted) != (lhs.ndim - 1,):
        return jax.lax.dot_general(lhs, rhs, dimension_numbers, **options)
    flat = lhs.reshape(-1, lhs.shape[-1])
    out = jax.lax.dot_general(flat, rhs, (((1,), (0,)), ((), ())), **options)
    return out.reshape(*lhs.shape[:-1], out.shape[-1])


def matmul(x: Float[Array, "*b D"], kernel: Float[Array, "D F"] | StoredMatrix, **options: Any) -> Float[Array, "*b F"]:
    """x W with the last axis of x [..., D] and W [D, F] (stored: [F, D]); options are those of `lax.dot_general`."""
    return flat_dot_general(x, kernel, (((x.ndim - 1,), (0,)), ((), ())), **options)
