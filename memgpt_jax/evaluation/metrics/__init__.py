"""Metrics, one file per subject; `memgpt_jax.evaluation.metrics.base` defines the interface."""

from typing import Any

from memgpt_jax.config.registry import Registry
from memgpt_jax.evaluation.metrics.answers import ExactAnswers
from memgpt_jax.evaluation.metrics.base import Metric
from memgpt_jax.evaluation.metrics.predictions import Accuracy, BitsPerByte, Loss, Perplexity

METRICS: Registry[Metric] = Registry("metric", Metric, instances=True)
"""The metrics by name: `METRICS["loss"].module(nats=..., targets=...)`."""
register_metric = METRICS.register
"""`register_metric(name, None, metric)`: add an instance of a `Metric`."""

register_metric("loss", None, Loss())
register_metric("accuracy", None, Accuracy())
register_metric("bits_per_byte", None, BitsPerByte())
register_metric("perplexity", None, Perplexity())
register_metric("exact_answers", None, ExactAnswers())


def metric(name: str, **found: float | None) -> float | Any:
    """The value of a metric; `KeyError`, which lists the names, if there is none. See `Metric.__call__`.

    The type is `float | Any` because None is possible only if a sum is None or a denominator is 0.
    """
    return METRICS[name].module(**found)


__all__ = ["METRICS", "Metric", "metric", "register_metric"]
