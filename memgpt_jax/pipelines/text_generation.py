"""Continuations of texts, with the calls and results of the transformers library's pipeline."""

from collections.abc import Sequence
from typing import Any

from memgpt_jax import models
from memgpt_jax.generation import generate
from memgpt_jax.generation.request import decoder_of
from memgpt_jax.pipelines.base import Loaded, texts_of


class TextGeneration:
    """Continues texts; memory is bounded, whatever their length.

    >>> write = mg.pipeline("text-generation", model="runs/stdlib")
    >>> write("import os", max_new_tokens=8)
    [{"generated_text": "import os\\nimport sys"}]
    """

    def __init__(self, loaded: Loaded):
        model: Any = models.from_params(loaded.config, loaded.params)
        self.model = decoder_of(model)._replace(stop_ids=loaded.stop_ids)
        self.tokenizer = loaded.tokenizer

    def __call__(
        self,
        text_inputs: str | Sequence[str],
        *,
        max_new_tokens: int = 64,
        num_return_sequences: int = 1,
        return_full_text: bool = True,
        **options: Any,
    ) -> list[Any]:
        """Continue texts.

        Args:
            text_inputs: a text, or several.
            max_new_tokens: maximum number of new tokens.
            num_return_sequences: answers for each text.
            return_full_text: whether the text is in front of its answer.
            options: as in `mg.generate`.

        Returns:
            For each text a list of `num_return_sequences` {"generated_text"}; for a single text, its list.
        """
        texts = texts_of(text_inputs)
        options |= {"max_new_tokens": max_new_tokens, "num_return_sequences": num_return_sequences}
        answers = (generate(self.model, texts, tokenizer=self.tokenizer, **options).texts or []) if texts else []
        results = []
        for number, text in enumerate(texts):
            part = answers[number * num_return_sequences : (number + 1) * num_return_sequences]
            results.append(
                [{"generated_text": answer if return_full_text else answer.removeprefix(text)} for answer in part]
            )
        return results[0] if isinstance(text_inputs, str) else results
