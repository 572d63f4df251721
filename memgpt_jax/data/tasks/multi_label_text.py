"""Texts with any number of labels each: tags of questions, topics of news, emotions."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from memgpt_jax.config.checks import check
from memgpt_jax.data.batch import Batch, zeros
from memgpt_jax.data.examples.files import LabelsConfig
from memgpt_jax.data.examples.records import Record
from memgpt_jax.data.tasks.labelled_text import LabelledTextConfig, LabelledTextTask


@dataclass(frozen=True, kw_only=True)
class MultiLabelTextConfig(LabelledTextConfig):
    """Predict all labels of a text of any length, from a file with a text and a list of labels in each record.

    As `LabelledTextConfig`, but the target is 0 or 1 of each label; a text may have none. Needs a `LabelHeadConfig`
    with `loss="binary"`.
    """

    objective: ClassVar[LabelsConfig] = LabelsConfig(several=True)

    label_column: str = "labels"
    """The column that holds the labels: a list, or a string with `label_separator` between labels."""
    label_separator: str = ","
    """What separates the labels of a string; spaces around labels are removed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(bool(self.label_separator), "data.label_separator must not be empty")
        check(len(self.labels) != 1, f"data.labels must be at least two labels, got {self.labels}")

    def labels_of(self, record: Record) -> list[str]:
        return record.labels(self.label_column, self.label_separator)


class MultiLabelTextTask(LabelledTextTask):
    """The texts of one split, tokenized."""

    evaluation = "multi_labels"

    def target(self, index: int) -> np.ndarray:
        """0 or 1 of each label of a text, [C] int32."""
        return np.isin(np.arange(len(self.config.labels)), self.examples[index].labels).astype(np.int32)

    @classmethod
    def shapes(cls, config: LabelledTextConfig, rows: int, length: int) -> Batch:
        """A batch of zeros with the arrays of `batches`."""
        batch, several = super().shapes(config, rows, length), {"labels": (rows, length, len(config.labels))}
        return batch._replace(targets=zeros({}, several).targets)
