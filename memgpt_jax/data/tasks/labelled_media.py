"""Pictures and sounds with a label each: what their tasks share."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self, TypeVar

import numpy as np

from memgpt_jax.config.checks import check
from memgpt_jax.config.data import FeaturesObjectiveConfig
from memgpt_jax.data.batch import Batch, zeros
from memgpt_jax.data.examples.files import LabelsConfig
from memgpt_jax.data.examples.media import MediaConfig, MediaFile, read_media
from memgpt_jax.data.examples.records import as_labels
from memgpt_jax.data.examples.rows import packed_rows
from memgpt_jax.data.tasks.base import FileTask, digest, warn_of_absent_labels
from memgpt_jax.data.tokenizers.base import Tokenizer


@dataclass(frozen=True, kw_only=True)
class LabelledMediaConfig(MediaConfig):
    """Base of the tasks of labels of pictures and sounds."""

    labels: tuple[str, ...] = ()
    """The labels, in the order of their numbers; default: those of the training split, sorted as strings."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "labels", as_labels(self.labels, "data.labels"))

    def completed(self) -> Self:
        """The configuration with `labels` filled in from the training split."""
        if self.labels:
            return self
        found = {file.label for file in read_media(self, "train")}
        check(len(found) >= 2, f"the training split of {self.path!r} has only the label {', '.join(found)}")
        return replace(self, labels=tuple(sorted(found)))

    @property
    def output_names(self) -> tuple[str, ...]:
        """The labels."""
        return self.labels

    def document(self, features: np.ndarray) -> dict[str, np.ndarray]:
        """The inputs of the model for a file: `features` [n, F], and `tokens` [n], all 0: the id of such tokens."""
        return {"tokens": np.zeros(len(features), np.int32), "features": features}


Config = TypeVar("Config", bound=LabelledMediaConfig)


@dataclass(frozen=True, kw_only=True)
class FeatureLabelsConfig(FeaturesObjectiveConfig, LabelsConfig):
    """Predict the label of raw features, at the last token. Needs a `HeadedConfig` over a model with such features."""


class MediaExample(NamedTuple):
    """One file."""

    where: str
    """Its path."""
    label: int
    """The number of its label in `LabelledMediaConfig.labels`."""

    @property
    def text(self) -> str:
        """What stands in place of its text in lists of mistakes: its name."""
        return self.where.rpartition("/")[2]


class LabelledMediaTask(FileTask[Config]):
    """The files of one split. Implement `decode`, `features` and `shapes`."""

    evaluation = "labels"

    def __init__(self, config: Config, split: str, tokenizer: Tokenizer | None = None):
        """Raises `ValueError` if a file is not valid or has an unknown label."""
        super().__init__(config.completed(), split, tokenizer)
        files = read_media(self.config, split)
        self.examples = [MediaExample(file.where, self._number(file)) for file in files]
        warn_of_absent_labels(self.config, split, {file.label for file in files})
        self.decoded = [self.decode(file) for file in files]
        """What is held of each file in memory."""
        self.content = digest(*((file.content, file.label) for file in files))
        self.augments = split == "train" and self.config.is_changed
        """Whether training examples are changed at random."""

    def _number(self, file: MediaFile) -> int:
        known = self.config.labels
        check(
            file.label in known,
            f"{file.where}: the label {file.label!r} is not one of the {len(known)} labels of the training split or of "
            f"data.labels: {', '.join(known[:20])}",
        )
        return known.index(file.label)

    def decode(self, file: MediaFile) -> np.ndarray:
        """The content of a file as it is held in memory. Raises `ValueError` if it is not valid."""
        raise NotImplementedError

    def features(self, index: int, rng: np.random.Generator | None = None) -> np.ndarray:
        """The features [n, F] float32 of a file; rng: of its random changes, None: there are none."""
        raise NotImplementedError

    @property
    def documents(self) -> Sequence[dict[str, np.ndarray]]:
        """`tokens` [n] and `features` [n, F] of each file."""
        return [self.config.document(self.features(index)) for index in range(len(self.examples))]

    @classmethod
    def labelled_shapes(cls, rows: int, length: int, size: int) -> Batch:
        """A batch of zeros with the arrays of `batches`, for features of this size."""
        shape = (rows, length)
        inputs = {"tokens": (shape, np.int32), "reset": (shape, bool), "features": ((*shape, size), np.float32)}
        return zeros(inputs, {"labels": shape})

    def batches(self, seed: int, rows: int, length: int) -> Any:
        """Endless batches, a Grain `IterDataset`: every file once in each epoch, in random order, packed into rows."""

        def row(index: int, rng: np.random.Generator | None = None) -> dict[str, np.ndarray]:
            return self.row(index, length, rng)

        augmented = row if self.augments else None
        return packed_rows(row, len(self.examples), seed, rows, length, augmented=augmented)

    def row(self, index: int, length: int, rng: np.random.Generator | None = None) -> dict[str, np.ndarray]:
        """The arrays of a file, cut to `length` tokens: `tokens`, `features`, `targets` and `weights`."""
        row = {name: array[:length] for name, array in self.config.document(self.features(index, rng)).items()}
        weights = np.zeros(len(row["tokens"]), np.float32)
        weights[-1] = 1
        return row | {"targets": np.full(len(weights), self.examples[index].label, np.int32), "weights": weights}
