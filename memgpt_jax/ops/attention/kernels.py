"""A kernel that folds the blocks of one set of arrays into each block of another; one body for GPUs and TPUs.

    for each row n and each fixed block i:
        carry = start(fixed_i)
        for j in low_i, ..., high_i - 1:
            carry = step(carry, fixed_i, moving_j)
        outputs_i = finish(carry)

On a GPU (Pallas, lowered to Triton) one program processes a fixed block, and its carry stays in registers. On a TPU
(Pallas, lowered to Mosaic) the steps are the innermost axis of the grid, so that copies overlap with computation, and
the carry stays in vector memory.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pallas_tpu
from jax.experimental.pallas import triton as pallas_gpu

from memgpt_jax.shapes import Array, Int32

Platform = Literal["gpu", "tpu"]
Carry = tuple[Array, ...]  # float32


class Fold(NamedTuple):
    """The functions of a fold. They see matrices: a fixed vector is a column, a moving vector a row."""

    start: Callable  # fixed blocks -> carry
    step: Callable  # carry, fixed blocks, moving blocks -> carry
    finish: Callable  # carry -> outputs, with the rows of the fixed block


class Blocks(NamedTuple):
    """Platform and block sizes, in rows. interpret: run in Pallas's interpret mode, on any backend, for tests."""

    platform: Platform
    fixed: int
    moving: int
    interpret: bool = False


def sweep(
    fold: Fold,
    fixed: list[Array],
    moving: list[Array],
    low: Int32[Array, "B I"],
    high: Int32[Array, "B I"],
    outputs: list[jax.ShapeDtypeStruct],
    blocks: Blocks,
) -> list[Array]:
    """The outputs of a fold over N rows.

    Args:
        fixed: matrices [N, F, K] or vectors [N, F]; F is a multiple of `blocks.fixed`. Arrays with B rows, N = B G,
            serve G rows each.
        moving: likewise, with M in place of F and `blocks.moving`.
        low, high: fixed block i of I = F / blocks.fixed meets the moving blocks low_i to high_i - 1.
        outputs: shapes [N, F, K] or [N, F], and dtypes.
    """
    return (_on_gpu if blocks.platform == "gpu" else _on_tpu)(fold, fixed, moving, low, high, outputs, blocks)


