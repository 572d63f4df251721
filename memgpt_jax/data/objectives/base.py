"""The interface of an objective: what a model learns to predict from text."""

from typing import Any, ClassVar, Generic, Literal, TypeVar

import numpy as np

from memgpt_jax.config.data import ObjectiveConfig
from memgpt_jax.data.batch import Batch
from memgpt_jax.data.corpora.text import TokenizedText
from memgpt_jax.data.streams import token_streams
from memgpt_jax.data.tokenizers.base import Tokenizer

Config = TypeVar("Config", bound=ObjectiveConfig)
DRAW_STREAM = 3  # separates the seeds of an objective's draws from the seeds of rows


class Objective(Generic[Config]):
    """An objective. Heads, inputs and the checks of the model are those of its configuration.

    Implement `shapes`, and either `batches`, or `change` for batches that are made of rows of running text.
    """

    evaluation: ClassVar[Literal["documents", "batches"]] = "batches"
    """Evaluate whole documents, one token after the other, or held-out batches like those of training."""

    def __init__(self, config: Config):
        self.config = config

    def added_ids(self, tokenizer: Tokenizer) -> int:
        """Number of special ids after those of the tokenizer."""
        return 0

    def shapes(self, rows: int, length: int) -> Batch:
        """A batch of zeros (`zeros`) with the arrays of `batches`."""
        raise NotImplementedError

    def batches(self, text: TokenizedText, tokenizer: Tokenizer, rows: int, length: int, seed: int) -> Any:
        """Endless batches, a Grain `IterDataset`.

        Default: rows of running text (`token_streams`), each batch changed by `change` with a generator of its own,
        seeded by the seed and the number of the batch.

        Args:
            text: the documents.
            tokenizer: their tokenizer.
            rows: batch rows B.
            length: tokens L of a row of text.
            seed: at least 0; all randomness follows from it.
        """
        return self.drawn(token_streams(text, rows, length, seed, tokenizer), tokenizer, seed)

    def drawn(self, batches: Any, tokenizer: Tokenizer, seed: int) -> Any:
        """The batches of a Grain `IterDataset`, changed by `change`."""

        def change(number: int, batch: Batch) -> Batch:
            return self.change(np.random.default_rng((DRAW_STREAM, seed, number)), batch, tokenizer)

        return batches.map_with_index(change)

    def change(self, rng: np.random.Generator, batch: Batch, tokenizer: Tokenizer) -> Batch:
        """The batch of this objective that is made of a batch of running text, which has the targets of `causal`."""
        raise NotImplementedError

    def text_ids(self, tokenizer: Tokenizer) -> np.ndarray:
        """[V] bool, V = the tokenizer's ids and `added_ids`: True for ids of text, False for special ids."""
        return np.pad(tokenizer.token_bytes, (0, self.added_ids(tokenizer))) > 0
