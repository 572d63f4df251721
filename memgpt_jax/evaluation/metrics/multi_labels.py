"""Metrics of any number of labels for each text, by scikit-learn."""

from collections.abc import Sequence
from typing import TypedDict

import numpy as np

from memgpt_jax.config.extras import library
from memgpt_jax.evaluation.metrics.classification import ClassMetrics
from memgpt_jax.evaluation.metrics.intervals import bootstrap_interval


class MultiLabelMetrics(TypedDict):
    """Results of a classification with any number of labels."""

    micro_f1: float
    """F1 of all labels of all texts together."""
    micro_f1_interval: list[float]
    """95% confidence interval of `micro_f1`, by bootstrap over documents."""
    macro_f1: float
    """Mean of the F1 of all labels."""
    accuracy: float
    """Fraction of the texts of which all labels are right."""
    classes: dict[str, ClassMetrics]
    """Results by label."""


def multi_label_metrics(predicted: np.ndarray, targets: np.ndarray, labels: Sequence[str]) -> MultiLabelMetrics:
    """The metrics of predicted and true labels, [N, C] of 0 and 1; 0 where a ratio is undefined."""
    metrics = library("sklearn.metrics")
    columns = metrics.precision_recall_fscore_support(targets, predicted, average=None, zero_division=0)
    right, marked = (predicted & targets).sum(axis=1), (predicted + targets).sum(axis=1)

    def micro_f1(chosen: np.ndarray) -> float:
        return float(2 * right[chosen].sum() / max(1, marked[chosen].sum()))

    return MultiLabelMetrics(
        micro_f1=float(metrics.f1_score(targets, predicted, average="micro", zero_division=0)),
        micro_f1_interval=bootstrap_interval(micro_f1, len(targets)),
        macro_f1=float(metrics.f1_score(targets, predicted, average="macro", zero_division=0)),
        accuracy=float(metrics.accuracy_score(targets, predicted)),
        classes={
            label: ClassMetrics(precision=float(p), recall=float(r), f1=float(f), support=int(n))
            for label, p, r, f, n in zip(labels, *columns, strict=True)
        },
    )
