"""Vectors of texts, with the calls and results of the transformers library's pipeline."""

import functools
from collections.abc import Generator, Iterator, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from memgpt_jax import models
from memgpt_jax.config.checks import check
from memgpt_jax.config.heads import HeadedConfig, StreamHeadConfig, TruncationSide
from memgpt_jax.config.model import BaseModelConfig, ModelConfig
from memgpt_jax.data.tasks.labelled_text import document_ids
from memgpt_jax.data.tasks.replies import RepliesConfig
from memgpt_jax.data.tasks.retrieval import RetrievalConfig
from memgpt_jax.data.text import clean
from memgpt_jax.data.text.words import single_spaced
from memgpt_jax.evaluation.documents import call_size, check_lengths, end_outputs
from memgpt_jax.models.heads.vectors import VectorHeadConfig
from memgpt_jax.pipelines.base import Loaded, check_sizes, texts_of

Vectors = list[Any] | np.ndarray
ROWS = 8
"""Texts that a `VectorHead` reads at the same time."""


class FeatureExtraction:
    """The vectors of a `VectorHead` for texts of any length, or the last hidden states, or their mean.

    >>> vectors = mg.pipeline("feature-extraction", model="sentence-transformers/all-MiniLM-L6-v2", pool="mean")
    >>> vectors(["A fine film.", "Two hours lost."])  # [2, 384], each of length 1

    A text is read in calls of `length` tokens with the memory carried. Texts are cleaned as those of the run were; runs
    on `RetrievalConfig` and `RepliesConfig` read single spaces between words.
    """

    def __init__(
        self, loaded: Loaded, *, pool: Literal["none", "mean", "head"] | None = None, length: int | None = None
    ):
        """The vectors of a model.

        Args:
            pool: `none`, a vector for each token; `mean`, one vector of length 1 for each text, the mean of those of
                its tokens; `head`, that of the model's `VectorHead`. Default: `head` if it has one, else `none`.
            length: tokens of a call.

        Raises:
            ValueError: `pool` is another word, or the model has no `VectorHead`.
        """
        self.config, self.params = loaded.config, loaded.params
        head = getattr(self.config, "head", None)
        of_texts = isinstance(head, VectorHeadConfig)
        pool = pool or ("head" if of_texts else "none")
        check(pool in ("none", "mean", "head"), f"pool must be 'none', 'mean' or 'head', got {pool!r}")
        check(pool != "head" or of_texts, "pool='head' needs a model with a VectorHead")
        settings = head if isinstance(head, StreamHeadConfig) else VectorHeadConfig()
        self.data = loaded.data
        self.clean, self.max_length = settings.clean, settings.max_length
        self.truncation_side: TruncationSide = settings.truncation_side
        if pool != "head" and isinstance(self.config, HeadedConfig):
            self.config, self.params = self.config.backbone, self.params["backbone"]
        self.tokenizer, self.pool, self.length = loaded.tokenizer, pool, loaded.length if length is None else length
        check_sizes(length=self.length)

    def __call__(self, inputs: str | Sequence[str]) -> Vectors:
        """The vectors of texts.

        Returns:
            With `none` a list with an array [1, tokens, D] for each text, special tokens included; for a single text
            its array. With `mean` and `head` an array [texts, D] of unit vectors; for a single text [D].
        """
        single, texts = isinstance(inputs, str), [self._read(text) for text in texts_of(inputs)]
        if not texts and self.pool != "none":
            return self([""])[:0]
        if self.pool == "head":
            ids = [document_ids(self.tokenizer, text, self.max_length, self.truncation_side) for text in texts]
            found = end_outputs(self.config, self.params, ids, rows=ROWS, length=self.length)
            vectors = _checked(np.array(found))
            return vectors[0] if single else vectors
        documents = [document_ids(self.tokenizer, text) for text in texts]
        if self.pool == "none":
            arrays = [self._hidden(ids)[None] for ids in documents]
            return arrays[0] if single else arrays
        means = np.stack([self.mean(ids) for ids in documents])
        return means[0] if single else means

    def _read(self, text: str) -> str:
        """A text as the task of the run reads it; for `RepliesConfig` a turn or a history, one turn a line."""
        if isinstance(self.data, RepliesConfig):
            return "\n".join(single_spaced(turn) for turn in text.strip().split("\n"))
        return single_spaced(text) if isinstance(self.data, RetrievalConfig) else clean(text, self.clean).text

    def record(self, text: str, *, top: int = 5, question: str | None = None) -> dict[str, Any]:
        """The result for one text as an object of JSON: {"text", "vector"}, with `none` {"text", "vectors"}."""
        if self.pool == "none":
            return {"text": text, "vectors": self(text)[0].tolist()}
        return {"text": text, "vector": self(text).tolist()}  # pyright: ignore[reportAttributeAccessIssue]

    def mean(self, ids: Sequence[int] | np.ndarray) -> np.ndarray:
        """The mean of the hidden states of a document of these ids, [D] of length 1."""
        return _unit_mean([*self._parts(ids)])

    def mean_in_pieces(self, ids: Sequence[int] | np.ndarray) -> Generator[None, None, np.ndarray]:
        """`mean`; yields after each call of the model."""
        parts = []
        for part in self._parts(ids):
            parts.append(part)
            yield
        return _unit_mean(parts)

    def _hidden(self, ids: Sequence[int] | np.ndarray) -> np.ndarray:
        """[tokens, D] float32."""
        return np.concatenate([*self._parts(ids)])

    def _parts(self, ids: Sequence[int] | np.ndarray) -> Iterator[np.ndarray]:
        """`_hidden`, one array for each call of the model."""
        check_lengths(self.config, [len(ids)], self.length)
        # One shape is compiled for a decoder, whose vectors do not depend on the division into calls.
        one_shape = isinstance(self.config, ModelConfig)
        length = self.length if one_shape else call_size(self.config, len(ids), self.length)
        state = models.functional(self.config).init_state(1)
        for first in range(0, len(ids), length):
            part = ids[first : first + length]
            tokens, valid = np.zeros((1, length), np.int32), np.arange(length)[None] < len(part)
            tokens[0, : len(part)] = part
            hidden, state = _read(self.config, self.params, tokens, state, valid)
            yield _checked(np.asarray(hidden)[0, : len(part)])


def _checked(vectors: np.ndarray) -> np.ndarray:
    """The vectors. Raises `ValueError` if a number is NaN or infinite."""
    check(bool(np.isfinite(vectors).all()), "a vector has NaN or infinite numbers: the parameters may have, too")
    return vectors


def _unit_mean(parts: list[np.ndarray]) -> np.ndarray:
    mean = np.concatenate(parts).mean(axis=0)
    return mean / np.linalg.norm(mean)


@functools.partial(jax.jit, static_argnums=0)
def _read(config: BaseModelConfig, params: Any, tokens: jax.Array, state: Any, valid: jax.Array) -> tuple[Any, Any]:
    found = models.from_params(config, params).hidden(tokens, state, valid=valid)
    return found.stream.astype(jnp.float32), found.state
