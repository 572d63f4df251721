"""Sounds with the words that are said in them, as labels without places: for a head for transcripts."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from memgpt_jax.config.checks import check
from memgpt_jax.config.data import FeaturesObjectiveConfig, ObjectiveConfig
from memgpt_jax.data.batch import Batch, zeros
from memgpt_jax.data.examples.rows import padded_rows
from memgpt_jax.data.tasks.transcripts import TranscriptsConfig, TranscriptsTask

HEAD = "transcript"


@dataclass(frozen=True, kw_only=True)
class FeatureTranscriptsConfig(FeaturesObjectiveConfig):
    """Predict the labels of raw features. Needs a `HeadedConfig` with a `CTCHeadConfig` over a model with them."""

    heads: ClassVar[tuple[str, ...]] = (HEAD,)


@dataclass(frozen=True, kw_only=True)
class CTCTranscriptsConfig(TranscriptsConfig):
    """Write what is said in a sound by a `CTCHeadConfig` over a decoder or an encoder that reads the frames.

    A decoder writes while it hears, in constant memory. Texts have no end and no search: `max_new_tokens` is not used.
    The loss of a training text with more labels than its sound has tokens does not count.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.num_beams == 1, f"data.num_beams must be 1: the best path is taken, got {self.num_beams}")

    @property
    def objective(self) -> ObjectiveConfig:  # pyright: ignore[reportIncompatibleVariableOverride, reportIncompatibleMethodOverride]
        """Predict the labels of the text."""
        return FeatureTranscriptsConfig(layout=self.frames.layout)

    @property
    def row_length(self) -> int:
        """`source_length`: a row is one sound."""
        return self.source_length


class CTCTranscriptsTask(TranscriptsTask):
    """The sounds of one split."""

    evaluation = "transcripts"
    config: CTCTranscriptsConfig

    @classmethod
    def shapes(cls, config: CTCTranscriptsConfig, rows: int, length: int) -> Batch:
        """A batch of zeros with the arrays of `batches`."""
        shape = (rows, length)
        inputs = {"tokens": (shape, np.int32), "reset": (shape, bool), "valid": (shape, bool)}
        return zeros(inputs | {"features": ((*shape, config.frames.size), np.float32)}, {HEAD: shape})

    def batches(self, seed: int, rows: int, length: int) -> Any:
        """Endless batches, a Grain `IterDataset`: every file once in each epoch, in random order, one in each row."""

        def row(index: int, rng: np.random.Generator | None = None) -> Batch:
            found = self.row(index, length, rng)
            number = len(found["tokens"])
            arrays = {
                name: np.pad(array, ((0, length - number), *((0, 0),) * (array.ndim - 1)))[None]
                for name, array in found.items()
            }
            places = np.arange(length)[None]
            targets = {HEAD: np.where(places < number, arrays.pop("targets"), -1)}
            weights = {HEAD: arrays.pop("weights")}
            return Batch(arrays | {"reset": places == 0, "valid": places < number}, targets, weights, {})

        return padded_rows(row, len(self.files), seed, rows, augmented=row if self.draws else None)

    def row(
        self, index: int, length: int | None = None, rng: np.random.Generator | None = None
    ) -> dict[str, np.ndarray]:
        """The arrays of an example: `tokens`, `features`, `targets` and `weights`.

        The labels of the text are the first targets, with weight 1; the others are -1, as are all if there are too many
        labels (`needed_tokens`). Args: rng: of an example that is drawn anew, with random changes.
        """
        example = self.examples[index] if rng is None else self.example(index, rng)
        features = self.features(example.files, rng)[:length]
        labels = np.array(self.tokenizer.encode(example.targets[0]), np.int32)
        targets = np.full(len(features), -1, np.int32)
        if needed_tokens(labels) <= len(features):
            targets[: len(labels)] = labels
        weights = (targets >= 0).astype(np.float32)
        return {
            "tokens": np.zeros(len(features), np.int32),
            "features": features,
            "targets": targets,
            "weights": weights,
        }


def needed_tokens(labels: np.ndarray) -> int:
    """Tokens that a path needs for labels: one for each, and a blank between equal neighbours."""
    return len(labels) + int(np.sum(labels[1:] == labels[:-1]))
