"""Sounds with the words that are said in them, which a model writes."""

import functools
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from memgpt_jax.config.checks import check
from memgpt_jax.config.features import FRAMES, FramesConfig
from memgpt_jax.data import sound
from memgpt_jax.data.examples.media import MediaFile
from memgpt_jax.data.examples.sound_files import SoundFilesConfig
from memgpt_jax.data.tasks.media_texts import MediaText, MediaTextsConfig, MediaTextsTask
from memgpt_jax.data.tokenizers.base import Tokenizer


@dataclass(frozen=True, kw_only=True)
class TranscriptsConfig(SoundFilesConfig, MediaTextsConfig):
    """Write what is said in a sound, whose frames the encoder of an encoder-decoder reads.

    With `max_clips` above 1, a sound is a string of files of one group (speaker), and its text their texts. Each file
    begins one string; the others are drawn, in training anew in every epoch. The samples of all files are held in
    memory, 4 bytes each.
    """

    pipeline: ClassVar[str | None] = "automatic-speech-recognition"

    source_length: int = 256
    """Tokens of 20 ms of a sound that the encoder reads. A longer file is refused; a string has as many files as fit
    in."""
    min_clips: int = 1
    """Minimum number of files of a string."""
    max_clips: int = 1
    """Maximum number of files of a string; all numbers from the minimum on are equally likely."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(
            self.min_clips <= self.max_clips,
            f"data.min_clips={self.min_clips} must be at most data.max_clips={self.max_clips}",
        )

    @property
    def features_config(self) -> FramesConfig:
        """The features of its tokens."""
        return self.frames

    @property
    def source_tokens(self) -> int:
        """`source_length`."""
        return self.source_length


class TranscriptsTask(MediaTextsTask[TranscriptsConfig]):
    """The sounds of one split."""

    config: TranscriptsConfig

    def __init__(self, config: TranscriptsConfig, split: str, tokenizer: Tokenizer | None = None):
        """Raises `ValueError` as `MediaTextsTask`, or if `min_clips` files do not fit into a source."""
        super().__init__(config, split, tokenizer)
        for example in self.examples:
            check(
                len(example.files) >= config.min_clips,
                f"{example.where}: data.min_clips={config.min_clips} files are longer than "
                f"data.source_length={config.source_length} tokens: give a larger source_length",
            )

    @property
    def is_changed(self) -> bool:
        return super().is_changed or self.config.max_clips > 1

    @functools.cached_property
    def members(self) -> dict[str | None, list[int]]:
        """The indices of the files of each group."""
        found = {file.group: [] for file in self.files}
        for index, file in enumerate(self.files):
            found[file.group].append(index)
        return found

    @property
    def room(self) -> int:
        """The largest number of samples of a sound: at the slowest speed, it has `source_length` tokens."""
        hop = round(self.config.sample_rate * sound.HOP_SECONDS)
        return FRAMES * hop * int(self.config.source_length / (1 + self.config.stretch * self.draws))

    def decode(self, file: MediaFile) -> np.ndarray:
        """The samples, float32 [n]."""
        samples = self.config.samples(file)
        check(
            len(samples) <= self.room,
            f"{file.where}: a sound of {len(samples)} samples is too long: data.source_length="
            f"{self.config.source_length} and data.stretch={self.config.stretch} allow {self.room}",
        )
        return samples

    def example(self, index: int, rng: np.random.Generator) -> MediaText:
        config, members = self.config, self.members[self.files[index].group]
        number = rng.integers(config.min_clips, config.max_clips + 1)
        drawn = np.concatenate([[index], rng.choice(members, number - 1)]).astype(int)
        fits = np.cumsum([len(self.decoded[place]) for place in drawn]) <= self.room
        files = tuple(drawn[: max(1, fits.sum())].tolist())
        return MediaText(self.files[index].where, (" ".join(self.texts[place] for place in files),), files)

    def features(self, files: tuple[int, ...], rng: np.random.Generator | None = None) -> np.ndarray:
        samples = np.concatenate([self.decoded[index] for index in files])
        return self.config.features(self.config.log_mel(samples), rng)
