"""Texts with a number: the stars of a review, the price of an offer, the difficulty of a question."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import numpy as np

from memgpt_jax.config.checks import check, check_statistics
from memgpt_jax.config.texts import CleanConfig
from memgpt_jax.data.batch import Batch, zeros
from memgpt_jax.data.examples.files import CutTextsConfig, NumbersConfig, read_split
from memgpt_jax.data.examples.records import Record
from memgpt_jax.data.examples.rows import packed_rows
from memgpt_jax.data.tasks.base import digest
from memgpt_jax.data.tasks.examples import ExamplesTask
from memgpt_jax.data.tasks.labelled_text import cut, document_ids
from memgpt_jax.data.text import clean
from memgpt_jax.data.tokenizers.base import Tokenizer


@dataclass(frozen=True, kw_only=True)
class ScoredTextConfig(CutTextsConfig):
    """Predict a number for a text of any length, from a file with a text and a number in each record.

    A training row holds whole texts, one after the other, and the number is the target at the last token of its text.
    """

    objective: ClassVar[NumbersConfig] = NumbersConfig()

    number_column: str = "number"
    """The column that holds the number."""
    clean: CleanConfig = field(default_factory=CleanConfig)
    """How texts are cleaned, in all splits, and by the pipelines of the run."""
    mean: float | None = None
    """Mean of the numbers of the training split; default: from the data."""
    std: float | None = None
    """Their standard deviation, positive; default: from the data."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_statistics(self.mean, self.std)

    def completed(self) -> Self:
        """The configuration with `mean` and `std`, where they are None, filled in from the training split."""
        if self.mean is not None and self.std is not None:
            return self
        numbers = np.array([record.number(self.number_column) for record in read_split(self, "train")])
        check(np.ptp(numbers) > 0, f"the training split of {self.train!r} has only the number {numbers[0]}")
        mean = float(numbers.mean()) if self.mean is None else self.mean
        return replace(self, mean=mean, std=float(numbers.std()) if self.std is None else self.std)

    @property
    def head_settings(self) -> dict[str, Any]:
        """The mean and the standard deviation of the numbers."""
        return {} if self.mean is None else {"mean": self.mean, "std": self.std}


class ScoredTextTask(ExamplesTask[ScoredTextConfig]):
    """The texts of one split, tokenized."""

    evaluation = "numbers"

    def __init__(self, config: ScoredTextConfig, split: str, tokenizer: Tokenizer | None = None):
        """Raises `ValueError` if a record has no text or no number, or there is no tokenizer."""
        super().__init__(config, split, tokenizer)
        examples = [self._example(record) for record in read_split(self.config, split)]
        check_precision([number for _, number in examples], self.config.std or 1.0)
        self.content = digest(*examples)
        ids = [
            document_ids(self.tokenizer, text, self.config.max_length, self.config.truncation_side)
            for text, _ in examples
        ]
        self.documents = [{"tokens": tokens} for tokens in ids]
        """The tokens of each text, special tokens included."""
        self.places = [np.array([len(tokens) - 1]) for tokens in ids]
        """The index of its last token."""
        self.targets = [np.array([number], np.float32) for _, number in examples]
        """Its number."""

    @classmethod
    def training_texts(cls, config: ScoredTextConfig) -> list[str]:
        """The texts after cleaning."""
        return [clean(text, config.clean).text for text in super().training_texts(config)]

    def _example(self, record: Record) -> tuple[str, float]:
        text = record.text(self.config.text_column)
        check(bool(text.strip()), f"{record.where}: the text is empty")
        return clean(text, self.config.clean).text, record.number(self.config.number_column)

    @classmethod
    def shapes(cls, config: ScoredTextConfig, rows: int, length: int) -> Batch:
        """A batch of zeros with the arrays of `batches`."""
        shape = (rows, length)
        inputs = {"tokens": (shape, np.int32), "reset": (shape, bool)}
        return zeros(inputs, {"numbers": shape}, target_type=np.float32)

    def batches(self, seed: int, rows: int, length: int) -> Any:
        """Endless batches, a Grain `IterDataset`: every text once in each epoch, in random order, packed into rows."""
        number = len(self.documents)
        return packed_rows(lambda index: self.row(index, length), number, seed, rows, length, head="numbers")

    def training_tokens(self, length: int) -> int:
        return sum(min(len(document["tokens"]), length) for document in self.documents)

    def row(self, index: int, length: int) -> dict[str, np.ndarray]:
        """The arrays of one text, cut to `length` tokens: `tokens`, `targets` and `weights`."""
        ids = cut(self.tokenizer, self.documents[index]["tokens"], length, self.config.truncation_side)
        weights = np.zeros(len(ids), np.float32)
        weights[-1] = 1
        return {"tokens": ids, "targets": np.full(len(ids), self.targets[index][0]), "weights": weights}


def check_precision(numbers: Sequence[float], std: float) -> None:
    """Raise `ValueError` if float32, in which models compute, cannot tell numbers apart that differ by `std` / 100."""
    largest = max(map(abs, numbers))
    step = float(np.spacing(np.float32(largest))) if largest < float(np.finfo(np.float32).max) else math.inf
    check(
        100 * step <= std,
        f"numbers of up to {largest:.6g} with a standard deviation of {std:.6g} are too large for float32, whose step "
        f"there is {step:.3g}: subtract their mean, or give them in another unit",
    )
