"""Vectors of 8 bits per value: integers with a power of 2 in common.

    x[k] ~ q[k] 2^e,    e = ceil(log2(max_k |x[k]| / 127)),    q[k] = round(x[k] / 2^e), from -127 to 127

    |x[k] - q[k] 2^e| <= 2^e / 2 < max_k |x[k]| / 127        (largest values from 2^-119 to 2^127)

This is the format MXINT8 of the "OCP Microscaling Formats (MX) Specification", version 1.0, 2023, with one block per
vector. As the scale is a power of 2, float32 and bfloat16 hold q 2^e exactly, and rounding twice is rounding once: what
a call reads of its own tokens is bitwise what later calls read of the stored ones. A vector with a value that is not
finite becomes NaN. e is from -126 to 126: values below 2^-127 become 0.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from memgpt_jax.shapes import Array, Float, Float32, Int8, Int32

MOST = 127
"""The largest q."""
EXPONENTS = (-126, 126)
"""Exponents whose powers of 2, and their inverses, are normal float32."""
NOT_FINITE = 127
"""Stands in place of the exponent of a vector with a value that is not finite."""


class Int8Vectors(NamedTuple):
    """q and e of vectors x [..., K]: K + 1 bytes each. Vectors of zeros are zeros."""

    values: Int8[Array, "*b K"]
    exponent: Int8[Array, "*b"]

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the vectors."""
        return self.values.shape


def round_vectors(x: Float[Array, "*b K"]) -> Int8Vectors:
    """The vectors in 8 bits per value. Without gradient."""
    x = jax.lax.stop_gradient(x.astype(jnp.float32))
    largest = jnp.max(jnp.abs(x), axis=-1)
    mantissa, power = jnp.frexp(largest)  # largest = mantissa 2^power, 0.5 <= mantissa < 1
    exponent = power.astype(jnp.int32) - 7 + (mantissa > MOST / 128).astype(jnp.int32)
    exponent = jnp.clip(exponent, *EXPONENTS)
    finite = jnp.isfinite(largest)
    values = jnp.where(finite[..., None], jnp.round(x * _power_of_two(-exponent)[..., None]), 1.0).astype(jnp.int8)
    exponent = jnp.where(jnp.any(values != 0, axis=-1), exponent, 0)
    return Int8Vectors(values, jnp.where(finite, exponent, NOT_FINITE).astype(jnp.int8))


@jax.custom_jvp
def rounded(x: Float[Array, "*b K"]) -> Float[Array, "*b K"]:
    """q 2^e in the type of x. Its gradient is that of x (straight-through, Bengio et al., 2013)."""
    return as_floats(round_vectors(x), x.dtype)


@rounded.defjvp
def _straight_through(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return rounded(*primals), tangents[0]


def as_floats(tree: Any, dtype: Any) -> Any:
    """The tree with an array q 2^e of the type in place of each `Int8Vectors`."""

    def floats(leaf: Any) -> Any:
        if not isinstance(leaf, Int8Vectors):
            return leaf
        exponent = leaf.exponent.astype(jnp.int32)
        scale = jnp.where(exponent == NOT_FINITE, jnp.nan, _power_of_two(exponent))
        return (leaf.values.astype(jnp.float32) * scale[..., None]).astype(dtype)

    return jax.tree.map(floats, tree, is_leaf=is_int8)


def in_form_of(stored: Any, tree: Any) -> Any:
    """The tree with its vectors as `Int8Vectors` or as arrays, whichever the other tree holds in their places."""

    def convert(old: Any, new: Any) -> Any:
        if is_int8(old):
            return new if is_int8(new) else round_vectors(new)
        return as_floats(new, old.dtype) if is_int8(new) else new

    return jax.tree.map(convert, stored, tree, is_leaf=is_int8)


def zero_vectors(shape: tuple[int, ...], dtype: Any, bits: int | None) -> Any:
    """`Int8Vectors` of zeros for 8 bits, an array of the type for None; shape: [..., K]."""
    if bits is None:
        return jnp.zeros(shape, dtype)
    return Int8Vectors(jnp.zeros(shape, jnp.int8), jnp.zeros(shape[:-1], jnp.int8))


def is_int8(leaf: Any) -> bool:
    """Whether this part of a tree is an `Int8Vectors`."""
    return isinstance(leaf, Int8Vectors)


def _power_of_two(exponent: Int32[Array, "*b"]) -> Float32[Array, "*b"]:
    """2^e exactly, for -126 <= e <= 127."""
    return jax.lax.bitcast_convert_type((exponent + 127) << 23, jnp.float32)
