"""Titans' memory equals a token-by-token reference in every form, and behaves as its equations say."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memgpt_jax.memory import titans
from memgpt_jax.memory.titans import TitansMemoryConfig
from memgpt_jax.ops.memory import Pairs, inner_network, inner_update
from tests.laws.coverings import rows_of
from tests.laws.memories import SEGMENT, WIDTH, build, difference, random_inputs, reference_run, runner, sequence_forms
from tests.references.titans import ReferenceTitansMemory, forward, gradients

OPTIONS = {
    "num_layers": [2, 1, 3],
    "memory_size": [7, 3],
    "chunk_length": [16, 3, 1],  # a segment of 4 tokens: one chunk, two, four
    "writer_conv": [3, 1],
    "bptt_segments": [None, 1],
    "forget_bias": [-1.0, -5.0],
    "inertia_bias": [0.0, -2.0],
}
# Rows that run by default: each value with a memory that holds something.
MAIN = [
    {
        "num_layers": 2,
        "memory_size": 7,
        "chunk_length": 3,
        "writer_conv": 3,
        "bptt_segments": None,
        "forget_bias": -1.0,
        "inertia_bias": 0.0,
    },
    {
        "num_layers": 1,
        "memory_size": 3,
        "chunk_length": 1,
        "writer_conv": 1,
        "bptt_segments": 1,
        "forget_bias": -5.0,
        "inertia_bias": -2.0,
    },
    {
        "num_layers": 3,
        "memory_size": 7,
        "chunk_length": 16,
        "writer_conv": 3,
        "bptt_segments": None,
        "forget_bias": -1.0,
        "inertia_bias": -2.0,
    },
]
BATCH, LENGTH = 2, 5 * SEGMENT + 2


def config_of(row):
    return TitansMemoryConfig(**row, num_heads=2, head_dim=4, rate_bias=-0.5)


@pytest.mark.parametrize("row", rows_of(OPTIONS, *MAIN))
def test_stream_equals_token_by_token_reference(row):
    config = config_of(row)
    graph, params = build(config)
    run = runner(graph)

    def stacked(heads, layer):
        return np.stack([layers[layer] for layers in heads])

    for seed, breaks in ((0, 0.0), (1, 0.1), (2, 0.4)):
        x, reset = random_inputs(seed, BATCH, LENGTH, breaks)
        reads, state = run(params, x, reset, np.ones(reset.shape, bool), None)
        expected, memories = reference_run(x, reset, ReferenceTitansMemory, config, params, SEGMENT)
        np.testing.assert_allclose(reads, expected, atol=5e-5)
        for b, memory in enumerate(memories):
            for i in range(config.num_layers):
                np.testing.assert_allclose(state.memory.learned[i][b], stacked(memory.learned, i), atol=5e-5)
                np.testing.assert_allclose(state.memory.momentum[i][b], stacked(memory.momentum, i), atol=5e-5)
            if config.writer_conv > 1:
                np.testing.assert_allclose(state.memory.conv_cache[b], memory.conv_cache, atol=1e-6)


def decaying_to_zero(inner_update, initial, learned, momentum, pairs):
    """The paper's decay, M' = (1 - alpha) M + S'."""
    zero, weights = jax.tree.map(jnp.zeros_like, initial), jax.tree.map(jnp.add, initial, learned)
    weights, momentum = inner_update(zero, weights, momentum, pairs)
    return jax.tree.map(jnp.subtract, weights, initial), momentum


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["rate", "momentum", "order", "chunks", "decay"])
def test_the_reference_notices_faults(fault, monkeypatch):
    """A wrong memory does not pass the comparison above."""
    config = TitansMemoryConfig(memory_size=7, num_heads=2, head_dim=4, forget_bias=-1.0, chunk_length=2)
    right = titans.inner_update

    def wrong(initial, learned, momentum, pairs):
        if fault == "rate":
            pairs = pairs._replace(rate=pairs.rate / 2)
        elif fault == "momentum":
            momentum = jax.tree.map(jnp.zeros_like, momentum)
        elif fault == "order":
            pairs = jax.tree.map(lambda x: jnp.flip(x, axis=0), pairs)
        if fault == "decay":
            return decaying_to_zero(right, initial, learned, momentum, pairs)
        return right(initial, learned, momentum, pairs)

    monkeypatch.setattr(titans, "inner_update", wrong)
    graph, params = build(dataclasses.replace(config, chunk_length=4) if fault == "chunks" else config)
    x, reset = random_inputs(2, BATCH, LENGTH, breaks=0.1)
    reads, _ = runner(graph)(params, x, reset, np.ones(reset.shape, bool), None)
    assert difference(reads, reference_run(x, reset, ReferenceTitansMemory, config, params, SEGMENT)[0]) > 1e-3


