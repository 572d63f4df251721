"""The kNN memory: a token-by-token reference, its two forms, a large store, and behaviour at the extremes."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from memgpt_jax.memory import knn, make_memory
from memgpt_jax.memory.base import Memory, Segment
from memgpt_jax.memory.knn import KNNMemoryConfig
from memgpt_jax.ops.memory import find_nearest
from tests.laws.coverings import rows_of
from tests.laws.memories import SEGMENT, WIDTH, build, difference, influence, random_inputs, reference_run, runner
from tests.references.knn import ReferenceKNNMemory

OPTIONS = {
    "memory_size": [7, 16, 3, 0],  # not dividing, dividing, smaller than a segment, nothing
    "top_k": [2, 1, 5, 32],
    "search": ["exact", "approximate"],  # so few entries have a bin each: the same result
    "writer_conv": [3, 1, 4],
    "qk_norm": [True, False],
}
# Rows that run by default: each value with a memory that holds something.
MAIN = [
    {"memory_size": 7, "top_k": 2, "search": "exact", "writer_conv": 3, "qk_norm": True},
    {"memory_size": 16, "top_k": 5, "search": "approximate", "writer_conv": 4, "qk_norm": False},
    {"memory_size": 3, "top_k": 1, "search": "approximate", "writer_conv": 1, "qk_norm": True},
]
BATCH, LENGTH = 3, 6 * SEGMENT + 2


def config_of(**row):
    return KNNMemoryConfig(**{"num_heads": 2, "head_dim": 4, "temperature": 3.0} | row)


def in_order(state, b):
    """Keys and values [count, H, K] of a row's store, the oldest first."""
    size, count = state.ring_keys.shape[2], int(state.count[b])
    places = (int(state.next[b]) - count + np.arange(count)) % max(1, size)
    return np.asarray(state.ring_keys)[b][:, places].swapaxes(0, 1), np.asarray(state.ring_values)[b][
        :, places
    ].swapaxes(0, 1)


def segments_of(x):
    nothing = jnp.zeros(x.shape[:3], bool)
    return Segment(x, nothing, ~nothing, ~nothing, jnp.ones(x.shape[:2], bool))


@pytest.mark.parametrize("row", rows_of(OPTIONS, *MAIN))
def test_stream_equals_token_by_token_reference(row):
    config = config_of(**row)
    graph, params = build(config)
    run = runner(graph)
    for seed, breaks in ((0, 0.0), (1, 0.1), (2, 0.5)):
        x, reset = random_inputs(seed, BATCH, LENGTH, breaks)
        reads, state = run(params, x, reset, np.ones(reset.shape, bool), None)
        expected, memories = reference_run(x, reset, ReferenceKNNMemory, config, params, SEGMENT)
        np.testing.assert_allclose(reads, expected, atol=2e-5)
        for b, memory in enumerate(memories):
            keys, values = in_order(state.memory, b)
            assert len(keys) == len(memory.memory)
            if memory.memory:
                np.testing.assert_allclose(keys, [key for key, _ in memory.memory], atol=2e-5)
                np.testing.assert_allclose(values, [value for _, value in memory.memory], atol=2e-5)
            if config.writer_conv > 1:
                np.testing.assert_allclose(state.memory.conv_cache[b], memory.conv_cache, atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["worst", "newest", "gate"])
def test_the_reference_notices_faults(fault, monkeypatch):
    """A wrong memory does not pass the comparison above."""
    if fault == "worst":
        monkeypatch.setattr(knn, "find_nearest", lambda query, *rest, **options: find_nearest(-query, *rest, **options))
    elif fault == "newest":  # one entry of the range is forgotten

        def late(query, keys, first, end, **options):
            return find_nearest(query, keys, first + 1, end, **options)

        monkeypatch.setattr(knn, "find_nearest", late)
    else:
        fused = knn.KNNMemory._fused
        monkeypatch.setattr(knn.KNNMemory, "_fused", lambda self, stored, local: fused(self, local, stored))
    config = config_of(memory_size=7, top_k=2)
    graph, params = build(config)
    x, reset = random_inputs(0, BATCH, LENGTH)
    reads, _ = runner(graph)(params, x, reset, np.ones(reset.shape, bool), None)
    assert difference(reads, reference_run(x, reset, ReferenceKNNMemory, config, params, SEGMENT)[0]) > 1e-3


FORMS = {"memory_size": [7, 3], "top_k": [2, 32], "search": ["exact", "approximate"]}
MAIN_FORMS = [
    {"memory_size": 7, "top_k": 32, "search": "exact"},
    {"memory_size": 3, "top_k": 2, "search": "approximate"},
]


