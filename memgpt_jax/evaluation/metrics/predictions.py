"""Metrics of single predictions: cross-entropy in several units, and accuracy."""

import math
from typing import ClassVar

from memgpt_jax.evaluation.metrics.base import Metric, ratio

LARGEST_EXPONENT = 709  # exp of a larger number overflows in double precision


class Loss(Metric):
    """Cross-entropy in nats per target: nats / targets."""

    best: ClassVar[float] = 0.0

    def __call__(self, *, nats: float, targets: float) -> float | None:
        return ratio(nats, targets)


class Accuracy(Metric):
    """Fraction of the targets that have the highest logit: correct / targets."""

    best: ClassVar[float] = 1.0

    def __call__(self, *, correct: float, targets: float) -> float | None:
        return ratio(correct, targets)


class BitsPerByte(Metric):
    """Bits per UTF-8 byte of the text, which is independent of the tokenizer: nats / (ln 2 bytes)."""

    best: ClassVar[float] = 0.0

    def __call__(self, *, nats: float, bytes: float | None) -> float | None:
        bits = ratio(nats, bytes)
        return bits if bits is None else bits / math.log(2)


class Perplexity(Metric):
    """exp(nats / targets), with words as targets for perplexity per word; infinite if double precision overflows."""

    best: ClassVar[float] = 1.0

    def __call__(self, *, nats: float, targets: float | None) -> float | None:
        loss = ratio(nats, targets)
        return loss if loss is None else math.exp(loss) if loss < LARGEST_EXPONENT else math.inf
