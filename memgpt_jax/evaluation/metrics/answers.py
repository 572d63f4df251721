"""Metrics of answers of one or more tokens."""

from typing import ClassVar, NamedTuple

import numpy as np

from memgpt_jax.evaluation.metrics.base import Metric, ratio


class ExactAnswers(Metric):
    """Fraction of the answers whose targets all have the highest logit: right / answers."""

    best: ClassVar[float] = 1.0

    def __call__(self, *, right: float, answers: float) -> float | None:
        return ratio(right, answers)


class AnswerCounts(NamedTuple):
    """Counts for each row, [B] int."""

    right: np.ndarray
    """Number of answers whose targets are all correct."""
    answers: np.ndarray
    """Number of answers."""


def count_answers(correct: np.ndarray, weights: np.ndarray, answer: np.ndarray | None = None) -> AnswerCounts:
    """Count the answers of each row.

    Args:
        correct: [B, L] bool, whether each target has the highest logit.
        weights: [B, L], 0 for targets that belong to no answer.
        answer: [B, L] int32: targets of a row with the same number are one answer; default: each target is an answer.
    """
    if answer is None:
        answer = np.broadcast_to(np.arange(weights.shape[1]), weights.shape)
    row, column = np.nonzero(weights)
    pairs, index = np.unique(np.stack([row, answer[row, column]]), axis=1, return_inverse=True)
    wrong = np.bincount(index.reshape(-1), ~correct[row, column], pairs.shape[1])
    right = np.bincount(pairs[0], wrong == 0, len(weights))
    return AnswerCounts(right, np.bincount(pairs[0], minlength=len(weights)))
