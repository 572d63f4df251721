"""Peak rates of the machine: matmuls, and memory bandwidth."""

import jax
import jax.numpy as jnp

from memgpt_jax.studies.benchmark.interleaving import Case, timed

PRODUCTS = 4  # matrix products per run


def matmul_probe(dtype: str) -> Case:
    """Products of square matrices: large enough for the peak rate, about 0.05 s per run on a CPU."""
    width = 1024 if jax.default_backend() == "cpu" else 8192
    matrix = jax.random.normal(jax.random.key(0), (width, width), jnp.dtype(dtype))

    @jax.jit
    def chain(x: jax.Array):
        for _ in range(PRODUCTS):
            x = x @ matrix
        return x

    return Case(run=lambda: timed(chain, matrix)[1], flops=PRODUCTS * 2 * width**3)


def copy_probe() -> Case:
    """Reads and writes an array larger than any cache."""
    size = 2**26 if jax.default_backend() == "cpu" else 2**30
    array = jnp.zeros(size, jnp.float32)
    move = jax.jit(lambda x: x + 1)
    return Case(run=lambda: timed(move, array)[1], bytes_moved=2 * array.nbytes)