@pytest.mark.parametrize("row", rows_of(FORMS, *MAIN_FORMS))
def test_parallel_equals_scan(row):
    """In value, state and gradient, with segments that are not full or hold no token at the end."""
    graph, params = build(config_of(**row))
    x, reset = random_inputs(0, 2, 5 * SEGMENT, breaks=0.1)
    x, reset = x.reshape(2, 5, SEGMENT, WIDTH), reset.reshape(2, 5, SEGMENT)
    exists = np.ones(reset.shape, bool)
    exists[0, 4, 2:] = exists[1, 3, 1:] = exists[1, 4] = False
    segments = Segment(None, reset & exists, exists, exists, exists.all(axis=2))

    @functools.partial(jax.jit, static_argnums=0)
    def run(parallel, params, x):
        def loss(params, x):
            memory = nnx.merge(graph, params)
            form = knn.KNNMemory.sequence if parallel else Memory.sequence
            read, state = form(memory, segments._replace(x=x), memory.init_state(2))
            read = jnp.where(exists[..., None], read, 0)
            return jnp.sum(jnp.sin(read)) + jnp.sum(jnp.cos(state.ring_keys) * state.ring_values), (read, state)

        return jax.value_and_grad(loss, (0, 1), has_aux=True)(params, x)

    assert difference(run(True, params, x), run(False, params, x)) < 2e-5


def test_no_gradient_into_the_state_that_comes_in():
    graph, params = build(config_of(memory_size=7, top_k=3))
    run, (x, reset) = runner(graph), random_inputs(0, BATCH, 2 * SEGMENT, breaks=0.0)
    valid = np.ones(reset.shape, bool)
    _, state = run(params, x, reset, valid, None)

    def loss(keys, values, conv_cache):
        memory = state.memory._replace(ring_keys=keys, ring_values=values, conv_cache=conv_cache)
        return jnp.sum(jnp.sin(run(params, x, reset, valid, state._replace(memory=memory))[0]))

    stored = state.memory.ring_keys, state.memory.ring_values, state.memory.conv_cache
    moved = loss(stored[0], stored[1] + 1, stored[2])
    assert abs(float(moved - loss(*stored))) > 1e-3  # it is read,
    assert difference(jax.grad(loss, (0, 1, 2))(*stored), jax.tree.map(jnp.zeros_like, stored)) == 0  # and no more


@pytest.mark.slow
def test_the_papers_rule_still_teaches_the_writer():
    """With `bptt_segments=0` a token has no gradient from earlier segments, but every parameter has one."""
    graph, params = build(config_of(memory_size=16, bptt_segments=0))
    x, reset = random_inputs(0, 1, 3 * SEGMENT, breaks=0.0)

    def run(params, x):
        return runner(graph)(params, x, reset, ~reset, None)[0]

    flow = influence(lambda x: run(params, x), x)[0, :, 0]
    segment = np.arange(len(flow)) // SEGMENT
    assert np.all(flow[segment[:, None] != segment[None, :]] == 0)
    assert not np.array_equal(run(params, x)[:, SEGMENT:], run(params, np.flip(x, 1))[:, SEGMENT:])
    gradients = jax.grad(lambda params: jnp.sum(jnp.sin(run(params, x))))(params)
    assert all(np.any(np.abs(leaf) > 1e-7) for leaf in jax.tree.leaves(gradients))


@pytest.mark.parametrize("top_k", [1, 8, 32])
def test_from_the_best_entry_to_all(top_k):
    """With an open gate: top_k = 1 reads the value of the best entry as it is, top_k >= M is softmax over all."""
    graph, params = build(config_of(memory_size=8, top_k=top_k, num_heads=1))
    params["store_gate"] = jnp.full(1, 100.0)
    memory = nnx.merge(graph, params)
    keys, values = (np.random.default_rng(i).normal(size=(8, 4)).astype(np.float32) for i in range(2))
    state = memory.init_state(1)._replace(
        ring_keys=jnp.asarray(keys)[None, None],
        ring_values=jnp.asarray(values)[None, None],
        count=jnp.full(1, 8, jnp.int32),
    )
    x = jnp.asarray(random_inputs(0, 1, SEGMENT)[0])
    read, _ = jax.jit(memory.sequence)(segments_of(x[:, None]), state)
    scores = np.asarray(memory.queries(x))[0, :, 0] @ keys.T
    weights = scores == scores.max(axis=1, keepdims=True) if top_k == 1 else np.exp(scores)
    expected = weights / weights.sum(axis=1, keepdims=True) @ values
    np.testing.assert_allclose(read[0, 0], expected, atol=1e-5)


