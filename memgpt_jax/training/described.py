"""Embeddings that begin alike where the texts of their ids share words."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from memgpt_jax.config.checks import check
from memgpt_jax.config.extras import library
from memgpt_jax.models import Params
from memgpt_jax.shapes import Array, Float32

SHARE = 0.8
"""Share s of the words in an embedding: s^2 of its variance."""


def described(params: Params, texts: Sequence[str], seed: int) -> Params:
    """The parameters with token embeddings that begin near each other where texts share words.

        e_i = s a P^T f_i + sqrt(1 - s^2) n_i,   s = `SHARE`

    f_i [W]: the words of text i, weighted by TF-IDF, of length 1; words of a single text are left out. P [W, D]: drawn
    from N(0, 1). n_i: the embedding that was drawn; a: the standard deviation of these. So embeddings have the variance
    that they had, and those of two texts the mean cosine s^2 f_i . f_j. An id with an empty text keeps n_i.

    Args:
        params: of a model that has token embeddings [V, D], or of its backbone.
        texts: of the ids 0, 1, ..., at most V.
        seed: of P.

    Raises:
        ValueError: the model has no token embeddings of its own, there are more texts than ids, or no word is in two
            texts.
        ImportError: scikit-learn is not installed.
    """
    if "backbone" in params:
        return params | {"backbone": described(params["backbone"], texts, seed)}
    check("embedding" in params, "texts of ids need a model with token embeddings: a decoder, an encoder or XLNet")
    drawn = params["embedding"]
    number, (vocab_size, width) = len(texts), drawn.shape
    check(number <= vocab_size, f"there are {number} texts of ids, and model.vocab_size={vocab_size} is less")
    words = library("sklearn.feature_extraction.text").TfidfVectorizer(token_pattern=r"\w+", min_df=2)
    try:
        weights = words.fit_transform(texts)  # sparse [V, W]
    except ValueError as error:
        raise ValueError(f"the texts of ids share no words: {error}") from None
    projection = np.random.default_rng(seed).normal(size=(weights.shape[1], width))
    found = jnp.asarray(weights @ projection, jnp.float32)
    return params | {"embedding": drawn.at[:number].set(_mixed(drawn[:number], found))}


def _mixed(drawn: Float32[Array, "V D"], described: Float32[Array, "V D"]) -> Float32[Array, "V D"]:
    has_words = jnp.any(described != 0, axis=1, keepdims=True)
    mixed = SHARE * jnp.std(drawn) * described + np.sqrt(1 - SHARE**2) * drawn
    return jnp.where(has_words, mixed, drawn)
