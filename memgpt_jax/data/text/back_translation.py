"""Paraphrases by translation into another language and back: Sennrich et al. (2016), Yu et al., "QANet" (2018)."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from memgpt_jax.config.checks import check

Translator = Callable[[list[str]], Sequence[Any]]
"""Gives for each text its translation, or a dictionary with the translation as its only value, as pipelines do."""


class Paraphrase(NamedTuple):
    """Another text of the same meaning."""

    original: int
    """The number of the original among the texts, from 0 on."""
    text: str


def back_translate(texts: Sequence[str], there: Translator, back: Translator) -> list[Paraphrase]:
    """`back(there(text))` of each text, in the order of the texts.

    Left out are paraphrases that equal their text apart from whitespace, and empty translations.

    Args:
        texts: the originals.
        there: translates into another language, such as `mg.pipeline(RUN)` or a pipeline of the transformers library.
        back: translates from that language.

    Raises:
        ValueError: a translator does not give one text for each text.
    """
    found = [(number, text) for number, text in enumerate(texts) if text.strip()]
    for name, translate in (("there", there), ("back", back)):
        translated = _translated(name, translate, [text for _, text in found])
        found = [(number, text) for (number, _), text in zip(found, translated, strict=True) if text.strip()]
    return [Paraphrase(number, text) for number, text in found if text.split() != texts[number].split()]


def _translated(name: str, translate: Translator, texts: list[str]) -> list[str]:
    if not texts:
        return []
    results = list(translate(texts))
    check(len(results) == len(texts), f"{name} gave {len(results)} translations of {len(texts)} texts")
    found = []
    for result in results:
        values = list(result.values()) if isinstance(result, dict) else [result]
        if len(values) != 1 or not isinstance(values[0], str):
            raise ValueError(f"{name} must give a text, or a dictionary with one text, for each text; got {result!r}")
        found.append(values[0])
    return found
