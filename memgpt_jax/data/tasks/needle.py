"""Needles in real text: facts hidden among the tokens of a corpus, and queried far outside the window.

A fact is a sentence, "The key of <word> is <answer>.", on a separate line. A question is the same sentence again, in
which the model must predict the answer. Answers are additional ids after those of the tokenizer; all other tokens are
tokens of text. (If answers were words of the text, small models would learn to recall within minutes, but their write
gates would open for these words instead of the sentence around them: a few in a thousand tokens of text would be stored
as answers, and would fill any memory long before the millionth token.)
"""

import re
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from memgpt_jax.config.checks import check, check_types
from memgpt_jax.config.data import TaskConfig, TextConfig
from memgpt_jax.data.batch import Batch
from memgpt_jax.data.corpora.text import documents, make_tokenizer
from memgpt_jax.data.tasks.base import Task, choose, digest, insert, scored_rows
from memgpt_jax.data.tokenizers.base import Tokenizer


@dataclass(frozen=True, kw_only=True)
class NeedleConfig(TaskConfig):
    """Facts hidden in real text, "The key of <word> is <answer>.", then questions about them.

    A row has `training.sequence_length` tokens: text with the needles, a gap of text, the questions.
    """

    text: TextConfig = field(default_factory=TextConfig)
    """The text that surrounds the facts, and its tokenizer."""
    num_needles: int = 8
    """Number of facts hidden in each row, about distinct words."""
    num_questions: int = 8
    """Number of facts queried at the end of a row; at most `num_needles`."""
    gap_length: int = 128
    """Tokens of text between the last needle and the questions. If it is at least num_layers x window_size, only a
    memory can carry a fact to its question."""
    num_words: int = 64
    """Number of words that facts are about, each one token of text; also the number of answer ids, after the
    tokenizer's ids."""

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("num_needles", "num_questions", "num_words"):
            check(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}")
        check(self.gap_length >= 0, f"gap_length must be at least 0, got {self.gap_length}")
        check(
            self.num_questions <= self.num_needles <= self.num_words,
            f"num_questions={self.num_questions} must be at most num_needles={self.num_needles}, and that at most "
            f"num_words={self.num_words}",
        )

    @property
    def num_ids(self) -> int:
        """The answers."""
        return self.num_words


BEFORE, BETWEEN, AFTER = "\nThe key of", " is", ".\n"


class NeedleTask(Task[NeedleConfig]):
    """The task on one split of a corpus. A sentence has `sentence_length` tokens, with the answer at index `answer`."""

    def __init__(self, config: NeedleConfig, split: str, tokenizer: Tokenizer | None = None):
        """Raises `ValueError` if the corpus is not valid, or the tokenizer has too few words that are one token."""
        super().__init__(config, split, tokenizer)
        tokenizer = tokenizer or make_tokenizer(config.text)
        self.token_bytes = np.pad(tokenizer.token_bytes, (0, config.num_words))
        text = documents(config.text, split, tokenizer)
        self.flat, self.content = text.flat, digest(text.fingerprint)
        words = find_words(tokenizer, config.num_words)
        self.keys = words.ids
        self.values = tokenizer.vocab_size + np.arange(config.num_words, dtype=np.int32)
        before, between, after = map(tokenizer.encode, (BEFORE, BETWEEN, AFTER))
        unknown = -1  # marks the positions of word and answer
        self.sentence = np.array([*before, *words.space, unknown, *between, unknown, *after], np.int32)
        self.sentence_length = len(self.sentence)
        self.key, self.answer = np.flatnonzero(self.sentence == unknown).tolist()

    def batch(self, rng: np.random.Generator | int, batch_size: int, length: int) -> Batch:
        """`Task.batch`; a row is text with needles, `gap_length` tokens of text, questions.

        Raises:
            ValueError: a row cannot hold the needles, the gap and the questions.
        """
        rng, config = np.random.default_rng(rng), self.config
        facts = self.facts(rng, batch_size)
        rows = np.arange(batch_size)[:, None]
        asked = facts[rows, choose(rng, batch_size, config.num_needles, config.num_questions)]
        questions, scored = self.questions(asked)
        context = self.hide(rng, facts, length - questions.shape[1])
        tokens = np.concatenate([context, questions, self.sentence[None, :1].repeat(batch_size, 0)], axis=1)
        weights = np.zeros((batch_size, length), np.float32)
        weights[:, context.shape[1] - 1 : -1] = scored
        return scored_rows(tokens, weights, self.token_bytes[tokens[:, 1:]])

    def facts(self, rng: np.random.Generator, batch_size: int) -> np.ndarray:
        """[B, num_needles, sentence_length]: sentences about distinct keys, with distinct values."""
        facts = np.tile(self.sentence, (batch_size, self.config.num_needles, 1))
        for place, words in ((self.key, self.keys), (self.answer, self.values)):
            facts[:, :, place] = words[choose(rng, batch_size, len(words), self.config.num_needles)]
        return facts

    def hide(self, rng: np.random.Generator, facts: np.ndarray, length: int) -> np.ndarray:
        """[B, length]: text with the facts at random places, in order, none in the last `gap_length` tokens."""
        batch_size, number, size = facts.shape
        fillers = length - number * size
        if fillers - self.config.gap_length < number:
            raise ValueError(
                f"{length} tokens in front of the questions cannot hold {number} needles of {size} tokens among text "
                f"and data.gap_length={self.config.gap_length} tokens of text after them"
            )
        places = np.sort(choose(rng, batch_size, fillers - self.config.gap_length, number), axis=1)
        return insert(self.text(rng.integers(len(self.flat), size=batch_size), fillers), places, facts)

    def text(self, start: np.ndarray, length: int) -> np.ndarray:
        """[B, length]: the tokens of the corpus from each of B positions on; it wraps around at its end."""
        return self.flat[(start[:, None] + np.arange(length)) % len(self.flat)].astype(np.int32)

    def questions(self, facts: np.ndarray) -> "Questions":
        """Questions about facts [B, N, sentence_length], in order."""
        tokens = facts.reshape(len(facts), -1)
        scored = np.zeros(facts.shape, np.float32)
        scored[:, :, self.answer] = 1
        return Questions(tokens, scored.reshape(tokens.shape))


class Questions(NamedTuple):
    """Questions, one after the other, with their answers."""

    tokens: np.ndarray
    """[B, Q] int32."""
    scored: np.ndarray
    """[B, Q] float32: 1 for tokens that are answers, 0 for all others."""


class Words(NamedTuple):
    """Words, each one token."""

    ids: np.ndarray
    """[number] int32."""
    space: list[int]
    """Ids of the space before a word; [] if the words include it."""


def find_words(tokenizer: Tokenizer, number: int) -> Words:
    """The first `number` lower-case words that include their space; if there are too few, the first single letters.

    Raises `ValueError` if the tokenizer has too few of either.
    """
    pieces = [tokenizer.decode([token]) for token in range(tokenizer.vocab_size)]
    for pattern, space in ((" [a-z]{3,}", []), ("[A-Za-z]", tokenizer.encode(" "))):
        words = [token for token, piece in enumerate(pieces) if re.fullmatch(pattern, piece)]
        if len(words) >= number:
            return Words(np.array(words[:number], np.int32), space)
    raise ValueError(
        f"data.num_words={number} needs as many words, or letters, that are one token each; the tokenizer has "
        f"{len(words)}: use fewer, or a larger data.text.tokenizer_vocab_size"
    )
