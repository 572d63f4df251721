"""The interface of a task: rows of tokens in which some targets are scored answers."""

import functools
import hashlib
import logging
from collections.abc import Collection, Iterator
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import numpy as np

from memgpt_jax.config.checks import check
from memgpt_jax.config.data import TaskConfig
from memgpt_jax.data.batch import Batch, zeros
from memgpt_jax.data.corpora.text import make_tokenizer
from memgpt_jax.data.streams import seeded_batches
from memgpt_jax.data.tokenizers.base import Tokenizer

logger = logging.getLogger(__name__)
Config = TypeVar("Config", bound=TaskConfig)


def check_codes(num_symbols: int, name: str, length: int) -> None:
    """Raise `ValueError` unless 64-bit integers can enumerate all words of `length` symbols."""
    check(
        num_symbols**length < 2**62,
        f"num_symbols={num_symbols} and {name}={length} give more than 2^62 different words; use fewer",
    )


TASK_STREAM = 1  # makes the seeds of training batches of tasks differ from those of held-out batches


class Task(Generic[Config]):
    """A task on one split. Implement `batch`; a task with a finite test set overrides `held_out` too.

    A task with other arrays than those of next-token prediction overrides `shapes`.
    """

    evaluation: Literal[
        "answers",
        "labels",
        "multi_labels",
        "tags",
        "numbers",
        "ranking",
        "texts",
        "transcripts",
        "speech",
        "spans",
        "preferences",
        "retrieval",
        "replies",
        "document_questions",
        "links",
        "graph_questions",
    ] = "answers"
    """How it is evaluated: `answers`, the rows of `held_out`; `labels`, whole documents with a label each;
    `multi_labels`, with any number of labels; `tags`, whole documents with a tag for each word; `numbers`, whole
    documents with a number at some tokens; `ranking`, whole histories of items, of which some have to be ranked first;
    `texts`, generated texts and their references; `transcripts`, the texts of a head for transcripts and their
    references; `speech`, spoken texts and sounds of them; `spans`, questions with a text each; `preferences`, pairs of
    texts of which one is likelier; `retrieval`, queries whose documents are searched; `replies`, turns of dialogues
    among others; `document_questions`, documents with questions; `links`, triples of which an entity is asked;
    `graph_questions`, questions whose answers are entities of a graph."""
    groups: tuple[str, ...] = ()
    """Names of the groups of rows whose accuracies are reported separately; batches then have `group`."""
    passing_accuracy: float | None = None
    """A group below this accuracy counts as failed; None: no group fails."""
    content: str = ""
    """Digest of the content of the task's files, which does not depend on their paths; empty if there are none."""

    def __init__(self, config: Config, split: str, tokenizer: Tokenizer | None = None):
        """Args: split: `train`, `valid` or `test`; tokenizer: of the task's text, default: the config's."""
        self.config, self.split = config, split

    @classmethod
    def make_tokenizer(cls, config: Config) -> Tokenizer:
        """The tokenizer that a configuration with a text names. Raises `ValueError` if it is not valid."""
        assert config.text is not None
        return make_tokenizer(config.text)

    @classmethod
    def shapes(cls, config: Config, rows: int, length: int) -> Batch:
        """A batch of zeros with the arrays of `batches`; `info` may lack `group` and `answer`."""
        shape = (rows, length)
        inputs = {"tokens": (shape, np.int32), "reset": (shape, bool)}
        return zeros(inputs, {"tokens": shape}, {"target_bytes": (shape, np.int32)})

    def batches(self, seed: int, rows: int, length: int) -> Any:
        """Endless training batches, a Grain `IterDataset`; default: independent batches of `batch`.

        Args:
            seed: at least 0; all randomness follows from it.
            rows: batch rows B.
            length: tokens L of a row.
        """
        return seeded_batches(lambda rng: self.batch(rng, rows, length), (TASK_STREAM, seed))

    def training_tokens(self, length: int) -> int:
        """Tokens of one pass over the examples in rows of `length` tokens; only tasks of files have examples."""
        raise NotImplementedError

    def batch(self, rng: np.random.Generator | int, batch_size: int, length: int) -> Batch:
        """A batch of rows of `length` tokens; each row is one instance of the task.

        Args:
            rng: a generator, or its seed.
            batch_size: rows B.
            length: tokens L of a row.

        Returns:
            Inputs: `tokens`, and `reset`, True at position 0. Targets of the head `tokens`: the next tokens, or the
            answer where the row does not show it; weight 1 for scored answers, 0 for all others. Info: `target_bytes`,
            0 for targets that are not text; if answers have several tokens, also `answer`, and an answer is right if
            all of its targets are predicted.
        """
        raise NotImplementedError

    def held_out(
        self, rng: np.random.Generator | int, batch_size: int, length: int, num_batches: int
    ) -> Iterator[Batch]:
        """The batches of an evaluation: by default `num_batches` of `batch`.

        The splits of files differ by their `content`. Of generated rows, the split `test` has other ones than `valid`.
        """
        rng = np.random.default_rng(rng)
        if self.split == "test" and not self.content:
            (rng,) = rng.spawn(1)
        for _ in range(num_batches):
            yield self.batch(rng, batch_size, length)


