"""Sounds with a label: which word is spoken, and whatever else people sort sounds by."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from memgpt_jax.config.checks import check
from memgpt_jax.config.data import ObjectiveConfig
from memgpt_jax.config.features import FRAMES, FramesConfig
from memgpt_jax.data import sound
from memgpt_jax.data.batch import Batch
from memgpt_jax.data.examples.media import MediaConfig, MediaFile
from memgpt_jax.data.tasks.labelled_media import FeatureLabelsConfig, LabelledMediaTask


@dataclass(frozen=True, kw_only=True)
class SoundsConfig(MediaConfig):
    """Predict the label of a sound, from log-mel frames of 10 ms, two a token. A row holds whole sounds in training.

    The frames of all sounds are held in memory, 400 num_mels bytes a second.
    """

    suffixes: ClassVar[tuple[str, ...]] = sound.SUFFIXES

    sample_rate: int = 16000
    """Samples a second, to which sounds are resampled."""
    num_mels: int = 80
    """Bands of a frame."""
    center: bool = False
    """Subtract from each band its mean over the sound, in which voices and microphones differ."""
    stretch: float = 0.0
    """In training, change the speed of each sound, drawn anew in every epoch: its duration is multiplied by a number
    from 1 / (1 + stretch) to 1 + stretch."""
    warp: float = 0.0
    """In training, change the pitch of each sound, drawn anew in every epoch: band m becomes band m (1 + w), w from
    -warp to warp."""
    mask: float = 0.0
    """In training, replace up to this share of the consecutive frames, and of the bands, of each sound by its mean."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.stretch >= 0, f"data.stretch must be at least 0, got {self.stretch}")
        for name in ("warp", "mask"):
            value = getattr(self, name)
            check(0 <= value < 1, f"data.{name} must be in [0, 1), got {value}")
        check(self.sample_rate >= 1000, f"data.sample_rate must be at least 1000, got {self.sample_rate}")

    @property
    def frames(self) -> FramesConfig:
        """The features of its tokens."""
        return FramesConfig(num_mels=self.num_mels)

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

    @property
    def is_changed(self) -> bool:
        return max(self.config.stretch, self.config.warp, self.config.mask) > 0

    def decode(self, file: MediaFile) -> np.ndarray:
        """The log-mel frames, float32 [T, M]."""
        samples = sound.read_sound(file.content, self.config.sample_rate, where=file.where)
        frames = sound.log_mel(samples, self.config.sample_rate, self.config.num_mels)
        return frames - frames.mean(axis=0) if self.config.center else frames

    def features(self, index: int, rng: np.random.Generator | None = None) -> np.ndarray:
        config, frames = self.config, self.decoded[index]
        if rng is not None:
            frames = sound.changed(frames, rng, stretch=config.stretch, warp=config.warp, mask=config.mask)
        return frames.reshape(-1, FRAMES * config.num_mels)
