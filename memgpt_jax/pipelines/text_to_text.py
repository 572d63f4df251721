"""Texts written after texts: summaries and translations, with the calls and results of the transformers library."""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

from memgpt_jax.config.checks import check, whole
from memgpt_jax.config.model import ModelConfig, Seq2SeqConfig
from memgpt_jax.data.tasks.text_pairs import TextPairsConfig
from memgpt_jax.generation.targets import write_targets
from memgpt_jax.models.quantization import laid_out
from memgpt_jax.pipelines.base import Loaded, check_sizes, texts_of


class TextToText:
    """Writes a text after each source, with the prompt on which the run was trained.

    >>> write = mg.pipeline("text2text-generation", model="runs/multi30k_de")
    >>> write("A dog runs.")
    [{"generated_text": "Ein Hund rennt."}]

    A decoder reads sources of any length, with the memory carried; an encoder-decoder reads the first
    `TextPairsConfig.source_length` tokens of a source.
    """

    result: ClassVar[str] = "generated_text"
    """The name of the text in results."""

    def __init__(self, loaded: Loaded, *, prompt: str | None = None, rows: int = 16):
        """
        Args:
            prompt: as `TextPairsConfig.prompt`; default: that of the run.
            rows: sources read at the same time.

        Raises:
            ValueError: the model is neither a decoder nor an encoder-decoder.
        """
        model = loaded.config
        check(
            isinstance(model, ModelConfig | Seq2SeqConfig),
            f"model must be a decoder or an encoder-decoder, got a {type(model).__name__}",
        )
        check_sizes(rows=rows)
        config = loaded.data
        if not isinstance(config, TextPairsConfig):
            length = model.decoder.source_length if isinstance(model, Seq2SeqConfig) else None
            config = TextPairsConfig(source_length=length)
        if prompt is not None:
            config = dataclasses.replace(config, prompt=prompt)
        self.config, self.model, self.rows = config, model, rows
        self.params = laid_out(model, loaded.params, rows * config.num_beams)
        self.tokens = config.tokens(loaded.tokenizer)

    def __call__(
        self,
        inputs: str | Sequence[str],
        *,
        max_new_tokens: int | None = None,
        num_beams: int | None = None,
        **options: Any,
    ) -> list[dict[str, str]]:
        """Write a text after each source.

        Args:
            inputs: a source, or several, of any length; spaces around them are not read.
            max_new_tokens: maximum number of new tokens; default: that of the run's task.
            num_beams: beams of the search, 1: greedy; default: that of the run's task.
            options: further options of `mg.generate`, such as `length_penalty`.

        Returns:
            A list with one dictionary for each source, also for a single one.
        """
        texts = [text.strip() for text in texts_of(inputs)]
        for text in texts:
            check(bool(text), "a source is empty")
        if not texts:
            return []
        longest = self.config.max_new_tokens if max_new_tokens is None else whole("max_new_tokens", max_new_tokens, 1)
        options["num_beams"] = self.config.num_beams if num_beams is None else num_beams
        found = write_targets(
            self.model, self.params, self.tokens, texts, rows=self.rows, max_new_tokens=longest, **options
        )
        return [{self.result: text} for text in found]

    def record(self, text: str, *, top: int = 5, question: str | None = None) -> dict[str, Any]:
        """The result for one text as an object of JSON: {"text"} and the written text."""
        return {"text": text} | self(text)[0]


class Summarization(TextToText):
    """Summaries of texts: `TextToText` with results {"summary_text"}."""

    result = "summary_text"


class Translation(TextToText):
    """Translations of texts: `TextToText` with results {"translation_text"}."""

    result = "translation_text"
