"""Sounds with a label: which word is spoken, and whatever else people sort sounds by."""

import logging
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from memgpt_jax.config.data import ObjectiveConfig
from memgpt_jax.config.features import FRAMES
from memgpt_jax.data.batch import Batch
from memgpt_jax.data.examples.media import MediaFile
from memgpt_jax.data.examples.sound_files import SoundFilesConfig
from memgpt_jax.data.tasks.labelled_media import FeatureLabelsConfig, LabelledMediaConfig, LabelledMediaTask

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SoundsConfig(SoundFilesConfig, LabelledMediaConfig):
    """Predict the label of a sound, from log-mel frames of 10 ms, two a token. A row holds whole sounds in training.

    A sound that is longer than a row is cut in training, with a warning, and read as a whole in evaluation.
    The frames of all sounds are held in memory, 400 num_mels bytes a second.
    """

    pipeline: ClassVar[str | None] = "audio-classification"

    @property
    def objective(self) -> ObjectiveConfig:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Predict the label at the last token."""
        return FeatureLabelsConfig(layout=self.frames.layout)

    @property
    def num_ids(self) -> int:
        """The id of all tokens."""
        return 1


class SoundsTask(LabelledMediaTask[SoundsConfig]):
    """The sounds of one split."""

    config: SoundsConfig

    @classmethod
    def shapes(cls, config: SoundsConfig, rows: int, length: int) -> Batch:
        """A batch of zeros with the arrays of `batches`."""
        return cls.labelled_shapes(rows, length, config.frames.size)

    def batches(self, seed: int, rows: int, length: int) -> Any:
        sizes = [len(frames) // FRAMES for frames in self.decoded]
        cut = sum(size > length for size in sizes)
        if cut:
            logger.warning(
                "%d of %d sounds have more than the %d tokens of a row, at most %d, and are cut in training",
                *(cut, len(sizes), length, max(sizes)),
            )
        return super().batches(seed, rows, length)

    def decode(self, file: MediaFile) -> np.ndarray:
        """The log-mel frames, float32 [T, M]."""
        return self.config.log_mel(self.config.samples(file))

    def features(self, index: int, rng: np.random.Generator | None = None) -> np.ndarray:
        return self.config.features(self.decoded[index], rng)
