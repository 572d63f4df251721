"""Metrics of tags and of the entities that they mark."""

import numpy as np
import pytest

from memgpt_jax.evaluation.metrics import intervals
from memgpt_jax.evaluation.metrics.entities import entities_of, entity_metrics


def test_tags_that_mark_no_entities():
    predicted, expected = [["NOUN", "VERB"], ["NOUN"]], [["NOUN", "VERB"], ["PRON"]]
    found = entity_metrics(predicted, expected)
    assert set(found["types"]) == {"NOUN", "VERB", "PRON"} and found["accuracy"] == pytest.approx(2 / 3)
    assert found["f1"] == pytest.approx((2 / 3 + 1 + 0) / 3)
    pytest.importorskip("seqeval", reason="the extra `tasks` is not installed")
    entities = entity_metrics([["B-a", "I-a", "O"], ["B-b"]], [["B-a", "O", "O"], ["B-b"]])
    assert (entities["precision"], entities["recall"], entities["f1"]) == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("mark", ["", "B-"])
def test_types_may_have_the_names_of_averages(mark):
    pytest.importorskip("sklearn" if not mark else "seqeval", reason="the extra `tasks` is not installed")
    names = ["accuracy", "macro avg", "micro avg", "weighted avg"]
    tags = [mark + name for name in names]
    found = entity_metrics([tags], [[*tags[:3], tags[0]]])
    right = {"precision": 1.0, "recall": 1.0, "f1": 1.0, "support": 1}
    assert found["types"] == {
        "accuracy": {"precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3), "support": 2},
        "macro avg": right,
        "micro avg": right,
        "weighted avg": {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0},
    }
    assert found["f1"] == pytest.approx((2 / 3 + 2) / 4 if not mark else 3 / 4)


@pytest.mark.parametrize(
    ("predicted", "expected", "f1"),
    [
        (["U-a", "U-a", "L-a"], ["U-a", "U-a", "U-a"], 1.0),  # an end without a beginning is an entity of one word
        (["U-a", "U-a"], ["B-a", "L-a"], 0.0),
        (["B-a", "I-a", "L-a", "U-b"], ["B-a", "I-a", "L-a", "U-b"], 1.0),
        (["S-a", "S-a"], ["B-a", "E-a"], 0.0),
    ],
)
def test_entities_of_one_word_and_ends_are_marked_by_either_letters(predicted, expected, f1):
    pytest.importorskip("seqeval", reason="the extra `tasks` is not installed")
    assert entity_metrics([predicted], [expected])["f1"] == pytest.approx(f1)
    assert entities_of(["B-a", "L-a", "U-a", "O", "U-b"]) == [("a", 0, 1), ("a", 2, 2), ("b", 4, 4)]


def test_the_interval_of_tags_is_that_of_the_library_by_resampling(monkeypatch):
    """Tags that a resample does not have are not in its mean."""
    scores = pytest.importorskip("sklearn.metrics", reason="the extra `tasks` is not installed")
    monkeypatch.setattr(intervals, "RESAMPLES", 50)
    rng = np.random.default_rng(0)
    predicted = [rng.choice(["a", "b", "c", "d"], size=n).tolist() for n in rng.integers(4, size=9)]
    expected = [rng.choice(["a", "bb", "c"], size=len(tags)).tolist() for tags in predicted]

    def f1(chosen):
        pair = [[tag for index in chosen for tag in side[index]] for side in (expected, predicted)]
        return scores.f1_score(*pair, average="macro", zero_division=0)

    found = entity_metrics(predicted, expected)
    assert found["f1_interval"] == pytest.approx(intervals.bootstrap_interval(f1, len(expected)))
    assert found["f1"] == pytest.approx(f1(range(len(expected))))
