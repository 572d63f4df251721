"""The associative memory equals a token-by-token reference in every form, and behaves as its equations say."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memgpt_jax.memory import associative, resolved_memory
from memgpt_jax.memory.associative import AssociativeMemoryConfig
from memgpt_jax.ops.memory import Writes, scan_fast_weights, unit_features
from tests.laws.coverings import rows_of
from tests.laws.memories import SEGMENT, WIDTH, build, difference, random_inputs, reference_run, runner, sequence_forms
from tests.references.associative import ReferenceAssociativeMemory, features

OPTIONS = {
    "rule": ["delta", "linear"],
    "feature_map": ["none", "elu", "dpfp"],
    "normalize": [False, True],
    "forget": [False, True],
    "initial_entries": [0, 2],
    "visibility": ["segment", "token"],
    "writer_conv": [3, 1, 4],
    "memory_size": [9, 30, 1],  # dpfp of 4 keys, at least 8: a part of the second shift, more than all of them
    "bptt_segments": [None, 1],
}
# The options that the two forms treat differently; writers and features are computed once, before either.
FORM_OPTIONS = {
    "rule": ["delta", "linear"],
    "feature_map": ["elu", "none"],
    "normalize": [False, True],
    "forget": [False, True],
    "initial_entries": [0, 2],
    "visibility": ["segment", "token"],
    "bptt_segments": [None, 1],
    "memory_size": [7],
}
BATCH, LENGTH = 3, 6 * SEGMENT + 2


def config_of(row):
    allowed = row["rule"] == "linear" and row["feature_map"] != "none"
    row = row | {"normalize": row["normalize"] and allowed}
    if row["feature_map"] == "dpfp":
        row["memory_size"] = max(8, row["memory_size"])
    return AssociativeMemoryConfig(**row, num_heads=2, head_dim=4, forget_bias=-1.0)


# Rows that run by default: each value with a memory that holds something.
DELTA_ROWS = [
    {
        "rule": "delta",
        "feature_map": "none",
        "normalize": False,
        "forget": True,
        "initial_entries": 0,
        "visibility": "token",
        "writer_conv": 1,
        "memory_size": 30,
        "bptt_segments": None,
    },
    {
        "rule": "delta",
        "feature_map": "dpfp",
        "normalize": False,
        "forget": False,
        "initial_entries": 2,
        "visibility": "segment",
        "writer_conv": 4,
        "memory_size": 9,
        "bptt_segments": 1,
    },
]
# Two rows, in which each value of each option of the forms occurs.
DELTA_FORM = {key: DELTA_ROWS[0][key] for key in FORM_OPTIONS} | {"initial_entries": 2, "memory_size": 7}
LINEAR_FORM = {
    "rule": "linear",
    "feature_map": "elu",
    "normalize": True,
    "forget": False,
    "initial_entries": 0,
    "visibility": "segment",
    "bptt_segments": 1,
    "memory_size": 7,
}
NORMALISED = {"rule": "linear", "normalize": True, "forget": True, "initial_entries": 2, "writer_conv": 3}
NORMALISED_ROWS = [
    NORMALISED | {"feature_map": "dpfp", "visibility": "token", "memory_size": 9, "bptt_segments": None},
    NORMALISED | {"feature_map": "elu", "visibility": "segment", "memory_size": 5, "bptt_segments": 1},
]


def assert_state_equals(state, memories, config):
    for b, memory in enumerate(memories):

        def close(got, expected, name):
            return np.testing.assert_allclose(got, expected, atol=5e-5, err_msg=name)

        close(state.memory.matrix[b, ..., : config.head_dim], memory.matrices, "matrix")
        if config.normalize:
            close(state.memory.matrix[b, ..., config.head_dim], memory.normalisers, "normaliser")
        if config.writer_conv > 1:
            close(state.memory.conv_cache[b], memory.conv_cache, "conv_cache")


@pytest.mark.parametrize("row", rows_of(OPTIONS, *NORMALISED_ROWS, *DELTA_ROWS))
def test_stream_equals_token_by_token_reference(row):
    config = config_of(row)
    graph, params = build(config)
    run = runner(graph)
    for seed, breaks in ((0, 0.0), (1, 0.1), (2, 0.4)):
        x, reset = random_inputs(seed, BATCH, LENGTH, breaks)
        reads, state = run(params, x, reset, np.ones(reset.shape, bool), None)
        expected, memories = reference_run(x, reset, ReferenceAssociativeMemory, config, params, SEGMENT)
        np.testing.assert_allclose(reads, expected, atol=5e-5)
        assert_state_equals(state, memories, config)


@pytest.mark.parametrize(
    ("rule", "visibility"),
    [
        ("delta", "token"),
        pytest.param("linear", "segment", marks=pytest.mark.slow),
        pytest.param("delta", "segment", marks=pytest.mark.slow),
        pytest.param("linear", "token", marks=pytest.mark.slow),
    ],
)
def test_segments_of_several_chunks_equal_the_reference(rule, visibility):
    """150 tokens are three chunks of 50; 131 are three of 44, padded."""
    for segment_length in (150, 131):
        config = AssociativeMemoryConfig(
            memory_size=5, num_heads=2, head_dim=3, rule=rule, visibility=visibility, forget=True, initial_entries=1
        )
        graph, params = build(config, segment_length=segment_length)
        x, reset = random_inputs(4, 2, 2 * segment_length + 70, breaks=0.02)
        run = runner(graph, segment_length=segment_length)
        reads, state = run(params, x, reset, np.ones(reset.shape, bool), None)
        expected, memories = reference_run(x, reset, ReferenceAssociativeMemory, config, params, segment_length)
        np.testing.assert_allclose(reads, expected, atol=1e-4)
        assert_state_equals(state, memories, config)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["gate", "order", "decay", "document"])
def test_the_reference_notices_faults(fault, monkeypatch):
    """A wrong memory does not pass the comparison above."""
    config = AssociativeMemoryConfig(memory_size=7, num_heads=2, head_dim=4, forget=True, forget_bias=-1.0)
    right = associative.scan_fast_weight_heads

    def wrong(writes, query, state, fresh, document, full, **options):
        if fault == "gate":
            writes = writes._replace(gate=writes.gate**2)
        elif fault == "order":
            writes = jax.tree.map(lambda x: jnp.flip(x, axis=1), writes)
        elif fault == "decay":
            writes = writes._replace(log_keep=jnp.roll(writes.log_keep, 1, axis=1))
        else:
            document = 0 * document
        return right(writes, query, state, fresh, document, full, **options)

    monkeypatch.setattr(associative, "scan_fast_weight_heads", wrong)
    graph, params = build(config)
    x, reset = random_inputs(2, BATCH, LENGTH, breaks=0.2)
    reads, _ = runner(graph)(params, x, reset, np.ones(reset.shape, bool), None)
    assert difference(reads, reference_run(x, reset, ReferenceAssociativeMemory, config, params, SEGMENT)[0]) > 1e-3


@pytest.mark.parametrize("row", rows_of(FORM_OPTIONS, LINEAR_FORM, DELTA_FORM))
def test_parallel_equals_scan_in_value_state_and_gradient(row):
    graph, params = build(config_of(row))
    x, reset = random_inputs(0, 2, 5 * SEGMENT, breaks=0.1)
    x, reset = x.reshape(2, 5, SEGMENT, WIDTH), reset.reshape(2, 5, SEGMENT)
    parallel, scan, _ = sequence_forms(graph)

    @jax.jit
    def both(params, x):
        def loss(form, params, x):
            read, state = form(params, x, reset)
            return jnp.sum(jnp.sin(read)) + jnp.sum(jnp.cos(state.matrix)), (read, state)

        return [jax.value_and_grad(loss, (1, 2), has_aux=True)(form, params, x) for form in (parallel, scan)]

    one, other = both(params, x)
    for got, expected in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-4, rtol=1e-4)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(one[1]))


@given(seed=st.integers(0, 2**32 - 1), kind=st.sampled_from(["none", "elu", "dpfp"]), size=st.integers(1, 40))
def test_features(seed, kind, size):
    width, size = (4, size + 7) if kind == "dpfp" else (size, size)
    x = np.random.default_rng(seed).normal(size=(2, width)).astype(np.float32)
    got = unit_features(jnp.asarray(x), kind, size)
    np.testing.assert_allclose(got, [features(row, kind, size) for row in x], atol=1e-6)
    if kind == "elu":
        assert np.all(np.asarray(got) > 0)


def written(keys, values, gate=None, log_keep=None, *, state=None, delta=True):
    """The matrix after one segment of pairs, by `scan_fast_weights` of one row and head."""
    length = len(keys)
    gate = np.ones(length) if gate is None else gate
    writes = jax.tree.map(lambda x: np.asarray(x, np.float32)[None, None], Writes(keys, values, gate, log_keep))
    state = np.zeros((keys.shape[1], values.shape[1])) if state is None else state
    document = np.zeros((1, 1, length), np.int32)
    scan = jax.jit(scan_fast_weights, static_argnames=("delta", "own"))
    start, full = np.asarray(state, np.float32)[None], np.ones((1, 1), bool)
    _, after = scan(writes, None, start, None, document, full, delta=delta, own=False)
    return np.asarray(after)[0]


@pytest.mark.parametrize("delta", [True, False])
def test_orthogonal_keys_are_recalled_exactly(delta):
    """As many pairs as the matrix has rows, over chunks."""
    rng = np.random.default_rng(0)
    keys = np.linalg.qr(rng.normal(size=(100, 100)))[0]
    values = rng.normal(size=(100, 3))
    np.testing.assert_allclose(keys @ written(keys, values, delta=delta), values, atol=1e-5)


def test_delta_overwrites_where_linear_adds():
    rng = np.random.default_rng(1)
    keys = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    first, second = rng.normal(size=(2, 5, 3))
    both = np.concatenate([keys, keys]), np.concatenate([first, second])
    np.testing.assert_allclose(keys @ written(*both, delta=True), second, atol=1e-6)
    np.testing.assert_allclose(keys @ written(*both, delta=False), first + second, atol=1e-6)
    half = np.repeat([1.0, 0.5], 5)
    np.testing.assert_allclose(keys @ written(*both, half, delta=True), (first + second) / 2, atol=1e-6)


def test_delta_rule_stays_bounded_where_all_keys_are_equal():
    """The hardest triangular system: entries of 1 everywhere. What is held is the last value."""
    keys, values = np.tile([0.6, 0.8], (500, 1)), np.random.default_rng(2).normal(size=(500, 3))
    np.testing.assert_allclose(np.array([0.6, 0.8]) @ written(keys, values), values[-1], atol=1e-4)


def test_a_forget_gate_of_one_clears():
    rng = np.random.default_rng(3)
    keys, values = np.linalg.qr(rng.normal(size=(6, 6)))[0], rng.normal(size=(6, 2))
    log_keep = np.where(np.arange(6) == 3, -200.0, 0.0)  # forget, then write
    after = written(keys, values, log_keep=log_keep, state=np.ones((6, 2)))
    np.testing.assert_allclose(after, keys[3:].T @ values[3:], atol=1e-6)


def test_a_closed_write_gate_writes_nothing():
    state = np.random.default_rng(4).normal(size=(3, 2)).astype(np.float32)
    assert np.array_equal(written(np.eye(3), np.ones((3, 2)), np.zeros(3), state=state), state)


def test_a_normalised_read_is_a_mean_of_values():
    """Whatever their number and gates, equal values are read as they are."""
    config = AssociativeMemoryConfig(memory_size=6, head_dim=4, rule="linear", feature_map="elu", normalize=True)
    graph, params = build(config)
    params["value"] = {"kernel": np.zeros((WIDTH, 4), np.float32), "bias": np.arange(4, dtype=np.float32)}
    x, reset = random_inputs(5, 1, 3 * SEGMENT, breaks=0.0)
    reads, _ = runner(graph)(params, x, reset, np.ones(reset.shape, bool), None)
    expected = np.arange(4.0) @ np.asarray(params["output"]["kernel"])
    np.testing.assert_allclose(np.asarray(reads)[0, SEGMENT:], np.tile(expected, (2 * SEGMENT, 1)), atol=1e-4)
    assert not np.any(np.asarray(reads)[0, :SEGMENT])


def test_parameters_do_not_depend_on_the_size_with_dpfp():
    def shapes(size):
        return jax.tree.map(
            jnp.shape, build(AssociativeMemoryConfig(memory_size=size, head_dim=4, feature_map="dpfp"))[1]
        )

    assert shapes(8) == shapes(20)


def test_every_channel_and_its_sign_are_in_a_feature_of_dpfp():
    """With the fewest features, keys differ that differ in one channel, positive or negative."""
    for sign in (1, -1):
        x = sign * np.tile(np.array([0.5, 1.0, 2.0, 0.3], np.float32), (5, 1))
        x[np.arange(1, 5), np.arange(4)] *= 2
        found = np.asarray(unit_features(jnp.asarray(x), "dpfp", 8))
        assert np.all(np.abs(found[1:] - found[0]).max(axis=1) > 0.05)
    with pytest.raises(ValueError, match="'dpfp' features of F = 4 channels: their number must be at least 2 F, got 7"):
        unit_features(jnp.asarray(x), "dpfp", 7)
    with pytest.raises(ValueError, match="'elu' features of F = 4 channels: their number must be F, got 5"):
        unit_features(jnp.asarray(x), "elu", 5)


def test_the_smallest_size_that_matches_bytes_fits_dpfp():
    def of(limit):
        config = AssociativeMemoryConfig(feature_map="dpfp", head_dim=4, writer_conv=1, match_state_bytes=limit)
        return resolved_memory(config, d_model=WIDTH, segment_length=SEGMENT, dtype="float32").memory_size

    assert of(4 * 4 * 8) == 8
    with pytest.raises(ValueError, match="the smallest state of AssociativeMemoryConfig has 128 bytes"):
        of(127)


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"rule": "hebb"}, "rule must be one of 'delta', 'linear', got 'hebb'"),
        ({"normalize": True}, "normalize=True needs rule='linear' and feature_map='elu' or 'dpfp'"),
        ({"feature_map": "dpfp"}, r"needs a memory_size of at least 2 \* head_dim = 128, got 64"),
        ({"feature_map": "dpfp", "head_dim": 1}, "'dpfp' needs a head_dim of at least 2, got 1"),
        ({"memory_size": 0}, "memory_size must be at least 1, got 0"),
        ({"num_heads": 0}, "num_heads must be at least 1, got 0"),
        ({"head_dim": 0}, "head_dim must be at least 1, got 0"),
        ({"initial_entries": -1}, "initial_entries must be at least 0, got -1"),
        ({"writer_conv": 5}, "writer_conv must be between 1 and 4, got 5"),
    ],
)
def test_illegal_values_are_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        AssociativeMemoryConfig(**wrong)


def test_the_covering_has_every_field():
    fields = {field.name for field in dataclasses.fields(AssociativeMemoryConfig)}
    assert fields == set(OPTIONS) | {"num_heads", "head_dim", "gate_bias", "forget_bias", "match_state_bytes"}
