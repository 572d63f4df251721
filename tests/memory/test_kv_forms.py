"""The parallel form of the key-value memory equals the scan over segments, in value, state and gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memgpt_jax.config.memory import KVMemoryConfig
from tests.laws.coverings import rows_of
from tests.laws.memories import SEGMENT, WIDTH, build, difference, random_inputs, sequence_forms

OPTIONS = {
    "gate": ["log_bias", "scale"],
    "select": ["all", "highest_gate", "pool"],
    "evict": ["oldest", "lowest_gate"],  # `least_read` has one form only
    "visibility": ["segment", "token"],
    "initial_entries": [0, 2],
    "null_entry": [True, False],
    "writer_conv": [3, 1],
    "recency_bias": [False, True],
    "memory_size": [7, 3],
    "bptt_segments": [None, 1],
    "num_kv_heads": [None, 2],
}
# Rows that run by default: each value with a memory that holds something.
MAIN = [
    {
        "gate": "log_bias",
        "select": "pool",
        "evict": "oldest",
        "visibility": "token",
        "initial_entries": 0,
        "null_entry": True,
        "writer_conv": 3,
        "recency_bias": False,
        "memory_size": 7,
        "bptt_segments": None,
        "num_kv_heads": 2,
    },
    {
        "gate": "scale",
        "select": "highest_gate",
        "evict": "lowest_gate",
        "visibility": "segment",
        "initial_entries": 2,
        "null_entry": False,
        "writer_conv": 1,
        "recency_bias": True,
        "memory_size": 3,
        "bptt_segments": 1,
        "num_kv_heads": None,
    },
]
BATCH, SEGMENTS = 2, 5


@pytest.mark.parametrize("row", rows_of(OPTIONS, *MAIN))
def test_parallel_equals_scan(row):
    config = KVMemoryConfig(**row, select_size=2, num_heads=4, head_dim=4, temperature=3.0)
    graph, params = build(config)
    x, reset = random_inputs(0, BATCH, SEGMENTS * SEGMENT, breaks=0.1)
    x, reset = x.reshape(BATCH, SEGMENTS, SEGMENT, WIDTH), reset.reshape(BATCH, SEGMENTS, SEGMENT)
    parallel, scan, _ = sequence_forms(graph)

    @jax.jit
    def both(params, x):
        def loss(form, params, x):
            read, state = form(params, x, reset)
            kept = jnp.where(state.entries.valid[..., None, None], state.entries.values, 0)
            return jnp.sum(jnp.sin(read)) + jnp.sum(jnp.cos(kept)), (read, state)

        return [jax.value_and_grad(loss, (1, 2), has_aux=True)(form, params, x) for form in (parallel, scan)]

    one, other = both(params, x)
    assert difference(one, other) < 5e-5
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(one[1]))
