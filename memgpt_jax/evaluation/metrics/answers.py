"""Answers of one or more tokens."""

from typing import NamedTuple

import numpy as np

from memgpt_jax.evaluation.metrics.base import Metric, ratio


class ExactAnswers(Metric):
    """Share of the answers all of whose targets have the highest logit: right / answers."""

    best = 1.0

    def __call__(self, *, right, answers):
        return ratio(right, answers)


class AnswerCounts(NamedTuple):
    """Numbers of answers in each row, [B] int."""

    right: np.ndarray
    """Answers all of whose targets are correct."""
    answers: np.ndarray
    """All answers."""


def count_answers(correct: np.ndarray, weights: np.ndarray, answer: np.ndarray | None = None) -> AnswerCounts:
    """The number of answers of each row.

    Args:
        correct: [B, L] bool, whether each target has the highest logit.
        weights: [B, L], 0 for targets that belong to no answer.
        answer: [B, L] int32: the targets of a row that share a number are one answer; default: each is one.
    """
    if answer is None:
        answer = np.broadcast_to(np.arange(weights.shape[1]), weights.shape)
    row, column = np.nonzero(weights)
    pairs, index = np.unique(np.stack([row, answer[row, column]]), axis=1, return_inverse=True)
    wrong = np.bincount(index.reshape(-1), ~correct[row, column], pairs.shape[1])
    right = np.bincount(pairs[0], wrong == 0, len(weights))
    return AnswerCounts(right, np.bincount(pairs[0], minlength=len(weights)))
