"""A metric by the length of texts, or by another count of each prediction, such as the words after the evidence."""

from collections.abc import Callable, Sequence
from typing import TypedDict

import numpy as np

from memgpt_jax.evaluation.metrics.intervals import bootstrap_interval

GROUPS = 4
"""Number of groups of about equal size."""


class LengthGroup(TypedDict):
    """The predictions of one range of lengths."""

    shortest: int
    """The smallest length."""
    longest: int
    """The largest one."""
    mean_length: float
    """The mean over the predictions."""
    number: int
    """Number of predictions."""
    value: float
    """The metric of these predictions."""
    interval: list[float]
    """95% confidence interval of `value`, by bootstrap over the documents, users or dialogues of these predictions."""


class ByLength(TypedDict):
    """A metric by length."""

    metric: str
    """Its name in the result of the evaluation."""
    unit: str
    """What is counted, such as "words"."""
    groups: list[LengthGroup]
    """In ascending order of length. They depend on the lengths alone, so that they are the same for every model."""


def by_length(
    metric: str,
    unit: str,
    lengths: Sequence[int] | np.ndarray,
    value: Callable[[np.ndarray], float],
    owners: Sequence[int] | np.ndarray | None = None,
) -> ByLength:
    """The metric of `GROUPS` groups of predictions, divided at the quantiles of their lengths.

    Equal lengths are in one group, so there may be fewer groups.

    Args:
        metric, unit: as in the result.
        lengths: of each prediction.
        value: the metric of the predictions with the given indices.
        owners: the number of the document, user or dialogue of each prediction, which are resampled; default: each
            prediction has its own.
    """
    sizes = np.asarray(lengths)
    owned = np.arange(len(sizes)) if owners is None else np.asarray(owners)
    edges = np.quantile(sizes, np.arange(1, GROUPS) / GROUPS, method="lower")
    group_of = np.searchsorted(edges, sizes, side="left")
    groups = [_group(np.flatnonzero(group_of == group), sizes, owned, value) for group in np.unique(group_of)]
    return ByLength(metric=metric, unit=unit, groups=groups)


def _group(
    chosen: np.ndarray, sizes: np.ndarray, owners: np.ndarray, value: Callable[[np.ndarray], float]
) -> LengthGroup:
    parts = [chosen[owners[chosen] == owner] for owner in np.unique(owners[chosen])]
    return LengthGroup(
        shortest=int(sizes[chosen].min()),
        longest=int(sizes[chosen].max()),
        mean_length=float(sizes[chosen].mean()),
        number=len(chosen),
        value=value(chosen),
        interval=bootstrap_interval(lambda drawn: value(np.concatenate([parts[i] for i in drawn])), len(parts)),
    )
