"""The Neural Turing Machine: equal to its reference, and at the extremes what its parts are for."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from memgpt_jax.memory import make_memory, ntm
from memgpt_jax.memory.base import Memory, Segment
from memgpt_jax.memory.ntm import NTMMemory, NTMMemoryConfig
from memgpt_jax.memory.streaming import init_stream_state, stream
from memgpt_jax.ops.memory import content_weights, erase_and_add, interpolate_weights, sharpen_weights, shift_weights
from tests.laws.coverings import rows_of
from tests.laws.memories import SEGMENT, WIDTH, build, difference, random_inputs, reference_run, runner
from tests.references.slots import ReferenceNTM

OPTIONS = {
    "controller": ["pair", "none", "lstm"],
    "order": ["read_write", "write_read"],
    "num_read_heads": [1, 2],
    "num_write_heads": [1, 2],
    "shift_range": [1, 0, 2],
    "memory_size": [7, 1, 4],
}
# Rows that run by default: each value with a memory that holds something.
MAIN = [
    {
        "controller": "pair",
        "order": "read_write",
        "num_read_heads": 1,
        "num_write_heads": 1,
        "shift_range": 1,
        "memory_size": 7,
    },
    {
        "controller": "none",
        "order": "write_read",
        "num_read_heads": 2,
        "num_write_heads": 1,
        "shift_range": 0,
        "memory_size": 4,
    },
    {
        "controller": "lstm",
        "order": "read_write",
        "num_read_heads": 2,
        "num_write_heads": 2,
        "shift_range": 2,
        "memory_size": 7,
    },
]
BATCH, LENGTH = 2, 4 * SEGMENT + 2


def config_of(row):
    return NTMMemoryConfig(**row, slot_width=4, controller_size=5)


@pytest.mark.parametrize("row", rows_of(OPTIONS, *MAIN))
def test_stream_equals_token_by_token_reference(row):
    config = config_of(row)
    graph, params = build(config)
    run = runner(graph)
    for seed, breaks in ((0, 0.0), (1, 0.3)):
        x, reset = random_inputs(seed, BATCH, LENGTH, breaks)
        reads, state = run(params, x, reset, np.ones(reset.shape, bool), None)
        expected, machines = reference_run(x, reset, ReferenceNTM, config, params)
        np.testing.assert_allclose(reads, expected, atol=5e-5)
        slots, controller = state.memory
        np.testing.assert_allclose(slots.matrix, [machine.memory for machine in machines], atol=5e-5)
        np.testing.assert_allclose(slots.weights, [machine.weights for machine in machines], atol=5e-5)
        if config.controller == "pair":
            np.testing.assert_array_equal(controller, x[:, -1])
        elif config.controller == "lstm":
            np.testing.assert_allclose(controller.cell, [machine.cell for machine in machines], atol=5e-5)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["shift_weights", "sharpen_weights", "erase_and_add", "interpolate_weights"])
def test_the_reference_notices_faults(fault, monkeypatch):
    wrong = {
        "shift_weights": lambda weights, distance: shift_weights(weights, distance[..., ::-1]),
        "sharpen_weights": lambda weights, power: weights,
        "interpolate_weights": lambda new, old, gate: interpolate_weights(old, new, gate),
        "erase_and_add": lambda memory, weights, erase, add: erase_and_add(memory, weights, 0 * erase, add),
    }
    monkeypatch.setattr(ntm, fault, wrong[fault])
    config = config_of({"memory_size": 7})
    graph, params = build(config)
    x, reset = random_inputs(0, BATCH, LENGTH)
    _, state = runner(graph)(params, x, reset, np.ones(reset.shape, bool), None)
    _, machines = reference_run(x, reset, ReferenceNTM, config, params)
    # Not the reads: they are the same where all heads go the other way round.
    assert difference(state.memory.slots.matrix, np.array([machine.memory for machine in machines])) > 1e-3


@pytest.mark.parametrize("controller", ["pair", "lstm"])
def test_the_segment_length_changes_nothing(controller):
    config = config_of({"memory_size": 5, "controller": controller})
    x, reset = random_inputs(2, BATCH, 12)
    found = {}
    for length in (1, 4, 6):
        graph, params = build(config, segment_length=length)
        reads, state = runner(graph, segment_length=length)(params, x, reset, np.ones(reset.shape, bool), None)
        found[length] = reads, state.memory
    assert difference(found[1], found[4]) < 1e-6
    assert difference(found[1], found[6]) < 1e-6


@pytest.mark.parametrize(
    ("controller", "bptt_segments"),
    [
        ("lstm", None),
        pytest.param("none", 1, marks=pytest.mark.slow),
        pytest.param("none", None, marks=pytest.mark.slow),
        pytest.param("lstm", 1, marks=pytest.mark.slow),
    ],
)
def test_one_scan_equals_the_scan_over_segments(controller, bptt_segments):
    """In value and gradient, with tokens that do not exist and a last segment that is not full."""
    config = config_of({"memory_size": 5, "controller": controller, "bptt_segments": bptt_segments})
    graph, params = build(config)
    x, reset = random_inputs(3, BATCH, 3 * SEGMENT, breaks=0.2)
    exists = np.arange(3 * SEGMENT)[None] < np.array([[3 * SEGMENT - 1], [2 * SEGMENT]])

    def shaped(a):
        return jnp.asarray(a).reshape(BATCH, 3, SEGMENT, *a.shape[2:])

    def loss(params, x, form):
        memory = nnx.merge(graph, params)
        present = shaped(exists)
        segments = Segment(shaped(x), shaped(reset & exists), present, present, jnp.all(present, axis=2))
        read, state = form(memory, segments, memory.initial_state(BATCH))
        read = jnp.where(present[..., None], read, 0)
        return jnp.sum(jnp.sin(read)), (read, state)

    one, by_segment = (
        jax.jit(jax.value_and_grad(lambda p, x, form=form: loss(p, x, form), (0, 1), has_aux=True))(params, x)
        for form in (NTMMemory.sequence, Memory.sequence)
    )
    assert difference(one, by_segment) < 2e-5


def test_a_sharp_key_reads_exactly_its_slot():
    memory = jnp.asarray(np.random.default_rng(0).normal(size=(1, 6, 8)), jnp.float32)
    weights = content_weights(memory, 3.0 * memory[:, 2:3], jnp.full((1, 1), 200.0))
    np.testing.assert_allclose(weights[0, 0], np.eye(6)[2], atol=1e-6)
    even = content_weights(memory, memory[:, 2:3], jnp.zeros((1, 1)))
    np.testing.assert_allclose(even, np.full((1, 1, 6), 1 / 6), atol=1e-6)


def test_a_shift_moves_one_slot_and_wraps_round():
    weights = jnp.eye(5)[None, 3:]  # heads at slots 3 and 4
    forward = jnp.broadcast_to(jnp.asarray([0.0, 0.0, 1.0]), (1, 2, 3))
    np.testing.assert_array_equal(shift_weights(weights, forward)[0], np.eye(5)[[4, 0]])
    np.testing.assert_array_equal(shift_weights(weights, forward[..., ::-1])[0], np.eye(5)[[2, 3]])
    np.testing.assert_array_equal(shift_weights(weights, jnp.ones((1, 2, 1))), weights)  # shift_range 0: nowhere to go


def test_a_full_erase_clears_and_an_add_stays():
    memory = jnp.ones((1, 3, 2))
    here, erase = jnp.eye(3)[None, 1:2], jnp.ones((1, 1, 2))
    after = erase_and_add(memory, here, erase, jnp.asarray([[[5.0, -1.0]]]))
    np.testing.assert_array_equal(after[0], [[1, 1], [5, -1], [1, 1]])
    both = erase_and_add(memory, jnp.eye(3)[None, :2], jnp.ones((1, 2, 2)), jnp.zeros((1, 2, 2)))
    np.testing.assert_array_equal(both[0], [[0, 0], [0, 0], [1, 1]])


def test_sharpening_keeps_a_distribution_and_sharpens_it():
    weights = jnp.asarray([[[0.5, 0.3, 0.2, 0.0]]])
    np.testing.assert_allclose(sharpen_weights(weights, jnp.ones((1, 1))), weights, atol=1e-6)
    sharp = sharpen_weights(weights, jnp.full((1, 1), 30.0))
    np.testing.assert_allclose(sharp[0, 0], [1, 0, 0, 0], atol=1e-6)


@pytest.mark.parametrize("parts", ["memory", "key", "weights"])
def test_values_and_gradients_are_finite_at_zeros(parts):
    rng = np.random.default_rng(0)
    zeros = {"memory": (1, 4, 3), "key": (1, 2, 3), "weights": (1, 2, 4)}
    arrays = {k: np.asarray(rng.normal(size=v) * (k != parts), np.float32) for k, v in zeros.items()}

    def loss(arrays):
        content = content_weights(arrays["memory"], arrays["key"], jnp.full((1, 2), 5.0))
        return jnp.sum(jnp.sin(content)) + jnp.sum(sharpen_weights(arrays["weights"] ** 2, jnp.full((1, 2), 3.0)) ** 2)

    value, gradients = jax.jit(jax.value_and_grad(loss))(arrays)
    assert np.isfinite(value) and all(np.all(np.isfinite(g)) for g in gradients.values())


@pytest.mark.parametrize("name", ["pair", "none"])
def test_slots_start_as_an_append_memory(name):
    """Without training, heads that write go on slot by slot, and a key reads the slot written right after it."""
    config = NTMMemoryConfig(memory_size=16, slot_width=32, controller=name)
    graph, params = nnx.split(make_memory(config, d_model=64, segment_length=4, dtype="float32", rngs=nnx.Rngs(0)))
    tokens = np.random.default_rng(0).normal(size=(1, 9, 64)).astype(np.float32)
    tokens[0, 8] = tokens[0, 2]  # asked for again
    nothing = np.zeros((1, 9), bool)

    @jax.jit
    def run(params, x, reset, valid):
        memory = nnx.merge(graph, params)
        return stream(memory, x, init_stream_state(memory, 1, 4, 64, jnp.dtype("float32")), reset, valid)

    _, state = run(params, tokens, nothing, ~nothing)
    where = np.asarray(state.memory.slots.weights)[0]
    assert where[1].argmax() == 9, "nine writes, from slot 0 on"
    assert where[0].argmax() == (4 if name == "pair" else 3)
    assert where[0].max() > 0.5


def test_stats_tell_where_the_heads_are():
    graph, params = build(config_of({"memory_size": 7}))
    memory = nnx.merge(graph, params)
    fresh = memory.stats(memory.initial_state(BATCH))
    assert fresh["read_entropy"] == 0 and fresh["write_entropy"] == 0  # all heads at slot 0
    size, heads, width = 7, 2, 4
    assert fresh["bytes"] == 4 * size * (width + heads) + 4 * WIDTH
    lstm = nnx.merge(*build(config_of({"memory_size": 7, "controller": "lstm"})))
    assert lstm.stats(lstm.initial_state(1))["bytes"] == 4 * size * (width + heads) + 4 * (2 * 5 + width)
    even = memory.initial_state(BATCH)
    even = even._replace(slots=even.slots._replace(weights=jnp.full((BATCH, 2, 7), 1 / 7)))
    np.testing.assert_allclose(memory.stats(even)["read_entropy"], np.log(7), rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"memory_size": 0}, "memory_size must be at least 1, got 0"),
        ({"slot_width": 3}, "slot_width must be even, got 3"),
        ({"num_read_heads": 0}, "num_read_heads must be at least 1, got 0"),
        ({"num_write_heads": 0}, "num_write_heads must be at least 1, got 0"),
        ({"shift_range": -1}, "shift_range must be at least 0, got -1"),
        ({"controller": "gru"}, "controller must be one of 'pair', 'none', 'lstm', got 'gru'"),
        ({"order": "write"}, "order must be one of 'read_write', 'write_read', got 'write'"),
    ],
)
def test_illegal_values_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(NTMMemoryConfig(), **changes)


def test_an_even_number_of_shifts_has_no_middle():
    with pytest.raises(ValueError, match="distance must have an odd number of offsets, from -r to r, got 2"):
        shift_weights(jnp.eye(4)[None, :1], jnp.array([[[0.0, 1.0]]]))
