"""Sentences of NLVR: the scene is read as it stands, and what is not valid is named with its file and line."""

import copy
import json

import numpy as np
import pytest

from memgpt_jax.data.examples.nlvr import read_nlvr


def item(x, y, size=20, kind="square", colour="Black"):
    return {"x_loc": x, "y_loc": y, "size": size, "type": kind, "color": colour}


ROW = {
    "sentence": "There are 2 blocks, at least.",
    "label": "true",
    "identifier": "31-0",
    "structured_rep": [
        [item(40, 59, colour="Yellow"), item(40, 80)],
        [item(0, 3, 10, "circle", "#0099ff")],
        [],
    ],
}


def test_a_sentence_and_its_scene(tmp_path):
    path = tmp_path / "nlvr.jsonl"
    path.write_text(json.dumps(ROW) + "\n")
    (sentence,), scenes = read_nlvr(path)
    assert sentence.words == ("there", "are", "two", "blocks", "at", "least")
    assert sentence.label == 1
    np.testing.assert_array_equal(scenes.present.sum(axis=2), [[2, 1, 0]])
    np.testing.assert_array_equal(scenes.colour[0, :, :2], [[1, 0], [2, -1], [-1, -1]])  # the lowest comes first
    np.testing.assert_array_equal(scenes.y[0, :2, 0], [80, 3])
    assert (scenes.shape[0, 1, 0], scenes.size[0, 1, 0]) == (0, 0)
    np.testing.assert_array_equal(scenes.walls[0, 0, 0], [True, False, False, False])
    np.testing.assert_array_equal(scenes.walls[0, 1, 0], [False, False, True, False])
    assert scenes.walls.sum() == 2


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("structured_rep", 0, 1, "color"), "Red", "box 1, object 2: the colour must be one of Yellow, Black, #0099ff"),
        (("structured_rep", 1, 0, "type"), "star", "box 2, object 1: the type must be one of circle, square, triangle"),
        (("structured_rep", 1, 0, "size"), 15, "the size must be 10, 20 or 30 pixels, got 15"),
        (("structured_rep", 1, 0, "x_loc"), 91, "x_loc must be from 0 to 90, got 91"),
        (("structured_rep", 1, 0, "y_loc"), "3", "field 'y_loc' must be a int, it is a str"),
        (("structured_rep", 2), {}, "box 3 must be a list of objects, it is a dict"),
        (("structured_rep", 2), [item(0, 0)] * 9, "box 3 has 9 objects, at most 8 are possible"),
        (("structured_rep", 0, 0), 7, "box 1, object 1 must be a JSON object"),
        (("structured_rep",), [[], []], "structured_rep must be 3 boxes, got 2"),
        (("label",), "maybe", "the label must be 'true' or 'false', got 'maybe'"),
        (("sentence",), " . ", "the sentence has no words"),
        (("sentence",), 31, "field 'sentence' must be a str, it is a int"),
    ],
)
def test_what_is_not_valid_is_named_with_its_line(tmp_path, place, value, message):
    row = copy.deepcopy(ROW)
    at = row
    for key in place[:-1]:
        at = at[key]
    at[place[-1]] = value
    path = tmp_path / "nlvr.jsonl"
    path.write_text(json.dumps(ROW) + "\n" + json.dumps(row) + "\n")
    with pytest.raises(ValueError) as error:
        read_nlvr(path)
    assert "nlvr.jsonl, line 2" in str(error.value) and message in str(error.value)
