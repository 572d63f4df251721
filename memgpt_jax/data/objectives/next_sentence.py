"""Next-sentence prediction: does the second sentence of a pair follow the first?

Source: Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding" (2019),
section 3.1, task 2.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from memgpt_jax.config.data import ObjectiveConfig
from memgpt_jax.data.batch import Batch, zeros
from memgpt_jax.data.corpora.text import TokenizedText
from memgpt_jax.data.objectives.base import Objective
from memgpt_jax.data.objectives.special_ids import SpecialIds, added_special_ids, special_ids
from memgpt_jax.data.streams import seeded_batches
from memgpt_jax.data.tokenizers.base import Tokenizer

PAIR_STREAM = 2  # makes the seeds of pairs differ from those of rows and of other random draws


@dataclass(frozen=True, kw_only=True)
class NextSentenceConfig(ObjectiveConfig):
    """Predict whether the second sentence of a pair follows the first.

    Needs an encoder with the heads `pooler` and `next_sentence`, and two token types.
    """

    heads: ClassVar[tuple[str, ...]] = ("next_sentence",)
    inputs: ClassVar[tuple[str, ...]] = ("token_types",)


class NextSentence(Objective[NextSentenceConfig]):
    """Rows of two sentences (`sentence_pairs`); the label [B] of a row is the target of the head `next_sentence`."""

    def added_ids(self, tokenizer: Tokenizer) -> int:
        return added_special_ids(tokenizer)

    def shapes(self, rows: int, length: int) -> Batch:
        return pair_shapes(rows, length, {"next_sentence": (rows,)})

    def batches(self, text: TokenizedText, tokenizer: Tokenizer, rows: int, length: int, seed: int) -> Any:
        return pair_batches(text, tokenizer, rows, length, seed)


def pair_shapes(rows: int, length: int, targets: dict[str, tuple[int, ...]]) -> Batch:
    """A batch of zeros with the inputs of pairs and targets of the given shapes."""
    shape = (rows, length)
    types = {"tokens": np.int32, "reset": bool, "token_types": np.int32}
    return zeros({name: (shape, dtype) for name, dtype in types.items()}, targets)


def pair_batches(text: TokenizedText, tokenizer: Tokenizer, rows: int, length: int, seed: int) -> Any:
    """Endless batches of pairs, a Grain `IterDataset`; `ValueError` if the documents are too short."""
    windows, special = Windows(text, length - 3), special_ids(tokenizer)

    def make(rng: np.random.Generator) -> Batch:
        pairs = sentence_pairs(rng, windows, rows, special)
        first = np.zeros(pairs.tokens.shape, bool)
        first[:, 0] = True
        return Batch(
            inputs={"tokens": pairs.tokens, "reset": first, "token_types": pairs.token_types},
            targets={"next_sentence": pairs.labels},
            weights={"next_sentence": np.ones(pairs.labels.shape, np.float32)},
            info={},
        )

    return seeded_batches(make, (PAIR_STREAM, seed))


class WindowPairs(NamedTuple):
    """Indices in `Windows.flat` at which windows start, [N] int64."""

    start: np.ndarray
    """Starts of N windows."""
    other_start: np.ndarray
    """For each of them the start of a window of another document."""


class Windows:
    """All windows of `length` tokens that lie within one document, numbered from 0."""

    def __init__(self, text: TokenizedText, length: int):
        """Raises `ValueError` if fewer than two documents have `length` tokens."""
        sizes = np.diff(text.offsets) - 1  # without `start_id`
        long_enough = np.flatnonzero(sizes >= length)
        if len(long_enough) < 2:
            raise ValueError(
                f"pairs of sentences need two documents of at least {length} tokens; found "
                f"{len(long_enough)}: choose a shorter training.sequence_length"
            )
        self.flat, self.length = text.flat, length
        self._first = text.offsets[long_enough] + 1  # first token of each document
        self._counts = sizes[long_enough] - length + 1
        self._ends = np.cumsum(self._counts)  # first window number after each document

    def draw(self, rng: np.random.Generator, size: int) -> "WindowPairs":
        """`size` random windows, and for each of them a random window of another document."""
        number = rng.integers(self._ends[-1], size=size)
        document = np.searchsorted(self._ends, number, side="right")
        counts, ends = self._counts[document], self._ends[document]
        other = rng.integers(self._ends[-1] - counts)
        other += np.where(other >= ends - counts, counts, 0)  # skips the windows of its own document
        return WindowPairs(self._start(number), self._start(other))

    def _start(self, number: np.ndarray) -> np.ndarray:
        document = np.searchsorted(self._ends, number, side="right")
        return self._first[document] + number - (self._ends - self._counts)[document]


class Pairs(NamedTuple):
    """Rows [CLS] A [SEP] B [SEP]."""

    tokens: np.ndarray
    """[B, L] int32."""
    token_types: np.ndarray
    """[B, L] int32: 1 from B on, 0 before it."""
    labels: np.ndarray
    """[B] int32: 0 where B follows A, 1 where it comes from another document."""


def sentence_pairs(rng: np.random.Generator, windows: Windows, rows: int, special: SpecialIds) -> Pairs:
    """Random pairs of sentences A and B. As in BERT, a "sentence" is any stretch of text.

    A window is cut at a random place between one quarter and three quarters of its length. A is the first part. B is
    the second part of the same window in half of the rows, and of a window of another document in the others.

    Args:
        rng: the generator of the draws.
        windows: of at least 4 tokens; rows have 3 tokens more.
        rows: batch rows B.
        special: ids of [CLS] and [SEP].
    """
    length = windows.length
    start, elsewhere = windows.draw(rng, rows)
    label = rng.integers(2, size=rows, dtype=np.int32)
    cut = rng.integers(length // 4, 3 * length // 4 + 1, size=rows)[:, None]
    place = np.arange(length + 3)[None]
    second = place > cut + 1
    begin = np.where(second & (label[:, None] == 1), elsewhere[:, None], start[:, None])
    text = windows.flat[begin + place - 1 - second].astype(np.int32)
    is_sep = (place == cut + 1) | (place == length + 2)
    tokens = np.select([place == 0, is_sep], [special.cls, special.sep], text)
    return Pairs(tokens.astype(np.int32), second.astype(np.int32), label)
