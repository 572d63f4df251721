"""Prompts as the user gives them, checked, as rows of ids."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from memgpt_jax import models
from memgpt_jax.config.checks import check, listed, whole
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.generation.sampling import Sampling
from memgpt_jax.models.arguments import check_state as check_same_state
from memgpt_jax.models.arguments import warn_beyond_context

PROMPT_FORMS = (
    "prompt must be ids [B, L], a list of B lists of ids (one prompt: [[1, 2, 3]]), a text or a list of texts"
)


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
    said: list[np.ndarray]
    """Ids of each row that a repetition penalty falls on."""

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
        ends: Iterable[int] = (),
        in_text: bool = False,
        said: Iterable[int] | None = None,
    ):
        """Args: as in `generate`; begins: texts begin a document; ends: further ids that end an answer, ignored if
        they are not in the model's vocabulary; said: ids under the repetition penalty, default: those of the prompts.
        """
        self.is_single_text = isinstance(prompt, str)
        given = [prompt] if self.is_single_text else _listed(prompt)
        self.texts = list(given) if len(given) and all(isinstance(text, str) for text in given) else None
        if self.texts is None:
            self.rows = _rows_of_ids(given)
        else:
            check(tokenizer is not None, "a prompt of text needs a tokenizer")
            check_tokenizer(config, tokenizer)
            start = [tokenizer.start_id] if begins else []
            self.rows = [np.array([*start, *tokenizer.encode(text)], np.int64) for text in self.texts]
        for i, row in enumerate(self.rows):
            check(len(row) > 0, f"prompt {i} is empty: give at least one token")
        self.rows = [ids_of(config, "token ids", row) for row in self.rows]
        self.said = self.rows if said is None else [np.fromiter(said, np.int32)]
        if said is None and tokenizer is not None:  # without the id that begins the document
            self.said = [row[int(row[0] == tokenizer.start_id) :] for row in self.rows]
        self.limit = self._limits(max_new_tokens, max_length)

        stops = listed(stop)
        self.stop_texts = [text for text in stops if isinstance(text, str)]
        self.in_text = in_text or self.texts is not None
        check(self.in_text or not self.stop_texts, "stop: only answers to texts can end at texts")
        check("" not in self.stop_texts, "stop holds an empty text")
        ids = (token for token in stops if not isinstance(token, str))
        ids = [whole("stop", token, 0, config.vocab_size - 1) for token in ids]
        ends = [token for token in ends if token < config.vocab_size]
        self.stop = np.array(list(dict.fromkeys([*ends, *ids])), np.int32)

    def _limits(self, max_new_tokens, max_length) -> np.ndarray:
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
    def lengths(self) -> np.ndarray:
        """[B] tokens of each prompt."""
        return np.array([len(row) for row in self.rows])

    def seen(self, config: ModelConfig, sampling: Sampling) -> np.ndarray | None:
        """[B, V] bool: the tokens of each prompt that are under the repetition penalty; None: there is none."""
        if sampling.repetition_penalty is None:
            return None
        seen = np.zeros((len(self.rows), config.vocab_size), bool)
        for mask, row in zip(seen, self.said, strict=True):
            mask[row] = True
        return seen


def _listed(prompt) -> list:
    """The prompts one by one."""
    try:
        rows = None if isinstance(prompt, Mapping | bytes) else list(prompt)
    except TypeError:
        rows = None
    if not rows:
        raise ValueError(f"{PROMPT_FORMS}, got {type(prompt).__name__}")
    return rows


def _rows_of_ids(rows: list) -> list[np.ndarray]:
    """Ids [B, L], or B sequences of ids."""
    try:
        rows = [np.asarray(row) for row in rows]
    except (TypeError, ValueError):
        rows = [np.zeros(())]
    if any(row.ndim != 1 or (row.size and row.dtype.kind not in "iu") for row in rows):
        raise ValueError(PROMPT_FORMS)
    return rows


def ids_of(config: ModelConfig, name: str, ids: np.ndarray) -> np.ndarray:
    """The ids as int32; `ValueError` if one is out of the vocabulary."""
    if len(ids) and not 0 <= ids.min() <= ids.max() < config.vocab_size:
        raise ValueError(f"{name} must be from 0 to {config.vocab_size - 1}, got {ids.min()} to {ids.max()}")
    return ids.astype(np.int32)


def check_tokenizer(config: ModelConfig, tokenizer) -> None:
    """Raise `ValueError` if the tokenizer has ids of text that are not in the model's vocabulary.

    Special ids that are not in it, such as one for padding that was added to the tokenizer alone, are harmless.
    """
    ids, known = tokenizer.vocab_size, config.vocab_size
    if ids > known:
        further = np.asarray(tokenizer.token_bytes)[known:]
        harmless = tokenizer.start_id < known and len(further) == ids - known and not further.any()
        check(harmless, f"the tokenizer has {ids} ids, the model's vocab_size is {known}: they do not belong together")


def ends_of(tokenizer, model: Any = None) -> list[int]:
    """The ids that end an answer by default.

    With a tokenizer, its `stop_ids` and `start_id` (which begins the next document). Where there is no tokenizer, or
    its files name no end, the `stop_ids` of a model from `from_pretrained`.
    """
    of_model = getattr(getattr(model, "origin", None), "stop_ids", ())
    return [*of_model] if tokenizer is None else [*(tokenizer.stop_ids or of_model), tokenizer.start_id]


def check_length(config: ModelConfig, tokens: int) -> None:
    """Raise `ValueError` if a text of this length in tokens exceeds the table of learned positions.

    Warns if it exceeds the context length of a pretrained model without a memory.
    """
    check(
        config.position != "learned" or tokens <= config.num_positions,
        f"the model has learned positions for num_positions={config.num_positions} tokens; the text read before, the "
        f"prompt and the answer may have {tokens} together: give a shorter prompt or fewer new tokens",
    )
    warn_beyond_context(config, tokens, stacklevel=4)


def check_state(config: ModelConfig, state: Any, batch_size: int) -> None:
    """Raise `ValueError` unless the state belongs to this model and has `batch_size` rows."""
    expected = jax.eval_shape(lambda: models.init_state(config, batch_size))
    check_same_state(state, expected, batch_size, f"but there are {batch_size} prompts")


def padded(rows: Sequence[np.ndarray], pad_token_id: int) -> np.ndarray:
    """Rows of ids as one array, padded on the right."""
    ids = np.full((len(rows), max(map(len, rows))), pad_token_id, np.int32)
    for line, row in zip(ids, rows, strict=True):
        line[: len(row)] = row
    return ids
