"""Span corruption: no token is lost, lengths depend on the length of the text alone, every position can be hidden."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memgpt_jax.data.objectives.span_corruption import corrupt_spans

FIRST = 999


def restored(source, target, first):
    """The original text: the source with its sentinels replaced by the spans of the target."""
    ends = [i for i, token in enumerate(target) if token > first - 200]
    spans = {target[i]: target[i + 1 : j] for i, j in itertools.pairwise(ends)}
    return [token for place in source for token in spans.pop(place, [place])], spans


@given(
    length=st.integers(2, 300),
    seed=st.integers(0, 2**32 - 1),
    rate=st.sampled_from([0.01, 0.15, 0.5, 0.95]),
    mean_span=st.sampled_from([1.0, 3.0, 10.0]),
)
def test_source_and_target_restore_the_text(length, seed, rate, mean_span):
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, 700, length).astype(np.int32)
    source, target = corrupt_spans(tokens, rng, rate=rate, mean_span=mean_span, first_sentinel=FIRST)
    assert source.dtype == target.dtype == np.int32
    hidden = min(max(round(rate * length), 1), length - 1)
    spans = min(max(round(hidden / mean_span), 1), hidden, length - hidden + 1)
    assert (len(source), len(target)) == (length - hidden + spans, hidden + spans + 1)
    sentinels = list(range(FIRST, FIRST - spans, -1))
    assert [token for token in source if token >= 700] == sentinels
    assert [token for token in target if token >= 700] == [*sentinels, FIRST - spans]
    between = np.diff(np.flatnonzero(source >= 700))
    assert np.all(between > 1)
    text, left = restored(source.tolist(), target.tolist(), FIRST)
    assert text == tokens.tolist() and not left


def test_a_text_of_two_or_three_tokens():
    """There are two ways to hide one of two tokens, and one way to hide two separate tokens of three."""
    found = set()
    for seed in range(20):
        source, target = corrupt_spans(np.array([5, 6]), np.random.default_rng(seed), first_sentinel=99)
        found.add((*source.tolist(), *target.tolist()))
    assert found == {(5, 99, 99, 6, 98), (99, 6, 99, 5, 98)}
    options = {"rate": 0.7, "mean_span": 1.0, "first_sentinel": 99}
    source, target = corrupt_spans(np.array([5, 6, 7]), np.random.default_rng(0), **options)
    assert (source.tolist(), target.tolist()) == ([99, 6, 98], [99, 5, 98, 7, 97])


def test_all_positions_are_hidden_equally_often():
    rng, tokens, counts = np.random.default_rng(0), np.arange(40), np.zeros(40)
    for _ in range(3000):
        source, _ = corrupt_spans(tokens, rng, first_sentinel=FIRST)
        counts += ~np.isin(tokens, source)
    assert counts.sum() == 3000 * 6
    assert counts.min() > 0.3 * counts.mean()  # fewer spans reach the ends
    assert counts[4:-4].min() / counts.mean() > 0.8 and counts.max() / counts.mean() < 1.3


def test_spans_have_the_mean_length_and_depend_on_the_generator_alone():

    def draw(seed):
        return corrupt_spans(np.arange(600), np.random.default_rng(seed), first_sentinel=FIRST)

    (source, target), again = draw(1), draw(1)
    np.testing.assert_array_equal(target, again[1])
    assert np.sum(target >= 600) == 31 and len(target) == 90 + 31 and len(source) == 510 + 30
    assert not np.array_equal(target, draw(2)[1])


@pytest.mark.parametrize(
    "change, message",
    [
        ({"tokens": np.arange(1)}, r"tokens must be ids \[L\] with L >= 2, got \[1\]"),
        ({"tokens": np.ones((2, 3), int)}, r"with L >= 2, got \[2, 3\]"),
        ({"rate": 1.0}, "rate=1.0 must be between 0 and 1"),
        ({"mean_span": 0.5}, "mean_span=0.5 at least 1"),
        ({"first_sentinel": 99}, "takes the ids from 94 on, but tokens go up to 99"),
        ({"first_sentinel": 2}, "takes the ids from -3 on"),
    ],
)
def test_values_out_of_range_are_named(change, message):
    arguments = {"tokens": np.arange(100), "rate": 0.15, "mean_span": 3.0, "first_sentinel": 200} | change
    with pytest.raises(ValueError, match=message):
        corrupt_spans(arguments.pop("tokens"), np.random.default_rng(0), **arguments)
