"""Entities of texts as tags of words, and pairs of entities as marked texts with a relation."""

import json

import pytest

import memgpt_jax as mg
from memgpt_jax.data.examples.entity_pairs import words_of_entities
from memgpt_jax.data.examples.files import read_split
from memgpt_jax.data.examples.records import read_records
from tests.data.examples.test_dialogues import written

TEXT = "Ada L. met Bob."
ADA, BOB = {"start": 0, "end": 6, "type": "person"}, {"start": 11, "end": 14, "type": "person"}
RECORD = {"text": TEXT, "entities": [ADA, BOB], "relations": [{"head": 1, "relation": "was met by", "tail": 0}]}


def test_a_record_is_words_with_tags_and_pairs_with_labels(tmp_path):
    path = written(tmp_path / "a.json", [RECORD])
    (words,) = read_records(path, "entities")
    assert words.values == {
        "words": ["Ada", "L", ".", "met", "Bob", "."],
        "tags": ["B-person", "I-person", "I-person", "O", "B-person", "O"],
    }
    assert [record.values for record in read_records(path, "entity_pairs")] == [
        {"text": "[head person] Ada L. [/head] met [tail person] Bob [/tail].", "label": "none"},
        {"text": "[tail person] Ada L. [/tail] met [head person] Bob [/head].", "label": "was met by"},
    ]


@pytest.mark.parametrize(
    ("spans", "tags"),
    [
        ([(3, 6, "x")], ["O", "B-x", "O"]),  # with the space before it
        ([(0, 6, "x"), (4, 9, "y")], ["B-x", "I-x", "O"]),  # what is left of an overlapped entity is none
        ([(4, 6, "x"), (0, 9, "y")], ["O", "B-x", "O"]),
        ([(0, 3, "x"), (4, 6, "x")], ["B-x", "B-x", "O"]),
    ],
)
def test_the_first_word_of_an_entity_has_the_tag_of_a_beginning(spans, tags):
    entities = [dict(zip(("start", "end", "type"), span, strict=True)) for span in spans]
    assert words_of_entities({"text": "One two six", "entities": entities}, "x")["tags"] == tags


def test_an_entity_without_a_word_is_named():
    entities = [{"start": 3, "end": 4, "type": "x"}]
    with pytest.raises(ValueError, match=r"a.json, object 1: the characters 3 to 4, 'x', hold no word"):
        words_of_entities({"text": "One two", "entities": entities}, "a.json, object 1")


def test_marks_of_entities_that_touch_or_lie_in_each_other():
    touching, nested = mg.data.entity_pairs("abc", [(0, 1, "x"), (1, 3, "y")]), [(0, 3, "x"), (1, 2, "y")]
    assert [pair.text for pair in touching] == [
        "[head x] a [/head][tail y] bc [/tail]",
        "[tail x] a [/tail][head y] bc [/head]",
    ]
    first = mg.data.entity_pairs("abc", nested)[0]
    assert first == ("abc", "b", "[head x] a[tail y] b [/tail]c [/head]")
    for spans, expected in (
        ([(0, 3, "x"), (0, 1, "y")], "[head x] [tail y] a [/tail]bc [/head]"),
        ([(0, 1, "y"), (0, 3, "x")], "[tail x] [head y] a [/head]bc [/tail]"),
        ([(1, 3, "y"), (0, 3, "x")], "[tail x] a[head y] bc [/head] [/tail]"),
        ([(0, 3, "y"), (2, 3, "x")], "[head y] ab[tail x] c [/tail] [/head]"),
        ([(0, 3, "y"), (0, 3, "x")], "[head y] [tail x] abc [/tail] [/head]"),
    ):
        assert mg.data.entity_pairs("abc", spans)[0].text == expected
    assert mg.data.entity_pairs("abc", nested[:1]) == []
    with pytest.raises(ValueError, match="the entity 'x' has the characters 0 to 4 of a text of 3 characters"):
        mg.data.entity_pairs("abc", [(0, 4, "x")])


def test_the_pairs_of_a_text_are_in_one_split(tmp_path):
    path = str(written(tmp_path / "a.jsonl", "\n".join(map(json.dumps, [RECORD] * 4))))
    config = mg.LabelledTextConfig(train=path, form="entity_pairs", valid_every=2)
    for split, places in (("train", ["line 1", "line 3"]), ("valid", ["line 2", "line 4"])):
        records = read_split(config, split)
        assert [record.where.rpartition(", ")[2] for record in records] == [place for place in places for _ in range(2)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"entities": [ADA | {"end": 16}]}, "object 1, entity 1 has the characters 0 to 16 of a text of 15 characters"),
        ({"entities": [{"start": 0, "end": 1}]}, "object 1, entity 1 has no field 'type'"),
        (
            {"relations": [{"head": 0, "relation": "x", "tail": 2}]},
            "relation 1: head and tail must be two of the 2 ent",
        ),
        (
            {"relations": [{"head": 1, "relation": "x", "tail": 1}]},
            "counted from 0, and have one relation; got 1 and 1",
        ),
        ({"relations": RECORD["relations"] * 2}, "object 1, relation 2: .*; got 1 and 0"),
    ],
)
def test_records_that_are_refused(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        list(read_records(written(tmp_path / "a.json", [RECORD | change]), "entity_pairs"))
