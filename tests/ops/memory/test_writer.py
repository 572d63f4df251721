"""The Writer against plain loops: convolution, selection, pooling and eviction."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memgpt_jax.ops.memory import Entries, append_entries, causal_conv, pool_entries, select_highest_gate
from memgpt_jax.ops.memory.writer import OLDEST_AGE, READ_HORIZON
from tests.references import ops as reference

append_entries = jax.jit(append_entries, static_argnums=2)
select_highest_gate = jax.jit(select_highest_gate, static_argnums=1)
pool_entries = jax.jit(pool_entries)
causal_conv = jax.jit(causal_conv, static_argnums=3)

BATCH, HEADS, WIDTH = 2, 2, 3


def entries(rng, num, num_valid, gates=None, mass=True):
    """Entries of which the last `num_valid` are valid."""
    gates = rng.random((BATCH, num)) if gates is None else gates
    return Entries(
        keys=rng.normal(size=(BATCH, num, HEADS, WIDTH)).astype(np.float32),
        values=rng.normal(size=(BATCH, num, HEADS, WIDTH)).astype(np.float32),
        log_gate=np.log(gates).astype(np.float32),
        valid=np.broadcast_to(np.arange(num) >= num - num_valid, (BATCH, num)),
        age=rng.integers(0, 5, (BATCH, num)).astype(np.int32),
        read_mass=rng.random((BATCH, num)).astype(np.float32) if mass else None,
    )


def listed(entries, row):
    """The valid entries of one row."""
    entries = jax.device_get(entries)
    return [
        SimpleNamespace(
            key=entries.keys[row, e],
            value=entries.values[row, e],
            log_gate=float(entries.log_gate[row, e]),
            age=int(entries.age[row, e]),
            mass=None if entries.read_mass is None else float(entries.read_mass[row, e]),
        )
        for e in range(entries.valid.shape[1])
        if entries.valid[row, e]
    ]


def assert_same(actual, expected):
    assert len(actual) == len(expected)
    for one, other in zip(actual, expected, strict=True):
        for field, value in vars(other).items():
            if value is not None:
                np.testing.assert_allclose(getattr(one, field), value, atol=1e-6, err_msg=field)


@pytest.mark.parametrize("evict", ["oldest", "lowest_gate", "least_read"])
@pytest.mark.parametrize(
    "size, old_valid, num, new_valid",
    [(6, 6, 4, 4), (6, 3, 4, 4), (6, 2, 4, 2), (6, 6, 4, 1), (3, 3, 5, 5), (3, 1, 5, 2), (0, 0, 4, 4), (5, 0, 4, 0)],
)
def test_append_equals_a_list(evict, size, old_valid, num, new_valid):
    rng = np.random.default_rng(size * 10 + num)
    old, new = entries(rng, size, old_valid), entries(rng, num, new_valid)
    new = new._replace(age=np.zeros_like(new.age))
    after = append_entries(old, new, evict)
    for row in range(BATCH):
        expected = reference.survivors(listed(old, row), listed(new, row), size, evict)
        for entry in expected:
            entry.age += 1
        assert_same(listed(after, row), expected)


@given(seed=st.integers(0, 2**32 - 1), evict=st.sampled_from(["lowest_gate", "least_read"]))
def test_eviction_breaks_ties_for_the_newer(seed, evict):
    rng = np.random.default_rng(seed)
    old = entries(rng, 6, 6, gates=rng.choice([0.25, 0.5], (BATCH, 6)))
    old = old._replace(read_mass=rng.choice([0.0, 1.0], (BATCH, 6)).astype(np.float32), age=np.full_like(old.age, 2))
    new = entries(rng, 3, 3, gates=rng.choice([0.25, 0.5], (BATCH, 3)))
    after = append_entries(old, new, evict)
    for row in range(BATCH):
        expected = reference.survivors(listed(old, row), listed(new, row), 6, evict)
        np.testing.assert_array_equal([e.key for e in listed(after, row)], [e.key for e in expected])


def test_ages_stop_growing():
    rng = np.random.default_rng(0)
    old = entries(rng, 4, 4)
    old = old._replace(age=np.full_like(old.age, OLDEST_AGE))
    assert np.max(append_entries(old, entries(rng, 1, 1), "lowest_gate").age) == OLDEST_AGE


@pytest.mark.parametrize("num, num_valid", [(1, 6), (3, 6), (6, 6), (4, 2), (3, 0)])
def test_select_highest_gate_equals_a_list(num, num_valid):
    rng = np.random.default_rng(num)
    given = entries(rng, 6, num_valid, gates=rng.choice([0.1, 0.5, 0.9], (BATCH, 6)), mass=False)
    chosen = select_highest_gate(given, num)
    assert chosen.valid.shape == (BATCH, num)
    for row in range(BATCH):
        items = listed(given, row)
        best = sorted(range(len(items)), key=lambda i: (-items[i].log_gate, i))[:num]
        assert_same(listed(chosen, row), [items[i] for i in sorted(best)])


@pytest.mark.parametrize("num_valid", [5, 2, 1])
def test_pool_equals_loops(num_valid):
    rng = np.random.default_rng(num_valid)
    given = entries(rng, 5, num_valid, mass=False)
    queries = rng.normal(size=(3, HEADS, WIDTH)).astype(np.float32)
    pooled = pool_entries(given, queries)
    for row in range(BATCH):
        items = [(e.key, e.value, e.log_gate) for e in listed(given, row)]
        for j, (key, value, gate) in enumerate(reference.pool(items, queries)):
            np.testing.assert_allclose(pooled.keys[row, j], key, atol=1e-6)
            np.testing.assert_allclose(pooled.values[row, j], value, atol=1e-6)
            np.testing.assert_allclose(np.exp(pooled.log_gate[row, j]), gate, atol=1e-6)
    assert np.all(np.asarray(pooled.valid)) and np.all(np.asarray(pooled.age) == 0)


def test_pooling_nothing_is_not_valid_and_finite():
    given = entries(np.random.default_rng(0), 5, 0, mass=False)
    pooled = pool_entries(given, np.ones((2, HEADS, WIDTH), np.float32))
    assert not np.any(np.asarray(pooled.valid)) and np.all(np.isfinite(np.asarray(pooled.log_gate)))


@pytest.mark.parametrize("taps", [1, 2, 3, 4])
@pytest.mark.parametrize("length", [1, 2, 9])
def test_causal_conv_equals_loops(taps, length):
    rng = np.random.default_rng(taps)
    x = rng.normal(size=(BATCH, taps - 1 + length, WIDTH)).astype(np.float32)
    document = np.cumsum(rng.random(x.shape[:2]) < 0.2, axis=1).astype(np.int32)
    kernel = rng.normal(size=(taps, WIDTH)).astype(np.float32)
    expected = reference.causal_conv(x, document, kernel)
    np.testing.assert_allclose(causal_conv(x, document, kernel), expected, atol=1e-6)
    np.testing.assert_allclose(causal_conv(x, document, kernel, 4), expected, atol=1e-6)


def test_conv_stops_gradients_at_multiples_only():
    x, document, kernel = jnp.ones((1, 2 + 8, 1)), jnp.zeros((1, 10), jnp.int32), jnp.ones((3, 1))
    flows = lambda stop: np.asarray(  # noqa: E731
        jax.jacrev(lambda x: causal_conv(x, document, kernel, stop)[0, :, 0])(x)[:, 0, :, 0]
    )
    taps = np.array([[0 <= t + 2 - s <= 2 for s in range(10)] for t in range(8)])
    same_block = np.array([[(t // 4) == (s - 2) // 4 for s in range(10)] for t in range(8)])
    np.testing.assert_array_equal(flows(None), taps)
    np.testing.assert_array_equal(flows(4), taps & same_block)


def test_read_rates_stay_true_in_an_endless_stream():
    """However old an entry is, what it is read now shows in its rate."""
    memory = entries(np.random.default_rng(0), 2, 2)
    memory = memory._replace(
        age=np.full((BATCH, 2), 10**9, np.int32),
        read_mass=np.full((BATCH, 2), [[0.5, 0.1]], np.float32) * np.float32(READ_HORIZON),
    )
    nothing = entries(np.random.default_rng(0), 1, 0)
    now = np.array([[0.1, 0.3]], np.float32)  # the second is read more from now on

    def step(memory, _):
        return append_entries(memory._replace(read_mass=memory.read_mass + now), nothing, "least_read"), None

    after, _ = jax.jit(lambda memory: jax.lax.scan(step, memory, length=8 * READ_HORIZON))(memory)
    np.testing.assert_allclose(after.read_mass / READ_HORIZON, np.broadcast_to(now, (BATCH, 2)), rtol=0.01)
