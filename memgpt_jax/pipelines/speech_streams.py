"""Transcripts by a head for transcripts, also while the sound arrives."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from memgpt_jax import models
from memgpt_jax.config.checks import check
from memgpt_jax.config.features import FRAMES
from memgpt_jax.config.heads import HeadedConfig
from memgpt_jax.data.tasks.ctc_transcripts import CTCTranscriptsConfig
from memgpt_jax.generation.transcripts import BestPath, head_outputs, read_features
from memgpt_jax.pipelines.base import Loaded
from memgpt_jax.pipelines.media_to_text import SpeechRecognition


class CTCSpeechRecognition(SpeechRecognition):
    """`SpeechRecognition` by a `CTCHeadConfig`: sounds of any length, and `stream`."""

    kind, reads = CTCTranscriptsConfig, HeadedConfig

    def __init__(self, loaded: Loaded, *, rows: int = 16):
        super().__init__(loaded, rows=rows)
        self.call = min(loaded.length, self.config.source_length)

    def texts(self, sources: Sequence[np.ndarray], longest: int, **options: Any) -> list[str]:
        check(options == {"num_beams": 1}, f"the best path is taken, without search and sampling: got {options}")
        found = dict(head_outputs(self.model, self.params, sources, rows=self.rows, call=self.call))
        return [self._text(BestPath(self.model.vocab_size).add(found[index])) for index in range(len(sources))]

    def check_length(self, source: np.ndarray) -> None:
        """A sound of any length is read, call by call."""

    def stream(self, chunks: Iterable[np.ndarray]) -> Iterator[dict[str, str]]:
        """What has been said so far, {"text"}, after each chunk. Over a decoder it does not depend on the division.

        Args:
            chunks: log-mel frames [t, num_mels] of a sound (`mg.data.log_mel`), t >= 1.

        Raises:
            ValueError: a chunk has another shape or a number that is NaN or infinite, an output is not finite, or the
                run has `center`, which needs the whole sound.
        """
        check(not self.config.center, "data.center=True needs the whole sound: train with center=False to stream")
        path, state = BestPath(self.model.vocab_size), models.functional(self.model).init_state(1)
        waiting, done = np.zeros((0, self.config.num_mels), np.float32), 0
        for chunk in chunks:
            fits = isinstance(chunk, np.ndarray) and chunk.ndim == 2 and chunk.shape[1] == self.config.num_mels
            check(fits, f"a chunk must be frames [t, {self.config.num_mels}], got {np.shape(chunk)}")
            known = chunk.dtype.kind == "f" and bool(np.isfinite(chunk).all())
            check(known, f"a chunk must be floats that are finite, got {chunk.dtype}; a number may be NaN or infinite")
            waiting = np.concatenate([waiting, chunk.astype(np.float32)])
            number = len(waiting) // FRAMES
            tokens, waiting = self.config.features(waiting[: FRAMES * number]), waiting[FRAMES * number :]
            for first in range(0, number, self.call):
                part = tokens[first : first + self.call]
                outputs, state = read_features(self.model, self.params, [part], state, self.call, done)
                path.add(outputs[0, : len(part)])
                done += len(part)
            yield {self.result: self._text(path.labels)}

    def _text(self, labels: list[int]) -> str:
        return self.tokens.text(np.array(labels, np.int32))


def speech_recognition(loaded: Loaded, *, rows: int = 16) -> SpeechRecognition:
    """The pipeline of a run on transcripts. Args: rows: as in `SpeechRecognition`."""
    is_headed = isinstance(loaded.config, HeadedConfig)
    return (CTCSpeechRecognition if is_headed else SpeechRecognition)(loaded, rows=rows)
