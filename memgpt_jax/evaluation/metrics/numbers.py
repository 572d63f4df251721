"""Metrics of predicted numbers, by scikit-learn and SciPy."""

from collections.abc import Sequence
from typing import TypedDict

import numpy as np

from memgpt_jax.config.extras import library
from memgpt_jax.evaluation.metrics.intervals import bootstrap_interval


class NumberMetrics(TypedDict):
    """Results on numbers, in their own unit."""

    rmse: float
    """Root of the mean squared error."""
    rmse_interval: list[float]
    """95% confidence interval of `rmse`, by bootstrap over documents."""
    mae: float
    """Mean absolute error."""
    pearson: float | None
    """Pearson's correlation of predictions and targets; None if one side is constant."""
    spearman: float | None
    """Spearman's rank correlation; None if one side is constant."""


def number_metrics(predicted: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> NumberMetrics:
    """The metrics of predictions and targets, one array for each document."""
    metrics, stats = library("sklearn.metrics"), library("scipy.stats")
    found, wanted = (np.concatenate(side).astype(np.float64) for side in (predicted, expected))
    pairs = zip(predicted, expected, strict=True)
    squares = np.array([np.sum((a.astype(np.float64) - b) ** 2) for a, b in pairs])
    counts = np.array([len(array) for array in expected])
    varies = np.ptp(found) > 0 and np.ptp(wanted) > 0
    return NumberMetrics(
        rmse=float(metrics.root_mean_squared_error(wanted, found)),
        rmse_interval=bootstrap_interval(
            lambda chosen: float(np.sqrt(squares[chosen].sum() / counts[chosen].sum())), len(counts)
        ),
        mae=float(metrics.mean_absolute_error(wanted, found)),
        pearson=float(stats.pearsonr(found, wanted).statistic) if varies else None,
        spearman=float(stats.spearmanr(found, wanted).statistic) if varies else None,
    )
