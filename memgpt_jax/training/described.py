"""Embeddings that begin alike where the descriptions of their ids are alike."""

import jax.numpy as jnp
import numpy as np

from memgpt_jax.config.checks import check
from memgpt_jax.config.data import Descriptions
from memgpt_jax.config.extras import library
from memgpt_jax.models import Params

SHARE = 0.8
"""Share of the descriptions in the variance of an embedding."""
NUMBERS = 0.5
"""Share of the numbers in the descriptions; the kinds of texts have equal shares of the rest."""
WIDTHS = (0.6, 0.25, 0.1)
"""Distances at which numbers cease to be alike, in standard deviations; a third of the channels each."""


def described(params: Params, descriptions: Descriptions, seed: int) -> Params:
    """The parameters with token embeddings that begin near each other where descriptions are alike.

        e_i = a sqrt(s) (sqrt(r) x_i + sum_k sqrt((1 - r) / K) y_ik) + sqrt(1 - s) n_i,   s = `SHARE`, r = `NUMBERS`
        x_i = sqrt(2) cos(z_i v + b),   v_d ~ N(0, 1 / h_d^2), b_d uniform in [0, 2 pi], h_d one of `WIDTHS`
        y_ik = P_k^T f_ik,   P_k [W_k, D] ~ N(0, 1)

    z_i: the number, standardised over all ids that have one. f_ik [W_k]: the words of the text of kind k of K, weighted
    by TF-IDF, of length 1; words of a single text are left out. n_i: the embedding that was drawn; a: the standard
    deviation of these. So embeddings keep their variance, and those of two ids have the mean cosine (Rahimi and Recht,
    "Random Features for Large-Scale Kernel Machines", 2007)

        s (r mean_h exp(-(z_i - z_j)^2 / 2 h^2) + (1 - r) mean_k f_ik . f_jk)

    Where an id has no number, or no word of a kind, more of n_i takes its place.

    Args:
        params: of a model that has token embeddings [V, D], or of its backbone.
        descriptions: of the ids 0, 1, ..., at most V.
        seed: of v, b and P_k.

    Raises:
        ValueError: the model has no token embeddings, or there are more descriptions than ids.
        ImportError: scikit-learn is not installed.
    """
    if "backbone" in params:
        return params | {"backbone": described(params["backbone"], descriptions, seed)}
    check("embedding" in params, "descriptions of ids need a model with token embeddings: a decoder, encoder or XLNet")
    drawn, number = params["embedding"], len(descriptions.numbers)
    vocab_size, width = drawn.shape
    check(number <= vocab_size, f"{number} ids are described, and model.vocab_size={vocab_size} is less")
    rng = np.random.default_rng(seed)
    parts = [_numbers(descriptions.numbers, width, rng)]
    parts += [_words(texts, width, rng) for texts in descriptions.texts]
    shares = SHARE * np.array([NUMBERS, *[(1 - NUMBERS) / len(descriptions.texts)] * len(descriptions.texts)])
    left, known = np.ones((number, 1), np.float32), np.zeros((number, width), np.float32)
    for share, part in zip(shares, parts, strict=True):
        left -= share * part.any(axis=1, keepdims=True)
        known += share**0.5 * part
    own = drawn[:number]
    found = jnp.std(own) * known + np.sqrt(left) * own
    return params | {"embedding": drawn.at[:number].set(found.astype(drawn.dtype))}


def _numbers(numbers: np.ndarray, width: int, rng: np.random.Generator) -> np.ndarray:
    """x [V, D]; zeros where there is no number."""
    frequencies = rng.normal(size=width) / np.resize(WIDTHS, width)
    phases = rng.uniform(0, 2 * np.pi, width)
    known = np.isfinite(numbers)
    if not known.any():
        return np.zeros((len(numbers), width))
    standard = (numbers - numbers[known].mean()) / (numbers[known].std() or 1.0)
    return np.where(known[:, None], np.sqrt(2) * np.cos(standard[:, None] * frequencies + phases), 0)


def _words(texts: tuple[str, ...], width: int, rng: np.random.Generator) -> np.ndarray:
    """y [V, D]; zeros where there is no word of another text."""
    weigh = library("sklearn.feature_extraction.text").TfidfVectorizer(token_pattern=r"\w+", min_df=2)
    try:
        weights = weigh.fit_transform(texts)  # sparse [V, W]
    except ValueError:  # no word is in two texts
        return np.zeros((len(texts), width))
    return weights @ rng.normal(size=(weights.shape[1], width))
