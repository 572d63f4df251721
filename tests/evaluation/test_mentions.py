"""Mentions of entities: distinct entities of documents, equal types, first and later mentions."""

import pytest

from memgpt_jax.data.tasks.tagged_text import TaggedTextConfig
from memgpt_jax.evaluation.metrics.mentions import mention_metrics
from tests.laws.real_data import DATA

pytest.importorskip("seqeval", reason="the extra `tasks` is not installed")
WORDS = [
    ["Ada", "saw", "Ada", "in", "Rome", ".", "Ada", ",", "ROME"],
    ["New", "York", ",", "new", "York"],
    ["Ada"],
    ["Rome", "rome", "rome"],
]
TRUE = [
    ["B-per", "O", "B-per", "O", "B-loc", "O", "B-per", "O", "B-loc"],
    ["B-loc", "I-loc", "O", "B-loc", "I-loc"],
    ["B-per"],
    ["B-loc", "O", "O"],
]
PREDICTED = [
    ["B-per", "O", "B-loc", "O", "B-loc", "O", "B-loc", "O", "B-loc"],
    ["B-loc", "I-loc", "O", "O", "B-per"],
    ["O"],
    ["B-per", "B-per", "B-per"],
]


def test_four_documents_by_hand():
    """Distinct: 3 of 6 predicted are right, of 5 true. Pairs: Ada twice, York once; Rome and ROME are two words."""
    assert mention_metrics(WORDS, PREDICTED, TRUE) == {
        "distinct_precision": 3 / 6,
        "distinct_recall": 3 / 5,
        "distinct_f1": 6 / 11,
        "distinct_entities": 5,
        "same_type": 1 / 3,
        "same_type_pairs": 3,
        "first_recall": 3 / 5,  # not those of the last two documents
        "first_mentions": 5,
        "later_recall": 1 / 4,  # ROME
        "later_mentions": 4,
    }


def test_context_and_empty_words_and_a_text_of_another_type():
    """The second `st paul` has another type, and is a later mention; so is the third, in another place than predicted.
    Words of context end mentions."""
    words = [["St", "", "Paul", "x", "st", "paul", "y", "St", "Paul"]]
    expected = [["B-per", "I-per", "I-per", "", "B-loc", "I-loc", "", "B-per", "I-per"]]
    predicted = [["B-per", "I-per", "I-per", "", "B-loc", "I-loc", "", "O", "B-per"]]
    found = mention_metrics(words, predicted, expected)
    assert (found["distinct_precision"], found["distinct_recall"]) == (2 / 3, 1)
    assert (found["first_recall"], found["first_mentions"]) == (1, 1)
    assert (found["later_recall"], found["later_mentions"]) == (1 / 2, 2)
    assert (found["same_type"], found["same_type_pairs"]) == (1, 1)  # Paul; the second has no capital letter


def test_where_nothing_can_be_counted():
    nothing = mention_metrics([["a"]], [["O"]], [["O"]])
    assert [nothing[name] for name in ("distinct_precision", "distinct_recall", "distinct_f1")] == [0, 0, 0]
    assert [nothing[name] for name in ("same_type", "first_recall", "later_recall")] == [None] * 3
    assert [nothing[name] for name in ("distinct_entities", "same_type_pairs", "later_mentions")] == [0, 0, 0]
    once = mention_metrics([["Ada"]], [["B-per"]], [["B-per"]])
    assert (once["same_type"], once["first_recall"], once["later_recall"]) == (None, 1, None)
    assert mention_metrics([["a"]], [["NOUN"]], [["NOUN"]]) == {}  # tags that do not mark entities


@pytest.mark.skipif(not (DATA / "ner" / "litbank_entities").is_dir(), reason="LitBank is absent")
def test_mentions_of_litbank():
    """Of the true tags of the test documents, as if they had been predicted."""
    config = TaggedTextConfig(
        train=str(DATA / "ner" / "litbank_entities"), form="conll", document="file", test_every=4, valid_every=3
    )
    records = config.records("test")
    tags = [record.texts("column1") for record in records]
    found = mention_metrics([record.texts("words") for record in records], tags, tags)
    assert (found["first_mentions"], found["later_mentions"], found["distinct_f1"]) == (1641, 735, 1)
    assert (found["same_type"], found["same_type_pairs"]) == (611 / 659, 659)
