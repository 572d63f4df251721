"""Metrics of tagged words: of entities by seqeval, of other tags by scikit-learn."""

import re
from collections.abc import Iterable, Sequence
from typing import Any, TypedDict

import numpy as np

from memgpt_jax.config.extras import library
from memgpt_jax.evaluation.metrics.intervals import bootstrap_interval


class TypeMetrics(TypedDict):
    """Results on one type of entity, or on one tag."""

    precision: float
    recall: float
    f1: float
    support: int
    """Number of entities of the type, or of words with the tag."""


class EntityMetrics(TypedDict):
    """Results on entities: an entity is right if its words and its type are right.

    Of tags that do not mark entities, such as parts of speech, the results on words, macro-averaged over tags.
    """

    precision: float
    recall: float
    f1: float
    """Micro-averaged over all entities; macro-averaged over tags that do not mark entities."""
    f1_interval: list[float]
    """95% confidence interval of `f1`, by bootstrap over documents."""
    accuracy: float
    """Fraction of the words with the right tag."""
    types: dict[str, TypeMetrics]
    """Results by type, or by tag."""


MARKS = re.compile(r"O|[BIESLU]-.+")
"""Tags of entities: `O`, or a position and a type."""


def marks_entities(tags: Iterable[str]) -> bool:
    """Whether all tags are `O` or have the form `B-type`."""
    return all(MARKS.fullmatch(tag) for tag in tags)


def entities_of(tags: Iterable[str]) -> list[tuple[str, int, int]]:
    """The entities of a document by seqeval: type, first and last word; words with the empty tag end entities."""
    return library("seqeval.metrics.sequence_labeling").get_entities([_seqeval_tag(tag) for tag in tags])


def _seqeval_tag(tag: str) -> str:
    """The tag as seqeval knows it: `E-` for `L-`, `S-` for `U-`, `O` for the empty tag."""
    return (tag[:2].replace("L-", "E-").replace("U-", "S-") + tag[2:]) or "O"


def entity_metrics(predicted: Sequence[list[str]], expected: Sequence[list[str]]) -> EntityMetrics:
    """The metrics of predicted and expected tags, one list for each document; 0 where a ratio is undefined.

    Words with the empty tag, on both sides, are context: they end entities and are not counted.
    """
    counted = [[list(filter(None, tags)) for tags in side] for side in (predicted, expected)]
    if not marks_entities({tag for side in counted for tags in side for tag in tags}):
        return _tag_metrics(*counted)
    metrics = library("seqeval.metrics.sequence_labeling")
    found = [[list(map(_seqeval_tag, tags)) for tags in side] for side in (expected, predicted)]
    counts = entity_counts(predicted, expected)
    names = sorted({entity[0] for side in (predicted, expected) for tags in side for entity in entities_of(tags)})
    columns = metrics.precision_recall_fscore_support(*found, average=None, zero_division=0) if names else ()
    return EntityMetrics(
        precision=float(metrics.precision_score(*found, zero_division=0)),
        recall=float(metrics.recall_score(*found, zero_division=0)),
        f1=float(metrics.f1_score(*found, zero_division=0)),
        f1_interval=bootstrap_interval(lambda chosen: f1_of(counts[chosen]), len(counts)),
        accuracy=float(metrics.accuracy_score(*counted)),
        types=_types(names, columns),
    )


def entity_counts(predicted: Sequence[list[str]], expected: Sequence[list[str]]) -> np.ndarray:
    """The number of right, of expected and of predicted entities of each document, [documents, 3]."""
    entities = [[set(entities_of(tags)) for tags in side] for side in (expected, predicted)]
    return np.array([(len(a & b), len(a), len(b)) for a, b in zip(*entities, strict=True)])


def _tag_metrics(predicted: Sequence[list[str]], expected: Sequence[list[str]]) -> EntityMetrics:
    metrics = library("sklearn.metrics")

    def joined(side: Sequence[list[str]]) -> list[str]:
        return [tag for tags in side for tag in tags]

    pair = joined(expected), joined(predicted)
    names = np.array(sorted({*pair[0], *pair[1]}))
    right = [[a for a, b in zip(*tags, strict=True) if a == b] for tags in zip(expected, predicted, strict=True)]
    counts = np.array(
        [
            [np.sum(np.array(tags, names.dtype)[:, None] == names, axis=0) for tags in sides]
            for sides in zip(right, expected, predicted, strict=True)
        ]
    )
    columns = metrics.precision_recall_fscore_support(*pair, labels=names, average=None, zero_division=0)
    precision, recall, f1 = (float(np.mean(column)) for column in columns[:3])
    return EntityMetrics(
        precision=precision,
        recall=recall,
        f1=f1,
        f1_interval=bootstrap_interval(lambda chosen: _macro_f1(counts[chosen]), len(counts)),
        accuracy=float(metrics.accuracy_score(*pair)),
        types=_types(names.tolist(), columns),
    )


def _types(names: Sequence[str], columns: Sequence[Any]) -> dict[str, TypeMetrics]:
    """The results by name, from the columns precision, recall, F1 and support of names in this order."""
    rows = zip(names, *columns, strict=True) if names else ()
    return {
        name: TypeMetrics(precision=float(p), recall=float(r), f1=float(f), support=int(n)) for name, p, r, f, n in rows
    }


def _macro_f1(counts: np.ndarray) -> float:
    """Mean F1 over tags of counts [documents, 3, tags] (right, expected, predicted); absent tags are left out."""
    right, expected, predicted = counts.sum(axis=0)
    present = expected + predicted > 0
    return float(np.mean(2 * right[present] / (expected + predicted)[present])) if present.any() else 0.0


def f1_of(counts: np.ndarray) -> float:
    """F1 of `entity_counts`; 0 if there are no entities."""
    right, expected, predicted = counts.sum(axis=0)
    return float(2 * right / (expected + predicted)) if expected + predicted else 0.0
