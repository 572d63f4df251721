"""Sentences of NLVR about scenes of three boxes, with the objects of the scenes.

Suhr et al., "A Corpus of Natural Language for Visual Reasoning" (2017).
"""

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from memgpt_jax.config.checks import check
from memgpt_jax.data.corpora.reading import DEFAULT, kind_of, read_tables
from memgpt_jax.data.examples.json_objects import field_of
from memgpt_jax.data.scenes import BOXES, SHAPES, SIDE, SLOTS, Scenes, in_order
from memgpt_jax.files.paths import shown

COLOURS = ("Yellow", "Black", "#0099ff")
"""The colours of objects as they are written, in the order of `memgpt_jax.data.scenes.COLOURS`."""
LABELS = ("false", "true")
NUMBERS = dict(enumerate(("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")))


class Sentence(NamedTuple):
    """A sentence about a scene."""

    where: str
    """File and line."""
    words: tuple[str, ...]
    """Lower-case words; digits are written out."""
    label: int
    """Number in `LABELS`."""


def words_of(text: str) -> tuple[str, ...]:
    """The words of a sentence, in lower case, without punctuation; digits are written out."""
    found = re.findall(r"[a-z]+|\d", text.lower())
    return tuple(NUMBERS[int(word)] if word.isdigit() else word for word in found)


def read_nlvr(path: Path) -> tuple[list[Sentence], Scenes]:
    """The sentences of a .jsonl file of NLVR, and the scene of each.

    Raises `ValueError` with file and line if a field is missing, or not valid: `sentence`, `label` (true or false), and
    `structured_rep`, three lists of at most 8 objects with `x_loc`, `y_loc`, `size`, `type`, `color`.
    """
    check(kind_of(path.name) == "jsonl", f"{shown(path)}: its suffix must be .jsonl or .jsonl.gz")
    sentences, scenes = [], []
    for where, values in read_tables(path, "jsonl", DEFAULT):
        text, label = (field_of(values, name, str, where) for name in ("sentence", "label"))
        check(label in LABELS, f"{where}: the label must be 'true' or 'false', got {label!r}")
        words = words_of(text)
        check(bool(words), f"{where}: the sentence has no words")
        sentences.append(Sentence(where, words, LABELS.index(label)))
        scenes.append(_scene(field_of(values, "structured_rep", list, where), where))
    check(bool(sentences), f"{shown(path)} has no sentences")
    return sentences, in_order(Scenes(*np.stack(scenes, axis=1)))


def _scene(boxes: list[Any], where: str) -> np.ndarray:
    """The arrays of `Scenes` of a scene, int32 [5, 3, 8]."""
    check(len(boxes) == BOXES, f"{where}: structured_rep must be {BOXES} boxes, got {len(boxes)}")
    scene = np.zeros((5, BOXES, SLOTS), np.int32)
    scene[0] = -1
    for number, box in enumerate(boxes, start=1):
        at = f"{where}, box {number}"
        check(isinstance(box, list), f"{at} must be a list of objects, it is a {type(box).__name__}")
        check(len(box) <= SLOTS, f"{at} has {len(box)} objects, at most {SLOTS} are possible")
        for slot, item in enumerate(box):
            scene[:, number - 1, slot] = _object(item, f"{at}, object {slot + 1}")
    return scene


def _object(item: Any, where: str) -> tuple[int, ...]:
    colour, shape = (field_of(item, name, str, where) for name in ("color", "type"))
    check(colour in COLOURS, f"{where}: the colour must be one of {', '.join(COLOURS)}, got {colour!r}")
    check(shape in SHAPES, f"{where}: the type must be one of {', '.join(SHAPES)}, got {shape!r}")
    size, x, y = (field_of(item, name, int, where) for name in ("size", "x_loc", "y_loc"))
    check(size in (10, 20, 30), f"{where}: the size must be 10, 20 or 30 pixels, got {size}")
    for name, value in (("x_loc", x), ("y_loc", y)):
        check(0 <= value <= SIDE - size, f"{where}: {name} must be from 0 to {SIDE - size}, got {value}")
    return COLOURS.index(colour), SHAPES.index(shape), size // 10 - 1, x, y
