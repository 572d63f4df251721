"""Prompts as the user gives them, checked, as rows of ids."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from memgpt_jax.config.checks import as_list, check, whole
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.data import Tokenizer
from memgpt_jax.generation.sampling import Sampling
from memgpt_jax.shapes import Bool, Int, Int32

PROMPT_FORMS = (
    "prompt must be ids [B, L], a list of B lists of ids (one prompt: [[1, 2, 3]]), a text or a list of texts"
)
Ids = Sequence[int] | np.ndarray | jax.Array
Prompt = str | Sequence[str] | Sequence[Ids] | np.ndarray | jax.Array


class Prompts:
    """B prompts of any lengths, with the limits and stops of their answers. `ValueError` names a wrong argument."""

    rows: list[Int32[np.ndarray, " L"]]
    """Ids of each prompt."""
    texts: list[str] | None
    """The prompts if they were given as texts."""
    limit: Int32[np.ndarray, "B"]
    """Largest number of new tokens of each row."""
    stop: Int32[np.ndarray, " stops"]
    """Ids that end an answer."""
    stop_texts: list[str]
    """Texts that end an answer."""
    penalized_ids: list[Int32[np.ndarray, " N"]]
    """Ids of each row to which a repetition penalty applies."""

    def __init__(
        self,
        config: ModelConfig,
        prompt: Prompt,
        *,
        tokenizer: Tokenizer | None = None,
        starts_document: bool = False,
        max_new_tokens: int | None = None,
        max_length: int | None = None,
        stop: int | str | Sequence[int | str] = (),
        end_ids: Iterable[int] = (),
        penalized_ids: Iterable[int] | None = None,
    ):
        """Check and encode the prompts.

        Args:
            config: the decoder's configuration.
            prompt, tokenizer, max_new_tokens, max_length, stop: as in `generate`.
            starts_document: texts begin a document: the tokenizer's `start_id` comes first.
            end_ids: more ids that end an answer; those that the model's vocabulary lacks are ignored.
            penalized_ids: ids of the only row to which a repetition penalty applies; default: the ids of the prompt.
        """
        given = [prompt] if isinstance(prompt, str) else _prompt_list(prompt)
        self.texts = list(given) if len(given) and all(isinstance(text, str) for text in given) else None
        if self.texts is not None:
            check(tokenizer is not None, "a prompt of text needs a tokenizer")
        if tokenizer is not None:
            check_tokenizer(config, tokenizer)
        if self.texts is None or tokenizer is None:
            rows = _rows_of_ids(given)
        else:
            start = [tokenizer.start_id] if starts_document else []
            rows = [np.array([*start, *tokenizer.encode(text)], np.int64) for text in self.texts]
        for i, row in enumerate(rows):
            check(len(row) > 0, f"prompt {i} is empty: give at least one token")
        self.rows = [checked_ids(config, "token ids", row) for row in rows]
        if penalized_ids is not None:
            self.penalized_ids = [np.fromiter(penalized_ids, np.int32)]
        elif tokenizer is not None:  # without the id that begins the document
            self.penalized_ids = [row[int(row[0] == tokenizer.start_id) :] for row in self.rows]
        else:
            self.penalized_ids = self.rows
        self.limit = self._limits(max_new_tokens, max_length)

        stops = as_list(stop)
        self.stop_texts = [text for text in stops if isinstance(text, str)]
        check(tokenizer is not None or not self.stop_texts, f"stop: the texts {self.stop_texts} need a tokenizer")
        check("" not in self.stop_texts, "stop holds an empty text")
        ids = [whole("stop", token, 0, config.vocab_size - 1) for token in stops if not isinstance(token, str)]
        ends = [token for token in end_ids if token < config.vocab_size]
        self.stop = np.array(list(dict.fromkeys([*ends, *ids])), np.int32)

    def _limits(self, max_new_tokens: int | None, max_length: int | None) -> Int32[np.ndarray, "B"]:
        check(
            (max_new_tokens is None) != (max_length is None),
            f"give one of max_new_tokens and max_length, got {max_new_tokens} and {max_length}",
        )
        if max_length is None:
            return np.full(len(self.rows), whole("max_new_tokens", max_new_tokens, 1), np.int32)
        max_length = whole("max_length", max_length, 1)
        longest = max(map(len, self.rows))
        check(max_length > longest, f"max_length={max_length} must exceed the longest prompt's {longest} tokens")
        return np.array([max_length - len(row) for row in self.rows], np.int32)

    @property
    def lengths(self) -> Int[np.ndarray, "B"]:
        """Number of tokens of each prompt."""
        return np.array([len(row) for row in self.rows])

    def prompt_texts(self, tokenizer: Tokenizer) -> list[str]:
        """The prompts as texts: as they were given, or decoded."""
        return [tokenizer.decode(row.tolist()) for row in self.rows] if self.texts is None else self.texts

    def penalized(self, config: ModelConfig, sampling: Sampling) -> Bool[np.ndarray, "B V"] | None:
        """Mask of the ids of each prompt to which the repetition penalty applies; None if there is no penalty."""
        if sampling.repetition_penalty is None:
            return None
        penalized = np.zeros((len(self.rows), config.vocab_size), bool)
        for mask, row in zip(penalized, self.penalized_ids, strict=True):
            mask[row] = True
        return penalized


def _prompt_list(prompt: Any) -> list:
    """The prompts as a list."""
    try:
        rows = None if isinstance(prompt, Mapping | bytes) else list(prompt)
    except TypeError:
        rows = None
    if not rows:
        raise ValueError(f"{PROMPT_FORMS}, got {type(prompt).__name__}")
    return rows


def _rows_of_ids(rows: list) -> list[np.ndarray]:
    """Each sequence of ids as an integer array."""
    try:
        rows = [np.asarray(row) for row in rows]
    except (TypeError, ValueError):
        rows = [np.zeros(())]
    if any(row.ndim != 1 or (row.size and row.dtype.kind not in "iu") for row in rows):
        raise ValueError(PROMPT_FORMS)
    return rows


def checked_ids(config: ModelConfig, name: str, ids: np.ndarray) -> Int32[np.ndarray, " L"]:
    """The ids as int32. Raises `ValueError` if one is not in the vocabulary."""
    if len(ids) and not 0 <= ids.min() <= ids.max() < config.vocab_size:
        raise ValueError(f"{name} must be from 0 to {config.vocab_size - 1}, got {ids.min()} to {ids.max()}")
    return ids.astype(np.int32)


def row_of_ids(config: ModelConfig, name: str, ids: Any) -> Int32[np.ndarray, " L"]:
    """A list of ids as int32. Raises `ValueError` if it is none, is empty, or an id is not in the vocabulary."""
    row = np.asarray(ids)
    check(row.size > 0, f"{name}: there are no ids")
    fits = row.ndim == 1 and row.dtype.kind in "iu"
    check(fits, f"{name} must be a list of whole numbers, got {row.dtype}{list(row.shape)}")
    return checked_ids(config, name, row)


def check_tokenizer(config: ModelConfig, tokenizer: Tokenizer) -> None:
    """Raise `ValueError` if the tokenizer can encode a text to ids that the model's vocabulary lacks.

    Special ids beyond the vocabulary, such as one for padding that was added to the tokenizer alone, are accepted.
    """
    ids, known = tokenizer.vocab_size, config.vocab_size
    if ids > known:
        beyond = np.asarray(tokenizer.token_bytes)[known:]
        accepted = tokenizer.start_id < known and len(beyond) == ids - known and not beyond.any()
        check(accepted, f"the tokenizer has {ids} ids, the model's vocab_size is {known}: they do not belong together")


def padded(rows: Sequence[np.ndarray], pad_token_id: int) -> Int32[np.ndarray, "R N"]:
    """Rows of ids as one array, padded on the right."""
    ids = np.full((len(rows), max(map(len, rows))), pad_token_id, np.int32)
    for line, row in zip(ids, rows, strict=True):
        line[: len(row)] = row
    return ids
