"""Texts to sounds, with the results of the transformers library."""

from collections.abc import Sequence
from typing import Any

from memgpt_jax.config.checks import check, instance_of, whole
from memgpt_jax.config.heads import HeadedConfig
from memgpt_jax.data.griffin_lim import waveform
from memgpt_jax.data.tasks.speech_synthesis import SpeechSynthesisConfig
from memgpt_jax.generation.speech import Speech, speak
from memgpt_jax.pipelines.base import Loaded, check_sizes, texts_of


class TextToSpeech:
    """Says texts in the voice of a speaker.

    >>> say = mg.pipeline("text-to-speech", model="runs/spoken_digit_synthesis")
    >>> say("seven", speaker="theo")
    {"audio": array([...], dtype=float32), "sampling_rate": 8000}
    """

    def __init__(self, loaded: Loaded, *, rows: int = 16):
        """
        Args:
            rows: texts that are said at the same time.

        Raises:
            ValueError: the model has not been trained by a run on such a task.
        """
        self.model = instance_of(loaded.config, HeadedConfig, "model")
        self.config = instance_of(loaded.data, SpeechSynthesisConfig, "the task of the run")
        check_sizes(rows=rows)
        self.params, self.rows, self.tokenizer = loaded.params, rows, loaded.tokenizer

    def __call__(
        self, inputs: str | Sequence[str], *, speaker: str | None = None, max_new_tokens: int | None = None
    ) -> Any:
        """Say a text.

        Args:
            inputs: a text or a list of texts.
            speaker: one of `SpeechSynthesisConfig.speakers`; default: the first.
            max_new_tokens: maximum number of tokens of 20 ms; default: `data.source_length` of the run.

        Returns:
            {"audio": float32 [n], "sampling_rate"}, for a list of texts a list of such results.
        """
        said = self.frames(inputs, speaker=speaker, max_new_tokens=max_new_tokens)
        rate = self.config.sample_rate
        found = [{"audio": waveform(speech.frames, rate), "sampling_rate": rate} for speech in said]
        return found[0] if isinstance(inputs, str) else found

    def frames(
        self, inputs: str | Sequence[str], *, speaker: str | None = None, max_new_tokens: int | None = None
    ) -> list[Speech]:
        """The log-mel frames of each text, in a list also for one text. Arguments: as in the call."""
        longest = self.config.source_length if max_new_tokens is None else whole("max_new_tokens", max_new_tokens, 1)
        voice, texts = self.config.speakers[0] if speaker is None else speaker, texts_of(inputs)
        for text in texts:
            check(bool(text.strip()), "a text is empty")
        prompts = [self.config.prompt(self.tokenizer, text.strip(), voice) for text in texts]
        return speak(self.model, self.params, prompts, rows=self.rows, longest=longest)

    def record(self, text: str, *, top: int = 5, question: str | None = None) -> dict[str, Any]:
        """The result for one text as an object of JSON: {"text", "audio", "sampling_rate"}."""
        found = self(text)
        return {"text": text} | found | {"audio": found["audio"].tolist()}
