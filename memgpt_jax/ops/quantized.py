"""Matrices that are stored by output, of 8 or 4 bits or floats, and their products with vectors of floats.

    Int8Matrix   (W H)[n, k] ~ s[n] q[n, k]           q: -127 to 127;  one scale per row
    Int8Groups   W[n, k] ~ d[n, g] q[n, k]            q: -127 to 127;  scale of each group g of 32 columns
    Int4Matrix   W[n, k] ~ d[n, g] q[n, k] + m[n, g]  q: 0 to 15;  scale and minimum of each group g of 32 columns
    FloatMatrix  W[n, k]                              as it is

W [N, K] has one row per output: y = W x. The product of an `Int8Matrix` also rounds the vectors, (H x)[r, k] ~ t[r]
a[r, k] with t[r] = max_k |(H x)[r, k]| / 127, so that its sums are of integers (Dettmers et al., "LLM.int8()", 2022,
section 2.1):

    y[r, n] = s[n] t[r] sum_k q[n, k] a[r, k]

H is orthogonal and its own inverse: Hadamard matrices of 64 columns. It spreads a channel that is much larger than the
others, as those of language models are, over 64 (Ashkboos et al., "QuaRot", 2024, section 3), so that one scale is
enough. The sums are exact in int32: they depend neither on the other rows nor on the order of the terms, and no float
copy of W is made. Errors are at most half a step of each rounding, with W' = W H and x' = H x:

    |y[r, n] - (W x)[r, n]| <= s[n] / 2 sum_k |x'[r, k]| + t[r] / 2 sum_k |W'[n, k]| + K s[n] t[r] / 4

A product in groups is one of floats, which restores a few rows of W at a time; |W[n, k] - W~[n, k]| <= d[n, g] / 2, and
the rounding of d and m to float16. The groups are those of GGUF files, `Q8_0` and `Q4_1`, which are restored exactly.

Products have no gradient: differentiating them raises `ValueError`.
"""

import functools
import math
from dataclasses import dataclass
from types import EllipsisType
from typing import Any, ClassVar, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from memgpt_jax.shapes import Array, Float, Float32

BLOCKS = (64, 16, 4, 1)
"""Columns of a Hadamard matrix; the largest that divides K. Their square roots are powers of 2."""
GROUP = 32
"""Columns of a group of weights."""
LARGEST_WIDTH = (2**31 - 1) // 127**2
"""Columns whose products of 8 bits always fit an int32."""
FEW_ROWS = 64
"""Most vectors of which a `FloatMatrix` takes the product as W x^T."""
RESTORED_ROWS = 64
"""Most rows of a matrix in groups that are floats at a time."""

Bits = Literal[8, 4, "q8_0"]
"""How the weights of a matrix are rounded: `Int8Matrix`, `Int4Matrix` or `Int8Groups`."""
BITS: tuple[Bits, ...] = get_args(Bits)


class StoredMatrix:
    """Base of the matrices here: `matrix[...]` is the matrix itself, `matrix[ids]` its rows as float32 [..., K]."""

    bits: ClassVar[Bits | None]
    """How the weights are rounded; None: they are not."""

    def __getitem__(self, ids: Any) -> Any:
        return self if isinstance(ids, EllipsisType) else self.rows(ids)

    def rows(self, ids: Array) -> Array:
        """Rows of W as float32, [..., K]."""
        raise NotImplementedError

    def product(self, x: Array) -> Array:
        """W x for each row x of [R, K], as float32 [R, N]."""
        raise NotImplementedError


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Int8Matrix(StoredMatrix):
    """(W H)[n, k] ~ s[n] q[n, k]."""

    bits = 8
    values: Array  # q, int8 [N, K]
    scale: Array  # s, float32 [N]

    def rows(self, ids: Array) -> Array:
        return rotate(self.values[ids].astype(jnp.float32) * self.scale[ids][..., None])

    def product(self, x: Array) -> Array:
        values, scale = round_rows(rotate(x.astype(jnp.float32)))
        # XLA converts a whole matrix to int32 for one vector, but not for two: 25 times faster on CPU.
        padded = jnp.pad(values, ((0, max(0, 2 - len(x))), (0, 0)))
        contracted = (((1,), (1,)), ((), ()))
        sums = jax.lax.dot_general(padded, self.values, contracted, preferred_element_type=jnp.int32)[: len(x)]
        return sums.astype(jnp.float32) * scale[:, None] * self.scale[None]


