"""Embeddings that begin with descriptions, against the cosines of the equation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memgpt_jax.config.data import Descriptions
from memgpt_jax.training.described import NUMBERS, SHARE, WIDTHS, described

NAN = np.nan
TEXTS = ("", "red fox", "red hen", "blue hen", "alone", "", "red fox")
OTHERS = ("", "1 2", "2", "1 3", "", "4", "1")
YEARS = np.array([NAN, 1990.0, 1992, NAN, NAN, 1990, 2010])
IDF = 1 + np.log((1 + len(TEXTS)) / (1 + np.array([3, 2, 2])))  # of red, fox, hen; smoothed, as scikit-learn has it
VECTORS = np.array([[0, 0, 0], [1, 1, 0], [1, 0, 1], [0, 0, 1], [0, 0, 0], [0, 0, 0], [1, 1, 0]]) * IDF
OTHER_IDF = 1 + np.log((1 + len(TEXTS)) / (1 + np.array([3, 2])))  # of 1, 2
OTHER_VECTORS = np.array([[0, 0], [1, 1], [0, 1], [1, 0], [0, 0], [0, 0], [1, 0]]) * OTHER_IDF


@pytest.fixture
def params():
    pytest.importorskip("sklearn", reason="the extra `tasks` is not installed")
    return {"embedding": 0.3 * jax.random.normal(jax.random.key(0), (9, 30_000)), "other": jnp.ones(3)}


def kernels() -> np.ndarray:
    """The mean cosine of the descriptions of two ids, times the share of the descriptions."""
    lengths = [np.linalg.norm(vectors, axis=1, keepdims=True) for vectors in (VECTORS, OTHER_VECTORS)]
    units = [v / np.where(n, n, 1) for v, n in zip((VECTORS, OTHER_VECTORS), lengths, strict=True)]
    words = np.mean([unit @ unit.T for unit in units], axis=0)
    z = (YEARS - np.nanmean(YEARS)) / np.nanstd(YEARS)
    near = np.mean([np.exp(-((z[:, None] - z) ** 2) / 2 / h**2) for h in WIDTHS], axis=0)
    return SHARE * (NUMBERS * np.nan_to_num(near) + (1 - NUMBERS) * words)


def test_cosines_and_variances(params):
    found = described(params, Descriptions((TEXTS, OTHERS), YEARS), 0)
    drawn, vectors = np.asarray(params["embedding"]), np.asarray(found["embedding"])
    undescribed = [0, 4, 7, 8]  # without text and number, with a word of one text alone, beyond the descriptions
    np.testing.assert_allclose(vectors[undescribed], drawn[undescribed], rtol=1e-6)
    np.testing.assert_allclose(vectors.std(axis=1), drawn.std(), rtol=0.03)
    unit = vectors[:7] / np.linalg.norm(vectors[:7], axis=1, keepdims=True)
    others = ~np.eye(7, dtype=bool)
    np.testing.assert_allclose((unit @ unit.T)[others], kernels()[others], atol=0.03)
    assert found["other"] is params["other"]


def test_the_backbone_of_a_head_and_a_seed(params):
    descriptions = Descriptions((TEXTS,), YEARS)
    inner = described({"backbone": params, "head": jnp.ones(2)}, descriptions, 3)["backbone"]["embedding"]
    np.testing.assert_array_equal(inner, described(params, descriptions, 3)["embedding"])
    assert (inner != described(params, descriptions, 4)["embedding"]).any()


def test_words_or_numbers_alone(params):
    """Ids of which nothing is known keep what was drawn."""
    drawn = np.asarray(params["embedding"])
    for texts, years in ((TEXTS, np.full(7, NAN)), (("",) * 7, YEARS), (("a", "b", ""), np.full(3, 1990.0))):
        vectors = np.asarray(described(params, Descriptions((texts,), years), 0)["embedding"])
        assert np.isfinite(vectors).all()
        np.testing.assert_allclose(vectors.std(axis=1), drawn.std(), rtol=0.03)
    unchanged = described(params, Descriptions((("a", "b"),), np.full(2, NAN)), 0)["embedding"]
    np.testing.assert_allclose(unchanged, drawn, rtol=1e-6)


def test_what_cannot_be_described(params):
    with pytest.raises(ValueError, match="need a model with token embeddings"):
        described({"other": params["other"]}, Descriptions((TEXTS,), YEARS), 0)
    with pytest.raises(ValueError, match=r"14 ids are described, and model\.vocab_size=9 is less"):
        described(params, Descriptions((TEXTS * 2,), np.tile(YEARS, 2)), 0)
