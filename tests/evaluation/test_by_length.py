"""Metrics by length: groups of about equal size that depend on the lengths alone."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from memgpt_jax.evaluation.metrics.by_length import GROUPS, by_length
from memgpt_jax.evaluation.metrics.texts import texts_by_length


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


def test_the_first_metric_that_is_a_mean_over_texts_is_divided():
    texts, references = ["a b", "c", "d", "e"], [["a b"], ["x"], ["d"], ["e"]]
    found = texts_by_length(["bleu", "exact", "begins"], texts, references, "words", [9, 1, 1, 9])
    assert found["metric"] == "exact_match" and [group["value"] for group in found["groups"]] == [0.5, 1.0]
    assert texts_by_length(["bleu", "wer"], texts, references, "words", [9, 1, 1, 9]) is None
