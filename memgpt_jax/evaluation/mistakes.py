"""The worst mistakes of an evaluation, with their texts, for people to read."""

from collections.abc import Iterable
from typing import TypedDict

NUMBER = 20
"""Mistakes that are kept."""
LENGTH = 600
"""Characters to which their texts are cut."""


class Mistake(TypedDict):
    """A text with a wrong prediction."""

    where: str
    """File and line."""
    text: str
    expected: str
    predicted: str
    loss: float
    """In nats."""


def worst(mistakes: Iterable[Mistake]) -> list[Mistake]:
    """The mistakes with the highest losses, in descending order; their texts are cut to `LENGTH` characters."""
    chosen = sorted(mistakes, key=lambda mistake: -mistake["loss"])[:NUMBER]
    return [{**mistake, "text": _cut(mistake["text"])} for mistake in chosen]


def _cut(text: str) -> str:
    return text if len(text) <= LENGTH else text[: LENGTH - 1] + "…"
