"""The key-value memory in a stream equals a token-by-token reference, over every pair of options."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from memgpt_jax.config.memory import KVMemoryConfig
from memgpt_jax.memory import kv
from memgpt_jax.ops.memory import KnowledgeEntries
from tests.laws.coverings import covering, rows_of
from tests.laws.memories import SEGMENT, build, difference, random_inputs, reference_run, runner, state_after
from tests.references.memory import Entry, ReferenceKVMemory

OPTIONS = {
    "gate": ["log_bias", "scale", "scale_value", "none"],
    "select": ["all", "highest_gate", "pool"],
    "evict": ["oldest", "lowest_gate", "least_read"],
    "visibility": ["segment", "token"],
    "initial_entries": [0, 2],
    "null_entry": [True, False],
    "writer_conv": [3, 1, 4],
    "recency_bias": [False, True],
    "memory_size": [7, 16, 3, 0],  # not dividing, dividing, smaller than a segment, nothing
    "qk_norm": [True, False],
    "num_kv_heads": [None, 2, 1],
    "knowledge_size": [0, 5],
}
# Rows that run by default: each value with a memory that holds something.
MAIN = [
    {
        "gate": "log_bias",
        "select": "all",
        "evict": "oldest",
        "visibility": "segment",
        "initial_entries": 2,
        "null_entry": True,
        "writer_conv": 3,
        "recency_bias": True,
        "memory_size": 7,
        "qk_norm": True,
        "num_kv_heads": 2,
        "knowledge_size": 5,
    },
    {
        "gate": "scale",
        "select": "highest_gate",
        "evict": "lowest_gate",
        "visibility": "token",
        "initial_entries": 0,
        "null_entry": False,
        "writer_conv": 1,
        "recency_bias": False,
        "memory_size": 16,
        "qk_norm": False,
        "num_kv_heads": 1,
        "knowledge_size": 0,
    },
    {
        "gate": "scale_value",
        "select": "pool",
        "evict": "least_read",
        "visibility": "token",
        "initial_entries": 2,
        "null_entry": True,
        "writer_conv": 4,
        "recency_bias": True,
        "memory_size": 3,
        "qk_norm": True,
        "num_kv_heads": None,
        "knowledge_size": 5,
    },
    {
        "gate": "none",
        "select": "all",
        "evict": "oldest",
        "visibility": "token",
        "initial_entries": 0,
        "null_entry": True,
        "writer_conv": 3,
        "recency_bias": False,
        "memory_size": 7,
        "qk_norm": True,
        "num_kv_heads": 2,
        "knowledge_size": 0,
    },
]
BATCH, LENGTH = 3, 6 * SEGMENT + 2


def config_of(row):
    row = row | {"initial_entries": min(row["initial_entries"], row["memory_size"])}
    return KVMemoryConfig(**row, select_size=2, num_heads=4, head_dim=4, temperature=3.0)


def assert_state_equals(state, memories, config):
    """The stored entries, in order, and the convolution's conv_cache."""
    entries, conv_cache, *_ = jax.device_get(state.memory)
    for b, memory in enumerate(memories):
        valid = entries.valid[b]

        def close(got, expected, name):
            return np.testing.assert_allclose(got, expected, atol=2e-5, err_msg=name)

        assert valid.sum() == len(memory.memory)
        if memory.memory:
            close(entries.keys[b, valid], [entry.key for entry in memory.memory], "keys")
            close(entries.values[b, valid], [entry.value for entry in memory.memory], "values")
            close(entries.log_gate[b, valid], [entry.log_gate for entry in memory.memory], "log_gate")
            close(entries.age[b, valid], [entry.age for entry in memory.memory], "age")
            if config.evict == "least_read":
                close(entries.read_mass[b, valid], [entry.mass for entry in memory.memory], "read_mass")
        if config.writer_conv > 1:
            close(conv_cache[b], memory.conv_cache, "conv_cache")
        assert state.offset[b] == memory.tokens_seen % SEGMENT


