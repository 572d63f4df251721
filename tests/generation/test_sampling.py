"""Sampling functions on bare logits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memgpt_jax.generation import keep_top_k, keep_top_p, sample

LOGITS = jnp.log(jnp.array([[0.5, 0.1, 0.3, 0.1], [0.1, 0.2, 0.3, 0.4]], jnp.float32))


def kept(logits) -> list[list[int]]:
    return [np.flatnonzero(np.isfinite(row)).tolist() for row in np.asarray(logits)]


def test_top_k():
    assert kept(keep_top_k(LOGITS, 1)) == [[0], [3]]
    assert kept(keep_top_k(LOGITS, 2)) == [[0, 2], [2, 3]]
    assert kept(keep_top_k(LOGITS, 3)) == [[0, 1, 2, 3], [1, 2, 3]]  # a tie stays in
    assert kept(keep_top_k(LOGITS, 9)) == [[0, 1, 2, 3]] * 2


def test_top_p():
    assert kept(keep_top_p(LOGITS, 0.01)) == [[0], [3]]
    assert kept(keep_top_p(LOGITS, 0.6)) == [[0, 2], [2, 3]]
    assert kept(keep_top_p(LOGITS, 1.0)) == [[0, 1, 2, 3]] * 2


def test_top_p_counts_what_top_k_left():
    assert kept(keep_top_p(keep_top_k(LOGITS, 2), 0.5)) == [[0], [3]]


def test_temperature_zero_takes_the_highest():
    assert sample(jax.random.key(0), LOGITS, 0.0).tolist() == [0, 3]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_frequencies(temperature):
    number = 4000
    draws = sample(jax.random.key(0), jnp.broadcast_to(LOGITS[0], (number, 4)), temperature)
    expected = np.exp(np.asarray(LOGITS[0]) / temperature)
    frequencies = np.bincount(np.asarray(draws), minlength=4) / number
    np.testing.assert_allclose(frequencies, expected / expected.sum(), atol=0.03)


def test_limits_hold_in_draws():
    draws = sample(jax.random.key(0), jnp.broadcast_to(LOGITS[1], (500, 4)), 1.0, top_k=3, top_p=0.5)
    assert set(np.asarray(draws).tolist()) == {2, 3}


@pytest.mark.parametrize("wrong", [{"temperature": -1.0}, {"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.5}])
def test_wrong_values(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        sample(jax.random.key(0), LOGITS, **wrong)
