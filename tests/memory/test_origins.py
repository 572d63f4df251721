"""The tokens from which entries come, against the values that these tokens write."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from memgpt_jax.config.memory import KVMemoryConfig
from memgpt_jax.memory import MEMORIES, Memory
from memgpt_jax.memory.compressive import CompressiveMemoryConfig
from tests.laws.memories import SEGMENT, build, random_inputs, runner

BATCH, LENGTH = 2, 7 * SEGMENT + 3
SMALL = {"memory_size": 10, "num_heads": 2, "head_dim": 4}
CASES = [
    (KVMemoryConfig(**SMALL), {1}),
    (KVMemoryConfig(**SMALL | {"memory_size": 3}), {1}),  # less than a segment
    (KVMemoryConfig(**SMALL | {"memory_size": 64}, evict="least_read"), {1, SEGMENT}),
    # As the next row, an entry of the whole segment.
    pytest.param(KVMemoryConfig(**SMALL, evict="lowest_gate"), {SEGMENT}, marks=pytest.mark.slow),
    (KVMemoryConfig(**SMALL, select="highest_gate", select_size=2), {SEGMENT}),
    (CompressiveMemoryConfig(**SMALL, ratio=2, compression="mean"), {1, 2}),
]


@pytest.mark.parametrize(("config", "lengths"), CASES, ids=lambda x: type(x).__name__[:4])
def test_an_entry_holds_its_tokens(config, lengths):
    """A row begins a second document, once inside a segment: its entries alone remain, and have origins."""
    graph, params = build(config)
    x, reset = random_inputs(0, BATCH, LENGTH, breaks=0.0)
    reset = np.zeros_like(np.asarray(reset))
    reset[1, 0] = reset[0, SEGMENT + 2] = True
    _, state = runner(graph)(params, x, reset, np.ones(reset.shape, bool), None)
    memory = nnx.merge(graph, params)
    origins, values = memory.origins(state.memory), np.asarray(memory.heads(memory.value(jnp.asarray(x))))
    explanation, end = memory.explain(jnp.asarray(x)[:, :1], state.memory), LENGTH - np.asarray(state.offset)
    found = set()
    for row, entry in zip(*np.nonzero(np.asarray(explanation.valid)), strict=True):
        length, first = int(origins.length[row, entry]), int(end[row] - origins.start[row, entry])
        found.add(length)
        written, value = values[row, first : first + length], np.asarray(explanation.values)[row, 0, entry]
        if isinstance(config, CompressiveMemoryConfig):
            written = written.mean(axis=0, keepdims=True)
        assert reset[row, : first + length].any(), "the token is of the document before"
        assert np.abs(written - value).max(axis=(1, 2)).min() < 1e-5
    assert found == lengths


def test_what_has_no_origins():
    def refused(config, message, error=ValueError):
        memory = nnx.merge(*build(config))
        with pytest.raises(error, match=message):
            memory.origins(memory.init_state(1))

    refused(KVMemoryConfig(**SMALL, visibility="token"), "reads with memory.visibility='token' have no origins")
    refused(KVMemoryConfig(**SMALL, initial_entries=2), "memory.initial_entries=2 have no origins: take none")
    refused(
        MEMORIES["ntm"].config(), "does not implement `origins`; .* CompressiveMemory, KVMemory", NotImplementedError
    )
    assert {name for name in MEMORIES if MEMORIES[name].module.origins is not Memory.origins} >= {"kv", "compressive"}
