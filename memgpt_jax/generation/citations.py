"""The sentences of a document whose memory entries a question reads more than questions usually do."""

import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypedDict

import jax
import numpy as np

from memgpt_jax import models
from memgpt_jax.config.checks import check
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.data.examples.question_tokens import QuestionTokens
from memgpt_jax.data.text.sentences import sentences
from memgpt_jax.generation.decode import fork
from memgpt_jax.generation.prefill import power_of_two
from memgpt_jax.memory import MEMORIES, Memory
from memgpt_jax.models import ModelState, Params
from memgpt_jax.models.entry_reads import EntryReads, entry_reads
from memgpt_jax.shapes import Flags, Tokens

USUAL = (
    "Who is it about?",
    "What happened?",
    "Where was it?",
    "When was it?",
    "Why did it happen?",
    "How did they feel?",
)
"""Questions that fit any document. The entries that they read, such as those of the first tokens, are read for every
question."""


class Source(TypedDict):
    """A sentence of a document: `text` are its characters from `start` to `end`."""

    start: int
    end: int
    text: str
    weight: float
    """The share of all reads that goes to the entries of its tokens."""
    usual: float
    """The same share for the questions `USUAL`, on average. Sources are ordered by `weight - usual`."""


class Weights(NamedTuple):
    """How much the entries of the n tokens of a document are read."""

    asked: np.ndarray
    """For each question with its answer, [rows, n]."""
    usual: np.ndarray
    """For the questions `USUAL` without answers, on average, [n]."""


def check_citable(config: ModelConfig) -> None:
    """Raise `ValueError`, which names the mechanisms with sources, unless the memory's entries come from tokens."""
    names = [name for name, entry in MEMORIES.items() if entry.module.origins is not Memory.origins]
    name = MEMORIES.name_of(config.memory)
    check(
        name in names, f"sources need a memory whose entries come from tokens: {', '.join(names)}; the model has {name}"
    )


def question_weights(
    model: tuple[ModelConfig, Params],
    state: ModelState,
    tokens: QuestionTokens,
    asked: Sequence[tuple[str, str]],
    *,
    unread: Sequence[int] | np.ndarray = (),
    number: int = 16,
) -> Weights:
    """`token_weights` of questions with their answers, and of `USUAL`.

    Args:
        model, state, number: as in `token_weights`.
        tokens: encodes the questions.
        asked: questions and their answers.
        unread: the last ids of the document, which the state has not read.
    """
    pairs = [*asked, *((question, "") for question in USUAL)]
    rows = [np.concatenate([unread, tokens.after_document(*pair)["tokens"]]).astype(np.int32) for pair in pairs]
    found = token_weights(model, state, rows, skip=len(unread), number=number)
    return Weights(found[: len(asked)], found[len(asked) :].mean(axis=0))


def token_weights(
    model: tuple[ModelConfig, Params], state: ModelState, rows: Sequence[np.ndarray], *, skip: int = 0, number: int = 16
) -> np.ndarray:
    """How much the tokens of each row read the entry of each token of a document, [rows, n] float64.

    Entry by entry, the weight is the mean over layers with a memory, over heads and over the tokens of a row of its
    softmax weight in the read. An entry that has come from one of several tokens shares its weight equally among them.
    So the weights of a row are at least 0 and sum to at most 1: the rest belongs to the null entry or, with fusion
    `attention`, to the tokens of the window, and to entries of the row itself.

    Args:
        model: a decoder and its parameters.
        state: one row, which has read the document but its last `skip` tokens. It is not modified.
        rows: ids [l] of questions and answers, each of which continues the document; they begin with its last tokens.
        skip: tokens of the document at the beginning of each row.
        number: rows that are read at the same time.

    Raises:
        ValueError: the memory's entries cannot be assigned to tokens.
    """
    check_citable(model[0])
    size = int(state.position[0]) + skip
    found = np.zeros((len(rows), size))
    for first in range(0, len(rows), number):
        group = rows[first : first + number]
        found[first : first + len(group)] = _group_weights(model, state, group, skip, size, number)[: len(group)]
    return found


