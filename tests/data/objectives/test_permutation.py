"""Factorisation orders: all are equally likely, and the last sixth of the valid tokens is predicted."""

import numpy as np

from memgpt_jax.data.objectives.permutation import draw_permutation


def test_the_last_sixth_in_order_is_predicted():
    valid = np.arange(19) < np.array([19, 18, 7, 1, 0])[:, None]
    order, predicted = draw_permutation(np.random.default_rng(0), valid)
    assert order.dtype == np.int32 and predicted.dtype == bool
    for row, number in enumerate((4, 3, 2, 1, 0)):
        assert predicted[row].sum() == number
        assert not np.any(predicted[row] & ~valid[row])
        assert sorted(order[row, predicted[row]]) == list(range(1, number + 1))
        given = valid[row] & ~predicted[row]
        assert np.all(order[row, given] == 0)
        assert np.all(order[row, ~valid[row]] > number)


def test_tokens_and_orders_are_uniformly_distributed():
    valid = np.ones((30_000, 12), bool)
    order, predicted = draw_permutation(np.random.default_rng(0), valid)
    np.testing.assert_allclose(predicted.mean(axis=0), 1 / 6, atol=0.02)
    np.testing.assert_allclose((order == 1).mean(axis=0), 1 / 12, atol=0.02)
    first, last = np.argmax(order == 1, axis=1), np.argmax(order == 2, axis=1)
    pairs = np.bincount(first * 12 + last, minlength=144).reshape(12, 12) / len(valid)
    np.testing.assert_allclose(pairs, (1 - np.eye(12)) / 132, atol=0.003)


def test_equal_generators_draw_equal_orders():
    one, other = (draw_permutation(np.random.default_rng(3), np.ones((2, 9), bool)) for _ in range(2))
    np.testing.assert_array_equal(one.order, other.order)
    np.testing.assert_array_equal(one.predicted, other.predicted)
