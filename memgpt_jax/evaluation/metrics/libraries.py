"""The libraries that compute metrics of tasks; they are installed with the extra `tasks`."""

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

RESAMPLES = 1000
"""Bootstrap resamples of a confidence interval."""


def library(name: str) -> Any:
    """A module of the extra `tasks`. Raises `ValueError`, which names the extra, if it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(
            f"the metrics of this task need {name.partition('.')[0]}: pip install 'memgpt-jax[tasks]' ({error})"
        ) from None


def bootstrap_interval(metric: Callable[[np.ndarray], float], number: int, seed: int = 0) -> list[float]:
    """The 95% confidence interval of a metric of `number` documents, by resampling them with replacement.

    Args:
        metric: the metric of the documents with the given indices.
        number: of documents.
        seed: of the resampling.
    """
    rng = np.random.default_rng(seed)
    values = [metric(rng.integers(number, size=number)) for _ in range(RESAMPLES)]
    return [float(value) for value in np.quantile(values, [0.025, 0.975])]
