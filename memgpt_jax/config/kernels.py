"""Names of the implementations of attention."""

from typing import Literal

Implementation = Literal["auto", "portable", "cudnn", "pallas", "interpret"]
"""Implementations are equal within rounding, and differ in speed and in the devices that they run on.

- auto: `portable`.
- portable: blocks of plain JAX; any backend, any mesh.
- pallas: the kernels of `memgpt_jax.ops.attention.kernels`; NVIDIA GPUs from Ampere on with head widths up to 128 (64
  in float32), and TPUs. On a mesh each device processes its own rows and heads; a mesh that shards entries (`sequence`)
  needs `portable`.
- cudnn: cuDNN's flash attention; NVIDIA GPUs, bfloat16 or float16, head widths that are multiples of 8 up to 128. It
  represents document boundaries as a mask, an array in memory that each call reads and differentiates.
- interpret: the kernels of `pallas` in Pallas's interpret mode, on any backend; very slow, for tests.
"""
