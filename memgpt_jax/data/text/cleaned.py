"""A text after a change, with the place in the original from which each of its characters came."""

import difflib
import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np


class Cleaned(NamedTuple):
    """A changed text and its map to the original.

    Character i came from `original[origin[i]:end[i]]`, at least one character. `origin` and `end` never decrease.
    """

    text: str
    """The changed text, of n characters."""
    origin: np.ndarray
    """[n] int64: where the characters begin in the original."""
    end: np.ndarray
    """[n] int64: where they end in the original, exclusive."""

    def span(self, first: int, last: int) -> tuple[int, int]:
        """The span of the original from which `text[first:last]` came, 0 <= first < last <= n."""
        if not 0 <= first < last <= len(self.text):
            raise ValueError(f"the span [{first}, {last}) must be of the {len(self.text)} characters, and not empty")
        return int(self.origin[first]), int(self.end[last - 1])

    def then(self, step: "Step") -> "Cleaned":
        """This text changed by a further step, with the map to the same original."""
        after = step(self.text)
        return Cleaned(after.text, self.origin[after.origin], self.end[after.end - 1])


Step = Callable[[str], Cleaned]
"""A change of a text. Steps are composed by `compose`."""


def unchanged(text: str) -> Cleaned:
    """The text itself."""
    places = np.arange(len(text))
    return Cleaned(text, places, places + 1)


def compose(text: str, steps: Iterable[Step]) -> Cleaned:
    """The text after all steps, one after the other."""
    result = unchanged(text)
    for step in steps:
        result = result.then(step)
    return result


class Edit(NamedTuple):
    """A span of a text and what takes its place."""

    first: int
    last: int
    new: str


def edited(text: str, edits: Iterable[Edit]) -> Cleaned:
    """The text with spans replaced, in ascending order and without overlap; each new character maps to its whole span.

    A span must not be empty.
    """
    parts, begins, ends, done = [], [], [], 0
    for first, last, new in edits:
        kept = np.arange(done, first)
        parts += [text[done:first], new]
        begins += [kept, np.full(len(new), first)]
        ends += [kept + 1, np.full(len(new), last)]
        done = last
    kept = np.arange(done, len(text))
    return Cleaned("".join([*parts, text[done:]]), np.concatenate([*begins, kept]), np.concatenate([*ends, kept + 1]))


def by_pieces(pieces: Iterable[str], change: Callable[[str], str]) -> Cleaned:
    """The text of the pieces, each changed by itself; a changed piece maps as a whole. None may be empty."""
    pieces, edits, place = list(pieces), [], 0
    for piece in pieces:
        if (new := change(piece)) != piece:
            edits.append(Edit(place, place + len(piece), new))
        place += len(piece)
    return edited("".join(pieces), edits)


TOKEN = re.compile(r"[A-Za-z0-9]+|[^A-Za-z0-9]")


def aligned(before: str, after: str) -> Cleaned:
    """The map between a text and its change by a function that gives none: equal parts map to each other.

    Words between ASCII spaces are compared one by one if their number is equal, and else the whole texts.
    """
    words, others = re.split("([ \t\n\r]+)", before), re.split("([ \t\n\r]+)", after)
    if [bool(word) for word in words] != [bool(other) for other in others]:
        return edited(before, _differences(before, after))
    edits, place = [], 0
    for word, other in zip(words, others, strict=True):
        if word != other:
            edits += [Edit(place + e.first, place + e.last, e.new) for e in _differences(word, other)]
        place += len(word)
    return edited(before, edits)


def _differences(before: str, after: str) -> list[Edit]:
    """Edits that turn one text into the other; none has an empty span."""
    old, new = TOKEN.findall(before), TOKEN.findall(after)
    places = np.cumsum([0, *map(len, old)]).tolist()
    edits: list[Edit] = []
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    for kind, i, j, k, m in matcher.get_opcodes():
        if kind == "equal":
            continue
        text = "".join(new[k:m])
        if i < j:
            edits.append(Edit(places[i], places[j], text))
        elif i < len(old):  # an insertion takes the place of the next character with it
            edits.append(Edit(places[i], places[i] + 1, text + before[places[i]]))
        elif edits and edits[-1].last == len(before):
            edits[-1] = edits[-1]._replace(new=edits[-1].new + text)
        else:
            edits.append(Edit(places[i] - 1, places[i], before[places[i] - 1] + text))
    return edits
