"""The compressive memory: a token-by-token reference, and behaviour at the extremes."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from memgpt_jax.memory import compressive, make_memory
from memgpt_jax.memory.compressive import CompressiveMemoryConfig
from memgpt_jax.ops.memory import compress, select_most_used
from tests.laws.coverings import rows_of
from tests.laws.memories import SEGMENT, WIDTH, build, difference, random_inputs, reference_run, runner
from tests.references.compressive import ReferenceCompressiveMemory

OPTIONS = {
    "compression": ["mean", "max", "conv", "most_used"],
    "ratio": [2, 3, 1],  # 3 divides neither a segment nor the recent size
    "memory_size": [7, 16, 2, 0],
    "recent_size": [None, 5, 0],  # larger than the memory too
    "writer_conv": [3, 1],
    "qk_norm": [True, False],
}
# Rows that run by default: each value with a memory that holds something.
MAIN = [
    {"compression": "mean", "ratio": 2, "memory_size": 2, "recent_size": None, "writer_conv": 3, "qk_norm": True},
    {"compression": "max", "ratio": 3, "memory_size": 16, "recent_size": 5, "writer_conv": 1, "qk_norm": False},
    {"compression": "conv", "ratio": 3, "memory_size": 7, "recent_size": None, "writer_conv": 1, "qk_norm": True},
    {"compression": "most_used", "ratio": 2, "memory_size": 16, "recent_size": 5, "writer_conv": 3, "qk_norm": False},
    {"compression": "mean", "ratio": 1, "memory_size": 0, "recent_size": 0, "writer_conv": 3, "qk_norm": True},
]
BATCH, LENGTH = 3, 6 * SEGMENT + 2


def config_of(**row):
    return CompressiveMemoryConfig(**{"num_heads": 2, "head_dim": 4, "temperature": 3.0} | row)


def assert_state_equals(state, memories):
    """Both memories of every row, from place 0 on, zeros behind; the usage and the conv_cache, where they are kept."""
    for b, memory in enumerate(memories):
        for prefix, expected in (("", memory.recent), ("compressed_", memory.compressed)):
            count = int(getattr(state, f"{prefix}count")[b])
            assert count == len(expected)
            for name in ("key", "value"):
                stored = np.asarray(getattr(state, f"{prefix}{name}s"))[b]
                assert not stored[count:].any()
                if count:
                    np.testing.assert_allclose(stored[:count], [getattr(e, name) for e in expected], atol=2e-5)
        if state.usage is not None:
            np.testing.assert_allclose(
                state.usage[b, : len(memory.recent)], [e.usage for e in memory.recent], atol=2e-5
            )
        if state.conv_cache.size:
            np.testing.assert_allclose(state.conv_cache[b], memory.conv_cache, atol=2e-5)


@pytest.mark.parametrize("row", rows_of(OPTIONS, *MAIN))
def test_stream_equals_token_by_token_reference(row):
    config = config_of(**row)
    graph, params = build(config)
    run = runner(graph)
    for seed, breaks in ((0, 0.0), (1, 0.1), (2, 0.5)):
        x, reset = random_inputs(seed, BATCH, LENGTH, breaks)
        reads, state = run(params, x, reset, np.ones(reset.shape, bool), None)
        expected, memories = reference_run(x, reset, ReferenceCompressiveMemory, config, params, SEGMENT)
        np.testing.assert_allclose(reads, expected, atol=2e-5)
        assert_state_equals(state.memory, memories)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["source", "order", "usage"])
def test_the_reference_notices_faults(fault, monkeypatch):
    """A wrong memory does not pass the comparison above."""
    memory = compressive.CompressiveMemory
    if fault == "source":  # the sources are not told apart
        sources = memory._sources

        def forget(self, *rest):
            return sources(self, *rest)[:1] * 2

        monkeypatch.setattr(memory, "_sources", forget)
    elif fault == "order":  # groups are compressed backwards
        monkeypatch.setattr(compressive, "compress", lambda x, *rest: compress(x[:, :, ::-1], *rest))
    else:
        monkeypatch.setattr(compressive, "select_most_used", lambda x, usage: select_most_used(x, -usage))
    config = config_of(memory_size=8, recent_size=4, compression="most_used" if fault == "usage" else "conv")
    graph, params = build(config)
    x, reset = random_inputs(0, BATCH, LENGTH, breaks=0.05)
    reads, _ = runner(graph)(params, x, reset, np.ones(reset.shape, bool), None)
    assert difference(reads, reference_run(x, reset, ReferenceCompressiveMemory, config, params, SEGMENT)[0]) > 1e-3


@pytest.mark.parametrize("kind", ["mean", "max", "conv", "most_used"])
def test_equal_entries_compress_to_themselves(kind):
    """`conv` too, as it starts as the mean."""
    memory = make_memory(
        config_of(compression=kind, ratio=3), d_model=WIDTH, segment_length=SEGMENT, dtype="float32", rngs=nnx.Rngs(0)
    )
    vectors = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 1, 2, 4)), jnp.float32)
    keys = memory.unit(vectors)
    entries = [jnp.broadcast_to(x, (2, 5, 3, 2, 4)).reshape(2, 15, 2, 4) for x in (keys, vectors)]
    usage = jnp.zeros((2, 15), jnp.float32) if kind == "most_used" else None
    compressed = memory._compressed((*entries, usage), 5)
    np.testing.assert_allclose(compressed[0], keys[:, :, 0], atol=1e-6)
    np.testing.assert_allclose(compressed[1], vectors[:, :, 0], atol=1e-6)


def test_compressions_on_numbers():
    groups = jnp.asarray([[1.0, 4.0], [3.0, 2.0]]).reshape(1, 1, 2, 1, 2)
    kernel = jnp.asarray([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]]]).reshape(2, 1, 2, 2)  # the second swaps

    def as_list(x):
        return np.asarray(x).ravel().tolist()

    assert as_list(compress(groups, "mean")) == [2.0, 3.0]
    assert as_list(compress(groups, "max")) == [3.0, 4.0]
    assert as_list(compress(groups, "conv", kernel)) == [1.0 + 2.0, 4.0 + 3.0]
    for usage, expected in (([0.1, 0.2], [3.0, 2.0]), ([0.2, 0.1], [1.0, 4.0]), ([0.2, 0.2], [1.0, 4.0])):
        assert as_list(select_most_used(groups, jnp.asarray(usage, jnp.float32).reshape(1, 1, 2))) == expected


@pytest.mark.parametrize("ratio", [1, 3, *(pytest.param(ratio, marks=pytest.mark.slow) for ratio in (2, 5))])
def test_the_counts_follow_from_the_tokens_alone(ratio):
    """After n tokens: n - c floor((n - R) / c) recent ones, at most C compressed; a reset begins again from 0."""
    config = config_of(memory_size=9, recent_size=5, ratio=ratio)
    graph, params = build(config)
    run, state, tokens = runner(graph), None, 0
    x, reset = random_inputs(0, 1, 10 * SEGMENT, breaks=0.0)
    reset[0, 6 * SEGMENT + 1] = True
    for start in range(0, x.shape[1], SEGMENT):
        part = slice(start, start + SEGMENT)
        _, state = run(params, x[:, part], reset[:, part], np.ones((1, SEGMENT), bool), state)
        tokens = 3 if start == 6 * SEGMENT else tokens + SEGMENT
        groups = max(0, tokens - 5) // ratio
        assert int(state.memory.count[0]) == tokens - ratio * groups
        assert int(state.memory.compressed_count[0]) == min(4, groups)


def test_compressed_entries_reach_further_back():
    """With c = 3, R = 4, C = 4 a token still depends on what was written 4 + 3 * 4 tokens ago, and no further."""
    config = config_of(memory_size=8, recent_size=4, ratio=3, writer_conv=1, compression="conv")
    graph, params = build(config)
    x, reset = random_inputs(0, 1, 6 * SEGMENT + 1, breaks=0.0)

    def last(x):
        return jnp.sum(runner(graph)(params, x, reset, ~reset, None)[0][0, -1])

    flow = np.abs(np.asarray(jax.jit(jax.grad(last))(x)))[0].max(axis=1)
    # 24 tokens are written: 6 groups of 3 have left, of which 4 remain, and 6 entries are recent.
    assert not flow[:6].any()
    assert np.all(flow[6:] > 0)


def test_gradient_trains_the_compression_through_time():
    graph, params = build(config_of(memory_size=8, recent_size=2, ratio=2))
    x, reset = random_inputs(0, BATCH, 4 * SEGMENT, breaks=0.0)

    def loss(params, length):
        return jnp.sum(jnp.sin(runner(graph)(params, x[:, :length], reset[:, :length], ~reset[:, :length], None)[0]))

    gradient = jax.jit(jax.grad(loss), static_argnums=1)
    short, long = (gradient(params, length)["compress_values_kernel"] for length in (SEGMENT, 4 * SEGMENT))
    assert not np.any(short)  # nothing was compressed before it was read
    assert np.any(np.abs(long) > 1e-4)


def test_parameters_do_not_depend_on_the_sizes():
    """So a model can be evaluated with a memory of another size."""
    sizes = [(16, None), (7, 7), (0, None), (5, 0)]
    shapes = [build(config_of(memory_size=size, recent_size=recent))[1] for size, recent in sizes]
    assert all(jax.tree.map(jnp.shape, one) == jax.tree.map(jnp.shape, shapes[0]) for one in shapes)


@pytest.mark.parametrize("compression, extra", [("mean", 0), ("most_used", 4 * (4 + 2))])
def test_state_bytes_are_as_documented(compression, extra):
    config = config_of(memory_size=10, recent_size=4, ratio=3, compression=compression)
    memory = make_memory(config, d_model=WIDTH, segment_length=SEGMENT, dtype="bfloat16", rngs=nnx.Rngs(0))
    stats = memory.stats(memory.init_state(3))
    assert int(stats["bytes"]) == 2 * (4 + 2 + 6) * 2 * 4 * 2 + 2 * WIDTH * 2 + 8 + extra
    assert float(stats["recent_occupancy"]) == float(stats["compressed_occupancy"]) == 0


def test_occupancy_counts_both_memories():
    graph, params = build(config_of(memory_size=8, recent_size=4, ratio=2))
    x, reset = random_inputs(0, 2, 2 * SEGMENT, breaks=0.0)
    reset[1, SEGMENT + 1] = True
    _, state = runner(graph)(params, x, reset, np.ones(reset.shape, bool), None)
    stats = nnx.merge(graph, params).stats(state.memory)
    assert float(stats["recent_occupancy"]) == pytest.approx((4 + 3) / 10)
    assert float(stats["compressed_occupancy"]) == pytest.approx((2 + 0) / 8)


@pytest.mark.parametrize("name, value", [("ratio", 0), ("recent_size", -1), ("compression", "median")])
def test_illegal_values_are_refused(name, value):
    with pytest.raises(ValueError, match=rf"{name} must be .*{re.escape(repr(value))}"):
        CompressiveMemoryConfig(**{name: value})