def test_the_ring_wraps_exactly():
    """After any number of tokens the store holds the last M written ones, and the pointer stays below M."""
    config = config_of(memory_size=6, writer_conv=1)
    graph, params = build(config)
    run, memory = runner(graph), nnx.merge(*build(config))
    x, reset = random_inputs(0, 1, 10 * SEGMENT, breaks=0.0)
    everything = memory.keys_and_values(jnp.asarray(x), jnp.asarray(x))  # without a convolution
    state = None
    for start in range(0, x.shape[1], SEGMENT):
        part = slice(start, start + SEGMENT)
        _, state = run(params, x[:, part], reset[:, part], ~reset[:, part], state)
        written = range(max(0, part.stop - 6), part.stop)
        assert 0 <= int(state.memory.next[0]) == part.stop % 6
        for got, expected in zip(in_order(state.memory, 0), everything, strict=True):
            np.testing.assert_allclose(got, np.asarray(expected)[0, list(written)], atol=1e-6)


LARGE = 65536


def large_memory(**options):
    config = KNNMemoryConfig(memory_size=LARGE, head_dim=16, **options)
    memory = make_memory(config, d_model=16, segment_length=64, dtype="float32", rngs=nnx.Rngs(0))
    state = memory.init_state(1)

    def draw(seed):
        return jnp.asarray(np.random.default_rng(seed).normal(size=state.ring_keys.shape), jnp.float32)

    state = state._replace(
        ring_keys=memory.unit(draw(0)),
        ring_values=draw(1),
        next=jnp.full(1, 1000, jnp.int32),
        count=jnp.full(1, LARGE, jnp.int32),
    )
    return memory, state


def test_a_store_of_65536_entries():
    """Exact reads equal brute force, approximate ones find what they promise, in bounded memory, and writes land."""
    memory, state = large_memory()
    x = jnp.asarray(np.random.default_rng(2).normal(size=(1, 2, 64, 16)), jnp.float32)
    run = jax.jit(memory.sequence)
    exact, after = run(segments_of(x), state)
    temporary = run.lower(segments_of(x), state).compile().memory_analysis().temp_size_in_bytes
    assert temporary < 10 * LARGE * 16 * 4  # a few copies of keys and values; all scores would be 8 times as much
    assert (int(after.next[0]), int(after.count[0])) == (1000 + 128, LARGE)
    assert difference(after.ring_keys[:, :, :1000], state.ring_keys[:, :, :1000]) == 0

    query = np.asarray(memory.queries(x[:, 0]))[0, :, 0]
    keys, values = (np.asarray(a)[0, 0] for a in (state.ring_keys, state.ring_values))
    scores = query.astype(np.float64) @ keys.T
    best = np.argsort(-scores, axis=1)[:, :32]
    weights = np.exp(np.take_along_axis(scores, best, axis=1))
    stored = np.einsum("qe,qek->qk", weights / weights.sum(axis=1, keepdims=True), values[best])
    blank = memory.init_state(1)
    local = run(segments_of(x), blank)[0][:, 0]  # of an empty store only the local read is left
    expected = np.asarray(local)[0] + 0.5 * stored
    np.testing.assert_allclose(exact[0, 0], expected, atol=1e-4)


def test_a_write_does_not_copy_the_store():
    """In place, when the state is donated: nothing of the store's size is allocated."""
    memory, state = large_memory()
    x, live = jnp.ones((1, 64, 16)), jnp.ones((1, 64), bool)
    compiled = jax.jit(memory.write, donate_argnums=1).lower(x, state, live).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < LARGE * 16 * 4 / 10
    assert compiled.memory_analysis().alias_size_in_bytes >= 2 * LARGE * 16 * 4


def test_state_bytes_are_as_documented():
    config = KNNMemoryConfig(memory_size=10, num_heads=2, head_dim=4, writer_conv=3)
    memory = make_memory(config, d_model=WIDTH, segment_length=SEGMENT, dtype="bfloat16", rngs=nnx.Rngs(0))
    stats = memory.stats(memory.init_state(3))
    assert int(stats["bytes"]) == 2 * 10 * 2 * 4 * 2 + 2 * WIDTH * 2 + 8
    assert float(stats["occupancy"]) == 0


def test_occupancy_counts_the_open_document():
    graph, params = build(config_of(memory_size=16))
    x, reset = random_inputs(0, 2, 3 * SEGMENT, breaks=0.0)
    reset[1, SEGMENT + 1] = True
    _, state = runner(graph)(params, x, reset, np.ones(reset.shape, bool), None)
    occupancy = float(nnx.merge(graph, params).stats(state.memory)["occupancy"])
    assert occupancy == pytest.approx((12 + 7) / 32)


@pytest.mark.parametrize(
    "name, value", [("top_k", 0), ("recall_target", 1.0), ("recall_target", 0.0), ("search", "fast")]
)
def test_illegal_values_are_refused(name, value):
    with pytest.raises(ValueError, match=rf"{name} must be .*{re.escape(repr(value))}"):
        dataclasses.replace(KNNMemoryConfig(), **{name: value})
