"""Metrics of pairs of texts: how often the first is likelier."""

from collections.abc import Sequence
from typing import TypedDict

import numpy as np


class PreferenceMetrics(TypedDict):
    """Results on N pairs of texts, with d = ln p(first) - ln p(second) of each."""

    preferred: float
    """Fraction p of the pairs with d > 0; pairs with d = 0 count as half."""
    preferred_error: float
    """Standard error of `preferred`, sqrt(p (1 - p) / N)."""
    difference: float
    """Mean of d, in nats."""
    groups: dict[str, float]
    """`preferred` of the pairs of each group."""
    group_errors: dict[str, float]
    """Its standard error."""


def preference_metrics(differences: np.ndarray, groups: Sequence[str]) -> PreferenceMetrics:
    """The metrics.

    Args:
        differences: d [N].
        groups: the name of the group of each pair; empty names belong to no group.
    """
    names = np.array(groups)
    parts = {str(name): differences[names == name] for name in sorted(set(groups) - {""})}
    return PreferenceMetrics(
        preferred=_preferred(differences),
        preferred_error=_error(differences),
        difference=float(differences.mean()),
        groups={name: _preferred(part) for name, part in parts.items()},
        group_errors={name: _error(part) for name, part in parts.items()},
    )


def _preferred(differences: np.ndarray) -> float:
    return float(np.mean((1 + np.sign(differences)) / 2))


def _error(differences: np.ndarray) -> float:
    preferred = _preferred(differences)
    return float(np.sqrt(preferred * (1 - preferred) / len(differences)))
