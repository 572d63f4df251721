"""Confidence intervals by bootstrap."""

from collections.abc import Callable

import numpy as np

RESAMPLES = 1000
"""Bootstrap resamples of a confidence interval."""


def bootstrap_interval(metric: Callable[[np.ndarray], float], number: int) -> list[float]:
    """The 95% confidence interval of a metric of `number` documents, by resampling them with replacement.

    Args:
        metric: the metric of the documents with the given indices.
        number: number of documents.
    """
    rng = np.random.default_rng(0)
    values = [metric(rng.integers(number, size=number)) for _ in range(RESAMPLES)]
    return [float(value) for value in np.quantile(values, [0.025, 0.975])]
