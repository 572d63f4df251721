"""Decoding the answers of a batch of prompts, step by step."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from memgpt_jax.generation.decode import CAPACITY, Prefilled, advance, begin
from memgpt_jax.generation.prefill import power_of_two, prefill
from memgpt_jax.generation.request import Request
from memgpt_jax.generation.sampling import NOT_FINITE, check_rows
from memgpt_jax.generation.text import AnswerText
from memgpt_jax.models import ModelState
from memgpt_jax.shapes import Int32


class Piece(NamedTuple):
    """One decoding step of R rows."""

    ids: Int32[np.ndarray, "R N"]
    """The new token of each row (N = 1), -1 in rows that have ended. N = 0 in a last piece that holds only text."""
    texts: list[str] | None
    """The text that the step adds to each row, often empty; None without a tokenizer."""


def read_prompts(request: Request) -> Prefilled:
    """Read the prompts into the state. Raises `ValueError` if logits are not finite."""
    model, prompts = request.model, request.prompts
    logits, state = prefill(model.config, model.params, prompts.rows, request.state)
    penalized = prompts.penalized(model.config, request.sampling)
    room = (len(prompts.rows), power_of_two(int(prompts.limit.max())))  # few shapes to compile
    return Prefilled(
        logits,
        state,
        jnp.asarray(prompts.limit),
        None if penalized is None else jnp.asarray(penalized),
        jnp.asarray(prompts.stop),
        None if request.sampling.no_repeat_ngram_size is None else jnp.full(room, -1, jnp.int32),
    )


class Answers:
    """The answers to a request while they are decoded: R = B * copies rows, the answers to a prompt side by side."""

    def __init__(self, request: Request, *, previous: AnswerText | None = None):
        """Read the prompts and choose each row's first token.

        Args:
            request: what to decode.
            previous: the text that the only row continues; default: the text of its prompt.

        Raises:
            ValueError: logits are not finite.
        """
        self._request = request
        prefilled = read_prompts(request)
        self._decoding = begin(request.sampling, request.copies, prefilled, np.uint32(request.seed))
        self._columns: list[np.ndarray] = []
        self.texts = empty_texts(request)
        """The text of each row so far; [] without a tokenizer."""
        if previous is not None:
            self.texts[0].context, self.texts[0].unfinished = list(previous.context), list(previous.unfinished)
        self._add(self._decoding.token[:, None])

    @property
    def new(self) -> Int32[np.ndarray, "R N"]:
        """The new ids, -1 after the end of a row."""
        return np.concatenate(self._columns, axis=1)

    @property
    def failed(self) -> bool:
        """Whether logits were not finite: tokens and state are then invalid."""
        return bool((self._columns[-1] == NOT_FINITE).any())

    @property
    def done(self) -> bool:
        """Whether all rows have ended."""
        return bool(np.asarray(self._decoding.done).all())

    @property
    def state(self) -> ModelState:
        """The state after all tokens but the newest of each row. The next step donates its buffers."""
        return self._decoding.state

    def advance(self, steps: int) -> None:
        """Decode up to `steps` tokens, at most CAPACITY. Raises `ValueError` if logits are not finite."""
        model, sampling, stop = self._request.model, self._request.sampling, self._request.prompts.stop
        columns, self._decoding = advance(model.config, sampling, model.params, self._decoding, steps, stop)
        self._add(columns)

    def finish(self) -> None:
        """Decode all tokens, in steps of one where a stop text must be looked for."""
        while not self.done:
            self.advance(1 if self._request.prompts.stop_texts else CAPACITY)

    def stream(self) -> Iterator[Piece]:
        """Decode all tokens and yield them one step at a time; text that was held back comes in a last piece."""
        written = [0] * len(self.texts)
        while True:
            texts = [text.text[start:] for text, start in zip(self.texts, written, strict=True)]
            written = [len(text.text) for text in self.texts]
            yield Piece(self._columns[-1], texts if self.texts else None)
            if self.done:
                break
            self.advance(1)
        rest = [text.rest() for text in self.texts]
        if any(rest):
            yield Piece(np.zeros((len(rest), 0), np.int32), rest)

    def _add(self, columns: jax.Array) -> None:
        """Append new columns [R, N]. They are kept before their values are awaited, so that after an interrupt the
        tokens and the state still belong together."""
        self._columns.append(columns)  # pyright: ignore[reportArgumentType] # replaced by a NumPy array below
        values = np.asarray(columns)
        check_rows((values != NOT_FINITE).all(axis=1), self._request.copies)
        self._columns[-1] = values = values[:, : max(1, (values >= 0).sum(axis=1).max())]
        push(self.texts, values)
        if self._request.prompts.stop_texts:
            stopped = np.array([text.stopped for text in self.texts])
            self._decoding = self._decoding._replace(done=self._decoding.done | stopped)


def empty_texts(request: Request) -> list[AnswerText]:
    """The text of each row's answer, still empty; [] without a tokenizer."""
    prompts = request.prompts
    if request.tokenizer is None:
        return []
    rows = repeated(prompts.rows, request.copies)
    return [AnswerText(request.tokenizer, row, stop=prompts.stop, stop_texts=prompts.stop_texts) for row in rows]


def repeated(rows: list[Any], copies: int) -> list[Any]:
    """Each row `copies` times, copies side by side."""
    return [row for row in rows for _ in range(copies)]


def push(texts: list[AnswerText], columns: np.ndarray) -> None:
    """Append new ids [R, N], -1 after the end, to the texts of the rows; nothing if `texts` is empty."""
    for text, row in zip(texts, columns, strict=True) if texts else ():
        for token in row[row >= 0]:
            text.push(token)
