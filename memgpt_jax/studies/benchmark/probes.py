"""What the machine can do: its rate of matmuls, and of reading memory."""

import jax
import jax.numpy as jnp

from memgpt_jax.studies.benchmark.turns import Candidate, timed

PRODUCTS = 4  # of a run


def matmul_probe(dtype: str) -> Candidate:
    """Products of square matrices: large enough for the full rate, and about a twentieth of a second on a CPU."""
    width = 1024 if jax.default_backend() == "cpu" else 8192
    matrix = jax.random.normal(jax.random.key(0), (width, width), jnp.dtype(dtype))

    @jax.jit
    def chain(x):
        for _ in range(PRODUCTS):
            x = x @ matrix
        return x

    return Candidate(run=lambda: timed(chain, matrix)[1], flops=PRODUCTS * 2 * width**3)


def copy_probe() -> Candidate:
    """Reads, and writes, an array that no cache holds."""
    size = 2**26 if jax.default_backend() == "cpu" else 2**30
    array = jnp.zeros(size, jnp.float32)
    move = jax.jit(lambda x: x + 1)
    return Candidate(run=lambda: timed(move, array)[1], bytes_moved=2 * array.nbytes)
