"""The interface of metrics, the results of evaluations."""

from typing import ClassVar


class Metric:
    """A number that is computed from sums over predictions.

    Implement `__call__` with the sums that the metric needs as keywords:

    - `nats`: sum of the losses, -ln p(target)
    - `targets`: number of targets
    - `correct`: number of targets that have the highest logit
    - `bytes`, `words`: UTF-8 bytes and words of the text of the targets
    - `answers`: number of answers
    - `right`: number of answers whose targets are all correct
    """

    best: ClassVar[float]
    """The value if every target has probability 1."""

    def __call__(self, **found: float | None) -> float | None:
        """The value of the metric; None if a sum that it needs is None (unknown) or its denominator is 0."""
        raise NotImplementedError


def ratio(numerator: float | None, denominator: float | None) -> float | None:
    """The quotient; None if the numerator or the denominator is None, or the denominator is 0."""
    return None if numerator is None or not denominator else float(numerator) / float(denominator)
