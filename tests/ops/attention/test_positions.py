"""Positions against Python's own integers, near the ends of 32-bit counters too."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memgpt_jax.ops.attention.positions import document_positions, frequencies, phases, rotate, sinusoidal
from tests.references import ops as reference

phases = jax.jit(phases, static_argnums=(1, 2))
rotate = jax.jit(rotate, static_argnums=2)
sinusoidal = jax.jit(sinusoidal, static_argnums=(1, 2))
document_positions = jax.jit(document_positions)

FAR = [0, 1, 1023, 10**9, 10**9 + 1, 2**31 - 2, 2**31 - 1]


@given(position=st.integers(0, 2**32 - 1), base=st.sampled_from([10000.0, 500.0, 1e6]))
def test_phases_are_exact_however_far(position, base):
    counter = np.array([[position]], np.uint32).view(np.int32)  # what a wrapped int32 counter holds
    expected = [reference.turns(position, i, 8, base) for i in range(8)]
    got = np.asarray(phases(counter, 8, base))[0, 0]
    np.testing.assert_allclose(got, np.array(expected) * (2 * np.pi / 2**32), rtol=2e-7)


def test_frequencies_are_those_of_the_formula():
    turns = np.asarray(frequencies(16, 10000.0), np.float64) / 2**32
    np.testing.assert_allclose(turns * 2 * np.pi, 10000.0 ** (-np.arange(16) / 16), rtol=1e-5)


@pytest.mark.parametrize("shift", FAR)
def test_rotate_equals_loops(shift):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 3, 2, 6)).astype(np.float32)
    positions = (shift + np.arange(6, dtype=np.int64).reshape(2, 3)).astype(np.uint32)
    expected = reference.rotate(x, positions, 10000.0)
    np.testing.assert_allclose(rotate(x, positions.view(np.int32), 10000.0), expected, atol=2e-6)


@pytest.mark.parametrize("shift", FAR)
def test_sinusoidal_equals_loops(shift):
    positions = (shift + np.arange(4, dtype=np.int64)[None]).astype(np.uint32)
    expected = reference.sinusoidal(positions, 8, 10000.0)
    np.testing.assert_allclose(sinusoidal(positions.view(np.int32), 8, 10000.0), expected, atol=2e-6)


@pytest.mark.parametrize("shift", FAR[3:])
def test_rotary_attention_depends_on_distance_alone(shift):
    rng = np.random.default_rng(1)
    query, key = rng.normal(size=(2, 1, 1, 1, 16)).astype(np.float32)

    def logit(position, distance):
        at = lambda p: np.array([[p]], np.uint32).view(np.int32)  # noqa: E731
        return np.sum(
            np.asarray(rotate(query, at(position + distance), 1e4)) * np.asarray(rotate(key, at(position), 1e4))
        )

    for distance in (0, 1, 50):
        assert logit(shift, distance) == pytest.approx(logit(0, distance), abs=1e-5)


@given(st.lists(st.booleans(), min_size=6, max_size=6), st.integers(0, 2**31 - 1))
def test_document_positions_count_from_the_last_reset(reset, start):
    expected, position = [], start
    for begins in reset:
        position = 0 if begins else position
        expected.append(position)
        position += 1
    got = document_positions(np.array([start], np.int32), np.array([reset]))
    np.testing.assert_array_equal(np.asarray(got).view(np.uint32)[0], expected)
