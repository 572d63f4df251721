"""A metric by the length of documents, or by another distance of each prediction."""

from collections.abc import Callable, Sequence
from typing import TypedDict

import numpy as np

from memgpt_jax.evaluation.metrics.libraries import bootstrap_interval

GROUPS = 4
"""Number of groups of about equal size."""


class LengthGroup(TypedDict):
    """The predictions of one range of lengths."""

    shortest: int
    longest: int
    mean_length: float
    number: int
    """Number of predictions."""
    value: float
    """The metric of these predictions."""
    interval: list[float]
    """95% confidence interval of `value`, by bootstrap over these predictions."""


class ByLength(TypedDict):
    """A metric by length."""

    metric: str
    """Its name in the result of the evaluation."""
    unit: str
    """What is counted, such as "tokens of the text"."""
    groups: list[LengthGroup]
    """In ascending order of length. They depend on the lengths alone, so that they are the same for every model."""


def by_length(metric: str, unit: str, lengths: Sequence[int], value: Callable[[np.ndarray], float]) -> ByLength:
    """The metric of `GROUPS` groups of predictions, divided at the quantiles of their lengths.

    Equal lengths are in one group, so there may be fewer groups.

    Args:
        metric, unit: as in the result.
        lengths: of each prediction.
        value: the metric of the predictions with the given indices.
    """
    sizes = np.asarray(lengths)
    edges = np.quantile(sizes, np.arange(1, GROUPS) / GROUPS, method="lower")
    group_of = np.searchsorted(edges, sizes, side="left")
    groups = [_group(np.flatnonzero(group_of == group), sizes, value) for group in np.unique(group_of)]
    return ByLength(metric=metric, unit=unit, groups=groups)


def _group(chosen: np.ndarray, sizes: np.ndarray, value: Callable[[np.ndarray], float]) -> LengthGroup:
    return LengthGroup(
        shortest=int(sizes[chosen].min()),
        longest=int(sizes[chosen].max()),
        mean_length=float(sizes[chosen].mean()),
        number=len(chosen),
        value=value(chosen),
        interval=bootstrap_interval(lambda drawn: value(chosen[drawn]), len(chosen)),
    )
