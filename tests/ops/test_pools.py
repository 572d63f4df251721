"""Pools equal loops over tokens, in any division into calls; padding adds nothing, and a reset begins anew."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memgpt_jax.ops.pools import POOLS, pool

BATCH, LENGTH, WIDTH = 3, 11, 4


def reference(name, h, logits, reset):
    """The pool of the tokens of the document of each token, up to and including it."""
    out = np.zeros_like(h)
    for b in range(len(h)):
        start = 0
        for t in range(h.shape[1]):
            start = t if reset[b, t] else start
            seen, weights = h[b, start : t + 1], np.exp(logits[b, start : t + 1] - logits[b, start : t + 1].max())
            out[b, t] = {
                "first": seen[0],
                "last": seen[-1],
                "mean": seen.mean(axis=0),
                "max": seen.max(axis=0),
                "attention": weights @ seen / weights.sum(),
            }[name]
    return out


def inputs(seed=0):
    rng = np.random.default_rng(seed)
    h, logits = rng.normal(size=(BATCH, LENGTH, WIDTH)), 30 * rng.normal(size=(BATCH, LENGTH))
    reset = rng.random((BATCH, LENGTH)) < 0.2
    reset[0] = False
    return h.astype(np.float32), logits.astype(np.float32), reset


each = pytest.mark.parametrize("name", POOLS)


@each
def test_every_division_into_calls_equals_the_reference(name):
    h, logits, reset = inputs()
    expected, run = reference(name, h, logits, reset), jax.jit(pool, static_argnums=0)
    for cuts in ([], [3], [1, 2, 7], range(1, LENGTH)):
        state, found = POOLS[name].empty(BATCH, WIDTH), []
        for part in zip(*(np.split(array, cuts, axis=1) for array in (h, reset, logits)), strict=True):
            valid = np.ones(part[1].shape, bool)
            pooled, state = run(POOLS[name], part[0], state, part[1], valid, part[2])
            found.append(pooled)
        np.testing.assert_allclose(np.concatenate(found, axis=1), expected, rtol=1e-5, atol=1e-6)


@each
def test_padding_adds_nothing(name):
    h, logits, reset = inputs()
    valid = np.arange(LENGTH)[None] < np.array([[LENGTH], [4], [0]])
    start = POOLS[name].empty(BATCH, WIDTH)
    run = jax.jit(pool, static_argnums=0)
    pooled, state = run(POOLS[name], h, start, reset | ~valid, valid, logits)
    h[~valid] = np.inf
    again, same = run(POOLS[name], h, start, reset | ~valid, valid, logits)
    jax.tree.map(np.testing.assert_array_equal, (pooled, state), (again, same))
    assert not np.any(pooled[2])  # a row without a token
    jax.tree.map(lambda after, before: np.testing.assert_array_equal(after[2], before[2]), state, start)
    expected = reference(name, inputs()[0][:, :4], logits[:, :4], reset[:, :4])
    np.testing.assert_allclose(pooled[1, :4], expected[1], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(pooled[1, 4:], np.broadcast_to(pooled[1, 3], (LENGTH - 4, WIDTH)))


@each
def test_gradients_are_finite_and_reach_the_tokens_that_count(name):
    h, logits, reset = inputs()
    state = POOLS[name].empty(BATCH, WIDTH)

    @jax.jit
    @jax.grad
    def gradient(arguments):
        h, logits = arguments
        pooled, _ = pool(POOLS[name], h, state, jnp.asarray(reset), jnp.ones(reset.shape, bool), logits / 30)
        return jnp.sum(jnp.sin(pooled[0, -1]))

    of_h, of_logits = gradient((h, logits))
    assert np.isfinite(of_h).all() and np.isfinite(of_logits).all()
    reached = np.any(np.asarray(of_h[0]) != 0, axis=1)
    expected = {"first": np.arange(LENGTH) == 0, "last": np.arange(LENGTH) == LENGTH - 1}
    expected["max"] = np.isin(np.arange(LENGTH), h[0].argmax(axis=0))
    np.testing.assert_array_equal(reached, expected.get(name, np.ones(LENGTH, bool)))
    assert np.any(of_logits[0]) == (name == "attention")
    assert not np.any(of_h[1:])
