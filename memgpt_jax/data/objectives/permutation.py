"""Permutation language modelling: predict the tokens at the end of a random order from those before them.

Source: Yang et al., "XLNet: Generalized Autoregressive Pretraining for Language Understanding" (2019).
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from memgpt_jax.config.data import ObjectiveConfig
from memgpt_jax.data.batch import Batch, zeros
from memgpt_jax.data.objectives.base import Objective
from memgpt_jax.data.tokenizers.base import Tokenizer

SHARE = 6
"""One of SHARE tokens is predicted; K in the paper, which uses 6 and 7."""


@dataclass(frozen=True, kw_only=True)
class PermutationConfig(ObjectiveConfig):
    """Predict a sixth of the tokens in a random order, each from those before it in this order. Needs an XLNet."""

    inputs: ClassVar[tuple[str, ...]] = ("order",)


class PermutationObjective(Objective[PermutationConfig]):
    """Rows of running text with the input `order`; targets are the tokens at the same positions."""

    def shapes(self, rows: int, length: int) -> Batch:
        types = {"tokens": np.int32, "reset": bool, "order": np.int32}
        return zeros({name: ((rows, length), dtype) for name, dtype in types.items()}, {"tokens": (rows, length)})

    def change(self, rng: np.random.Generator, batch: Batch, tokenizer: Tokenizer) -> Batch:
        tokens = batch.inputs["tokens"]
        order, predicted = draw_permutation(rng, np.ones(tokens.shape, bool))
        weights = (predicted & self.text_ids(tokenizer)[tokens]).astype(np.float32)
        return Batch(batch.inputs | {"order": order}, {"tokens": tokens}, {"tokens": weights}, {})


class Permutation(NamedTuple):
    """A factorisation order of each row, divided into given and predicted tokens."""

    order: np.ndarray
    """Ranks [B, L], int32: a token is predicted from those of lower rank. Given tokens have rank 0."""
    predicted: np.ndarray
    """[B, L] bool, True for predicted tokens."""


def draw_permutation(rng: np.random.Generator, valid: np.ndarray) -> Permutation:
    """A random order of each row's tokens; the last sixth of the order, rounded up, is predicted.

        max E_z sum_(t > c) log p(x_(z_t) | x_(z_<t)),    n - c = ceil(n / 6) of a row's n tokens

    The first c tokens of the order are given and attend to each other: all have rank 0. The others have the ranks
    1, 2, ...

    Args:
        rng: the generator of the draws.
        valid: [B, L] bool, False for padding, which is last in the order and is not predicted.

    Source: Yang et al., "XLNet" (2019), sections 2.2 and 2.3, equations 3 and 5.
    """
    drawn = np.where(valid, rng.random(valid.shape), 2.0)
    rank = np.argsort(np.argsort(drawn, axis=1, kind="stable"), axis=1)
    number = valid.sum(axis=1, keepdims=True)
    given = number - -(-number // SHARE)
    return Permutation(np.maximum(rank - given + 1, 0).astype(np.int32), valid & (rank >= given))
