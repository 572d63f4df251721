"""Dialogues as tagged words, words without a tag, JSON files, several columns of text, and folds."""

import itertools
import json

import numpy as np
import pytest

from memgpt_jax.config.texts import AugmentConfig
from memgpt_jax.data.examples.files import read_split
from memgpt_jax.data.examples.records import read_records
from memgpt_jax.data.tasks.labelled_text import LabelledTextConfig, LabelledTextTask
from memgpt_jax.data.tasks.tagged_text import TaggedTextConfig, TaggedTextTask
from memgpt_jax.data.tokenizers.byte import ByteTokenizer
from memgpt_jax.evaluation.metrics.entities import entity_metrics
from memgpt_jax.evaluation.metrics.mentions import mention_metrics
from tests.laws.real_data import DATA

BYTES = ByteTokenizer()


def turn(speaker, utterance, **slots):
    """A turn in which each slot has the given text."""
    found = [
        {"slot": name, "start": utterance.index(text), "exclusive_end": utterance.index(text) + len(text)}
        for name, text in slots.items()
    ]
    return {"speaker": speaker, "utterance": utterance, "frames": [{"slots": found}]}


DIALOGUE = {
    "turns": [
        turn("SYSTEM", "Where in Rome?", city="Rome"),
        turn("USER", "At St. Paul's, 8:30 pm.", place="St. Paul's", time="8:30 pm"),
    ]
}
WORDS = [
    "SYSTEM",
    ":",
    "Where",
    "in",
    "Rome",
    "?",
    "USER",
    ":",
    "At",
    "St",
    ".",
    "Paul",
    "'",
    "s",
    ",",
    "8:30",
    "pm",
    ".",
]
TAGS = [""] * 8 + ["O", "B-place", "I-place", "I-place", "I-place", "I-place", "O", "B-time", "I-time", "O"]


def written(path, value):
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_a_dialogue_is_its_words_with_tags_where_the_user_speaks(tmp_path, name):
    path = written(tmp_path / name, json.dumps(DIALOGUE) if name == "a.jsonl" else [DIALOGUE])
    (record,) = read_records(path, "sgd")
    assert record.values == {"words": WORDS, "slots": TAGS}


def changed(number, **changes):
    """The dialogue with other fields in a turn."""
    turns = list(DIALOGUE["turns"])
    turns[number] = turns[number] | changes
    return {"turns": turns}


SPAN = {"slot": "city", "start": 3, "exclusive_end": 40}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({}, r"a.json, object 1 has no field 'turns'; it has none"),
        (changed(0, utterance=None), r"object 1, turn 1: field 'utterance' must be a str, it is a NoneType"),
        (changed(1, frames=[{}]), r"object 1, turn 2 has no field 'slots'"),
        (changed(1, frames=[{"slots": [SPAN]}]), r"turn 2: slot 'city' has the characters 3 to 40 of .* 23 characters"),
        (changed(1, frames=[{"slots": [SPAN | {"start": True}]}]), r"field 'start' must be a int, it is a bool"),
        ([], r"object 1 must be a JSON object, it is a list"),
    ],
)
def test_dialogues_that_are_refused(tmp_path, value, message):
    with pytest.raises(ValueError, match=message):
        list(read_records(written(tmp_path / "a.json", [value]), "sgd"))


def confirming(utterance, *values):
    """A turn of the system that confirms values."""
    actions = [{"act": "CONFIRM", "slot": "s", "values": [value]} for value in values]
    return {"speaker": "SYSTEM", "utterance": utterance, "frames": [{"slots": [], "actions": actions}]}


