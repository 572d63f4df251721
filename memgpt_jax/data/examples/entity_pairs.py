"""Texts with entities and relations between them: tags of words, and a marked text for each pair of entities."""

from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import Any, NamedTuple

from memgpt_jax.config.checks import check
from memgpt_jax.data.examples.json_objects import field_of
from memgpt_jax.data.examples.span_tags import Span, word_tags
from memgpt_jax.data.text.words import word_pattern

NO_RELATION = "none"
"""The label of a pair of entities without a relation from the first to the second."""


class EntityPair(NamedTuple):
    """Two entities of a text, in the order of a relation."""

    head: str
    """The words of the first one."""
    tail: str
    """Those of the second one."""
    text: str
    """The text with both marked: `[head person] Ada [/head] wrote the [tail work] first program [/tail].`"""


def entity_pairs(text: str, entities: Sequence[tuple[int, int, str]]) -> list[EntityPair]:
    """All ordered pairs of the entities of a text: (first, second), ..., (second, first), ...

    The marks are those of Zhong and Chen, "A Frustratingly Easy Approach for Entity and Relation Extraction" (2021),
    section 3.3, as words of the text.

    Args:
        text: the text.
        entities: `(start, end, type)` of each, in characters of the text.

    Raises:
        ValueError: an entity does not lie in the text.
    """
    spans = [Span(*entity) for entity in entities]
    for span in spans:
        _check_span(span, text, f"the entity {span.name!r}")
    return [
        EntityPair(text[head.start : head.end], text[tail.start : tail.end], _marked(text, head, tail))
        for head, tail in permutations(spans, 2)
    ]


def _marked(text: str, head: Span, tail: Span) -> str:
    begins, ends = [], []
    # At equal places the outer span begins first and ends last; of equal spans the first is the outer one.
    for role, span in sorted((("head", head), ("tail", tail)), key=lambda item: item[1].start - item[1].end):
        begins.append((span.start, f"[{role} {span.name}] "))
        ends.insert(0, (span.end, f" [/{role}]"))
    place, marked = 0, ""
    for at, mark in sorted([*ends, *begins], key=lambda item: item[0]):
        place, marked = at, marked + text[place:at] + mark
    return marked + text[place:]


def words_of_entities(values: Mapping[str, Any], where: str) -> dict[str, list[str]]:
    """The words of a text with entities, and their tags.

    Args:
        values: an object with `text`, `entities`, a list of objects with `start`, `end` and `type`, and `relations`, a
            list of objects with `head`, `relation` and `tail`; head and tail are numbers of entities, from 0 on.
        where: its place, for messages.

    Returns:
        The columns `words` and `tags`: `O`, `B-type` or `I-type`, where of entities that share a word the first counts.

    Raises:
        ValueError: a field is missing or has another type, or an entity does not lie in the text or holds no word.
    """
    text, spans = _text_and_spans(values, where)
    places = [match.span() for match in word_pattern().finditer(text)]
    return {
        "words": [text[start:end] for start, end in places],
        "tags": word_tags(places, spans, where),
    }


def pairs_of_entities(values: Mapping[str, Any], where: str) -> list[dict[str, str]]:
    """The pairs of the entities of a text, with the relation from the first to the second.

    Args:
        values, where: as in `words_of_entities`.

    Returns:
        For each of `entity_pairs` the columns `text` and `label`, the relation or `none`.

    Raises:
        ValueError: as in `words_of_entities`, or a relation is not between two entities, or between the same ones as
            another.
    """
    text, spans = _text_and_spans(values, where)
    labels: dict[tuple[int, int], str] = {}
    for number, item in enumerate(field_of(values, "relations", list, where), start=1):
        at = f"{where}, relation {number}"
        pair = tuple(field_of(item, name, int, at) for name in ("head", "tail"))
        check(
            all(0 <= end < len(spans) for end in pair) and pair[0] != pair[1] and pair not in labels,
            f"{at}: head and tail must be two of the {len(spans)} entities, counted from 0, and have one relation; "
            f"got {pair[0]} and {pair[1]}",
        )
        labels[pair] = field_of(item, "relation", str, at)
    numbers = permutations(range(len(spans)), 2)
    return [
        {"text": pair.text, "label": labels.get(ends, NO_RELATION)}
        for ends, pair in zip(numbers, entity_pairs(text, spans), strict=True)
    ]


def _text_and_spans(values: Mapping[str, Any], where: str) -> tuple[str, list[Span]]:
    text, spans = field_of(values, "text", str, where), []
    for number, item in enumerate(field_of(values, "entities", list, where), start=1):
        at = f"{where}, entity {number}"
        start, end = (field_of(item, name, int, at) for name in ("start", "end"))
        span = Span(start, end, field_of(item, "type", str, at))
        _check_span(span, text, at)
        spans.append(span)
    return text, spans


def _check_span(span: Span, text: str, where: str) -> None:
    check(
        0 <= span.start < span.end <= len(text),
        f"{where} has the characters {span.start} to {span.end} of a text of {len(text)} characters",
    )