@pytest.mark.parametrize(
    "layers, chunk_length, bptt",
    [(2, 3, 1), *(pytest.param(*row, marks=pytest.mark.slow) for row in [(2, 16, None), (1, 3, 1), (3, 16, 1)])],
)
def test_parallel_equals_scan_in_value_state_and_gradient(layers, chunk_length, bptt):
    graph, params = build(
        config_of({"num_layers": layers, "chunk_length": chunk_length, "bptt_segments": bptt, "memory_size": 5})
    )
    x, reset = random_inputs(0, 2, 4 * SEGMENT, breaks=0.1)
    x, reset = x.reshape(2, 4, SEGMENT, WIDTH), reset.reshape(2, 4, SEGMENT)
    parallel, scan, _ = sequence_forms(graph)

    @jax.jit
    def both(params, x):
        def loss(form, params, x):
            read, state = form(params, x, reset)
            kept = sum(jnp.sum(jnp.cos(layer)) for layer in (*state.learned, *state.momentum))
            return jnp.sum(jnp.sin(read)) + kept, (read, state)

        return [jax.value_and_grad(loss, (1, 2), has_aux=True)(form, params, x) for form in (parallel, scan)]

    one, other = both(params, x)
    for got, expected in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-4, rtol=1e-4)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(one[1]))


def taught(weights, pairs, rate, inertia=0.0, keep=1.0, momentum=None):
    """Weights and momentum after `inner_update` of keys [T, K] and values, with the same gates for all."""
    keys, values = pairs
    gates = (jnp.full(len(keys), x, jnp.float32) for x in (rate, np.log(max(inertia, 1e-30)), np.log(max(keep, 1e-30))))
    nothing = jax.tree.map(jnp.zeros_like, weights)
    momentum = nothing if momentum is None else momentum
    pairs = Pairs(jnp.asarray(keys), jnp.asarray(values), *gates)
    learned, momentum = jax.jit(inner_update)(weights, nothing, momentum, pairs)
    return jax.tree.map(jnp.add, weights, learned), momentum


def random_weights(seed, *widths):
    rng = np.random.default_rng(seed)
    shapes = itertools.pairwise(widths)
    return tuple(jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes)


def random_pairs(seed, length):
    rng = np.random.default_rng(seed)
    keys = rng.normal(size=(length, 4)).astype(np.float32)
    keys /= np.linalg.norm(keys, axis=1, keepdims=True)
    return jnp.asarray(keys), jnp.asarray(rng.normal(size=(length, 3)), jnp.float32)


