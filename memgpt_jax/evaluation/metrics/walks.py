"""Metrics of questions over a knowledge graph: right answers, right citations, and answers after an edit."""

from collections.abc import Sequence
from typing import NamedTuple, TypedDict

import numpy as np

from memgpt_jax.evaluation.metrics.intervals import bootstrap_interval

TIE = 1e-4
"""Scores that differ by less are equal, whatever the order of sums was."""


class GraphMetrics(TypedDict):
    """Results of questions over a graph."""

    hits_1: float
    """Fraction of the questions whose best entity is an answer; of n entities of equal score, each counts 1 / n."""
    hits_1_interval: list[float]
    """95% confidence interval of `hits_1`, by bootstrap over questions."""
    cited: float | None
    """Fraction of the right answers whose triple with the greatest weight in the last read ends in an answer; None:
    there is none."""
    edited: float | None
    """Fraction of the questions whose best entity, without other answers, is the new tail of the changed triple; None:
    no triple has been changed."""
    kept: float | None
    """Fraction of the questions whose answer is still the best one after another triple has been changed."""
    edits: int
    """Number of questions of `edited` and `kept`."""


class Asked(NamedTuple):
    """A question and what was found."""

    scores: np.ndarray
    """[n] of each entity."""
    right: np.ndarray
    """[n] bool: whether it is an answer."""
    cited: int
    """The tail of the triple with the greatest weight in the last read; -1: there are no triples."""


class Edited(NamedTuple):
    """A question that was asked again after two edits."""

    before: Asked
    new: int
    """The new tail of the triple on which the answer rests."""
    after: np.ndarray
    """[n] scores after this edit."""
    after_other: np.ndarray
    """[n] scores after an edit of another triple."""


def graph_metrics(questions: Sequence[Asked], edited: Sequence[Edited]) -> GraphMetrics:
    """The metrics of at least one question."""
    hits = np.array([first_place(one.scores, one.right) for one in questions])
    answered = [one for one in questions if one.cited >= 0 and one.right[one.scores.argmax()]]
    return GraphMetrics(
        hits_1=float(hits.mean()),
        hits_1_interval=bootstrap_interval(lambda chosen: float(hits[chosen].mean()), len(hits)),
        cited=_mean([one.right[one.cited] for one in answered]),
        edited=_mean([_follows(one) for one in edited]),
        kept=_mean([one.after_other[one.before.scores.argmax()] >= one.after_other.max() - TIE for one in edited]),
        edits=len(edited),
    )


def first_place(scores: np.ndarray, right: np.ndarray) -> float:
    """The fraction of right ones among the entities of the best score."""
    return float(right[scores >= scores.max() - TIE].mean())


def _follows(edit: Edited) -> bool:
    left_out = edit.before.right.copy()
    left_out[edit.before.scores.argmax()] = False
    return first_place(np.where(left_out, -np.inf, edit.after), np.arange(len(left_out)) == edit.new) == 1


def _mean(values: Sequence[bool]) -> float | None:
    return float(np.mean(values)) if values else None
