"""Spans of characters, such as entities, as tags of words."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from memgpt_jax.config.checks import check


class Span(NamedTuple):
    """A slot or an entity in the characters `start` to `end` of a text."""

    start: int
    end: int
    name: str
    """The slot, or the type of the entity."""


def word_tags(places: Iterable[tuple[int, int]], spans: Sequence[Span], where: str) -> list[str]:
    """The tags of words with these characters: `O`, `B-name` for the first word of a span, or `I-name` (IOB2).

    Of spans that share a word, the first counts, and the others have no tag.

    Args:
        places: the start and end of each word, in characters.
        spans: the spans, in order of precedence.
        where: the place of the text, for messages.

    Raises `ValueError` if there is no word in a span.
    """
    places = list(places)
    tags = ["O"] * len(places)
    for span in spans:
        words = [number for number, (start, end) in enumerate(places) if span.start < end and start < span.end]
        check(bool(words), f"{where}: the characters {span.start} to {span.end}, {span.name!r}, hold no word")
        if all(tags[number] == "O" for number in words):
            tags[words[0]] = f"B-{span.name}"
            for number in words[1:]:
                tags[number] = f"I-{span.name}"
    return tags
