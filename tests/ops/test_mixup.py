"""The partners of mixup."""

import jax
import jax.numpy as jnp
import numpy as np

from memgpt_jax.ops.mixup import of_partners, partners

ASKED = np.array([[False, True, False, True], [False, False, True, False], [True, False, False, True]])


def test_asked_tokens_are_permuted_over_all_rows_and_others_stay():
    draw = jax.jit(jax.vmap(lambda key: partners(key, jnp.asarray(ASKED))))
    found = np.asarray(draw(jax.random.split(jax.random.key(0), 300))).reshape(300, -1)
    places, flat = np.arange(ASKED.size), ASKED.reshape(-1)
    assert (found[:, ~flat] == places[~flat]).all() and (np.sort(found[:, flat]) == places[flat]).all()
    counts = np.stack([(found[:, flat] == place).sum(axis=0) for place in places[flat]])
    assert counts.min() > 30 and counts.max() < 90  # 60 are expected, with a standard deviation of 7


def test_without_a_second_asked_token_nothing_is_mixed():
    alone = np.zeros_like(ASKED)
    alone[1, 2] = True
    for asked in (alone, np.zeros_like(alone)):
        np.testing.assert_array_equal(partners(jax.random.key(0), jnp.asarray(asked)).reshape(-1), np.arange(12))


def test_of_partners_by_hand():
    x = jnp.asarray([[[0.0, 1.0], [2.0, 3.0]], [[4.0, 5.0], [6.0, 7.0]]])
    found = of_partners(x, jnp.asarray([[3, 1], [0, 2]], jnp.int32))
    np.testing.assert_array_equal(found, [[[6, 7], [2, 3]], [[0, 1], [4, 5]]])
    np.testing.assert_array_equal(of_partners(x[..., 0], jnp.asarray([[2, 2], [0, 3]], jnp.int32)), [[4, 4], [0, 6]])