def _on_gpu(
    fold: Fold,
    fixed: list[Array],
    moving: list[Array],
    low: Array,
    high: Array,
    outputs: list[jax.ShapeDtypeStruct],
    blocks: Blocks,
):
    rows = outputs[0].shape[0]

    def kernel(low: Any, high: Any, *refs):
        here_refs, there_refs, out_refs = _split(refs, len(fixed), len(moving))
        here = [ref[...] if ref.ndim == 2 else ref[...][:, None] for ref in here_refs]

        def step(j: Array, carry: Carry):
            block = pl.ds(j * blocks.moving, blocks.moving)
            there = [ref[block, :] if ref.ndim == 2 else ref[block][None, :] for ref in there_refs]
            return fold.step(carry, here, there)

        carry = jax.lax.fori_loop(low[...], high[...], step, fold.start(here))
        for ref, value in zip(out_refs, fold.finish(carry), strict=True):
            ref[...] = value.astype(ref.dtype).reshape(ref.shape)

    def spec(x: Array | jax.ShapeDtypeStruct, size: int | None):
        def row(n: Any):
            return _over(n, rows // x.shape[0])

        if size is None:
            return pl.BlockSpec((None, *x.shape[1:]), lambda n, i: (row(n), *(0,) * (len(x.shape) - 1)))
        return pl.BlockSpec((None, size, *x.shape[2:]), lambda n, i: (row(n), i, *(0,) * (len(x.shape) - 2)))

    bound = pl.BlockSpec((None, None), lambda n, i: (_over(n, rows // low.shape[0]), i))
    results = pl.pallas_call(
        kernel,
        grid=(rows, low.shape[1]),
        in_specs=[bound, bound, *(spec(x, blocks.fixed) for x in fixed), *(spec(x, None) for x in moving)],
        out_specs=[spec(x, blocks.fixed) for x in outputs],
        out_shape=outputs,
        compiler_params=pallas_gpu.CompilerParams(num_warps=8, num_stages=2),
        interpret=blocks.interpret,
    )(low, high, *fixed, *moving)
    return list(results)


def _on_tpu(
    fold: Fold,
    fixed: list[Array],
    moving: list[Array],
    low: Array,
    high: Array,
    outputs: list[jax.ShapeDtypeStruct],
    blocks: Blocks,
):
    rows, (batch, number) = outputs[0].shape[0], low.shape

    def is_row(x: Array | jax.ShapeDtypeStruct):
        return len(x.shape) == 2

    def as_row(x: Array):
        return x[:, None, :] if is_row(x) else x

    def kernel(low: Any, high: Any, *refs):
        here_refs, there_refs, rest = _split(refs, len(fixed), len(moving))
        out_refs, carry_refs = rest[: len(outputs)], rest[len(outputs) :]
        i, j = pl.program_id(1), pl.program_id(2)
        at = _over(pl.program_id(0), rows // batch) * number + i
        last = pl.num_programs(2) - 1

        def here():
            return [ref[...].T if is_row(x) else ref[...] for ref, x in zip(here_refs, fixed, strict=True)]

        def keep(carry: Carry):
            for ref, value in zip(carry_refs, carry, strict=True):
                ref[...] = value

        @pl.when(j == 0)
        def _():
            keep(fold.start(here()))

        @pl.when(low[at] + j < high[at])
        def _():
            keep(fold.step(tuple(ref[...] for ref in carry_refs), here(), [ref[...] for ref in there_refs]))

        @pl.when(j == last)
        def _():
            values = fold.finish(tuple(ref[...] for ref in carry_refs))
            for ref, value, x in zip(out_refs, values, outputs, strict=True):
                ref[...] = (value.T if is_row(x) else value).astype(ref.dtype)

    def spec(x: Array | jax.ShapeDtypeStruct, size: int | None, place: Callable):
        def row(n: Any):
            return _over(n, rows // x.shape[0])

        if is_row(x):
            return pl.BlockSpec((None, 1, size), lambda n, i, j, low, high: (row(n), 0, place(n, i, j, low, high)))
        shape = (None, size, x.shape[2])
        return pl.BlockSpec(shape, lambda n, i, j, low, high: (row(n), place(n, i, j, low, high), 0))

    def there(n: Any, i: Any, j: Any, low: Any, high: Any):
        """The moving block of step j. After the last one the index stays, so that nothing is copied."""
        at = _over(n, rows // batch) * number + i
        return jnp.maximum(jnp.minimum(low[at] + j, high[at] - 1), 0)

    def here(n: Any, i: Any, j: Any, low: Any, high: Any):
        return i

    def block(x: Array):
        return jax.ShapeDtypeStruct((blocks.fixed, 1 if is_row(x) else x.shape[2]), x.dtype)

    carry = jax.eval_shape(fold.start, [block(x) for x in fixed])
    results = pl.pallas_call(
        kernel,
        grid_spec=pallas_tpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=2,
            grid=(rows, number, jnp.maximum(jnp.max(high - low), 1)),
            in_specs=[*(spec(x, blocks.fixed, here) for x in fixed), *(spec(x, blocks.moving, there) for x in moving)],
            out_specs=[spec(x, blocks.fixed, here) for x in outputs],
            scratch_shapes=[pallas_tpu.VMEM(x.shape, x.dtype) for x in carry],
        ),
        out_shape=[jax.eval_shape(as_row, x) for x in outputs],
        compiler_params=pallas_tpu.CompilerParams(dimension_semantics=("parallel", "parallel", "arbitrary")),
        interpret=blocks.interpret,
    )(low.reshape(-1), high.reshape(-1), *map(as_row, fixed), *map(as_row, moving))
    return [x.reshape(like.shape) for x, like in zip(results, outputs, strict=True)]


def _split(refs: tuple, first: int, second: int):
    return refs[:first], refs[first : first + second], refs[first + second :]


def _over(n: Any, number: int):
    """n // number for n >= 0. `//` also handles negative numbers, with more operations in a kernel."""
    return jax.lax.div(n, jnp.int32(number))
