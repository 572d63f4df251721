"""Reads entries that are split over 8 devices; `test_parallel` runs it in a process of its own."""

import re

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from memgpt_jax import parallel
from memgpt_jax.config import ParallelConfig
from memgpt_jax.ops import Source, read

B, Q, M, H, K = 2, 16, 1024, 4, 16


def main() -> None:
    jax.config.update("jax_num_cpu_devices", 8)
    mesh = parallel.make_mesh(ParallelConfig(sequence=8))
    rng = np.random.default_rng(0)
    normal = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    query, null_key = normal(B, Q, H, K), normal(H, K)
    entries = Source(
        normal(B, M, H, K), normal(B, M, H, K), normal(B, M), rng.integers(9, size=(B, M)), rng.random((B, Q, M)) < 0.9
    )
    run = lambda query, entries: read(query, [entries], null_key)  # noqa: E731
    split = lambda *axes: NamedSharding(mesh, PartitionSpec(*axes))  # noqa: E731
    over_entries = Source(*[split(None, "sequence")] * 4, visible=split(None, None, "sequence"))
    expected = jax.jit(run)(query, jax.tree.map(jnp.asarray, entries))
    with jax.set_mesh(mesh):
        whole = split()
        compiled = jax.jit(run, in_shardings=(whole, over_entries), out_shardings=whole).lower(query, entries).compile()
        got = compiled(jax.device_put(query, whole), jax.device_put(entries, over_entries))
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)
    collectives = re.findall(r" (all-reduce|all-gather|all-to-all|collective-permute)(?:-start)?\(", compiled.as_text())
    assert collectives == ["all-reduce"] * 2, collectives


if __name__ == "__main__":
    main()