def test_confirmed_values_are_those_that_were_said_before(tmp_path):
    """`Rome` was said 3 words before the turn, `8 pm` 39 words; `two` was never said, `Ada` is not in the turn."""
    turns = [
        turn("USER", "At 8 pm " + "now " * 35 + "in rome today."),
        confirming("Rome at 8 pm for two?", "Rome", "8 pm", "two", "Ada"),
    ]
    turns[0]["frames"] = []
    path = written(tmp_path / "a.json", [{"turns": turns}])
    begun = f"USER: {turns[0]['utterance']}\nSYSTEM:"
    assert [record.values for record in read_records(path, "sgd_confirmed")] == [
        {"source": begun, "target": "Rome", "distance": "0-32"},
        {"source": f"{begun} Rome at", "target": "8 pm", "distance": "33-64"},
    ]
    part = [turn("USER", "For 2, not " + "now " * 35 + "at 3."), confirming("At 12:30, 1.2 a 2nd table for 2.", "2")]
    part[0]["frames"] = []
    (found,) = read_records(written(tmp_path / "b.json", [{"turns": part}]), "sgd_confirmed")
    assert found.values["source"].endswith("SYSTEM: At 12:30, 1.2 a 2nd table for")
    part[0]["utterance"] += " Or at 2:30, 5:2 or 2.5?"
    (found,) = read_records(written(tmp_path / "b.json", [{"turns": part}]), "sgd_confirmed")
    assert found.values["distance"] == "33-64"  # from the first "2"
    turns[1]["frames"][0]["actions"][0].pop("values")
    with pytest.raises(ValueError, match="object 1, turn 2 has no field 'values'"):
        list(read_records(written(tmp_path / "a.json", [{"turns": turns}]), "sgd_confirmed"))


def test_words_of_dialogues_are_not_changed_at_random():
    with pytest.raises(ValueError, match=r"data.augment would change who speaks in dialogues, data.form='sgd'"):
        TaggedTextConfig(form="sgd", augment=AugmentConfig(swap=0.1))


@pytest.mark.parametrize(
    ("name", "content", "form", "message"),
    [
        ("a.json", "[", "auto", "a.json is not JSON"),
        ("a.json", "3", "sgd", "a.json must be a list of JSON objects or an object of objects, it is 3"),
        ("a.json", '{"x": 1}', "auto", "a.json, object x must be a JSON object, it is a int"),
        ("a.csv", "a,b\n", "sgd", "a.csv: its suffix must be .jsonl or .json"),
    ],
)
def test_json_files_that_are_refused(tmp_path, name, content, form, message):
    with pytest.raises(ValueError, match=message):
        list(read_records(written(tmp_path / name, content), form))


def test_words_without_a_tag_are_read_but_have_no_target(tmp_path):
    rows = [{"words": ["a:", "bc", "de"], "tags": ["", "X", "Y"]}, {"words": ["f"], "tags": ["X"]}]
    path = written(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)))
    task = TaggedTextTask(TaggedTextConfig(train=str(path), tag_column="tags", valid=str(path)), "train", BYTES)
    assert task.config.tags == ("X", "Y")
    row = task.row(0, 0, 64)
    assert BYTES.decode(row["tokens"][1:].tolist()) == "a: bc de"
    assert row["weights"].nonzero()[0].tolist() == [5, 8] and row["targets"][[5, 8]].tolist() == [0, 1]
    assert (row["targets"][row["weights"] == 0] == -1).all()
    assert task.places(0).tolist() == [5, 8] and task.targets(0).tolist() == [0, 1]
    path = written(tmp_path / "b.jsonl", json.dumps({"words": ["a"], "tags": [""]}))
    config = TaggedTextConfig(train=str(path), tag_column="tags", tags=("X", "Y"), valid=str(path))
    with pytest.raises(ValueError, match=r"b.jsonl, line 1: no word has a tag"):
        TaggedTextTask(config, "train", BYTES)


