"""Vectors of 8 bits: a NumPy reference, the bound of the docstring, and what rounding never changes."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memgpt_jax.ops.int8_vectors import Int8Vectors, as_floats, in_form_of, round_vectors, rounded, zero_vectors


def reference(x: np.ndarray) -> tuple[np.ndarray, int]:
    """q and e of one vector, by search: the smallest e from -126 on with which every |x / 2^e| is at most 127."""
    largest = max(abs(float(value)) for value in x)
    e = next(e for e in range(-126, 127) if largest <= 127 * 2.0**e)
    values = np.array([round(float(value) / 2.0**e) for value in x], np.int8)  # Python rounds halves to even
    return values, e if values.any() else 0


def vectors() -> np.ndarray:
    """Of any size, with halves, exact powers of 2, and sizes at which the exponent changes."""
    random = np.random.default_rng(0)
    some = random.standard_normal((40, 5)) * 10.0 ** random.integers(-30, 30, (40, 1))
    edges = np.outer([127.0, np.nextafter(np.float32(127), np.float32(200)), 128, 63.5, 64, 1, 2.0**-140], [1, -0.5, 0])
    return np.concatenate([some, np.pad(edges, ((0, 0), (0, 2)))]).astype(np.float32)


def test_values_and_exponents_are_those_of_the_reference():
    found = round_vectors(jnp.asarray(vectors()))
    for number, x in enumerate(vectors()):
        values, exponent = reference(x)
        np.testing.assert_array_equal(found.values[number], values)
        assert found.exponent[number] == exponent
    assert found.values.dtype == found.exponent.dtype == jnp.int8


def test_the_error_is_below_one_127th_of_the_largest():
    x = vectors()[:40]
    error = np.abs(np.asarray(rounded(jnp.asarray(x))) - x).max(axis=1)
    assert np.all(error < np.abs(x).max(axis=1) / 127)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_rounding_twice_is_rounding_once_bitwise(dtype):
    """In every type that models compute with: the call that makes a vector and the state hold the same value."""
    x = jnp.asarray(vectors()).astype(dtype)
    once = rounded(x)
    assert once.dtype == dtype
    np.testing.assert_array_equal(rounded(once), once)
    jax.tree.map(np.testing.assert_array_equal, round_vectors(once), round_vectors(x))
    np.testing.assert_array_equal(as_floats(round_vectors(x), dtype), once)
    exact = np.ldexp(np.asarray(round_vectors(x).values, np.float64), np.asarray(round_vectors(x).exponent)[:, None])
    np.testing.assert_array_equal(np.asarray(once, np.float64), exact)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_makes_its_vector_nan(wrong):
    x = jnp.ones((3, 4)).at[1, 2].set(wrong)
    found = np.asarray(as_floats(round_vectors(x), jnp.float32))
    assert np.isnan(found[1]).all() and (found[[0, 2]] == 1).all()


def test_the_gradient_is_that_of_the_vector_itself():
    x = jnp.asarray(vectors()[:4])
    found = jax.grad(lambda x: jnp.sum(jnp.sin(rounded(x))))(x)
    np.testing.assert_array_equal(found, jnp.cos(rounded(x)))


def test_trees_keep_their_form():
    """Empty vectors are zeros, which the packing of states drops."""
    empty = {"k": zero_vectors((2, 3, 4), jnp.float32, 8), "n": zero_vectors((2,), jnp.bfloat16, None), "none": None}
    assert empty["k"].shape == (2, 3, 4) and empty["k"].exponent.shape == (2, 3)
    floats = as_floats(empty, jnp.bfloat16)
    assert floats["k"].dtype == floats["n"].dtype == jnp.bfloat16 and not floats["k"].any()
    back = in_form_of(empty, floats)
    assert isinstance(back["k"], Int8Vectors) and isinstance(back["n"], jax.Array) and back["none"] is None
    for again in (back, in_form_of(empty, empty)):
        jax.tree.map(np.testing.assert_array_equal, again, empty)
    jax.tree.map(np.testing.assert_array_equal, in_form_of(floats, empty), floats)
    assert math.prod(floats["k"].shape) + 2 * 3 == sum(leaf.nbytes for leaf in back["k"])
