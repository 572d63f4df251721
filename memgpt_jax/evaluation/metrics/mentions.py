"""Metrics of the mentions of entities in documents: distinct entities, equal types, first and later mentions."""

import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypedDict

from memgpt_jax.evaluation.metrics.base import ratio
from memgpt_jax.evaluation.metrics.entities import entities_of, marks_entities


class MentionMetrics(TypedDict, total=False):
    """Results on mentions of entities, over all documents; absent if the tags do not mark entities.

    The text of a mention is its words, lower-cased, with single spaces between them. In dialogues with slots
    (`form="sgd"`) a distinct (document, type, text) is a (dialogue, slot, value), with the value as users say it; the
    service is not part of it.
    """

    distinct_precision: float
    """Fraction of the distinct (document, type, text) of the predicted mentions that are right; 0 if there are none."""
    distinct_recall: float
    """Fraction of the distinct (document, type, text) of the true mentions that are predicted; 0 if there are none."""
    distinct_f1: float
    """2 right / (true + predicted) of the distinct (document, type, text); 0 if there are none."""
    distinct_entities: int
    """Number of distinct (document, type, text) of the true mentions."""
    same_type: float | None
    """Fraction of the pairs with the same type: a pair is a capitalised word in a predicted mention, and the next such
    word of the document with the same letters, the case included. None: there is no pair."""
    same_type_pairs: int
    """Number of such pairs."""
    first_recall: float | None
    """Fraction of the true mentions that are predicted, place and type, among those that are the first mention of their
    text in the document, of whatever type. None: there are none."""
    first_mentions: int
    """Number of such mentions."""
    later_recall: float | None
    """The same of all other true mentions. None: there are none."""
    later_mentions: int
    """Number of such mentions."""


class Mention(NamedTuple):
    """An entity at a place of a document."""

    document: int
    type: str
    text: str
    first: int
    """The index of its first word."""
    last: int
    """That of its last word."""


def mention_metrics(
    words: Sequence[list[str]], predicted: Sequence[list[str]], expected: Sequence[list[str]]
) -> MentionMetrics:
    """The metrics of the predicted and the true tags of words, one list for each document.

    Words with the empty tag, on both sides, are context: they end entities and are not counted.
    """
    if not marks_entities({tag for side in (predicted, expected) for tags in side for tag in tags if tag}):
        return MentionMetrics()
    found, true = (_mentions(words, side) for side in (predicted, expected))
    distinct = [{(mention.document, mention.type, mention.text) for mention in side} for side in (found, true)]
    right = len(distinct[0] & distinct[1])
    same = _same_types(words, found)
    first, later = _found_by_order(true, set(found))
    return MentionMetrics(
        distinct_precision=ratio(right, len(distinct[0])) or 0.0,
        distinct_recall=ratio(right, len(distinct[1])) or 0.0,
        distinct_f1=ratio(2 * right, len(distinct[0]) + len(distinct[1])) or 0.0,
        distinct_entities=len(distinct[1]),
        same_type=ratio(sum(same), len(same)),
        same_type_pairs=len(same),
        first_recall=ratio(sum(first), len(first)),
        first_mentions=len(first),
        later_recall=ratio(sum(later), len(later)),
        later_mentions=len(later),
    )


def _mentions(words: Sequence[list[str]], tags: Sequence[list[str]]) -> list[Mention]:
    """The mentions that the tags mark, in the order of the documents."""
    return [
        Mention(number, kind, " ".join(" ".join(document[first : last + 1]).lower().split()), first, last)
        for number, (document, marks) in enumerate(zip(words, tags, strict=True))
        for kind, first, last in entities_of(marks)
    ]


def _same_types(words: Sequence[list[str]], mentions: Iterable[Mention]) -> list[bool]:
    """Whether a capitalised word has the type that it had the time before, for each that comes again."""
    types = defaultdict(list)
    for mention in mentions:
        for word in words[mention.document][mention.first : mention.last + 1]:
            if word[:1].isupper():
                types[mention.document, word].append(mention.type)
    return [before == after for found in types.values() for before, after in itertools.pairwise(found)]


def _found_by_order(mentions: Iterable[Mention], found: set[Mention]) -> tuple[list[bool], list[bool]]:
    """Whether each mention is among those found: first mentions of their text in a document, and all others."""
    seen, first, later = set(), [], []
    for mention in mentions:
        name = mention.document, mention.text
        (later if name in seen else first).append(mention in found)
        seen.add(name)
    return first, later
