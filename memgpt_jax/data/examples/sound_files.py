"""Files of sound: how they are read, changed in training and cut into frames."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from memgpt_jax.config.checks import check
from memgpt_jax.config.features import FRAMES, FramesConfig
from memgpt_jax.data import sound
from memgpt_jax.data.examples.media import MediaConfig, MediaFile


@dataclass(frozen=True, kw_only=True)
class SoundFilesConfig(MediaConfig):
    """Base of the tasks on sounds: log-mel frames of 10 ms, two a token."""

    suffixes: ClassVar[tuple[str, ...]] = sound.SUFFIXES

    sample_rate: int = 16000
    """Samples a second, to which sounds are resampled."""
    num_mels: int = 80
    """Bands of a frame."""
    center: bool = False
    """Subtract from each band its mean over the sound, in which voices and microphones differ."""
    scale: bool = False
    """Divide each band by twice its standard deviation over the sound plus 0.1: quiet and loud speakers become alike.
    Needs `center`."""
    stretch: float = 0.0
    """In training, change the speed of each sound, drawn anew in every epoch: its duration is multiplied by a number
    from 1 / (1 + stretch) to 1 + stretch."""
    warp: float = 0.0
    """In training, change the pitch of each sound, drawn anew in every epoch: band m becomes band m (1 + w), w from
    -warp to warp."""
    mask: float = 0.0
    """In training, replace up to this share of the consecutive frames, and of the bands, of each sound by its mean."""
    gain: float = 0.0
    """In training, make each sound louder or softer by up to this number of decibels, drawn anew in every epoch."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("stretch", "gain"):
            value = getattr(self, name)
            check(0 <= value < float("inf"), f"data.{name} must be at least 0, got {value}")
        for name in ("warp", "mask"):
            value = getattr(self, name)
            check(0 <= value < 1, f"data.{name} must be in [0, 1), got {value}")
        check(self.center or not self.scale, "data.scale=True needs data.center=True")
        check(self.sample_rate >= 1000, f"data.sample_rate must be at least 1000, got {self.sample_rate}")

    @property
    def frames(self) -> FramesConfig:
        """The features of its tokens."""
        return FramesConfig(num_mels=self.num_mels)

    @property
    def is_changed(self) -> bool:
        """Whether training sounds are changed at random."""
        return max(self.stretch, self.warp, self.mask, self.gain) > 0

    def samples(self, file: MediaFile) -> np.ndarray:
        """The samples of a file, float32 [n]. Raises `ValueError` if it is not valid sound."""
        return sound.read_sound(file.content, self.sample_rate, where=file.where)

    def log_mel(self, samples: np.ndarray) -> np.ndarray:
        """The log-mel frames [T, M] of samples, centred if `center`, and divided by their spread if `scale`."""
        frames = sound.log_mel(samples, self.sample_rate, self.num_mels)
        frames = frames - frames.mean(axis=0) if self.center else frames
        return frames / (2 * frames.std(axis=0) + np.float32(0.1)) if self.scale else frames

    def features(self, frames: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        """The tokens [T / 2, 2 M] of frames; rng: of random changes, None: there are none."""
        if rng is not None:
            changes = {name: getattr(self, name) for name in ("stretch", "warp", "mask", "gain")}
            frames = sound.changed(frames, rng, **changes)
        return frames.reshape(-1, FRAMES * self.num_mels)
