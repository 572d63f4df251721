"""Metrics of classification, by scikit-learn."""

from collections.abc import Sequence
from typing import TypedDict

import numpy as np

from memgpt_jax.config.extras import library
from memgpt_jax.evaluation.metrics.intervals import bootstrap_interval

CALIBRATION_BINS = 10


class ClassMetrics(TypedDict):
    """Results on one class."""

    precision: float
    recall: float
    f1: float
    support: int
    """Number of documents of the class."""


class ClassificationMetrics(TypedDict):
    """Results of a classification."""

    accuracy: float
    """Fraction of the documents whose most probable class is right."""
    accuracy_interval: list[float]
    """95% confidence interval of the accuracy, by bootstrap over documents."""
    macro_f1: float
    """Mean of the F1 of all classes."""
    calibration_error: float
    """Expected calibration error: mean |confidence - accuracy| over ten bins of confidence, weighted by their size."""
    classes: dict[str, ClassMetrics]
    """Results by class."""
    confusion: list[list[int]]
    """Documents by class (row) and by most probable class (column)."""


def classification_metrics(
    probabilities: np.ndarray, targets: np.ndarray, labels: Sequence[str]
) -> ClassificationMetrics:
    """The metrics of predicted probabilities [N, C] and classes [N]; an absent class counts with F1 0."""
    metrics = library("sklearn.metrics")
    best, classes = probabilities.argmax(axis=1), np.arange(len(labels))
    right = best == targets
    columns = metrics.precision_recall_fscore_support(targets, best, labels=classes, zero_division=0)
    by_class = {
        label: ClassMetrics(precision=float(p), recall=float(r), f1=float(f), support=int(n))
        for label, p, r, f, n in zip(labels, *columns, strict=True)
    }
    return ClassificationMetrics(
        accuracy=float(metrics.accuracy_score(targets, best)),
        accuracy_interval=bootstrap_interval(lambda chosen: float(right[chosen].mean()), len(right)),
        macro_f1=float(metrics.f1_score(targets, best, labels=classes, average="macro", zero_division=0)),
        calibration_error=_calibration_error(probabilities.max(axis=1), right),
        classes=by_class,
        confusion=metrics.confusion_matrix(targets, best, labels=classes).tolist(),
    )


def _calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
    place = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    gaps = [abs(confidence[place == i].mean() - right[place == i].mean()) * np.mean(place == i) for i in set(place)]
    return float(sum(gaps))