def test_context_is_not_scored_and_ends_entities():
    """Two entities of one word each, not one of two; 2 of 3 expected entities are found, 3 of 4 words are right."""
    pytest.importorskip("seqeval", reason="the extra `tasks` is not installed")
    expected, predicted = ["B-a", "", "I-a", "B-b", "O"], ["B-a", "", "I-a", "O", "O"]
    found = entity_metrics([predicted], [expected])
    assert (found["precision"], found["recall"], found["accuracy"]) == (1, pytest.approx(2 / 3), 0.75)
    words = entity_metrics([["x", "", "y"]], [["x", "", "x"]])  # tags that do not mark entities
    assert words["accuracy"] == 0.5 and set(words["types"]) == {"x", "y"}


def test_a_text_of_several_columns(tmp_path):
    values = {str(i): {"q": f"Q{i}?", "parts": ["a", "b"], "label": "yes" if i % 2 else "no"} for i in range(4)}
    path = written(tmp_path / "a.json", values)
    options = {"train": str(path), "valid": str(path), "text_column": "q"}
    task = LabelledTextTask(LabelledTextConfig(**options, more_columns=["parts"]), "train", BYTES)
    assert task.examples[1].text == "Q1? a b" and task.examples[1].where.endswith("a.json, object 1")
    with pytest.raises(ValueError, match=r"object 0 has no column 'text'; it has 'q', 'parts', 'label'"):
        LabelledTextTask(LabelledTextConfig(**options, more_columns=("text",)), "train", BYTES)
    with pytest.raises(ValueError, match=r"data.more_columns must be a list of columns, got 'parts'"):
        LabelledTextConfig(**options, more_columns="parts")


def test_folds_are_disjoint_and_cover_all_records(tmp_path):
    path = written(tmp_path / "a.jsonl", "\n".join(json.dumps({"text": str(i)}) for i in range(10)))
    found = []
    for fold in range(4):
        config = LabelledTextConfig(train=str(path), test_every=4, test_fold=fold, valid_every=3)
        parts = [[int(record.text("text")) for record in read_split(config, s)] for s in ("train", "valid", "test")]
        assert sorted(itertools.chain(*parts)) == list(range(10))
        found.append(parts[2])
    assert found == [[3, 7], [2, 6], [1, 5, 9], [0, 4, 8]]
    own = LabelledTextConfig(train=str(path), test=str(path), test_every=4, test_fold=3, valid_every=10)
    parts = [[int(record.text("text")) for record in read_split(own, s)] for s in ("train", "valid", "test")]
    assert parts == [list(range(9)), [9], [0, 4, 8]]  # a file of its own: its parts alone, and none of `train`
    for options in ({"test_every": 4, "test_fold": 4}, {"test_fold": 1}):
        with pytest.raises(ValueError, match=r"data.test_fold must be less than data.test_every"):
            LabelledTextConfig(train=str(path), **options)


@pytest.mark.skipif(not (DATA / "dialogue" / "sgd_multi").is_dir(), reason="the dialogues of SGD are absent")
def test_all_slots_of_the_baseline_are_found():
    pytest.importorskip("seqeval", reason="the extra `tasks` is not installed")
    config = TaggedTextConfig(
        train=str(DATA / "dialogue" / "sgd_multi" / "train.jsonl.gz"), form="sgd", tag_column="slots", test_every=5
    )
    records = config.records("test")
    words = [word for record in records for word in record.texts("words")]
    tags = [tag for record in records for tag in record.texts("slots")]
    begins = [tag for tag in tags if tag.startswith("B-")]
    assert (len(records), words.count("USER"), len(begins), len(set(begins))) == (307, 3162, 1280, 38)
    starts = [tag for before, tag in itertools.pairwise(["O", *tags]) if tag.startswith("I-") and before[2:] != tag[2:]]
    assert not starts  # each span begins with a B- tag
    assert np.array([tag == "" for tag in tags])[[word == "SYSTEM" for word in words]].all()
    columns = [[record.texts(column) for record in records] for column in ("words", "slots", "slots")]
    assert mention_metrics(*columns)["distinct_entities"] == 1280  # no user says a value of a slot twice in a dialogue
