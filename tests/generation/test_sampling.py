"""Filters on bare logits, and the frequencies of what is drawn."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from rereading import ids

from memgpt_jax.generation import Sampling, generate, keep_min_p, keep_top_k, keep_top_p, penalize_repetition

LOGITS = jnp.log(jnp.array([[0.5, 0.1, 0.3, 0.1], [0.1, 0.2, 0.3, 0.4]], jnp.float32))


def kept(logits) -> list[list[int]]:
    return [np.flatnonzero(np.isfinite(row)).tolist() for row in np.asarray(logits)]


def test_top_k():
    assert kept(keep_top_k(LOGITS, 1)) == [[0], [3]]
    assert kept(keep_top_k(LOGITS, 2)) == [[0, 2], [2, 3]]
    assert kept(keep_top_k(LOGITS, 3)) == [[0, 1, 2, 3], [1, 2, 3]]  # a tie stays in
    assert kept(keep_top_k(LOGITS, 9)) == [[0, 1, 2, 3]] * 2


def test_top_p():
    assert kept(keep_top_p(LOGITS, 0.01)) == [[0], [3]]
    assert kept(keep_top_p(LOGITS, 0.6)) == [[0, 2], [2, 3]]
    assert kept(keep_top_p(LOGITS, 1.0)) == [[0, 1, 2, 3]] * 2


def test_min_p():
    assert kept(keep_min_p(LOGITS, 1.0)) == [[0], [3]]
    assert kept(keep_min_p(LOGITS, 0.45)) == [[0, 2], [1, 2, 3]]
    assert kept(keep_min_p(LOGITS, 0.01)) == [[0, 1, 2, 3]] * 2


def test_filters_compose_in_order():
    assert kept(keep_top_p(keep_top_k(LOGITS, 2), 0.5)) == [[0], [3]]
    assert kept(Sampling(top_k=2, top_p=0.5)(LOGITS, None)) == [[0], [3]]
    assert kept(Sampling(temperature=9.0, top_p=0.5)(LOGITS, None)) == [[0, 2], [2, 3]]  # flat, so half of them


def test_repetition_penalty():
    logits, seen = jnp.array([2.0, -2.0, 4.0], jnp.float32), jnp.array([True, True, False])
    assert penalize_repetition(logits, seen, 2.0).tolist() == [1.0, -4.0, 4.0]


def test_what_is_greedy():
    assert Sampling().is_greedy and Sampling(temperature=0.0).is_greedy and Sampling(repetition_penalty=1.2).is_greedy
    assert not Sampling(temperature=1.0).is_greedy and not Sampling(top_k=5).is_greedy


@pytest.mark.parametrize(
    "filters",
    [{}, {"top_k": 5}, {"top_p": 0.8}, {"min_p": 0.1}, {"top_k": 9, "top_p": 0.9, "min_p": 0.05}],
    ids=str,
)
def test_frequencies_are_those_of_the_filtered_distribution(tiny, filters):
    filters, number, prompt = {"temperature": 20.0} | filters, 4000, ids(6)  # the tiny model is very sure
    drawn = generate(tiny.model, [prompt], max_new_tokens=1, num_return_sequences=number, **filters)[:, -1]
    logits = np.asarray(Sampling(**filters)(tiny.logits(np.array([prompt]))[:, -1], None))[0].astype(np.float64)
    expected = number * np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    counted = np.bincount(drawn, minlength=len(expected))
    assert not counted[expected == 0].any()
    rare = expected < 5  # a chi-square test needs a few of each kind: the rare ones count as one
    pool = lambda x: np.append(x[~rare], x[rare].sum()) if rare.any() and expected[rare].sum() else x[~rare]  # noqa: E731
    assert scipy.stats.chisquare(pool(counted), pool(expected)).pvalue > 1e-3
    assert (expected > 0).sum() > 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -1.0),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("top_k", -1),
        ("top_k", 1.5),
        ("top_p", 0.0),
        ("top_p", 1.5),
        ("min_p", -0.1),
        ("repetition_penalty", 0.0),
    ],
)
def test_values_out_of_range(name, value):
    with pytest.raises(ValueError, match=name):
        Sampling(**{name: value})