def knowing(graph, params, config, seed):
    """A fresh state with three entries of knowledge in each row, if there is place, and those of each reference."""
    state = state_after(nnx.merge(graph, params), BATCH)
    if not config.knowledge_size:
        return state, iter([()] * BATCH)
    rng, empty = np.random.default_rng(seed), state.memory.knowledge
    keys, values = (np.zeros(empty.keys.shape, np.float32) for _ in range(2))
    log_gate, source = np.zeros(empty.source.shape, np.float32), np.zeros(empty.source.shape, np.int32)
    for array in (keys, values):
        array[:, :3] = rng.normal(size=array[:, :3].shape)
    log_gate[:, :3], source[:, :3] = -rng.exponential(size=(BATCH, 3)), [1, 1, 2]
    state = state._replace(memory=state.memory._replace(knowledge=KnowledgeEntries(keys, values, log_gate, source)))
    return state, iter([[Entry(keys[b, i], values[b, i], log_gate[b, i]) for i in range(3)] for b in range(BATCH)])


def knowing_reference(knowledge, *settings):
    return ReferenceKVMemory(*settings, next(knowledge))


@pytest.mark.parametrize("row", rows_of(OPTIONS, *MAIN))
def test_stream_equals_token_by_token_reference(row):
    config = config_of(row)
    graph, params = build(config)
    run = runner(graph)
    for seed, breaks in ((0, 0.0), (1, 0.1), (2, 0.3), (3, 0.6)):
        x, reset = random_inputs(seed, BATCH, LENGTH, breaks)
        start, knowledge = knowing(graph, params, config, seed)
        reads, state = run(params, x, reset, np.ones(reset.shape, bool), start)
        references = partial(knowing_reference, knowledge)
        expected, memories = reference_run(x, reset, references, config, params, SEGMENT)
        np.testing.assert_allclose(reads, expected, atol=2e-5)
        assert_state_equals(state, memories, config)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["order", "gate", "age"])
def test_the_reference_notices_faults(fault, monkeypatch):
    """A wrong memory does not pass the comparison above."""
    config = KVMemoryConfig(memory_size=7, num_heads=2, head_dim=4, recency_bias=True, gate="log_bias")
    select, append, places_to_keep = kv.KVMemory._select, kv.append_entries, kv.places_to_keep

    def backwards(memory, new, evict):
        """New entries in reverse order."""
        size, number = memory.valid.shape[1], memory.valid.shape[1] + new.valid.shape[1]
        place = places_to_keep(memory, new, evict)
        return jnp.where(place < size, place, size + number - 1 - place)

    def older(memory, new, evict, *places):
        after = append(memory, new, evict, *places)
        return after._replace(age=after.age + 1)

    def louder(self, entries):
        return select(self, entries._replace(log_gate=entries.log_gate * 2))

    where, name, wrong = {
        "order": (kv, "places_to_keep", backwards),
        "age": (kv, "append_entries", older),
        "gate": (kv.KVMemory, "_select", louder),
    }[fault]
    monkeypatch.setattr(where, name, wrong)
    graph, params = build(config)
    x, reset = random_inputs(0, BATCH, LENGTH)
    reads, _ = runner(graph)(params, x, reset, np.ones(reset.shape, bool), None)
    assert difference(reads, reference_run(x, reset, ReferenceKVMemory, config, params, SEGMENT)[0]) > 1e-3


def test_covering_really_covers_all_pairs():
    rows = covering(OPTIONS)
    for name, values in OPTIONS.items():
        for other, other_values in OPTIONS.items():
            if name < other:
                seen = {(row[name], row[other]) for row in rows}
                assert len(seen) == len(values) * len(other_values)
    assert len(rows) < 25
    assert {field.name for field in dataclasses.fields(KVMemoryConfig)} >= set(OPTIONS)
