"""Ids of the special tokens of BERT's objectives."""

from typing import NamedTuple

from memgpt_jax.data.tokenizers.base import Tokenizer


class SpecialIds(NamedTuple):
    """Ids of special tokens."""

    mask: int
    """[MASK], which replaces a masked token."""
    cls: int
    """[CLS], which begins a pair of sentences."""
    sep: int
    """[SEP], which ends each sentence of a pair."""


def special_ids(tokenizer: Tokenizer) -> SpecialIds:
    """The tokenizer's own special ids; a missing one is an id after its vocabulary (mask +0, cls +1, sep +2)."""
    added = {name: tokenizer.vocab_size + index for index, name in enumerate(SpecialIds._fields)}
    return SpecialIds(**{**added, **tokenizer.special_ids})


def added_special_ids(tokenizer: Tokenizer) -> int:
    """Number of ids after the tokenizer's vocabulary that `special_ids` needs."""
    return max(0, 1 + max(special_ids(tokenizer)) - tokenizer.vocab_size)
