"""Spans of characters, such as entities, as tags of words."""

from collections.abc import Iterable
from typing import NamedTuple


class Span(NamedTuple):
    """A slot or an entity in the characters `start` to `end` of a text."""

    start: int
    end: int
    name: str
    """The slot, or the type of the entity."""


def word_tag(start: int, end: int, spans: Iterable[Span]) -> str:
    """The tag of the word with the characters `start` to `end`: `O`, `B-name` or `I-name` (IOB2).

    Of spans that overlap, the first counts.
    """
    span = next((span for span in spans if span.start < end and start < span.end), None)
    if span is None:
        return "O"
    return f"{'B' if start <= span.start else 'I'}-{span.name}"
