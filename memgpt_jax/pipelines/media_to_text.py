"""Captions of pictures and transcripts of sounds, with the calls and results of the transformers library."""

from collections.abc import Sequence
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np

from memgpt_jax.config.checks import check, instance_of, whole
from memgpt_jax.config.model import BaseModelConfig, Seq2SeqConfig
from memgpt_jax.data.tasks.captions import CaptionsConfig
from memgpt_jax.data.tasks.media_texts import MediaTextsConfig
from memgpt_jax.data.tasks.transcripts import TranscriptsConfig
from memgpt_jax.generation.targets import write_targets
from memgpt_jax.pipelines.base import Loaded, check_sizes
from memgpt_jax.pipelines.media import picture_features, sound_features

Config = TypeVar("Config", bound=MediaTextsConfig)


class MediaToText(Generic[Config]):
    """Writes the text of each picture or sound. Implement `features`."""

    kind: ClassVar[type[MediaTextsConfig]]
    """The configuration of the task on which the run was trained."""
    reads: ClassVar[type[BaseModelConfig]] = Seq2SeqConfig
    """The configuration of its model."""
    result: ClassVar[str]
    """The name of the text in results."""

    def __init__(self, loaded: Loaded, *, rows: int = 16):
        """
        Args:
            rows: inputs that are read at the same time.

        Raises:
            ValueError: the model has not been trained by a run on such a task.
        """
        self.model: Any = instance_of(loaded.config, self.reads, "model")
        self.config: Any = instance_of(loaded.data, self.kind, "the task of the run")
        check_sizes(rows=rows)
        self.params, self.rows, self.tokens = loaded.params, rows, self.config.tokens(loaded.tokenizer)

    def features(self, item: Any) -> np.ndarray:
        """The features [s, F] of an input. Raises `ValueError` if it is not valid."""
        raise NotImplementedError

    def write(
        self, items: Sequence[Any], max_new_tokens: int | None, num_beams: int | None, **options: Any
    ) -> list[dict[str, str]]:
        """A result for each input."""
        if not items:
            return []
        longest = self.config.max_new_tokens if max_new_tokens is None else whole("max_new_tokens", max_new_tokens, 1)
        options["num_beams"] = self.config.num_beams if num_beams is None else num_beams
        sources = [self.features(item) for item in items]
        for source in sources:
            self.check_length(source)
        return [{self.result: text} for text in self.texts(sources, longest, **options)]

    def check_length(self, source: np.ndarray) -> None:
        """Raise `ValueError` if the model cannot read features [s, F]."""
        most = self.config.source_tokens
        check(len(source) <= most, f"an input of {len(source)} tokens is longer than the {most} that the model reads")

    def texts(self, sources: Sequence[np.ndarray], longest: int, **options: Any) -> list[str]:
        """The text of each source [s, F], of at most `longest` tokens. Args: options: of `generate`."""
        options |= {"rows": self.rows, "max_new_tokens": longest}
        return write_targets(self.model, self.params, self.tokens, sources, **options)

    def record(self, text: str, *, top: int = 5, question: str | None = None) -> dict[str, Any]:
        """The result for one file as an object of JSON: {"text"}, its path, and {"written"}."""
        (found,) = self.write([text], None, None)
        return {"text": text, "written": found[self.result]}


class ImageToText(MediaToText[CaptionsConfig]):
    """Writes the caption of each picture.

    >>> caption = mg.pipeline("image-to-text", model="runs/emoji_captions")
    >>> caption("smile.png")
    [{"generated_text": "smiling face"}]
    """

    kind, result = CaptionsConfig, "generated_text"

    def __call__(
        self, inputs: Any, *, max_new_tokens: int | None = None, num_beams: int | None = None, **options: Any
    ) -> list[Any]:
        """Write a caption.

        Args:
            inputs: a picture or a list of pictures: paths, bytes of files, images of Pillow, or uint8 arrays [Y, X, C].
            max_new_tokens: maximum number of new tokens; default: that of the run's task.
            num_beams: beams of the search, 1: greedy; default: that of the run's task.
            options: further options of `mg.generate`, such as `length_penalty`.

        Returns:
            A list with the result of a picture; for a list of pictures, a list of such lists.
        """
        several = isinstance(inputs, list | tuple)
        found = self.write(list(inputs) if several else [inputs], max_new_tokens, num_beams, **options)
        return [[result] for result in found] if several else found

    def features(self, item: Any) -> np.ndarray:
        return picture_features(self.config, item)


class SpeechRecognition(MediaToText[TranscriptsConfig]):
    """Writes what is said in each sound.

    >>> hear = mg.pipeline("automatic-speech-recognition", model="runs/spoken_digit_words")
    >>> hear("number.wav")
    {"text": "seven two"}
    """

    kind, result = TranscriptsConfig, "text"

    def __call__(
        self, inputs: Any, *, max_new_tokens: int | None = None, num_beams: int | None = None, **options: Any
    ) -> Any:
        """Write a transcript.

        Args:
            inputs: a sound or a list of sounds: paths; bytes of files; arrays [n] of floats, int16 or int32 at
                the sample rate of the task; or {"raw": array, "sampling_rate": samples a second}.
            max_new_tokens: maximum number of new tokens; default: that of the run's task.
            num_beams: beams of the search, 1: greedy; default: that of the run's task.
            options: further options of `mg.generate`.

        Returns:
            {"text"} for a sound, a list of such results for a list of sounds.
        """
        several = isinstance(inputs, list | tuple)
        found = self.write(list(inputs) if several else [inputs], max_new_tokens, num_beams, **options)
        return found if several else found[0]

    def features(self, item: Any) -> np.ndarray:
        return sound_features(self.config, item)
