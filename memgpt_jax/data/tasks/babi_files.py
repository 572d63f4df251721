"""Files of bAbI: stories of numbered lines, which are statements or questions."""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from memgpt_jax.data.corpora.reading import read_text, unreadable
from memgpt_jax.data.corpora.sources import expand

FILE_NAME = re.compile(r"qa(\d+)_(?:.*_)?(train|test)\.txt(\.gz)?")


class Line(NamedTuple):
    """A statement, or a question with its answer."""

    text: str
    """The text of the line, without its number."""
    answer: str | None = None
    """The answer as written in the file (`office`, or `football,milk`); None for a statement."""
    supports: tuple[int, ...] = ()
    """Indices in the story of the lines from which the answer follows."""


Story = tuple[Line, ...]


def babi_files(path: str | None) -> dict[tuple[int, str], Path]:
    """The files of a folder by task number and split, `train` or `test`. `ValueError` if there are none."""
    folder = None if path is None else expand(path)
    found = {}
    try:
        files = sorted(folder.iterdir()) if folder and os.path.isdir(folder) else []
    except OSError as error:
        assert folder is not None
        raise unreadable(folder, error) from None
    for file in files:
        match = FILE_NAME.fullmatch(file.name)
        if match:
            key = int(match[1]), match[2]
            if key in found:
                raise ValueError(f"{found[key]} and {file} are both the {key[1]} file of task {key[0]}: keep one")
            found[key] = file
    if not found:
        raise ValueError(
            f"data.path={path!r} must be a folder of bAbI's files, such as qa1_single_train.txt or .txt.gz"
        )
    return found


def read_stories(files: dict[tuple[int, str], Path], task: int, split: str, valid_share: float) -> list[Story]:
    """The stories of one split of a task. The last `valid_share` of the training file are `valid`, the others `train`.

    Raises `ValueError` if the file is missing or has another format, or if a split would be empty.
    """
    part = "test" if split == "test" else "train"
    if (task, part) not in files:
        folder = next(iter(files.values())).parent
        raise ValueError(f"{folder} holds no {part} file of task {task} (qa{task}_..._{part}.txt or .txt.gz)")
    stories = parse_stories(read_text(files[task, part]).splitlines(), str(files[task, part]))
    first_valid = len(stories) - round(valid_share * len(stories))
    stories = {"train": stories[:first_valid], "valid": stories[first_valid:], "test": stories}[split]
    if not stories:
        raise ValueError(f"{files[task, part]} is too short for data.valid_share={valid_share}: {split} has no story")
    return stories


def parse_stories(lines: Iterable[str], name: str) -> list[Story]:
    """The stories of a file; a story begins at each line numbered 1. `ValueError` names a line of another format.

    Lines are `NUMBER statement` or `NUMBER question TAB answer TAB numbers of the supporting lines`.
    """
    stories: list[list[Line]] = []
    for count, line in enumerate(lines, start=1):
        number, _, text = line.partition(" ")
        begins = number == "1"
        expected = 1 + len(stories[-1]) if stories and not begins else 1
        text, *rest = (field.strip() for field in text.split("\t"))
        supports = rest[1].split() if len(rest) > 1 else []
        numbered = number == str(expected) and all(x.isdecimal() and 0 < int(x) < expected for x in supports)
        if not numbered or not text or (rest and not rest[0]):
            raise ValueError(
                f"{name}, line {count}: expected '{expected} statement' or "
                f"'{expected} question TAB answer TAB numbers of earlier lines', got {line!r}"
            )
        if begins:
            stories.append([])
        stories[-1].append(Line(text, rest[0] if rest else None, tuple(int(x) - 1 for x in supports)))
    return [tuple(story) for story in stories]


def words_of(text: str) -> list[str]:
    """Lower-case words; each punctuation mark is a separate word."""
    return re.findall(r"[^\s.,?!]+|[.,?!]", text.lower())
