"""Logits by distance, against loops."""

import jax
import numpy as np
import pytest

from memgpt_jax.ops.attention import relative_logits
from memgpt_jax.ops.attention.relative import relative_shift


@pytest.mark.parametrize("queries, width", [(1, 2), (1, 6), (3, 4), (4, 11), (5, 10)])
def test_relative_shift_equals_loops(queries, width):
    scores = np.random.default_rng(0).normal(size=(2, queries, width)).astype(np.float32)
    expected = np.zeros((2, queries, width - queries), np.float32)
    for b, i, j in np.ndindex(*expected.shape):
        expected[b, i, j] = scores[b, i, queries - 1 - i + j]
    np.testing.assert_array_equal(jax.jit(relative_shift)(scores), expected)


@pytest.mark.parametrize("length, number, first", [(1, 1, 0), (7, 7, 0), (7, 3, 0), (7, 3, 4), (7, 1, 6), (7, 4, 5)])
def test_relative_logits_equal_loops(length, number, first):
    """The last case has queries behind the last place, which fill a block and stand for nothing."""
    rng = np.random.default_rng(0)
    query = rng.normal(size=(number, 2, 3)).astype(np.float32)
    keys = rng.normal(size=(2 * length - 1, 2, 3)).astype(np.float32)
    got = np.asarray(jax.jit(relative_logits)(query, keys, first))
    assert got.shape == (2, number, length)
    for h, i, j in np.ndindex(*got.shape):
        if first + i < length:
            distance = first + i - j
            expected = query[i, h] @ keys[length - 1 - distance, h]
            np.testing.assert_allclose(got[h, i, j], expected, atol=1e-5)
