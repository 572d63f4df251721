"""Relative positions: buckets by the formula, and what they add to attention, against plain loops."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memgpt_jax.ops.attention import full_attention, relative_bias, relative_bucket, window_attention
from tests.references import ops as reference

SIZES = [(32, 128), (10, 15), (8, 64), (7, 100), (4, 3), (16, 1000)]  # buckets, largest distance
SHAPES = [(13, 0, 2, 2, 5, None), (13, 6, 4, 2, 6, 4), (7, 9, 4, 1, 3, 2), (40, 3, 2, 1, 17, None), (5, 4, 2, 1, 1, 2)]


def test_buckets_of_the_usual_size():
    """Worked out by hand: 8, 16, 32, 64 stand at powers of 2, which are borders."""
    distance = np.array([0, 1, 7, 8, 11, 12, 15, 16, 31, 32, 63, 64, 90, 91, 127, 128, 9999])
    expected = [0, 1, 7, 8, 8, 9, 9, 10, 11, 12, 13, 14, 14, 15, 15, 15, 15]
    assert relative_bucket(distance, 32, 128, causal=False).tolist() == expected
    behind = relative_bucket(-distance[1:], 32, 128, causal=False)
    assert behind.tolist() == [16 + bucket for bucket in expected[1:]]
    causal = relative_bucket(np.array([0, 15, 16, 18, 19, 64, 112, 113, 5000]), 32, 128, causal=True)
    assert causal.tolist() == [0, 15, 16, 16, 17, 26, 30, 31, 31]


@pytest.mark.parametrize("buckets, max_distance", SIZES)
def test_buckets_equal_the_formula(buckets, max_distance):
    distance = np.arange(3 * max_distance)
    expected = np.array([reference.relative_bucket(d, buckets, max_distance) for d in distance])
    got = relative_bucket(distance, buckets, max_distance, causal=True)
    assert np.mean(got == expected) > 0.99 and np.abs(got - expected).max() <= 1  # whole numbers may round down
    assert got.min() == 0 and got.max() == buckets - 1 and np.all(np.diff(got) >= 0)


@pytest.mark.parametrize("buckets, max_distance", SIZES)
@pytest.mark.parametrize("causal", [True, False])
def test_buckets_are_those_of_the_library(buckets, max_distance, causal):
    attention = pytest.importorskip("transformers.models.t5.modeling_t5", reason="transformers is not installed")
    import torch

    distance = np.arange(0 if causal else -4 * max_distance, 4 * max_distance)
    options = {"bidirectional": not causal, "num_buckets": buckets, "max_distance": max_distance}
    expected = attention.T5Attention._relative_position_bucket(torch.from_numpy(-distance), **options)
    np.testing.assert_array_equal(relative_bucket(distance, buckets, max_distance, causal), expected.numpy())


def arrays_of(rng, length, past, heads, kv_heads):
    query = rng.normal(size=(2, length, heads, 4)).astype(np.float32)
    keys, values = rng.normal(size=(2, 2, past + length, kv_heads, 4)).astype(np.float32)
    document = np.cumsum(rng.random((2, past + length)) < 0.2, axis=1).astype(np.int32)
    return query, keys, values, document[:, past:], document


def in_jax(arrays):
    return [jnp.asarray(x) for x in arrays]


@pytest.mark.parametrize("length, past, heads, kv_heads, window, block", SHAPES)
def test_a_bias_in_a_window_equals_loops(length, past, heads, kv_heads, window, block):
    rng = np.random.default_rng(length)
    arrays, bias = arrays_of(rng, length, past, heads, kv_heads), rng.normal(size=(heads, window)).astype(np.float32)
    options = {"window_size": window, "block_size": block}
    got = jax.jit(lambda bias, *arrays: window_attention(*arrays, **options, distance_bias=bias))(bias, *arrays)
    np.testing.assert_allclose(got, reference.window_attention(*arrays, window, bias), atol=2e-6)


def test_blocks_do_not_change_the_gradient_of_a_bias():
    rng = np.random.default_rng(0)
    arrays, bias = in_jax(arrays_of(rng, 13, 4, 4, 2)), jnp.asarray(rng.normal(size=(4, 6)), jnp.float32)

    @functools.partial(jax.jit, static_argnums=1)
    def gradient(bias, block):
        return jax.grad(
            lambda b: jnp.sum(jnp.sin(window_attention(*arrays, window_size=6, block_size=block, distance_bias=b)))
        )(bias)

    assert np.all(np.abs(gradient(bias, 13)).max(axis=1) > 1e-3)
    np.testing.assert_allclose(gradient(bias, 2), gradient(bias, 13), atol=1e-5)


def test_kernels_have_no_bias():
    arrays = in_jax(arrays_of(np.random.default_rng(0), 4, 0, 2, 2))
    options = {"window_size": 3, "distance_bias": jnp.zeros((2, 3), jnp.float32)}
    with pytest.raises(ValueError, match=r"implementation='interpret' does not work here .* valid: 'auto', 'portable'"):
        window_attention(*arrays, **options, implementation="interpret")


@pytest.mark.parametrize("length, heads, kv_heads", [(5, 4, 2), (150, 2, 2)])  # 150: more than one block of queries
def test_a_bias_of_full_attention_equals_loops(length, heads, kv_heads):
    rng = np.random.default_rng(length)
    query, keys, values, document, _ = arrays_of(rng, length, 0, heads, kv_heads)
    others = np.where(rng.random(document.shape) < 0.2, -1, document)  # padding
    table = jnp.asarray(rng.normal(size=(10, heads)), jnp.float32)
    biases = relative_bias(table, np.arange(1 - length, length), 15, causal=False)
    got = jax.jit(lambda *arrays: full_attention(*arrays, distance_bias=biases))(query, keys, values, document, others)
    expected = np.zeros(query.shape)
    for b, i, h in np.ndindex(2, length, heads):
        places = [j for j in range(length) if others[b, j] == document[b, i]]
        buckets = relative_bucket(np.array([i - j for j in places], int), 10, 15, causal=False)
        group = h // (heads // kv_heads)
        logits = keys[b, places, group].astype(float) @ query[b, i, h] / 2 + np.asarray(table)[buckets, h]
        if places:
            expected[b, i, h] = reference.softmax(logits) @ values[b, places, group]
    np.testing.assert_allclose(got, expected, atol=2e-6)
