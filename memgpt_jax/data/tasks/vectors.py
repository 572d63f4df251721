"""Texts whose vectors are to be similar, as two rows each: the base of retrieval and of the choice of replies."""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, TypeVar

import numpy as np

from memgpt_jax.config.checks import check
from memgpt_jax.config.data import ObjectiveConfig
from memgpt_jax.data.batch import Batch, zeros
from memgpt_jax.data.examples.files import CutTextsConfig
from memgpt_jax.data.examples.rows import padded_rows
from memgpt_jax.data.tasks.examples import ExamplesTask
from memgpt_jax.data.tasks.labelled_text import document_ids

Config = TypeVar("Config", bound=CutTextsConfig)


@dataclass(frozen=True, kw_only=True)
class VectorsConfig(ObjectiveConfig):
    """Give texts that belong together similar vectors. Needs a `HeadedConfig` with a `VectorHeadConfig`."""

    heads: ClassVar[tuple[str, ...]] = ("pairs",)


class RowPair(NamedTuple):
    """A text, and one that belongs to it."""

    number: int
    """n > 0: the target of the first text; -n is that of the second. Pairs of equal number in a batch belong together.
    """
    first: np.ndarray
    """Ids of a query, special tokens included."""
    second: np.ndarray
    """Ids of a text that answers it."""


class VectorsTask(ExamplesTask[Config]):
    """Pairs of texts in training batches. Implement `num_pairs` and `pair`."""

    @property
    def num_pairs(self) -> int:
        """The number of pairs of the split."""
        raise NotImplementedError

    def pair(self, index: int, length: int) -> RowPair:
        """A pair of texts of at most `length` tokens each."""
        raise NotImplementedError

    def ids(self, text: str) -> np.ndarray:
        """The ids of a text, cut to `max_length`."""
        return document_ids(self.tokenizer, text, self.config.max_length, self.config.truncation_side)

    @classmethod
    def shapes(cls, config: Config, rows: int, length: int) -> Batch:
        """A batch of zeros with the arrays of `batches`."""
        shape = (rows, length)
        inputs = {"tokens": (shape, np.int32), "reset": (shape, bool), "valid": (shape, bool)}
        return zeros(inputs, {"pairs": shape})

    def batches(self, seed: int, rows: int, length: int) -> Any:
        """Endless batches, a Grain `IterDataset`: every pair once in each epoch, in random order, a text in each row.

        Raises `ValueError` if the number of rows is odd.
        """
        check(rows % 2 == 0, f"training.batch_size must be even, two texts for each pair, got {rows}")
        return padded_rows(lambda index: self.rows(index, length), self.num_pairs, seed, rows // 2)

    def training_tokens(self, length: int) -> int:
        return 2 * length * self.num_pairs

    def rows(self, index: int, length: int) -> Batch:
        """The two rows of a pair, with the targets of `VectorHead` at their last tokens."""
        pair, batch = self.pair(index, length), self.shapes(self.config, 2, length)
        inputs = {name: array.copy() for name, array in batch.inputs.items()}
        targets, weights = batch.targets["pairs"].copy(), batch.weights["pairs"].copy()
        inputs["reset"][:, 0] = True
        for row, (target, ids) in enumerate(((pair.number, pair.first), (-pair.number, pair.second))):
            inputs["tokens"][row, : len(ids)], inputs["valid"][row, : len(ids)] = ids, True
            targets[row, len(ids) - 1], weights[row, len(ids) - 1] = target, 1
        return Batch(inputs, {"pairs": targets}, {"pairs": weights}, {})