@pytest.mark.parametrize("widths", [(4, 3), (4, 9, 3), (4, 6, 5, 3)])
def test_gradients_by_hand_are_those_of_the_network(widths):
    weights, (keys, values) = random_weights(0, *widths), random_pairs(1, 1)
    np.testing.assert_allclose(inner_network(weights, keys)[0], forward(weights, keys[0])[2], atol=1e-5)

    @jax.jit
    @jax.grad
    def gradient(weights):
        return jnp.sum((inner_network(weights, keys[0]) - values[0]) ** 2)

    got = gradient(weights)
    for one, other in zip(got, gradients(weights, keys[0], values[0]), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_without_momentum_and_forgetting_it_is_gradient_descent():
    """One step on the summed loss of the chunk."""
    weights, pairs = random_weights(0, 4, 8, 3), random_pairs(1, 5)
    got, momentum = taught(weights, pairs, 0.1)

    def loss(weights):
        return jnp.sum((inner_network(weights, pairs[0]) - pairs[1]) ** 2)

    def last(weights):
        return jnp.sum((inner_network(weights, pairs[0][-1:]) - pairs[1][-1:]) ** 2)

    expected = jax.tree.map(lambda w, u: w - 0.1 * u, weights, jax.grad(loss)(weights))
    assert difference(got, expected) < 1e-6
    assert difference(momentum, jax.tree.map(lambda u: -0.1 * u, jax.grad(last)(weights))) < 1e-6


def test_surprise_falls_with_each_repetition_of_a_pair():
    weights, (keys, values) = random_weights(0, 4, 16, 3), random_pairs(1, 1)
    losses = []
    for _ in range(12):
        losses.append(float(jnp.sum((inner_network(weights, keys) - values) ** 2)))
        weights, _ = taught(weights, (keys, values), 0.25)
    assert np.all(np.diff(losses) < 0)
    assert losses[-1] < 0.05 * losses[0]


def test_one_layer_with_half_the_rate_recalls_orthogonal_keys_exactly():
    """A step of 1/2 on |W^T k - v|^2 from W = 0 is the outer product of k and v."""
    keys, (_, values) = np.eye(4, dtype=np.float32), random_pairs(2, 4)
    (weights,), _ = taught((jnp.zeros((4, 3)),), (keys, values), 0.5)
    np.testing.assert_allclose(weights, values, atol=1e-6)


def test_momentum_decays_without_new_surprise():
    """With rate 0 the weights still move, by eta + eta^2 + eta^3 times the momentum."""
    weights, momentum, pairs = random_weights(0, 4, 3), random_weights(1, 4, 3), random_pairs(3, 3)
    got, after = taught(weights, pairs, 0.0, inertia=0.5, momentum=momentum)
    np.testing.assert_allclose(got[0], weights[0] + 0.875 * momentum[0], atol=1e-6)
    np.testing.assert_allclose(after[0], 0.125 * momentum[0], atol=1e-6)


@pytest.mark.parametrize("keep", [0.0, 0.5])
def test_what_was_learned_decays_and_the_initial_weights_stay(keep):
    """With rate 0 the share keep^3 of D is left; the weights around which D is learned do not move it."""
    learned, zero = random_weights(0, 4, 5, 3), jax.tree.map(jnp.zeros_like, random_weights(0, 4, 5, 3))
    keys, values = random_pairs(4, 3)
    gates = (jnp.full(3, x, jnp.float32) for x in (0.0, 0.0, np.log(max(keep, 1e-30))))
    got, _ = inner_update(
        random_weights(1, 4, 5, 3), learned, zero, Pairs(jnp.asarray(keys), jnp.asarray(values), *gates)
    )
    assert difference(got, jax.tree.map(lambda d: keep**3 * d, learned)) < 1e-6


def test_forgetting_all_leaves_the_last_surprise():
    weights, pairs = random_weights(0, 4, 3), random_pairs(4, 3)
    got, momentum = taught(weights, pairs, 0.5, keep=0.0)
    assert difference(got, jax.tree.map(jnp.add, weights, momentum)) < 1e-6


def test_pairs_without_rate_teach_nothing():
    weights, momentum, pairs = random_weights(0, 4, 5, 3), random_weights(1, 4, 5, 3), random_pairs(5, 6)
    got, after = taught(weights, pairs, 0.0, inertia=1.0, keep=1.0, momentum=jax.tree.map(jnp.zeros_like, momentum))
    assert difference(got, weights) == 0 and difference(after, jax.tree.map(jnp.zeros_like, momentum)) == 0


def test_an_untrained_memory_reads_nothing_in_its_first_segment():
    graph, params = build(TitansMemoryConfig(memory_size=5, head_dim=4), jitter=0.0)
    x, reset = random_inputs(0, 1, 2 * SEGMENT, breaks=0.0)
    reads, _ = runner(graph)(params, x, reset, np.ones(reset.shape, bool), None)
    assert not np.any(np.asarray(reads)[:, :SEGMENT])
    assert np.all(np.any(np.asarray(reads)[:, SEGMENT:], axis=-1))


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"memory_size": 0}, "memory_size must be at least 1, got 0"),
        ({"num_layers": 0}, "num_layers must be at least 1, got 0"),
        ({"chunk_length": 0}, "chunk_length must be at least 1, got 0"),
        ({"inner_rate": 0.0}, "inner_rate must be positive, got 0.0"),
        ({"writer_conv": 0}, "writer_conv must be between 1 and 4, got 0"),
    ],
)
def test_illegal_values_are_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        TitansMemoryConfig(**wrong)
