"""The Reader against plain loops."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memgpt_jax.ops import joint_softmax
from memgpt_jax.ops.memory import Source, read_entries, read_entries_with_lse, read_mass
from tests.references import ops as reference

BATCH, QUERIES, WIDTH = 2, 5, 4
read_entries, read_mass, read_entries_with_lse = (
    jax.jit(read_entries),
    jax.jit(read_mass),
    jax.jit(read_entries_with_lse),
)


def source(rng, entries, kv_heads, visible=0.6):
    return Source(
        keys=rng.normal(size=(BATCH, entries, kv_heads, WIDTH)).astype(np.float32),
        values=rng.normal(size=(BATCH, entries, kv_heads, WIDTH)).astype(np.float32),
        bias=rng.normal(size=(BATCH, entries)).astype(np.float32),
        age=rng.integers(0, 9, (BATCH, entries)).astype(np.int32),
        visible=rng.random((BATCH, QUERIES, entries)) < visible,
    )


SIZES = [((6,), 2, 2), ((3, 5), 4, 2), ((0, 2, 3), 2, 1), ((0,), 2, 2)]  # of sources, heads, heads of the entries


@pytest.mark.parametrize(
    "null, recency, sizes, heads, kv_heads",
    [
        pytest.param(null, recency, *row, marks=[pytest.mark.slow] if null != recency and row != SIZES[1] else [])
        for (null, recency), row in itertools.product(itertools.product([False, True], repeat=2), SIZES)
    ],
)
def test_read_equals_loops(null, recency, sizes, heads, kv_heads):
    rng = np.random.default_rng(sum(sizes))
    sources = [source(rng, size, kv_heads) for size in sizes]
    query = rng.normal(size=(BATCH, QUERIES, heads, WIDTH)).astype(np.float32)
    null_key = rng.normal(size=(kv_heads, WIDTH)).astype(np.float32) if null else None
    slope = rng.random(heads).astype(np.float32) if recency else None
    expected, weights = reference.read(query, sources, null_key, slope)
    np.testing.assert_allclose(read_entries(query, sources, null_key, slope), expected, atol=2e-6)

    counts = rng.random((BATCH, QUERIES)) < 0.5
    mass = (weights * counts[..., None]).sum(axis=1)
    np.testing.assert_allclose(read_mass(query, sources, null_key, slope, counts), mass, atol=2e-6)


def test_a_token_that_sees_nothing_reads_zero():
    rng = np.random.default_rng(0)
    query = rng.normal(size=(BATCH, QUERIES, 2, WIDTH)).astype(np.float32)
    assert np.all(np.asarray(read_entries(query, [source(rng, 4, 2, visible=0.0)])) == 0)


def test_a_strong_key_reads_exactly_its_value():
    rng = np.random.default_rng(1)
    entries = source(rng, 4, 1, visible=1.1)
    unit = entries.keys / np.linalg.norm(entries.keys, axis=-1, keepdims=True)
    query = jnp.asarray(1e4 * unit[:, [2] * QUERIES])
    out = read_entries(query, [entries._replace(keys=unit)])
    np.testing.assert_array_equal(out, np.broadcast_to(entries.values[:, [2]], out.shape))


def test_the_null_entry_drowns_the_others():
    rng = np.random.default_rng(2)
    query = np.ones((BATCH, QUERIES, 1, WIDTH), np.float32)
    out = read_entries(query, [source(rng, 4, 1)], null_key=np.full((1, WIDTH), 100, np.float32))
    np.testing.assert_allclose(out, np.zeros(out.shape), atol=1e-30)


def test_bfloat16_read_keeps_its_type():
    rng = np.random.default_rng(3)
    half = source(rng, 4, 2)
    half = half._replace(keys=jnp.asarray(half.keys, jnp.bfloat16), values=jnp.asarray(half.values, jnp.bfloat16))
    query = jnp.ones((BATCH, QUERIES, 2, WIDTH), jnp.bfloat16)
    out = read_entries(query, [half], jnp.zeros((2, WIDTH)), jnp.ones(2))
    assert out.dtype == jnp.bfloat16
    assert read_mass(query, [half], None, None, jnp.ones((BATCH, QUERIES), bool)).dtype == jnp.float32


@pytest.mark.parametrize("visible", [1.1, 0.3, 0.0])
@pytest.mark.parametrize("null", [False, True])
def test_two_reads_join_to_one_softmax(null, visible):
    rng = np.random.default_rng(3)
    first, second = source(rng, 5, 1), source(rng, 3, 1, visible)
    query = rng.normal(size=(BATCH, QUERIES, 2, WIDTH)).astype(np.float32)
    null_key = rng.normal(size=(1, WIDTH)).astype(np.float32) if null else None
    (one, one_lse), (two, two_lse) = (
        read_entries_with_lse(query, [first]),
        read_entries_with_lse(query, [second], null_key),
    )
    joined, share = joint_softmax(one, one_lse, two, two_lse)
    expected, weights = reference.read(query, [first, second], null_key)
    np.testing.assert_allclose(joined, expected, atol=2e-6)
    if not null:
        sees_any = weights.sum(axis=-1) > 0
        np.testing.assert_allclose(share.mean(axis=-1)[sees_any], weights[..., :5].sum(axis=-1)[sees_any], atol=2e-6)


def test_gradients_of_joined_reads_are_those_of_one_softmax():
    rng = np.random.default_rng(4)
    first, second = source(rng, 5, 1, 1.1), source(rng, 3, 1, 0.4)
    query, weight = rng.normal(size=(2, BATCH, QUERIES, 2, WIDTH)).astype(np.float32)

    def joined(query, keys):
        halves = read_entries_with_lse(query, [first]), read_entries_with_lse(query, [second._replace(keys=keys)])
        return jnp.sum(weight * joint_softmax(*halves[0], *halves[1])[0])

    def at_once(query, keys):
        return jnp.sum(weight * read_entries(query, [first, second._replace(keys=keys)]))

    gradients, expected = (jax.jit(jax.grad(f, (0, 1)))(query, second.keys) for f in (joined, at_once))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), gradients, expected)
