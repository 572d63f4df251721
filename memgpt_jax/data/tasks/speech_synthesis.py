"""Sounds with the words that are said in them, which a model says: text and speaker to log-mel frames."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np

from memgpt_jax.config.checks import check
from memgpt_jax.config.data import FeaturesObjectiveConfig, ObjectiveConfig
from memgpt_jax.config.features import FRAMES
from memgpt_jax.data import sound
from memgpt_jax.data.batch import Batch, zeros
from memgpt_jax.data.examples.media import MediaFile, read_media
from memgpt_jax.data.examples.rows import packed_rows
from memgpt_jax.data.tasks.media_texts import MediaText
from memgpt_jax.data.tasks.transcripts import TranscriptsConfig, TranscriptsTask
from memgpt_jax.data.tokenizers.base import Tokenizer

HEAD = "frames"


@dataclass(frozen=True, kw_only=True)
class FeatureFramesConfig(FeaturesObjectiveConfig):
    """Predict the next frames. Needs a `HeadedConfig` with a `FramesHeadConfig` over a decoder with such frames."""

    heads: ClassVar[tuple[str, ...]] = (HEAD,)


@dataclass(frozen=True, kw_only=True)
class SpeechSynthesisConfig(TranscriptsConfig):
    """Say a text in the voice of a speaker, the group of the files, by a `FramesHeadConfig` over a decoder.

    A document is the speaker, the text, the start and the frames, two a token; at each token from the start on, the
    frames of the next token are predicted, and after the last one the end.
    """

    pipeline: ClassVar[str | None] = "text-to-speech"

    speakers: tuple[str, ...] = ()
    """The speakers, in the order of their ids; default: those of the training split, sorted."""
    align: bool = False
    """In training, stretch each file to the mean duration of the files of its text and speaker, so that a frame is at
    the same part of the words in all of them. The predicted mean of frames is then not blurred by their speed."""
    noise: float = 0.0
    """In training, standard deviation of the normal noise that is added to the frames which the model reads, drawn anew
    in every epoch. The model then relies less on frames that it will have predicted itself."""

    @property
    def input_columns(self) -> tuple[str, ...]:
        """The column of the text that is said."""
        return ("text",)

    def __post_init__(self) -> None:
        super().__post_init__()
        check(not isinstance(self.speakers, str), f"data.speakers must be a list, got {self.speakers!r}")
        object.__setattr__(self, "speakers", tuple(self.speakers))
        check(0 <= self.noise < float("inf"), f"data.noise must be a number of at least 0, got {self.noise}")
        check(self.mask == 0, f"data.mask={self.mask} would put gaps into the frames that are to be said")
        check(not self.center, "data.center=True removes the loudness of the frames that are to be said")

    @property
    def objective(self) -> ObjectiveConfig:  # pyright: ignore[reportIncompatibleVariableOverride, reportIncompatibleMethodOverride]
        """Predict the next frames."""
        return FeatureFramesConfig(layout=self.frames.layout)

    @property
    def num_ids(self) -> int:
        """The speakers."""
        return len(self.speakers)

    @property
    def is_changed(self) -> bool:
        return super().is_changed or self.noise > 0

    def completed(self) -> Self:
        """The configuration with `speakers` filled in from the training split."""
        if self.speakers:
            return self
        found = {file.group for file in read_media(self, "train")} - {None}
        check(bool(found), "the files have no speakers: data.pattern needs '(?P<group>...)', or give group_column")
        return replace(self, speakers=tuple(sorted(map(str, found))))

    def prompt(self, tokenizer: Tokenizer, text: str, speaker: str) -> np.ndarray:
        """What is read before the frames, int32: the speaker, the text and the start.

        Raises `ValueError` if there is no such speaker, or the text has an id of tokens with features.
        """
        check(speaker in self.speakers, f"speaker must be one of {', '.join(self.speakers)}, got {speaker!r}")
        ids = tokenizer.encode(text)
        check(0 not in ids, f"the text {text!r} has a character of id 0, which is that of frames")
        return np.array([tokenizer.vocab_size + self.speakers.index(speaker), *ids, tokenizer.start_id], np.int32)


class SpeechSynthesisTask(TranscriptsTask):
    """The sounds of one split."""

    evaluation = "speech"
    config: SpeechSynthesisConfig

    def __init__(self, config: SpeechSynthesisConfig, split: str, tokenizer: Tokenizer | None = None):
        """Raises `ValueError` as `TranscriptsTask`, or if a speaker is unknown."""
        super().__init__(config.completed(), split, tokenizer)
        if split == "train" and config.align:
            self.decoded = aligned(self.decoded, [(file.label, file.group) for file in self.files])
            self.examples = [self.example(index, np.random.default_rng(index)) for index in range(len(self.files))]
        self.prompts = [self.prompt(example) for example in self.examples]
        """What is read before the frames of each example."""

    @property
    def room(self) -> int:
        """The largest number of frames of a sound: at the slowest speed, it has `source_length` tokens."""
        return FRAMES * int(self.config.source_length / (1 + self.config.stretch * self.draws))

    def decode(self, file: MediaFile) -> np.ndarray:
        """The log-mel frames, float32 [T, M]."""
        frames = self.config.log_mel(self.config.samples(file))
        check(
            len(frames) <= self.room,
            f"{file.where}: a sound of {len(frames)} frames is too long: data.source_length="
            f"{self.config.source_length} and data.stretch={self.config.stretch} allow {self.room}",
        )
        return frames

    def features(self, files: tuple[int, ...], rng: np.random.Generator | None = None) -> np.ndarray:
        return self.config.features(np.concatenate([self.decoded[index] for index in files]), rng)

    def prompt(self, example: MediaText) -> np.ndarray:
        """`SpeechSynthesisConfig.prompt` of an example."""
        return self.config.prompt(self.tokenizer, example.targets[0], str(self.files[example.files[0]].group))

    @classmethod
    def shapes(cls, config: SpeechSynthesisConfig, rows: int, length: int) -> Batch:
        """A batch of zeros with the arrays of `batches`."""
        shape, size = (rows, length), config.frames.size
        inputs = {"tokens": (shape, np.int32), "reset": (shape, bool), "features": ((*shape, size), np.float32)}
        batch = zeros(inputs, {HEAD: (*shape, size + 1)}, target_type=np.float32)
        return batch._replace(weights=zeros({}, {HEAD: shape}).weights)

    def batches(self, seed: int, rows: int, length: int) -> Any:
        """Endless batches, a Grain `IterDataset`: every file once in each epoch, in random order, packed into rows."""

        def row(index: int, rng: np.random.Generator | None = None) -> dict[str, np.ndarray]:
            return self.row(index, length, rng)

        return packed_rows(row, len(self.files), seed, rows, length, head=HEAD, augmented=row if self.draws else None)

    def training_tokens(self, length: int) -> int:
        return sum(len(self.row(index, length)["tokens"]) for index in range(len(self.files)))

    def row(
        self, index: int, length: int | None = None, rng: np.random.Generator | None = None
    ) -> dict[str, np.ndarray]:
        """The arrays of an example, cut to `length` tokens: `tokens`, `features`, `targets` and `weights`.

        A target is the frames of the next token and 0, and at the last token 0 and 1. Args: rng: of an example that is
        drawn anew, with random changes and noise.
        """
        example = self.examples[index] if rng is None else self.example(index, rng)
        prompt = self.prompts[index] if rng is None else self.prompt(example)
        spoken = self.features(example.files, rng)
        read = spoken if rng is None else spoken + rng.normal(0, self.config.noise, spoken.shape).astype(np.float32)
        number, start = len(prompt) + len(spoken), len(prompt) - 1
        features, targets = np.zeros((number, spoken.shape[1]), np.float32), np.zeros((number, spoken.shape[1] + 1))
        features[start + 1 :], targets[start:-1, :-1], targets[-1, -1] = read, spoken, 1
        row = {"tokens": np.pad(prompt, (0, len(spoken))), "features": features}
        row |= {"targets": targets.astype(np.float32), "weights": np.float32(np.arange(number) >= start)}
        return {name: array[:length] for name, array in row.items()}


def aligned(sounds: Sequence[np.ndarray], kinds: Sequence[Hashable]) -> list[np.ndarray]:
    """The frames [T, M] of each sound, stretched to the mean duration of those of its kind, in tokens of two frames."""
    durations: dict[Hashable, list[int]] = {kind: [] for kind in kinds}
    for frames, kind in zip(sounds, kinds, strict=True):
        durations[kind].append(len(frames))
    means = {kind: FRAMES * max(1, round(float(np.mean(found)) / FRAMES)) for kind, found in durations.items()}
    return [sound.stretched(frames, means[kind]) for frames, kind in zip(sounds, kinds, strict=True)]
