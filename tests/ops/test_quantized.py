"""Matrices of 8 and 4 bits: exact sums, the bounds of the docstring, and what cannot be done."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memgpt_jax.ops import Int8Matrix, cross_entropy, matmul, quantized
from tests.references import quantized as reference

random = np.random.default_rng(0)


def quantize_matrix(weights, bits):
    return quantized.quantize_matrix(jnp.asarray(weights), bits)


def stored_matmul(x, matrix):
    return quantized.stored_matmul(jnp.asarray(x), matrix)


def normal(*shape) -> np.ndarray:
    return random.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("rows", [1, 9])
def test_sums_of_8_bits_are_exact(rows):
    """With an odd number of columns, H is the identity; rows with a 127 have the scale 1."""
    x, weights = (random.integers(-127, 128, (n, 5001)) for n in (rows, 3))
    x[:, 0], weights[:, 0] = 127, 127
    x[0], weights[0] = 127, 127  # a sum beyond 2 ** 24, where float32 has no odd integers
    matrix = quantize_matrix(weights.astype(np.float32), 8)
    np.testing.assert_array_equal(matrix.values, weights)
    got = stored_matmul(x.astype(np.float32), matrix)
    np.testing.assert_array_equal(got, (x.astype(np.int32) @ weights.astype(np.int32).T).astype(np.float32))


@pytest.mark.parametrize("width", [128, 20])
def test_a_product_of_8_bits_is_that_of_numpy_within_its_bound(width):
    x, weights = normal(3, width), normal(5, width)
    got = np.asarray(stored_matmul(x[None], quantize_matrix(weights, 8)))[0]
    want, bound = reference.product(x, weights)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5 * np.abs(want).max())
    assert (np.abs(got - x @ weights.T) <= bound).all()


def test_one_large_channel_leaves_the_others_their_precision():
    x, weights = normal(4, 128), normal(6, 128)
    x[:, 17], weights[:, 17] = 50.0, 0.0
    got, want = stored_matmul(x, quantize_matrix(weights, 8)), x @ weights.T
    assert np.std(got - want) < 0.07 * np.std(want)  # 0.12 without H


@pytest.mark.parametrize("bits, share", [(8, 4.0), ("q8_0", 0.505), (4, 0.505)])
def test_rows_are_restored_within_half_a_step(bits, share):
    """H sums 64 errors of half a step, divided by 8."""
    weights, ids = normal(9, 128), jnp.array([[3, 0], [8, 3]])
    matrix = quantize_matrix(weights, bits)
    step = matrix.scale[:, None] if bits == 8 else jnp.repeat(matrix.scale, 32, axis=1).astype(jnp.float32)
    assert (np.abs(matrix[ids] - weights[ids]) <= share * step[ids]).all()
    assert matrix[...] is matrix
    assert matrix.values.nbytes == 9 * 128 * (4 if bits == 4 else 8) // 8


def test_groups_of_a_gguf_file_are_restored_exactly():
    """Q4_1: each group has a weight at 0 and one at 15."""
    values = random.integers(0, 16, (12, 4, 32))
    values[..., 3], values[..., 30] = 0, 15
    scale, minimum = (random.uniform(0.01, 0.1, (12, 4, 1)).astype(np.float16) for _ in range(2))
    weights = (values * scale.astype(np.float32) - 8 * minimum.astype(np.float32)).reshape(12, 128)
    matrix = quantize_matrix(weights, 4)
    np.testing.assert_array_equal(matrix[jnp.arange(12)], weights)
    x = normal(3, 128)
    np.testing.assert_allclose(stored_matmul(x, matrix), x @ weights.T, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(quantize_matrix(jnp.ones((2, 64)), 4)[jnp.arange(2)], np.ones((2, 64)))


def test_groups_of_8_bits_of_a_gguf_file_are_restored_exactly():
    """Q8_0: each group has a weight at -127 or 127; the vectors of a product are not rounded."""
    values = random.integers(-127, 128, (70, 3, 32))
    values[..., 9] = random.choice([-127, 127], (70, 3))
    scale = random.uniform(1e-4, 0.1, (70, 3, 1)).astype(np.float16)
    weights = (values * scale.astype(np.float32)).reshape(70, 96)
    weights[5] = 0.0
    matrix = quantize_matrix(weights, "q8_0")
    np.testing.assert_array_equal(matrix[jnp.arange(70)], weights)
    x = normal(3, 96)
    np.testing.assert_allclose(stored_matmul(x, matrix), x @ weights.T, rtol=1e-4, atol=1e-4)
    assert isinstance(quantize_matrix(normal(4, 48), "q8_0"), Int8Matrix)


@pytest.mark.parametrize("bits", ["q8_0", 4])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_group_that_is_not_finite_stays_so(bits, value):
    weights = normal(3, 64)
    weights[1, 40] = value
    got = np.asarray(quantize_matrix(weights, bits)[jnp.arange(3)])
    assert not np.isfinite(got[1, 32:]).any() and np.isfinite(np.delete(got, 1, axis=0)).all()
    assert np.isfinite(got[1, :32]).all()


def test_rows_that_are_0_or_not_finite():
    x = normal(4, 64)
    x[1], x[2, 5], x[3, 5] = 0.0, np.nan, np.inf
    got = np.asarray(stored_matmul(x, quantize_matrix(normal(7, 64), 8)))
    assert np.isfinite(got[0]).all() and (got[1] == 0).all() and np.isnan(got[2:]).all()


def test_a_quantised_matrix_takes_the_place_of_a_kernel_and_of_an_embedding():
    x, weights, targets = normal(1, 6, 64), normal(10, 64), jnp.arange(6)[None]
    matrix = quantize_matrix(weights, 8)
    got = matmul(jnp.asarray(x, jnp.bfloat16), matrix)
    assert got.dtype == jnp.bfloat16
    logits = stored_matmul(x, matrix)
    want = jax.nn.logsumexp(logits, axis=-1) - jnp.take_along_axis(logits, targets[..., None], -1)[..., 0]
    np.testing.assert_allclose(
        cross_entropy(jnp.asarray(x), matrix, targets, chunk_size=4).losses, want, rtol=1e-5, atol=1e-5
    )


def test_what_cannot_be_done():
    matrix = quantize_matrix(normal(4, 64), 8)
    with pytest.raises(ValueError, match="no gradient: train the model first"):
        jax.grad(lambda x: jnp.sum(stored_matmul(x, matrix)))(jnp.ones((2, 64)))
    with pytest.raises(ValueError, match="bits must be 8, 4 or 'q8_0', got 5"):
        quantized.check_bits(5)
    with pytest.raises(ValueError, match="133145 columns cannot have 8 bits; the largest has 133144"):
        jax.eval_shape(lambda w: quantized.quantize_matrix(w, 8), jax.ShapeDtypeStruct((2, 133145), np.float32))
