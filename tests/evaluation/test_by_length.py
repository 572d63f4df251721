"""Metrics by length: groups of about equal size that depend on the lengths alone."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memgpt_jax.evaluation.metrics.by_length import GROUPS, by_length
from memgpt_jax.evaluation.metrics.texts import scores_by_length, text_scores


def test_groups_by_hand():
    right = np.array([1, 0, 1, 1, 0, 0, 0, 1])
    found = by_length("accuracy", "words", [1, 2, 3, 4, 5, 6, 70, 80], lambda chosen: float(right[chosen].mean()))
    assert [(group["shortest"], group["longest"], group["value"]) for group in found["groups"]] == [
        (1, 2, 0.5),
        (3, 4, 1.0),
        (5, 6, 0.0),
        (70, 80, 0.5),
    ]
    assert [group["mean_length"] for group in found["groups"]] == [1.5, 3.5, 5.5, 75]
    assert [group["interval"] for group in found["groups"]] == [[0, 1], [1, 1], [0, 0], [0, 1]]


@given(st.lists(st.integers(0, 50), min_size=1, max_size=60))
def test_every_prediction_is_in_one_group_and_equal_lengths_are_together(lengths):
    seen = []
    found = by_length("n", "words", lengths, lambda chosen: seen.append(chosen) or 0.0)["groups"]
    assert 1 <= len(found) <= GROUPS and sum(group["number"] for group in found) == len(lengths)
    ranges = [(group["shortest"], group["longest"]) for group in found]
    assert all(before[1] < after[0] for before, after in itertools.pairwise(ranges))
    assert found[0]["shortest"] == min(lengths) and found[-1]["longest"] == max(lengths)


def test_many_different_lengths_make_groups_of_equal_size():
    found = by_length("n", "words", list(range(1000)), lambda chosen: 0.0)["groups"]
    assert [group["number"] for group in found] == [250] * GROUPS


def test_owners_are_resampled():
    """Two users, one always right and one always wrong, among many: a group of both is nearly unknown."""
    right = np.repeat([1, 0], 50)
    lengths, owners = [*range(100)], np.repeat([0, 1], 50)
    alone = by_length("n", "words", [1] * 100, lambda chosen: float(right[chosen].mean()))["groups"][0]
    owned = by_length("n", "words", [1] * 100, lambda chosen: float(right[chosen].mean()), owners)["groups"][0]
    assert alone["value"] == owned["value"] == 0.5 and owned["interval"] == [0, 1]
    assert 0.38 < alone["interval"][0] < alone["interval"][1] < 0.62
    whole = by_length("n", "words", lengths, lambda chosen: float(right[chosen].mean()), owners)["groups"]
    assert [group["interval"] for group in whole] == [[1, 1], [1, 1], [0, 0], [0, 0]]


def test_the_first_metric_that_is_a_mean_over_texts_is_divided():
    texts, references = ["a b", "c", "d", "e"], [["a b"], ["x"], ["d"], ["e"]]
    scores = text_scores(["triples", "exact", "begins"], texts, references)
    found = scores_by_length(scores, "words", [9, 1, 1, 9])
    assert found["metric"] == "exact_match" and [group["value"] for group in found["groups"]] == [0.5, 1.0]
    assert scores_by_length(text_scores(["triples"], texts, references), "words", [9, 1, 1, 9]) is None


def test_rouge_is_divided_by_its_longest_common_subsequence():
    pytest.importorskip("rouge_score", reason="the extra `tasks` is not installed")
    scores = text_scores(["rouge"], ["the cat sat", "b"], [["the cats sat down"], ["a", "b"]])
    found = scores_by_length(scores, "words", [3, 1])
    assert found["metric"] == "rouge_l" and [group["value"] for group in found["groups"]] == [1, pytest.approx(6 / 7)]
