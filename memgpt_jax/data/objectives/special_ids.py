"""Ids of the special tokens of BERT's objectives."""

from typing import NamedTuple

from memgpt_jax.data.tokenizers.base import Tokenizer


class SpecialIds(NamedTuple):
    """Ids that stand for no text."""

    mask: int
    """Replaces a hidden token."""
    cls: int
    """Begins a pair of sentences."""
    sep: int
    """Ends each sentence of a pair."""


def special_ids(tokenizer: Tokenizer) -> SpecialIds:
    """The tokenizer's own special ids; those that it lacks get the first ids after its vocabulary, in order."""
    behind = {name: tokenizer.vocab_size + index for index, name in enumerate(SpecialIds._fields)}
    return SpecialIds(**behind | tokenizer.special_ids)


def added_special_ids(tokenizer: Tokenizer) -> int:
    """Number of ids after the tokenizer's vocabulary that `special_ids` needs."""
    return max(0, 1 + max(special_ids(tokenizer)) - tokenizer.vocab_size)
