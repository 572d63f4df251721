"""What encoders are trained to do with text, as functions of arrays and a random generator.

- masked tokens: Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding"
  (2019), section 3.1, task 1; drawn anew for every batch, as in Liu et al., "RoBERTa: A Robustly Optimized BERT
  Pretraining Approach" (2019), section 4.1
- next sentence: Devlin et al., section 3.1, task 2
"""

from typing import NamedTuple

import numpy as np

from memgpt_jax.data.corpora.text import TokenizedText

KEPT, REPLACED = 0.1, 0.1
"""Shares of the chosen tokens that stay as they are, and that become another token; the rest becomes the mask."""


class SpecialIds(NamedTuple):
    """Ids that stand for no text."""

    mask: int
    """In the place of a hidden token."""
    cls: int
    """In front of a pair of sentences."""
    sep: int
    """Behind each of them."""


def special_ids(tokenizer) -> SpecialIds:
    """The tokenizer's own special ids; of those that it does not have, the first ids behind its vocabulary, in order.

    A model needs `max(tokenizer.vocab_size, 1 + max(special_ids(tokenizer)))` ids.
    """
    behind = {name: tokenizer.vocab_size + index for index, name in enumerate(SpecialIds._fields)}
    return SpecialIds(**behind | tokenizer.special_ids)


def mask_tokens(
    rng: np.random.Generator, tokens: np.ndarray, ordinary: np.ndarray, mask_id: int, rate: float = 0.15
) -> tuple[np.ndarray, np.ndarray]:
    """Hide tokens, for the model to say what they were.

    Each ordinary token is chosen with probability `rate`, whatever becomes of the others. In its place stands

        the mask                        with probability 0.8
        an ordinary id, any of them     with probability 0.1
        the token itself                with probability 0.1

    Args:
        rng: what the draws are taken from.
        tokens: [B, L] int.
        ordinary: [V] bool, true for the ids that stand for text: others are neither chosen nor put in.
        mask_id: the mask.
        rate: share of the tokens that are chosen.

    Returns:
        The tokens that the model sees [B, L] int32; weights [B, L] float32, 1 where a token was chosen.
    """
    chosen = ordinary[tokens] & (rng.random(tokens.shape) < rate)
    fate = rng.random(tokens.shape)
    drawn = rng.choice(np.flatnonzero(ordinary), tokens.shape)
    kept, replaced = fate < KEPT, fate < KEPT + REPLACED
    seen = np.select([~chosen | kept, replaced], [tokens, drawn], mask_id)
    return seen.astype(np.int32), chosen.astype(np.float32)


class Windows:
    """All stretches of `length` tokens that lie within one document, numbered from 0."""

    def __init__(self, text: TokenizedText, length: int):
        """Raises `ValueError` where fewer than two documents are so long."""
        sizes = np.diff(text.offsets) - 1  # without `start_id`
        long_enough = np.flatnonzero(sizes >= length)
        if len(long_enough) < 2:
            raise ValueError(
                f"pairs of sentences need two documents of {length} tokens, and there are {len(long_enough)}: choose a "
                "shorter training.sequence_length"
            )
        self.flat, self.length = text.flat, length
        self._first = text.offsets[long_enough] + 1  # where the documents begin
        self._counts = sizes[long_enough] - length + 1
        self._ends = np.cumsum(self._counts)  # of the documents' numbers

    def draw(self, rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Where in `flat` windows begin: any [size], and for each one of any other document [size]."""
        number = rng.integers(self._ends[-1], size=size)
        document = np.searchsorted(self._ends, number, side="right")
        counts, ends = self._counts[document], self._ends[document]
        other = rng.integers(self._ends[-1] - counts)
        other += np.where(other >= ends - counts, counts, 0)  # its own document is left out
        return self._start(number), self._start(other)

    def _start(self, number: np.ndarray) -> np.ndarray:
        document = np.searchsorted(self._ends, number, side="right")
        return self._first[document] + number - (self._ends - self._counts)[document]


def sentence_pairs(
    rng: np.random.Generator, windows: Windows, batch_size: int, special: SpecialIds
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows [CLS] A [SEP] B [SEP]: does B follow A?

    A and B together are as long as a window, cut between a quarter and three quarters of it. A is the first part of any
    window of any document; B is the second part of the same window in half of the rows, and in the others that of a
    window of another document. As in BERT, a "sentence" is any stretch of text.

    Args:
        rng: what the draws are taken from.
        windows: of at least 4 tokens.
        batch_size: rows B.
        special: ids of the marks.

    Returns:
        tokens [B, L] int32, where L is 3 more than a window; token types [B, L] int32, 1 from B on; labels [B] int32,
        1 where B comes from another document.
    """
    length = windows.length
    start, elsewhere = windows.draw(rng, batch_size)
    label = rng.integers(2, size=batch_size, dtype=np.int32)
    cut = rng.integers(length // 4, 3 * length // 4 + 1, size=batch_size)[:, None]
    place = np.arange(length + 3)[None]
    second = place > cut + 1
    begin = np.where(second & (label[:, None] == 1), elsewhere[:, None], start[:, None])
    text = windows.flat[begin + place - 1 - second].astype(np.int32)
    is_sep = (place == cut + 1) | (place == length + 2)
    tokens = np.select([place == 0, is_sep], [special.cls, special.sep], text)
    return tokens.astype(np.int32), second.astype(np.int32), label
