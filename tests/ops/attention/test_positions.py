"""Positions against Python's own integers, near the ends of 32-bit counters too."""

import functools

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memgpt_jax.ops.attention.positions import compute_frequencies, document_positions, phases, rotate, sinusoidal
from tests.references import ops as reference

sinusoidal = jax.jit(sinusoidal, static_argnums=(1, 2))
document_positions = jax.jit(document_positions)


@functools.partial(jax.jit, static_argnums=1)
def phases_of(positions, base):
    return phases(positions, compute_frequencies(8, base))


@functools.partial(jax.jit, static_argnums=2)
def rotated(x, positions, base):
    return rotate(x, positions, compute_frequencies(x.shape[-1] // 2, base))


FAR = [0, 1, 1023, 10**9, 10**9 + 1, 2**31 - 2, 2**31 - 1]


@given(position=st.integers(0, 2**32 - 1), base=st.sampled_from([10000.0, 500.0, 1e6]))
def test_phases_are_exact_however_far(position, base):
    counter = np.array([[position]], np.uint32).view(np.int32)  # what a wrapped int32 counter holds
    expected = [reference.turns(position, i, 8, base) for i in range(8)]
    got = np.asarray(phases_of(counter, base))[0, 0]
    np.testing.assert_allclose(got, np.array(expected) * (2 * np.pi / 2**32), rtol=2e-7)


def test_frequencies_are_those_of_the_formula():
    turns = compute_frequencies(16, 10000.0).astype(np.float64) / 2**32
    np.testing.assert_allclose(turns * 2 * np.pi, 10000.0 ** (-np.arange(16) / 16), rtol=1e-5)


@pytest.mark.parametrize("shift", FAR)
def test_rotate_equals_loops(shift):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 3, 2, 6)).astype(np.float32)
    positions = (shift + np.arange(6, dtype=np.int64).reshape(2, 3)).astype(np.uint32)
    expected = reference.rotate(x, positions, 10000.0)
    got = rotated(x, positions.view(np.int32), 10000.0)
    np.testing.assert_allclose(got, expected, atol=2e-6)


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
        def at(place):
            return np.array([[place]], np.uint32).view(np.int32)

        turned = rotated(query, at(position + distance), 1e4) * rotated(key, at(position), 1e4)
        return np.sum(np.asarray(turned))

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
