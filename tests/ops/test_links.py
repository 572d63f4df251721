"""Scores of links: against complex numbers in NumPy, and by hand."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memgpt_jax.ops.links import link_scores
from tests.references.links import link_score

SCORERS = ("transe", "distmult", "complex", "rotate")


@pytest.mark.parametrize("scorer", SCORERS)
def test_scores_equal_the_reference(scorer):
    rng = np.random.default_rng(0)
    u, w, entities = (rng.normal(size=shape).astype(np.float32) for shape in ((2, 3, 8), (2, 3, 8), (5, 8)))
    found = jax.jit(link_scores, static_argnums=0)(scorer, u, w, entities)
    expected = [[[link_score(scorer, u[b, i], w[b, i], e) for e in entities] for i in range(3)] for b in range(2)]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_scores_by_hand():
    def score(scorer, *vectors):
        u, w, e = (jnp.asarray(vector, jnp.float32) for vector in vectors)
        return float(link_scores(scorer, u[None, None], w[None, None], e[None])[0, 0, 0])

    assert score("transe", [1, 2], [2, -1], [3, 1]) == pytest.approx(0, abs=1e-4)
    assert score("transe", [1, 2], [2, -1], [0, 5]) == pytest.approx(-5)
    assert score("distmult", [1, 2], [3, 4], [5, 6]) == pytest.approx(63 / math.sqrt(2))
    # i times 1 is i: the relation i is not symmetric, i against 1 is -i.
    assert score("complex", [1, 0], [0, 1], [0, 1]) == pytest.approx(1 / math.sqrt(2))
    assert score("complex", [0, 1], [0, 1], [1, 0]) == pytest.approx(-1 / math.sqrt(2))
    # A quarter turn takes 1 to i, whatever the second half of the relation is.
    assert score("rotate", [1, 0], [math.pi / 2, 7], [0, 1]) == pytest.approx(0, abs=1e-4)
    assert score("rotate", [1, 0], [math.pi / 2, 7], [0, -2]) == pytest.approx(-3)


@pytest.mark.parametrize("scorer", SCORERS)
def test_a_gradient_at_distance_zero_is_finite(scorer):
    u, w = jnp.ones((1, 1, 4)), jnp.zeros((1, 1, 4))
    gradient = jax.grad(lambda u: link_scores(scorer, u, w, jnp.ones((1, 4))).sum())(u)
    assert np.isfinite(gradient).all()