def _group_weights(
    model: tuple[ModelConfig, Params], state: ModelState, rows: Sequence[np.ndarray], skip: int, size: int, number: int
) -> np.ndarray:
    """`token_weights` of at most `number` rows, which are read in calls that end with the segments."""
    config, params = model
    copies, lengths = min(number, power_of_two(len(rows))), np.array([len(row) for row in rows])
    state, found = fork(state, copies), np.zeros((copies, size + 1))
    memories = sum(bool(layer.stream) for layer in state.layers)
    for place, tokens, valid in segment_calls(config, state, rows):
        counts = valid & (place + np.arange(config.segment_length) >= skip)
        stream = next(layer.stream for layer in state.layers if layer.stream)
        written = np.asarray(state.position - (stream.offset - stream.start))
        reads, state = _read(config, params, tokens, counts, valid, state)
        for read in jax.device_get(reads):
            _add(found, written, read)
    lengths = np.pad(lengths, (0, copies - len(rows)))
    shares = np.cumsum(found[:, :size], axis=1) / memories / np.maximum(lengths - skip, 1)[:, None]
    return np.maximum(shares, 0)  # sums of differences may be a rounding error below 0


def segment_calls(
    config: ModelConfig, state: ModelState, rows: Sequence[np.ndarray]
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """The ids of rows in calls of `segment_length` tokens that end with the open segment, as `entry_reads` needs them.

    state: the B rows before; all are at the same token. Rows of ids that are missing are padding.

    Yields the place of the call in the rows, tokens [B, T] and which of them are valid.
    """
    offset = next((int(layer.stream.offset[0]) for layer in state.layers if layer.stream), 0)
    batch, segment, place = len(state.position), config.segment_length, 0
    while place < max(map(len, rows)):
        tokens, valid = np.zeros((batch, segment), np.int32), np.zeros((batch, segment), bool)
        for row, ids in enumerate(rows):
            part = ids[place : place + segment - offset]
            tokens[row, : len(part)], valid[row, : len(part)] = part, True
        yield place, tokens, valid
        place, offset = place + segment - offset, 0


@functools.partial(jax.jit, static_argnums=0)
def _read(
    config: ModelConfig, params: Params, tokens: Tokens, counts: Flags, valid: Flags, state: ModelState
) -> tuple[list[EntryReads], ModelState]:
    return entry_reads(models.from_params(config, params), tokens, state, counts, valid)


def _add(found: np.ndarray, written: np.ndarray, read: EntryReads) -> None:
    """Add the weights of entries to the differences [B, n + 1] between the weights of neighbouring tokens.

    written: tokens of the document up to the end of the last segment that was written, [B].
    """
    size = found.shape[1] - 1
    start = written[:, None] - read.origins.start
    end = start + read.origins.length
    start = np.maximum(start, 0)  # a document may begin inside a segment
    per_token = np.where(end > start, read.weights / np.maximum(end - start, 1), 0)
    row = np.broadcast_to(np.arange(len(found))[:, None], start.shape)
    np.add.at(found, (row, np.minimum(start, size)), per_token)
    np.subtract.at(found, (row, np.clip(end, 0, size)), per_token)


def sources(text: str, ends: np.ndarray, weights: np.ndarray, usual: np.ndarray, number: int) -> list[Source]:
    """The sentences of a document that a question reads more than questions usually do, the greatest difference first.

    Of equal differences, the first sentence comes first.

    Args:
        text: the document.
        ends: the place in the text where each of its tokens ends, [n]; 0 for tokens before it.
        weights: of its tokens, [n]. Space between two sentences belongs to the second.
        usual: their weights in the reads of `USUAL`, [n].
        number: how many sentences.

    Raises:
        ValueError: sentencex is not installed.
    """
    spans = sentences(text)
    inside = ends > 0
    place = np.minimum(np.searchsorted([end for _, end in spans], ends[inside]), len(spans) - 1)
    read, expected = (np.bincount(place, each[inside], len(spans)) for each in (weights, usual))
    best = np.argsort(expected - read, kind="stable")[:number]
    return [
        Source(start=start, end=end, text=text[start:end], weight=float(read[index]), usual=float(expected[index]))
        for index, (start, end) in ((index, spans[index]) for index in best)
    ]
