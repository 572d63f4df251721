"""Triples as lines of text: written, read back, of dialogues and of records, and as a file of a graph."""

import json

import pytest

import memgpt_jax as mg
from memgpt_jax.data.examples.records import read_records
from memgpt_jax.data.examples.triple_lines import parse_triples, triple_lines
from memgpt_jax.data.examples.triples import read_triples
from memgpt_jax.data.tasks.text_pairs import pairs
from memgpt_jax.studies.command_line import load_config
from tests.data.examples.test_dialogues import DIALOGUE, turn, written
from tests.laws.real_data import DATA

TRIPLES = [("Ada", "wrote", "the first program"), ("Grace", "found", "a moth"), ("city", "Rome")]


def test_lines_are_read_as_they_were_written():
    text = triple_lines([*TRIPLES, TRIPLES[0]], "here")
    assert text == "Ada | wrote | the first program\nGrace | found | a moth\ncity | Rome"
    assert parse_triples(text) == (TRIPLES, [])
    assert triple_lines([], "here") == "none" and parse_triples("none") == parse_triples("") == ([], [])
    assert mg.data.parse_triples is parse_triples


@pytest.mark.parametrize(
    ("line", "triples", "malformed"),
    [
        ("a|b", [("a", "b")], []),
        (" a  b |c| d ", [("a b", "c", "d")], []),
        ("a", [], ["a"]),
        ("a | b | c | d", [], ["a | b | c | d"]),
        ("a | ", [], ["a | "]),
        (" \n\n", [], []),
        ("a | b\nA | b\na |b", [("a", "b"), ("A", "b")], []),
    ],
)
def test_lines_that_a_model_may_write(line, triples, malformed):
    assert parse_triples(line) == (triples, malformed)


def test_a_dialogue_has_the_pairs_of_its_user_in_their_order(tmp_path):
    said = [*DIALOGUE["turns"], turn("USER", "8:30 pm in  Rome?", time="8:30 pm", city="in  Rome")]
    (record,) = read_records(written(tmp_path / "a.json", [{"turns": said}]), "sgd_triples")
    assert record.values == {
        "source": "SYSTEM: Where in Rome?\nUSER: At St. Paul's, 8:30 pm.\nUSER: 8:30 pm in  Rome?",
        "target": "place | St. Paul's\ntime | 8:30 pm\ncity | in Rome",
    }


def test_records_with_triples_become_pairs_of_texts(tmp_path):
    rows = [{"text": "Ada wrote it.", "triples": [["Ada", "wrote", "it"]]}, {"text": "No.", "triples": []}]
    path = str(written(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows))))
    config = mg.TextPairsConfig(train=path, valid=path, form="triples", metrics=("triples",))
    found = [(pair.source, pair.targets) for pair in pairs(config, "valid")]
    assert found == [("Ada wrote it.", ("Ada | wrote | it",)), ("No.", ("none",))]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"triples": []}, "a.json, object 1 has no field 'text'"),
        ({"text": "a", "triples": "b"}, "object 1: field 'triples' must be a list, it is a str"),
        ({"text": "a", "triples": [["b", 1]]}, r"a triple must be a list of two or three texts, got \['b', 1\]"),
        ({"text": "a", "triples": [["b"]]}, r"a triple must be two or three texts without '\|', got \['b'\]"),
        ({"text": "a", "triples": [["b", " "]]}, r"a triple must be two or three texts without '\|'"),
        ({"text": "a", "triples": [["b|c", "d"]]}, r"a triple must be two or three texts without '\|'"),
    ],
)
def test_records_that_are_refused(tmp_path, values, message):
    with pytest.raises(ValueError, match=message):
        list(read_records(written(tmp_path / "a.json", [values]), "triples"))


def test_triples_of_three_fields_are_a_file_of_a_graph(tmp_path):
    path = written(tmp_path / "graph.txt", triple_lines(TRIPLES[:2], "here"))
    assert [tuple(triple) for triple in read_triples(path)] == TRIPLES[:2]


@pytest.mark.skipif(not (DATA / "dialogue" / "sgd_multi").is_dir(), reason="the dialogues of SGD are absent")
def test_the_pairs_of_the_test_dialogues_are_those_of_the_slots(monkeypatch):
    """As many as the distinct (slot, value) pairs that `sgd_slots` finds by tags."""
    monkeypatch.setenv("MEMGPT_DATA", str(DATA))
    found = pairs(load_config("sgd_triples").data, "test")
    triples = [parse_triples(pair.targets[0]) for pair in found]
    assert len(found) == 307 and sum(len(parsed.triples) for parsed in triples) == 1280
    assert not any(parsed.malformed for parsed in triples)
    assert triples[0].triples[1] == ("movie_name", "Pet Sematary")
