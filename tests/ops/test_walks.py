"""Reads along triples: against loops, dead ends, and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memgpt_jax.ops.walks import walk
from tests.references import walks as reference

HOPS, RELATIONS, TRIPLES, ENTITIES = 3, 4, 12, 6


@pytest.fixture(scope="module")
def arguments():
    rng = np.random.default_rng(0)
    triples = np.stack([rng.integers(size, size=(2, TRIPLES)) for size in (ENTITIES, RELATIONS, ENTITIES)], axis=-1)
    triples[0, ::4] = -1
    triples[1, :, 0] = np.where(triples[1, :, 0] == 0, 1, triples[1, :, 0])  # no triple begins at the topic
    logits = rng.normal(size=(2, 3, HOPS, RELATIONS)).astype(np.float32)
    return logits, rng.normal(size=(2, 3, HOPS)).astype(np.float32), triples.astype(np.int32)


def test_a_walk_equals_loops_over_triples(arguments):
    found = jax.jit(walk, static_argnums=3)(*arguments, ENTITIES)
    logits, back, triples = arguments
    for row, token in np.ndindex(2, 3):
        p, reads = reference.walk(logits[row, token], back[row, token], triples[row].tolist(), ENTITIES)
        np.testing.assert_allclose(found.entities[row, token], p, atol=1e-6)
        np.testing.assert_allclose(found.reads[row, :, :, token], reads, atol=1e-6)
    np.testing.assert_allclose(found.entities[0].sum(axis=-1), 1, atol=1e-6)
    assert not np.any(found.entities[1]) and not np.any(found.reads[1])


def test_gradients_are_finite_where_nothing_leads_on_and_where_a_relation_is_all_but_excluded(arguments):
    logits, back, triples = map(jnp.asarray, arguments)

    @jax.jit
    @jax.grad
    def gradient(both):
        return jnp.sum(jnp.log(walk(*both, triples, ENTITIES).entities + 1e-6))

    of_logits, of_back = gradient((logits, back))
    assert np.isfinite(of_logits).all() and np.any(of_logits[0]) and not np.any(of_logits[1]) and not np.any(of_back[1])
    for part in gradient((logits + jnp.array([[[[0, 200, -200, 0]]]], jnp.float32), back)):  # weights underflow
        assert np.isfinite(part).all()