class GroupMatrix(StoredMatrix):
    """Base of the matrices in groups, whose products restore a few rows at a time."""

    values: Array  # q, [N, ...]

    def product(self, x: Array) -> Array:
        number = len(self.values)
        size = max(size for size in range(1, RESTORED_ROWS + 1) if number % size == 0)
        blocks = jax.tree.map(lambda leaf: leaf.reshape(number // size, size, *leaf.shape[1:]), self)
        x = x.astype(jnp.float32)
        y = jax.lax.map(lambda block: x @ block.rows(jnp.arange(size)).T, blocks)
        return jnp.moveaxis(y, 0, 1).reshape(len(x), number)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Int8Groups(GroupMatrix):
    """W[n, k] ~ d[n, g] q[n, k]."""

    bits = "q8_0"
    values: Array  # q, int8 [N, K]
    scale: Array  # d, float16 [N, K / 32]

    def rows(self, ids: Array) -> Array:
        values, scale = self.values[ids].astype(jnp.float32), self.scale[ids].astype(jnp.float32)
        return (values.reshape(*scale.shape, GROUP) * scale[..., None]).reshape(values.shape)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Int4Matrix(GroupMatrix):
    """W[n, k] ~ d[n, g] q[n, k] + m[n, g]; byte j of a row holds q[n, j] below q[n, K / 2 + j]."""

    bits = 4
    values: Array  # q, two in a byte, uint8 [N, K / 2]
    scale: Array  # d, float16 [N, K / 32]
    minimum: Array  # m, float16 [N, K / 32]

    def rows(self, ids: Array) -> Array:
        packed = self.values[ids]
        values = jnp.concatenate([packed & 15, packed >> 4], axis=-1).astype(jnp.float32)
        scale, minimum = (x[ids].astype(jnp.float32)[..., None] for x in (self.scale, self.minimum))
        groups = values.reshape(*scale.shape[:-1], GROUP) * scale + minimum
        return groups.reshape(values.shape)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class FloatMatrix(StoredMatrix):
    """W itself. On CPU, W x^T for a few rows x is faster than x W^T, and than the product with W stored as [K, N]."""

    bits = None
    values: Array  # [N, K]

    def rows(self, ids: Array) -> Array:
        return self.values[ids]

    def product(self, x: Array) -> Array:
        values = self.values.astype(x.dtype)
        if 1 < len(x) <= FEW_ROWS:  # the barrier keeps XLA from folding the transpositions into x W^T
            return jax.lax.optimization_barrier(jnp.matmul(values, x.T, preferred_element_type=jnp.float32)).T
        return jnp.matmul(x, values.T, preferred_element_type=jnp.float32)


def rotate(x: Float32[Array, "*b K"]) -> Float32[Array, "*b K"]:
    """H x: each block of 64 columns (`BLOCKS`) times a Hadamard matrix, divided by 8."""
    width = x.shape[-1]
    size = next(size for size in BLOCKS if width % size == 0)
    matrix = np.ones((1, 1), np.float32)
    while len(matrix) < size:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    blocks = x.reshape(math.prod(x.shape[:-1]) * (width // size), size)
    return (blocks @ (matrix / np.float32(size**0.5))).reshape(x.shape)


def round_rows(x: Float32[Array, "R K"]) -> tuple[Array, Array]:
    """(a int8 [R, K], t float32 [R]) with x ~ t a. A row with a value that is not finite has the scale NaN."""
    scale = jnp.max(jnp.abs(x), axis=-1) / 127
    scale = jnp.where(jnp.isfinite(scale), scale, jnp.nan)
    values = jnp.round(x / jnp.where(scale > 0, scale, 1.0)[:, None])
    return jnp.clip(values, -127, 127).astype(jnp.int8), scale


def check_bits(bits: object) -> None:
    """Raises `ValueError` unless `bits` is one of `BITS`."""
    if bits not in BITS:
        raise ValueError(f"bits must be 8, 4 or 'q8_0', got {bits!r}")


@functools.partial(jax.jit, static_argnums=1)
def quantize_matrix(weights: Float32[Array, "N K"], bits: Bits) -> StoredMatrix:
    """The nearest `Int8Matrix` (8), `Int8Groups` ("q8_0") or `Int4Matrix` (4) of these scales.

    4 bits need a number of columns that 64 divides, "q8_0" one that 32 divides; other matrices become `Int8Matrix`.

    Raises `ValueError` for other `bits`, or more columns than an int32 can sum.
    """
    check_bits(bits)
    number, width = weights.shape
    if bits == 8 or width % (2 * GROUP if bits == 4 else GROUP):
        if width > LARGEST_WIDTH:
            raise ValueError(f"a matrix of {width} columns cannot have 8 bits; the largest has {LARGEST_WIDTH}")
        return Int8Matrix(*round_rows(rotate(weights)))
    groups = weights.reshape(number, width // GROUP, GROUP)
    if bits == "q8_0":
        scale = (jnp.max(jnp.abs(groups), axis=-1) / 127).astype(jnp.float16)
        step = scale.astype(jnp.float32)[..., None]
        values = jnp.round(groups / jnp.where(step > 0, step, 1.0))
        return Int8Groups(jnp.clip(values, -127, 127).astype(jnp.int8).reshape(number, width), scale)
    minimum = jnp.min(groups, axis=-1).astype(jnp.float16)
    low = minimum.astype(jnp.float32)
    scale = ((jnp.max(groups, axis=-1) - low) / 15).astype(jnp.float16)
    step = scale.astype(jnp.float32)
    values = jnp.round((groups - low[..., None]) / jnp.where(step > 0, step, 1.0)[..., None])
    low_half, high_half = jnp.split(jnp.clip(values, 0, 15).astype(jnp.uint8).reshape(number, width), 2, axis=-1)
    return Int4Matrix(low_half | (high_half << 4), scale, minimum)


@jax.custom_jvp
def stored_matmul(x: Float[Array, "*b K"], matrix: StoredMatrix) -> Float32[Array, "*b N"]:
    """W x with the last axis of x [..., K] and a stored W [N, K], as float32 [..., N]."""
    y = matrix.product(x.reshape(math.prod(x.shape[:-1]), x.shape[-1]))
    return y.reshape(*x.shape[:-1], y.shape[-1])


@stored_matmul.defjvp
def _no_gradient(primals: Any, tangents: Any) -> Any:
    raise ValueError(
        "quantised weights, and those that are stored by output for decoding, have no gradient: train the model first, "
        "then quantize it"
    )
