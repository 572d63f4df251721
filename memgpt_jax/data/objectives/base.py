"""The interface of training objectives on text."""

from typing import Any, ClassVar, Generic, Literal, TypeVar

import numpy as np

from memgpt_jax.config.data import ObjectiveConfig
from memgpt_jax.data.batch import Batch
from memgpt_jax.data.corpora.text import TokenizedText
from memgpt_jax.data.streams import token_streams
from memgpt_jax.data.tokenizers.base import Tokenizer

Config = TypeVar("Config", bound=ObjectiveConfig)
DRAW_STREAM = 3  # makes the seeds of an objective's random draws differ from those of rows


class Objective(Generic[Config]):
    """An objective. Its configuration declares the heads and inputs of the model, and checks the model.

    Implement `shapes`, and either `batches`, or `change` if batches are made from rows of running text.
    """

    evaluation: ClassVar[Literal["documents", "batches"]] = "batches"
    """`documents`: evaluate whole documents, every token once; `batches`: evaluate held-out batches of `batches`."""

    def __init__(self, config: Config):
        self.config = config

    def added_ids(self, tokenizer: Tokenizer) -> int:
        """Number of special ids that follow the tokenizer's ids."""
        return 0

    def shapes(self, rows: int, length: int) -> Batch:
        """A batch of zeros (`zeros`) with the arrays of `batches`."""
        raise NotImplementedError

    def batches(self, text: TokenizedText, tokenizer: Tokenizer, rows: int, length: int, seed: int) -> Any:
        """Endless batches, a Grain `IterDataset`.

        Default: batches of running text (`token_streams`), each transformed by `change` with a random generator that
        is seeded by the seed and the index of the batch.

        Args:
            text: the documents.
            tokenizer: their tokenizer.
            rows: batch rows B.
            length: tokens L of a row of text.
            seed: at least 0; all randomness follows from it.
        """
        return self.changed_batches(token_streams(text, rows, length, seed, tokenizer), tokenizer, seed)

    def changed_batches(self, batches: Any, tokenizer: Tokenizer, seed: int) -> Any:
        """A Grain `IterDataset` whose batches are transformed by `change`."""

        def change(number: int, batch: Batch) -> Batch:
            return self.change(np.random.default_rng((DRAW_STREAM, seed, number)), batch, tokenizer)

        return batches.map_with_index(change)

    def change(self, rng: np.random.Generator, batch: Batch, tokenizer: Tokenizer) -> Batch:
        """Transform a batch of running text, with the targets of `causal`, into a batch of this objective."""
        raise NotImplementedError

    def text_ids(self, tokenizer: Tokenizer) -> np.ndarray:
        """[V] bool, V = the tokenizer's ids and `added_ids`: True for ids of text, False for special ids."""
        return np.pad(tokenizer.token_bytes, (0, self.added_ids(tokenizer))) > 0
