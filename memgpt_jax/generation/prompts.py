"""Prompts as the user gives them, checked, as rows of ids."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from memgpt_jax import models
from memgpt_jax.checks import check
from memgpt_jax.config import ModelConfig
from memgpt_jax.models import ModelState


class Prompts:
    """B prompts of any lengths, and where their answers end. Raises `ValueError`s that name what is wrong."""

    rows: list[np.ndarray]
    """Ids of each prompt, int32."""
    texts: list[str] | None
    """The prompts, if they are texts."""
    is_single_text: bool
    """One text, not a list of them."""
    limit: np.ndarray
    """[B] int32: new tokens of each row, at most."""
    stop: np.ndarray
    """Ids that end an answer, int32."""
    stop_texts: list[str]
    """Texts that end an answer."""

    in_text: bool
    """Whether answers are wanted as text: by default, where prompts are texts."""

    def __init__(
        self,
        config: ModelConfig,
        prompt,
        *,
        tokenizer=None,
        begins: bool = False,
        max_new_tokens: int | None = None,
        max_length: int | None = None,
        stop=(),
        in_text: bool = False,
    ):
        """Args: as in `generate`; begins: texts begin a document."""
        self.is_single_text = isinstance(prompt, str)
        given = [prompt] if self.is_single_text else prompt
        self.texts = list(given) if len(given) and all(isinstance(text, str) for text in given) else None
        if self.texts is None:
            self.rows = _rows_of_ids(given)
        else:
            check(tokenizer is not None, "a prompt of text needs a tokenizer")
            start = [tokenizer.document_id] if begins else []
            self.rows = [np.array([*start, *tokenizer.encode(text)], np.int32) for text in self.texts]
        for i, row in enumerate(self.rows):
            check(len(row) > 0, f"prompt {i} is empty: give at least one token")
        _check_ids(config, "token ids", np.concatenate(self.rows))
        self.limit = self._limits(max_new_tokens, max_length)

        stops = [stop] if isinstance(stop, int | str | np.integer) else list(stop)
        self.stop_texts = [text for text in stops if isinstance(text, str)]
        self.in_text = in_text or self.texts is not None
        check(self.in_text or not self.stop_texts, "stop: only answers to texts can end at texts")
        check("" not in self.stop_texts, "stop holds an empty text")
        self.stop = np.array([token for token in stops if not isinstance(token, str)], np.int32)
        _check_ids(config, "stop", self.stop)

    def _limits(self, max_new_tokens, max_length) -> np.ndarray:
        check(
            (max_new_tokens is None) != (max_length is None),
            f"give one of max_new_tokens and max_length, got {max_new_tokens} and {max_length}",
        )
        if max_length is None:
            check(max_new_tokens >= 1, f"max_new_tokens must be at least 1, got {max_new_tokens}")
            return np.full(len(self.rows), max_new_tokens, np.int32)
        longest = max(map(len, self.rows))
        check(max_length > longest, f"max_length={max_length} must exceed the longest prompt's {longest} tokens")
        return np.array([max_length - len(row) for row in self.rows], np.int32)


def _rows_of_ids(prompt) -> list[np.ndarray]:
    """Ids [B, L], or B sequences of ids."""
    try:
        rows = [np.asarray(row) for row in prompt]
    except (TypeError, ValueError):
        rows = []
    if not rows or any(row.ndim != 1 or (row.size and row.dtype.kind not in "iu") for row in rows):
        raise ValueError("prompt must be ids [B, L], a list of B lists of ids, a text or a list of texts")
    return [row.astype(np.int32) for row in rows]


def _check_ids(config: ModelConfig, name: str, ids: np.ndarray) -> None:
    if len(ids) and not 0 <= ids.min() <= ids.max() < config.vocab_size:
        raise ValueError(f"{name} must be from 0 to {config.vocab_size - 1}, got {ids.min()} to {ids.max()}")


def check_state(config: ModelConfig, state: Any, batch_size: int) -> None:
    """Raise `ValueError` unless the state is one of this model and of this many rows."""
    expected = jax.eval_shape(lambda: models.init_state(config, batch_size))
    check(isinstance(state, ModelState), f"state must be a ModelState, got {type(state).__name__}")
    rows = state.position.shape[0]
    check(rows == batch_size, f"state has {rows} rows, but there are {batch_size} prompts")
    describe = lambda tree: [(x.shape, str(x.dtype)) for x in jax.tree.leaves(tree)]  # noqa: E731
    same = jax.tree.structure(state) == jax.tree.structure(expected) and describe(state) == describe(expected)
    check(same, "state is one of a model with another config")


def padded(rows: Sequence[np.ndarray], pad_token_id: int) -> np.ndarray:
    """Rows of ids as one array, padded on the right."""
    ids = np.full((len(rows), max(map(len, rows))), pad_token_id, np.int32)
    for line, row in zip(ids, rows, strict=True):
        line[: len(row)] = row
    return ids