class FileTask(Task[Config]):
    """A task that is learned from files. Implement `batches`."""

    def batch(self, rng: np.random.Generator | int, batch_size: int, length: int) -> Batch:
        """The first batch of `batches` with a random seed."""
        return next(iter(self.batches(int(np.random.default_rng(rng).integers(2**31)), batch_size, length)))


def warn_of_absent_labels(config: TaskConfig, split: str, found: Collection[str]) -> None:
    """Warn once if a held-out split lacks some of the labels: its results do not hold for them.

    Args:
        config: of the task, with its `output_names`.
        split: the name of the split.
        found: the labels of its examples.
    """
    absent = [label for label in config.output_names if label not in found]
    if absent and split != "train":
        _warn_once(config, f"split {split} has no example of {len(absent)} labels: {', '.join(absent[:20])}")


@functools.cache
def _warn_once(config: TaskConfig, message: str) -> None:
    logger.warning(message)


def digest(*parts: object) -> str:
    """A digest of values, in the form ", content DIGEST", to append to the name of a data source."""
    return f", content {hashlib.blake2b(repr(parts).encode(), digest_size=8).hexdigest()}"


MOST_TO_PERMUTE = 65_536
"""Largest size for which `choose` permutes all numbers; it needs memory for rows x size numbers."""


def choose(rng: np.random.Generator, rows: int, size: int, count: int) -> np.ndarray:
    """[rows, count] int64: for each row, `count` distinct numbers below `size`, in random order, all equally likely."""
    if size <= MOST_TO_PERMUTE:
        return rng.permuted(np.broadcast_to(np.arange(size), (rows, size)), axis=1)[:, :count]
    # Repeated numbers, except the first, are redrawn; all numbers remain equally likely.
    chosen = rng.integers(size, size=(rows, count))
    while True:
        order = np.argsort(chosen, axis=1, kind="stable")
        repeated = np.zeros(chosen.shape, bool)
        equal = np.diff(np.take_along_axis(chosen, order, axis=1), axis=1) == 0
        np.put_along_axis(repeated, order[:, 1:], equal, axis=1)
        if not repeated.any():
            return chosen
        chosen[repeated] = rng.integers(size, size=repeated.sum())


class Writes(NamedTuple):
    """The order in which P pairs are written by W >= P writes."""

    pair: np.ndarray
    """[rows, W] int64: the pair that each write writes."""
    last: np.ndarray
    """[rows, P] int64: the last write of each pair."""


def writes(rng: np.random.Generator, rows: int, num_pairs: int, num_rewrites: int) -> Writes:
    """W = `num_pairs + num_rewrites` writes, among them at least one of each pair.

    Rewrites are of random pairs, and all writes are in random order. Without rewrites, write i is of pair i.
    """
    order = np.broadcast_to(np.arange(num_pairs), (rows, num_pairs))
    if num_rewrites:
        rewritten = rng.integers(num_pairs, size=(rows, num_rewrites))
        order = rng.permuted(np.concatenate([order, rewritten], axis=1), axis=1)
    from_the_end = (order[:, ::-1, None] == np.arange(num_pairs)[None, None]).argmax(axis=1)
    return Writes(order, order.shape[1] - 1 - from_the_end)


def spell(codes: np.ndarray, num_symbols: int, length: int) -> np.ndarray:
    """[..., length]: the digits of each number in base `num_symbols`, lowest first: the word with this number."""
    return codes[..., None] // num_symbols ** np.arange(length) % num_symbols


def insert(text: np.ndarray, places: np.ndarray, pieces: np.ndarray) -> np.ndarray:
    """[B, F + N S]: texts [B, F] with N pieces [B, N, S] before the tokens at `places` [B, N], in ascending order.

    The place F is the end of the text; pieces at the same place are inserted in order.
    """
    batch_size, number, size = pieces.shape
    places = places + np.arange(number)[None] * size  # piece i is shifted by the i pieces before it
    places = (places[..., None] + np.arange(size)).reshape(batch_size, -1)
    tokens = np.empty((batch_size, text.shape[1] + number * size), np.int32)
    is_text = np.ones(tokens.shape, bool)
    np.put_along_axis(tokens, places, pieces.reshape(batch_size, -1).astype(np.int32), axis=1)
    np.put_along_axis(is_text, places, False, axis=1)
    tokens[is_text] = text.reshape(-1)
    return tokens


def scored_rows(
    tokens: np.ndarray, weights: np.ndarray, target_bytes: np.ndarray | None = None, **info: np.ndarray
) -> Batch:
    """The batch of rows [B, L + 1], in which every token but the first is a target.

    Args:
        tokens: ids [B, L + 1].
        weights: weights of the targets [B, L].
        target_bytes: UTF-8 bytes of the targets [B, L]; default: 0.
        info: further arrays of `Batch.info`.
    """
    reset = np.zeros(weights.shape, bool)
    reset[:, 0] = True
    target_bytes = np.zeros(weights.shape, np.int32) if target_bytes is None else target_bytes
    return Batch(
        inputs={"tokens": tokens[:, :-1].astype(np.int32), "reset": reset},
        targets={"tokens": tokens[:, 1:].astype(np.int32)},
        weights={"tokens": weights.astype(np.float32)},
        info={"target_bytes": target_bytes} | info,
    )
