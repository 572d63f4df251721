"""Fold blocks of one set of arrays into blocks of another, in a kernel: one body for GPUs and for TPUs.

    for each row n and each fixed block i:
        carry = start(fixed_i)
        for j in low_i, ..., high_i - 1:
            carry = step(carry, fixed_i, moving_j)
        outputs_i = finish(carry)

On a GPU (Pallas, lowered to Triton) one program does all of a fixed block, and its carry stays in registers. On a TPU
(Pallas, lowered to Mosaic) the steps are the innermost axis of the grid, so that blocks arrive while others are worked
on, and the carry stays in vector memory.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pallas_tpu
from jax.experimental.pallas import triton as pallas_gpu

from memgpt_jax.shapes import Array, Int32

Platform = Literal["gpu", "tpu"]


class Fold(NamedTuple):
    """What is done with the blocks. All arrays are matrices: a vector is a column where fixed, a row where moving."""

    start: Callable  # fixed blocks -> carry, a tuple of float32 arrays
    step: Callable  # carry, fixed blocks, moving blocks -> carry
    finish: Callable  # carry -> outputs, of fixed blocks' sizes


class Blocks(NamedTuple):
    """How a sweep is run; `interpret`: step by step in plain JAX, on any backend, to test it."""

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
    """The outputs of a fold.

    Arguments:
        fixed, moving: arrays [N, F or M, K], or vectors [N, F or M]; F and M are multiples of their blocks' sizes. Some
            may have B rows instead of N = B G: each then serves G rows.
        low, high: which moving blocks each of the I = F / blocks.fixed fixed blocks meets.
        outputs: shapes [N, F, K] or [N, F], and types.
    """
    return (_on_gpu if blocks.platform == "gpu" else _on_tpu)(fold, fixed, moving, low, high, outputs, blocks)


def _on_gpu(fold, fixed, moving, low, high, outputs, blocks):
    rows = outputs[0].shape[0]

    def kernel(low, high, *refs):
        here_refs, there_refs, out_refs = _split(refs, len(fixed), len(moving))
        here = [ref[...] if ref.ndim == 2 else ref[...][:, None] for ref in here_refs]

        def step(j, carry):
            block = pl.ds(j * blocks.moving, blocks.moving)
            there = [ref[block, :] if ref.ndim == 2 else ref[block][None, :] for ref in there_refs]
            return fold.step(carry, here, there)

        carry = jax.lax.fori_loop(low[...], high[...], step, fold.start(here))
        for ref, value in zip(out_refs, fold.finish(carry), strict=True):
            ref[...] = value.astype(ref.dtype).reshape(ref.shape)

    def spec(x, size):
        row = lambda n: _over(n, rows // x.shape[0])  # noqa: E731
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


def _on_tpu(fold, fixed, moving, low, high, outputs, blocks):
    rows, (batch, number) = outputs[0].shape[0], low.shape
    is_row = lambda x: len(x.shape) == 2  # noqa: E731
    as_row = lambda x: x[:, None, :] if is_row(x) else x  # noqa: E731

    def kernel(low, high, *refs):
        here_refs, there_refs, rest = _split(refs, len(fixed), len(moving))
        out_refs, carry_refs = rest[: len(outputs)], rest[len(outputs) :]
        i, j = pl.program_id(1), pl.program_id(2)
        at = _over(pl.program_id(0), rows // batch) * number + i
        last = pl.num_programs(2) - 1

        def here():
            return [ref[...].T if is_row(x) else ref[...] for ref, x in zip(here_refs, fixed, strict=True)]

        def keep(carry):
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

    def spec(x, size, place):
        row = lambda n: _over(n, rows // x.shape[0])  # noqa: E731
        if is_row(x):
            return pl.BlockSpec((None, 1, size), lambda n, i, j, low, high: (row(n), 0, place(n, i, j, low, high)))
        shape = (None, size, x.shape[2])
        return pl.BlockSpec(shape, lambda n, i, j, low, high: (row(n), place(n, i, j, low, high), 0))

    def there(n, i, j, low, high):
        """Past the last block that is met it stays there, so that nothing is fetched."""
        at = _over(n, rows // batch) * number + i
        return jnp.maximum(jnp.minimum(low[at] + j, high[at] - 1), 0)

    here = lambda n, i, j, low, high: i  # noqa: E731
    block = lambda x: jax.ShapeDtypeStruct((blocks.fixed, 1 if is_row(x) else x.shape[2]), x.dtype)  # noqa: E731
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


def _split(refs, first, second):
    return refs[:first], refs[first : first + second], refs[first + second :]


def _over(n, number):
    """n // number for n >= 0: `//` rounds negative numbers down, which takes more operations in a kernel."""
    return jax.lax.div(n, jnp.int32(number))
