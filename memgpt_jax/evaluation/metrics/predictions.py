"""Metrics of single predictions, by their probabilities or by the most probable id."""

import math

from memgpt_jax.evaluation.metrics.base import Metric, ratio

LARGEST_EXPONENT = 709  # of exp in double precision


class Loss(Metric):
    """Cross-entropy in nats per target: nats / targets."""

    best = 0.0

    def __call__(self, *, nats, targets):
        return ratio(nats, targets)


class Accuracy(Metric):
    """Share of the targets that have the highest logit: correct / targets."""

    best = 1.0

    def __call__(self, *, correct, targets):
        return ratio(correct, targets)


class BitsPerByte(Metric):
    """Bits per UTF-8 byte of the text, whatever the tokenizer: nats / (ln 2 bytes)."""

    best = 0.0

    def __call__(self, *, nats, bytes):
        bits = ratio(nats, bytes)
        return bits if bits is None else bits / math.log(2)


class Perplexity(Metric):
    """exp(nats / targets), where words may be counted as targets; infinite where double precision overflows."""

    best = 1.0

    def __call__(self, *, nats, targets):
        loss = ratio(nats, targets)
        return loss if loss is None else math.exp(loss) if loss < LARGEST_EXPONENT else math.inf
