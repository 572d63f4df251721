"""Orders in which the tokens of a row are predicted, for permutation language modelling."""

from typing import NamedTuple

import numpy as np

SHARE = 6
"""One in so many tokens is predicted: K of the paper, which trains with 6 and 7."""


class Permutation(NamedTuple):
    """A factorisation order of each row, cut into what is given and what is predicted."""

    order: np.ndarray
    """Ranks [B, L], int32: a token is predicted from those of lower rank. What is given has rank 0."""
    predicted: np.ndarray
    """Which tokens [B, L] the loss is of."""


def draw_permutation(rng: np.random.Generator, valid: np.ndarray) -> Permutation:
    """A random order of each row's tokens, of which the last sixth, rounded up, is predicted.

        max E_z sum_(t > c) log p(x_(z_t) | x_(z_<t)),    n - c = ceil(n / 6) of a row's n tokens

    The first c tokens of the order are given, and see each other: all have rank 0. The others have the ranks 1, 2, ...

    Arguments:
        rng: what is drawn from.
        valid: bool [B, L], False for padding, which comes last and is not predicted.

    Source: Yang et al., "XLNet" (2019), sections 2.2 and 2.3, equations 3 and 5.
    """
    drawn = np.where(valid, rng.random(valid.shape), 2.0)
    rank = np.argsort(np.argsort(drawn, axis=1, kind="stable"), axis=1)
    number = valid.sum(axis=1, keepdims=True)
    given = number - -(-number // SHARE)
    return Permutation(np.maximum(rank - given + 1, 0).astype(np.int32), valid & (rank >= given))
