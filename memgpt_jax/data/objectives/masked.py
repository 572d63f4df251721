"""Masked language modelling: predict masked tokens.

Source: Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding" (2019),
section 3.1, task 1. The masked tokens are redrawn for every batch, as in Liu et al., "RoBERTa: A Robustly Optimized
BERT Pretraining Approach" (2019), section 4.1.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from memgpt_jax.config.checks import check, check_types
from memgpt_jax.config.data import ObjectiveConfig
from memgpt_jax.data.batch import Batch, zeros
from memgpt_jax.data.objectives.base import Objective
from memgpt_jax.data.objectives.special_ids import added_special_ids, special_ids
from memgpt_jax.data.tokenizers.base import Tokenizer

KEPT, REPLACED = 0.1, 0.1
"""Fractions of the chosen tokens that are kept, and replaced by a random token; the others become the mask token."""


@dataclass(frozen=True, kw_only=True)
class MaskedConfig(ObjectiveConfig):
    """Predict masked tokens from all tokens of the row. Needs an encoder with the head `masked`."""

    heads: ClassVar[tuple[str, ...]] = ("masked",)

    mask_rate: float = 0.15
    """Fraction of the tokens that are chosen to be predicted."""

    def __post_init__(self) -> None:
        check_types(self)
        check(0 < self.mask_rate < 1, f"mask_rate must be between 0 and 1, got {self.mask_rate}")


class Masked(Objective[MaskedConfig]):
    """Rows of running text with some tokens masked; targets are the original tokens at the same positions."""

    def added_ids(self, tokenizer: Tokenizer) -> int:
        return added_special_ids(tokenizer)

    def shapes(self, rows: int, length: int) -> Batch:
        shape = (rows, length)
        return zeros({"tokens": (shape, np.int32), "reset": (shape, bool)}, {"masked": shape})

    def change(self, rng: np.random.Generator, batch: Batch, tokenizer: Tokenizer) -> Batch:
        tokens = batch.inputs["tokens"]
        options = {"text_ids": self.text_ids(tokenizer), "mask_id": special_ids(tokenizer).mask}
        masked = mask_tokens(rng, tokens, rate=self.config.mask_rate, **options)
        return Batch(batch.inputs | {"tokens": masked.tokens}, {"masked": tokens}, {"masked": masked.weights}, {})


class MaskedTokens(NamedTuple):
    """Masked input tokens, and the weights of the targets."""

    tokens: np.ndarray
    """[B, L] int32."""
    weights: np.ndarray
    """[B, L] float32: 1 for tokens chosen to be predicted, 0 for all others."""


def mask_tokens(
    rng: np.random.Generator, tokens: np.ndarray, *, text_ids: np.ndarray, mask_id: int, rate: float = 0.15
) -> MaskedTokens:
    """Mask random tokens.

    Each token of text is chosen independently with probability `rate`. A chosen token becomes

        the mask token                 with probability 0.8
        a random id of text            with probability 0.1
        the token itself               with probability 0.1

    Args:
        rng: the generator of the draws.
        tokens: [B, L] int.
        text_ids: [V] bool, True for ids of text; other ids are neither chosen nor drawn.
        mask_id: id of the mask token.
        rate: fraction of the tokens that are chosen.
    """
    chosen = text_ids[tokens] & (rng.random(tokens.shape) < rate)
    draw = rng.random(tokens.shape)
    random_ids = rng.choice(np.flatnonzero(text_ids), tokens.shape)
    kept, replaced = draw < KEPT, draw < KEPT + REPLACED
    masked = np.select([~chosen | kept, replaced], [tokens, random_ids], mask_id)
    return MaskedTokens(masked.astype(np.int32), chosen.astype(np.float32))
