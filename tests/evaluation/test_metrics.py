"""Every registered metric satisfies the interface, and its values equal those of NumPy."""

import inspect
import math

import pytest

from memgpt_jax.evaluation.metrics import METRICS, Metric, metric, register_metric

PERFECT = {"nats": 0.0, "targets": 6, "correct": 6, "bytes": 20, "words": 5, "answers": 3, "right": 3}
POOR = PERFECT | {"nats": 9.0, "correct": 2, "right": 1}


def sums_of(name: str, sums: dict[str, float]) -> dict[str, float]:
    """The sums that are arguments of a metric."""
    parameters = inspect.signature(METRICS[name].module.__call__).parameters.values()
    assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in parameters)
    return {parameter.name: sums[parameter.name] for parameter in parameters}


@pytest.mark.parametrize("name", METRICS)
def test_the_contract(name):
    perfect, poor = sums_of(name, PERFECT), sums_of(name, POOR)
    found = metric(name, **perfect), metric(name, **poor)
    assert all(type(value) is float for value in found)
    assert found[0] == METRICS[name].module.best != found[1]
    for unknown in perfect:  # None, not an error and not a number
        assert metric(name, **perfect | {unknown: None}) is None
    assert metric(name, **dict.fromkeys(perfect, 0)) is None


def test_values_of_metrics():
    assert metric("loss", nats=9.0, targets=6) == 1.5
    assert metric("accuracy", correct=2, targets=6) == pytest.approx(1 / 3)
    assert metric("exact_answers", right=1, answers=3) == pytest.approx(1 / 3)
    assert metric("bits_per_byte", nats=8 * math.log(2), bytes=4) == pytest.approx(2)
    assert metric("perplexity", nats=5 * math.log(8), targets=5) == pytest.approx(8)
    assert metric("perplexity", nats=1e6, targets=1) == math.inf


def test_a_users_own_metric():
    class Nats(Metric):
        best = 0.0

        def __call__(self, *, nats):
            return nats

    class Others(Nats):
        pass

    register_metric("nats", None, Nats())
    try:
        assert metric("nats", nats=3.0) == 3.0
        with pytest.raises(ValueError, match="there is a metric 'nats' already"):
            register_metric("nats", None, Others())
    finally:
        METRICS.unregister("nats")
    with pytest.raises(KeyError, match="there is no metric 'nats'; valid: loss, accuracy"):
        metric("nats", nats=3.0)
