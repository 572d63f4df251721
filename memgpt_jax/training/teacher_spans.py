"""The probabilities that teachers with another tokenizer give to spans of the text of training batches."""

import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from memgpt_jax import models
from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.model import BaseModelConfig
from memgpt_jax.data.tokenizers.base import Tokenizer
from memgpt_jax.evaluation.row_losses import row_losses
from memgpt_jax.training.own_batches import Batches
from memgpt_jax.training.teachers import teacher_models

SPAN_TOKENS, SPAN_LOG_PROBS = "span_tokens", "span_log_probs"
"""Names in `Batch.info` of the arrays of `spans_of_batches`."""


class Spans(NamedTuple):
    """The spans of n tokens of the student, each given at its last token."""

    tokens: np.ndarray
    """[n] int32: number of the student's tokens of the span that ends here; 0: none does."""
    log_probs: np.ndarray
    """[n] float32: ln p of this span, T ln (mean of p^(1/T) over the teachers); 0: none ends here."""


class _Read(NamedTuple):
    """A text that a teacher has read: where its tokens end."""

    ends: np.ndarray
    """Bytes, rising."""
    log_probs: np.ndarray
    """ln p of the text up to each of them, float64."""


class SpanReader:
    """Divides documents into the shortest spans whose ends are ends of tokens for the student and for all teachers."""

    def __init__(
        self, config: ExperimentConfig, params: tuple[models.Params, ...], tokenizer: Tokenizer, others: list[Tokenizer]
    ):
        """Args:
        config: the experiment, with its teachers, which read by the settings of `evaluation`.
        params: the parameters of each teacher, on the devices.
        tokenizer: of the student.
        others: the tokenizer of each teacher.
        """
        self.teachers = [*zip(teacher_models(config.distill), params, others, strict=True)]
        self.tokenizer, self.temperature = tokenizer, config.distill.temperature
        self.settings, self.rows = config.evaluation, config.evaluation.batch_size

    def spans(self, documents: Sequence[np.ndarray]) -> list[Spans]:
        """The spans of documents, at least one, each given by its ids of the student, at least one.

        They are read whole, from an empty memory.
        """
        texts, ends = zip(*(self._text(ids) for ids in documents), strict=True)
        by_teacher = [self._read(*teacher, texts) for teacher in self.teachers]
        return [self._aligned(own, [found[index] for found in by_teacher]) for index, own in enumerate(ends)]

    def _text(self, ids: np.ndarray) -> tuple[str, np.ndarray]:
        """The text of ids, and the byte at which each ends; an incomplete character at the end is left out."""
        unfinished = len(self.tokenizer.unfinished_bytes(ids.tolist()))
        ends = np.cumsum(self.tokenizer.token_bytes[ids], dtype=np.int64)
        whole = int(np.searchsorted(ends, ends[-1] - unfinished, side="right"))
        return self.tokenizer.decode(ids[:whole].tolist()), ends[:whole]

    def _read(
        self, model: BaseModelConfig, params: models.Params, tokenizer: Tokenizer, texts: Sequence[str]
    ) -> list[_Read]:
        """The texts, read by a teacher."""
        rows = []
        for text in texts:
            ids = np.array(tokenizer.encode(text), np.int32)
            tokens = np.concatenate([[tokenizer.start_id], ids[:-1]]).astype(np.int32)
            rows.append({"tokens": tokens, "targets": ids, "weights": np.ones(len(ids), np.float32)})
        losses, found = row_losses(model, params, self.settings, rows), []
        for row, of_row in zip(rows, losses, strict=True):
            ends = np.cumsum(tokenizer.token_bytes[row["targets"]], dtype=np.int64)
            last = _last_of_equal(ends)
            found.append(_Read(ends[last], -np.cumsum(of_row, dtype=np.float64)[last]))
        return found

    def _aligned(self, ends: np.ndarray, teachers: list[_Read]) -> Spans:
        """The spans of one document, from the byte at which each token of the student ends."""
        last = _last_of_equal(ends)
        shared = functools.reduce(np.intersect1d, [ends[last], *(read.ends for read in teachers)])
        places = last[np.searchsorted(ends[last], shared)]
        nats = [np.diff(read.log_probs[np.searchsorted(read.ends, shared)], prepend=0.0) for read in teachers]
        tempered = np.logaddexp.reduce(np.stack(nats) / self.temperature) - np.log(len(teachers))
        tokens, log_probs = np.zeros(len(ends), np.int32), np.zeros(len(ends), np.float32)
        tokens[places], log_probs[places] = np.diff(places, prepend=-1), self.temperature * tempered
        return Spans(tokens, log_probs)


def _last_of_equal(ends: np.ndarray) -> np.ndarray:
    """The indices of values that differ from the next one; the values do not fall."""
    return np.flatnonzero(np.append(np.diff(ends) > 0, True)) if len(ends) else np.zeros(0, int)


class _Document:
    """A document of a stream of batches: its ids, and their places in the batches."""

    def __init__(self, batch: int):
        self.first_batch = batch
        self.ids: list[np.ndarray] = []
        self.places: list[tuple[int, int, slice]] = []


def spans_of_batches(reader: SpanReader, batches: Batches, number: int) -> Iterator[dict[str, np.ndarray]]:
    """For each of `number` batches, its `SPAN_TOKENS` and `SPAN_LOG_PROBS` [B, L], at the targets; in order.

    The ends of documents are in no span. A document is read when it ends in its stream, or with the last batch.
    """
    opened: dict[int, _Document] = {}
    ended: list[_Document] = []
    waiting: dict[int, dict[str, np.ndarray]] = {}

    def read(chosen: list[_Document]) -> None:
        found = reader.spans([np.concatenate(document.ids) for document in chosen])
        for document, spans in zip(chosen, found, strict=True):
            place = 0
            for batch, row, columns in document.places:
                size = min(columns.stop - columns.start, max(0, len(spans.tokens) - place))
                part = slice(columns.start, columns.start + size)
                waiting[batch][SPAN_TOKENS][row, part] = spans.tokens[place : place + size]
                waiting[batch][SPAN_LOG_PROBS][row, part] = spans.log_probs[place : place + size]
                place += size

    for index in range(number):
        batch = next(batches)
        tokens, (targets,) = batch.inputs["tokens"], batch.targets.values()
        waiting[index] = {
            SPAN_TOKENS: np.zeros(tokens.shape, np.int32),
            SPAN_LOG_PROBS: np.zeros(tokens.shape, np.float32),
        }
        for row, resets in enumerate(np.asarray(batch.inputs["reset"])):
            begins = [0, *(np.flatnonzero(resets[1:]) + 1).tolist()]
            for first, last in zip(begins, [*begins[1:], len(resets)], strict=True):
                if resets[first] or row not in opened:
                    ended += [opened.pop(row)] if row in opened else []
                    opened[row] = _Document(index)
                at_end = int(targets[row, last - 1] == reader.tokenizer.start_id)  # of the next document
                opened[row].ids.append(np.asarray(targets[row, first : last - at_end]))
                opened[row].places.append((index, row, slice(first, last - at_end)))
        if len(ended) >= reader.rows:
            read(ended)
            ended = []
        needed = min(document.first_batch for document in [*opened.values(), *ended])
        for done in [each for each in waiting if each < needed]:
            yield waiting.pop(done)
    read([*ended, *opened.values()])
    yield from waiting.values()
