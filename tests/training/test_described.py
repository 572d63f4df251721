"""Embeddings that begin with the words of texts, against the equation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memgpt_jax.training.described import SHARE, described

TEXTS = ["", "red fox", "red hen", "blue hen", "alone"]


@pytest.fixture
def params():
    pytest.importorskip("sklearn", reason="the extra `tasks` is not installed")
    return {"embedding": 0.3 * jax.random.normal(jax.random.key(0), (7, 4_000)), "other": jnp.ones(3)}


def test_cosines_and_variances(params):
    """Those of the TF-IDF weights of words in two texts or more; smoothed idf, as scikit-learn has it."""
    found = described(params, TEXTS, 0)
    drawn, vectors = np.asarray(params["embedding"]), np.asarray(found["embedding"])
    kept = [0, 4, 5, 6]  # no text, a word of one text alone, ids without a text
    np.testing.assert_array_equal(vectors[kept], drawn[kept])
    np.testing.assert_allclose(vectors.std(axis=1), drawn.std(), rtol=0.05)
    idf = 1 + np.log((1 + len(TEXTS)) / (1 + 2))  # red, hen: in two texts each
    red, both, hen = np.array([idf, 0]) / idf, np.array([idf, idf]) / (idf * 2**0.5), np.array([0, idf]) / idf
    pairs = {(1, 2): red @ both, (2, 3): both @ hen, (1, 3): red @ hen}
    for (first, second), cosine in pairs.items():
        a, b = vectors[first], vectors[second]
        assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) == pytest.approx(SHARE**2 * cosine, abs=0.05)
    assert found["other"] is params["other"]


def test_the_backbone_of_a_head_and_a_seed(params):
    inner = described({"backbone": params, "head": jnp.ones(2)}, TEXTS, 3)["backbone"]["embedding"]
    np.testing.assert_array_equal(inner, described(params, TEXTS, 3)["embedding"])
    assert (inner != described(params, TEXTS, 4)["embedding"]).any()


@pytest.mark.parametrize(
    ("change", "texts", "message"),
    [
        ({"embedding": None}, TEXTS, "need a model with token embeddings"),
        ({}, TEXTS * 2, "there are 10 texts of ids, and model.vocab_size=7 is less"),
        ({}, ["a", "b"], "share no words"),
        ({}, ["", ""], "share no words"),
    ],
)
def test_what_cannot_be_described(params, change, texts, message):
    params = {name: value for name, value in (params | change).items() if value is not None}
    with pytest.raises(ValueError, match=message):
        described(params, texts, 0)
