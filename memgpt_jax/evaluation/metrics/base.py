"""The interface of a metric: a figure of an evaluation."""

from typing import ClassVar


class Metric:
    """A figure that is computed from sums over predictions.

    Implement `__call__` with the sums that the metric needs as keywords:

    - `nats`: sum of the losses, -ln p(target)
    - `targets`: number of targets
    - `correct`: number of targets that have the highest logit
    - `bytes`, `words`: UTF-8 bytes and words that the targets stand for
    - `answers`, `right`: number of answers, and of those all of whose targets are correct
    """

    best: ClassVar[float]
    """The value if every target has probability 1."""

    def __call__(self, **found: float) -> float | None:
        """The figure; None if it is not known, as a sum that it needs is None or 0."""
        raise NotImplementedError


def ratio(numerator: float | None, denominator: float | None) -> float | None:
    """The quotient; None if one of the two is not known, or the denominator is 0."""
    return None if numerator is None or not denominator else float(numerator) / float(denominator)
