"""Spans of characters, such as entities, as tags of words."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Span(NamedTuple):
    """A slot or an entity in the characters `start` to `end` of a text."""

    start: int
    end: int
    name: str
    """The slot, or the type of the entity."""


def word_tags(places: Iterable[tuple[int, int]], spans: Sequence[Span]) -> list[str]:
    """The tags of words with these characters: `O`, `B-name` for the first word of a span, or `I-name` (IOB2).

    Of spans that overlap, the first counts.
    """
    tags, before = [], None
    for start, end in places:
        number = next((number for number, span in enumerate(spans) if span.start < end and start < span.end), None)
        tags.append("O" if number is None else f"{'I' if number == before else 'B'}-{spans[number].name}")
        before = number
    return tags
