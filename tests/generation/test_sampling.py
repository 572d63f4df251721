"""Filters on bare logits, and the frequencies of what is drawn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from memgpt_jax.generation import (
    Sampling,
    generate,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    penalize_repetition,
    repeats_ngram,
)
from tests.laws.rereading import ids

keep_top_k = jax.jit(keep_top_k, static_argnums=1)
keep_top_p, keep_min_p = jax.jit(keep_top_p), jax.jit(keep_min_p)
LOGITS = np.log(np.array([[0.5, 0.1, 0.3, 0.1], [0.1, 0.2, 0.3, 0.4]], np.float32))


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


def nucleus(logits, p: float) -> tuple[int, int, list[int]]:
    """How many tokens reach p, at least and at most, and all of them in the order in which they stay; in float64."""
    order = sorted(range(len(logits)), key=lambda i: (-logits[i], i))
    weights = np.exp(np.asarray(logits, np.float64) - max(logits))
    total = np.cumsum(weights[order] / weights.sum())
    return int(np.argmax(total >= p - 1e-6)) + 1, int(np.argmax(total >= min(p + 1e-6, 1 - 1e-9))) + 1, order


@given(
    st.lists(st.sampled_from([-np.inf, -40.0, -1.0, 0.0, 0.5, 1.0, 1.0078125, 3.0]), min_size=24, max_size=24),
    st.sampled_from([1e-9, 0.1, 0.25, 0.5, 0.75, 0.9, 0.999]),
)
def test_top_p_keeps_the_fewest_also_among_equals(logits, p):
    logits[0] = max(logits[0], 0.0)  # not all are ruled out
    fewest, most, order = nucleus(logits, p)  # two numbers where the sum is p but for rounding
    [found] = kept(keep_top_p(np.array([logits], np.float32), p))
    assert fewest <= len(found) <= most and found == sorted(order[: len(found)])


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.1, 0.5, 0.9]))
def test_top_p_of_logits_rounded_to_bfloat16(seed, p):
    logits = np.random.default_rng(seed).normal(size=500).astype(jnp.bfloat16).astype(np.float32)
    fewest, most, order = nucleus(logits, p)
    [found] = kept(keep_top_p(logits[None], p))
    assert fewest <= len(found) <= most and found == sorted(order[: len(found)])
    assert len(set(logits.tolist())) < 500  # some are equal


def test_filters_at_their_ends():
    flat, single = np.zeros((1, 5), np.float32), np.array([[-np.inf, 2.0, -np.inf]], np.float32)
    assert kept(keep_top_p(flat, 1.0)) == kept(keep_top_k(flat, 1)) == kept(keep_min_p(flat, 1.0)) == [[0, 1, 2, 3, 4]]
    assert kept(keep_top_p(flat, 1e-30)) == [[0]] and kept(keep_top_p(flat, 0.41)) == [[0, 1, 2]]
    for keep in (lambda x: keep_top_k(x, 2), lambda x: keep_top_p(x, 0.99), lambda x: keep_min_p(x, 0.5)):
        assert kept(keep(single)) == [[1]] and kept(keep(np.full((1, 3), -np.inf, np.float32))) == [[]]


def test_min_p():
    assert kept(keep_min_p(LOGITS, 1.0)) == [[0], [3]]
    assert kept(keep_min_p(LOGITS, 0.45)) == [[0, 2], [1, 2, 3]]
    assert kept(keep_min_p(LOGITS, 0.01)) == [[0, 1, 2, 3]] * 2


@jax.jit
def filtered(sampling: Sampling, logits):
    return sampling(logits)


def test_filters_compose_in_order():
    assert kept(keep_top_p(keep_top_k(LOGITS, 2), 0.5)) == [[0], [3]]
    assert kept(filtered(Sampling(top_k=2, top_p=0.5), LOGITS)) == [[0], [3]]
    assert kept(filtered(Sampling(temperature=9.0, top_p=0.5), LOGITS)) == [[0, 2], [2, 3]]  # flat, so half of them


def test_repetition_penalty():
    logits, penalized = np.array([2.0, -2.0, 4.0], np.float32), np.array([True, True, False])
    assert jax.jit(penalize_repetition)(logits, penalized, 2.0).tolist() == [1.0, -4.0, 4.0]


def repeats(answer: list[int], size: int, vocab_size: int) -> list[bool]:
    """Whether each id would end an n-gram that the answer has: lists and loops."""
    ngrams = [answer[start : start + size] for start in range(len(answer) - size + 1)]
    newest = answer[len(answer) - size + 1 :]
    return [len(newest) == size - 1 and [*newest, token] in ngrams for token in range(vocab_size)]


repeats_ngram = jax.jit(repeats_ngram, static_argnums=(2, 3))


@pytest.mark.parametrize("size", [1, 2, 3, 8, 10**12])
@given(st.lists(st.lists(st.integers(0, 2), max_size=8), min_size=3, max_size=3), st.integers(-1, 2))
def test_ids_that_would_repeat_an_ngram(size, answers, rest):
    padded = np.array([answer + [rest] * (8 - len(answer)) for answer in answers], np.int32)
    count = np.array([len(answer) for answer in answers], np.int32)
    found = repeats_ngram(padded, count, size, 4)
    assert found.tolist() == [repeats(answer, size, 4) for answer in answers]


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
    drawn = generate(tiny.model, [prompt], max_new_tokens=1, num_return_sequences=number, **filters).ids[:, -1]
    logits = np.asarray(tiny.logits(np.array([prompt])))[:, -1]
    logits = np.asarray(filtered(Sampling(**filters), logits))[0].astype(np.float64)
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
        ("no_repeat_ngram_size", -1),
        ("no_repeat_ngram_size", 2.5),
    ],
)
def test_values_out_of_range(name, value):
    with pytest.raises(ValueError, match=name):
        Sampling(**{name: value})
