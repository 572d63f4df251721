"""The Differentiable Neural Computer: equal to its reference, and at the extremes what its parts are for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from memgpt_jax.memory import dnc, make_memory
from memgpt_jax.memory.dnc import DNCMemoryConfig
from memgpt_jax.memory.streaming import init_stream_state, stream
from memgpt_jax.ops.memory import allocation_weights, follow_links, free_usage, link_writes, update_usage
from tests.laws.coverings import rows_of
from tests.laws.memories import SEGMENT, WIDTH, build, difference, random_inputs, reference_run, runner
from tests.references.slots import ReferenceDNC

OPTIONS = {
    "controller": ["pair", "none", "lstm"],
    "order": ["read_write", "write_read"],
    "num_read_heads": [1, 2],
    "memory_size": [7, 1, 4],
}
# Rows that run by default: each value with a memory that holds something.
MAIN = [
    {"controller": "pair", "order": "read_write", "num_read_heads": 1, "memory_size": 7},
    {"controller": "none", "order": "write_read", "num_read_heads": 2, "memory_size": 4},
    {"controller": "lstm", "order": "read_write", "num_read_heads": 2, "memory_size": 7},
]
BATCH, LENGTH = 2, 4 * SEGMENT + 2


def config_of(row):
    return DNCMemoryConfig(**row, slot_width=4, controller_size=5)


@pytest.mark.parametrize("row", rows_of(OPTIONS, *MAIN))
def test_stream_equals_token_by_token_reference(row):
    config = config_of(row)
    graph, params = build(config)
    run = runner(graph)
    for seed, breaks in ((0, 0.0), (1, 0.3)):
        x, reset = random_inputs(seed, BATCH, LENGTH, breaks)
        reads, state = run(params, x, reset, np.ones(reset.shape, bool), None)
        expected, machines = reference_run(x, reset, ReferenceDNC, config, params)
        np.testing.assert_allclose(reads, expected, atol=5e-5)
        slots = state.memory.slots
        for got, name in zip(slots, ("memory", "usage_after", "link", "precedence", "read_weights"), strict=True):
            np.testing.assert_allclose(got, [getattr(m, name) for m in machines], atol=5e-5, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["allocation_weights", "free_usage", "link_writes", "follow_links"])
def test_the_reference_notices_faults(fault, monkeypatch):
    def no_decay(link, precedence, weights):
        return link + weights[:, :, None] * precedence[:, None, :], link_writes(link, precedence, weights)[1]

    wrong = {
        "allocation_weights": lambda usage: allocation_weights(1.0 - usage),
        "free_usage": lambda usage, read_weights, free_gates: usage,
        "link_writes": no_decay,
        "follow_links": lambda link, weights: follow_links(link, weights)[::-1],
    }
    monkeypatch.setattr(dnc, fault, wrong[fault])
    config = config_of({"memory_size": 7})
    graph, params = build(config)
    x, reset = random_inputs(0, BATCH, LENGTH)
    reads, _ = runner(graph)(params, x, reset, np.ones(reset.shape, bool), None)
    assert difference(reads, reference_run(x, reset, ReferenceDNC, config, params)[0]) > 1e-3


@pytest.mark.parametrize("controller", ["none", "lstm"])
def test_the_segment_length_changes_nothing(controller):
    config = config_of({"memory_size": 5, "controller": controller})
    x, reset = random_inputs(2, BATCH, 12)
    found = {}
    for length in (1, 4):
        graph, params = build(config, segment_length=length)
        reads, state = runner(graph, segment_length=length)(params, x, reset, np.ones(reset.shape, bool), None)
        found[length] = reads, state.memory
    assert difference(found[1], found[4]) < 1e-6


def test_allocation_goes_to_the_free_slot():
    usage = jnp.asarray([[1.0, 1.0, 0.0, 1.0], [0.3, 0.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0]])
    where = np.asarray(allocation_weights(usage))
    np.testing.assert_allclose(where[:2], np.eye(4)[[2, 1]], atol=1e-5)  # of two free ones, the earlier
    np.testing.assert_allclose(where[2], np.zeros(4), atol=1e-5)  # nothing is free
    half = np.asarray(allocation_weights(jnp.asarray([[0.5, 0.25, 1.0]])))
    np.testing.assert_allclose(half, [[0.5 * 0.25, 0.75, 0.0]], atol=1e-5)


def test_allocation_equals_the_sorted_list_and_has_finite_gradients_at_ties():
    usage = np.random.default_rng(0).random((3, 9)).astype(np.float32)
    usage[0, :4] = 0.0
    usage[1, 2:5] = 1.0
    usage[2, :] = 0.5
    kept = 1e-6 + (1 - 1e-6) * usage.astype(float)
    expected = np.zeros(usage.shape)
    for b in range(3):
        product = 1.0
        for slot in np.argsort(np.round(kept[b] * 2**12), kind="stable"):
            expected[b, slot], product = (1 - kept[b, slot]) * product, product * kept[b, slot]
    np.testing.assert_allclose(allocation_weights(jnp.asarray(usage)), expected, atol=1e-6)
    assert np.all(allocation_weights(jnp.asarray(usage)).sum(axis=1) <= 1 + 1e-6)
    gradient = jax.grad(lambda usage: jnp.sum(jnp.sin(allocation_weights(usage))))(jnp.asarray(usage))
    assert np.all(np.isfinite(gradient))


def test_freed_slots_are_used_again():
    usage, read = jnp.ones((1, 4)), jnp.eye(4)[None, 2:3]
    np.testing.assert_allclose(free_usage(usage, read, jnp.zeros((1, 1))), usage)  # the free gate is closed
    freed = free_usage(usage, read, jnp.ones((1, 1)))
    np.testing.assert_allclose(freed, [[1, 1, 0, 1]])
    again = allocation_weights(freed)
    np.testing.assert_allclose(again, np.eye(4)[None, 2], atol=1e-5)
    np.testing.assert_allclose(update_usage(freed, again), usage, atol=1e-5)


def test_links_follow_the_order_of_writing_to_both_sides():
    link, precedence = jnp.zeros((1, 4, 4)), jnp.zeros((1, 4))
    for slot in (1, 3, 0):
        link, precedence = link_writes(link, precedence, jnp.eye(4)[None, slot])
    np.testing.assert_array_equal(precedence, np.eye(4)[None, 0])
    forward, backward = follow_links(link, jnp.eye(4)[None])
    np.testing.assert_array_equal(forward[0], [[0] * 4, np.eye(4)[3], [0] * 4, np.eye(4)[0]])
    np.testing.assert_array_equal(backward[0], [np.eye(4)[3], [0] * 4, [0] * 4, np.eye(4)[1]])
    link, precedence = link_writes(link, precedence, jnp.zeros((1, 4)))  # writing nothing changes nothing
    np.testing.assert_array_equal(precedence, np.eye(4)[None, 0])
    np.testing.assert_array_equal(follow_links(link, jnp.eye(4)[None])[0], forward)


def test_weightings_are_never_more_than_one():
    """Read modes are distributions; weights of reading and of writing, usage and links stay in [0, 1]."""
    config = config_of({"memory_size": 7, "num_read_heads": 2})
    graph, params = build(config, jitter=1.0)
    memory = nnx.merge(graph, params)
    x, reset = random_inputs(4, BATCH, LENGTH)
    interface = memory.interface(memory.interface_vector(3 * x))
    np.testing.assert_allclose(jnp.sum(interface.read_modes, axis=-1), 1, rtol=1e-5)
    slots, address = memory.initial_state(BATCH).slots, jax.jit(memory.address)
    for t in range(LENGTH):
        slots = address(jax.tree.map(lambda a, t=t: a[:, t], interface), slots).slots
        for weights in (slots.read_weights, slots.precedence[:, None], slots.link, slots.link.swapaxes(1, 2)):
            assert np.all(np.asarray(weights) >= 0) and np.all(np.asarray(weights).sum(axis=-1) <= 1 + 1e-5)
        assert np.all((np.asarray(slots.usage) >= 0) & (np.asarray(slots.usage) <= 1 + 1e-6))
        assert not np.any(np.diagonal(slots.link, axis1=1, axis2=2))


@pytest.mark.parametrize("order", ["read_write", "write_read"])
def test_the_order_decides_whether_a_token_reads_what_it_writes(order):
    graph, params = build(config_of({"memory_size": 7, "order": order}))
    x, _ = random_inputs(5, BATCH, 1)
    nothing = np.zeros((BATCH, 1), bool)
    read, _ = runner(graph)(params, x, nothing, ~nothing, None)
    assert np.any(np.abs(np.asarray(read)) > 1e-4) == (order == "write_read")


@pytest.mark.parametrize("controller", ["pair", "none"])
def test_slots_start_as_an_append_memory(controller):
    """Without training, each token takes a free slot, and a key reads the slot written right after it."""
    config = DNCMemoryConfig(memory_size=16, slot_width=32, controller=controller)
    graph, params = nnx.split(make_memory(config, d_model=64, segment_length=4, dtype="float32", rngs=nnx.Rngs(0)))
    tokens = np.random.default_rng(0).normal(size=(1, 9, 64)).astype(np.float32)
    tokens[0, 8] = tokens[0, 2]  # asked for again

    @jax.jit
    def run(params, x, reset, valid):
        memory = nnx.merge(graph, params)
        return stream(memory, x, init_stream_state(memory, 1, 4, 64, jnp.dtype("float32")), reset, valid)[1]

    def slots_after(length):
        nothing = np.zeros((1, length), bool)
        return jax.device_get(run(params, tokens[:, :length], nothing, ~nothing).memory.slots)

    answer = slots_after(4 if controller == "pair" else 3).precedence[0].argmax()  # the last slot written until then
    slots = slots_after(9)
    assert np.sum(slots.usage > 0.3) == 9 and np.sum(slots.usage < 0.1) == 7
    assert slots.read_weights[0, 0].argmax() == answer
    assert slots.read_weights[0, 0].max() > 0.5


def test_stats_and_bytes():
    memory = nnx.merge(*build(config_of({"memory_size": 7, "num_read_heads": 2})))
    stats = memory.stats(memory.initial_state(BATCH))
    assert stats["usage"] == 0 and stats["read_entropy"] == 0
    size, heads, width = 7, 2, 4
    assert stats["bytes"] == 4 * size * (size + width + heads + 2) + 4 * WIDTH
