"""Statements about scenes in the language of NLVR, with what they mean: a predicate of scenes.

A number without "exactly" or "only" means "at least".
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from memgpt_jax.data.scenes import COLOURS, SHAPES, SIZES, WALLS, Scenes

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven")


class Statement(NamedTuple):
    """A statement."""

    text: str
    """Lower-case words."""
    holds: Callable[[Scenes], np.ndarray]
    """Of N scenes: [N] bool, of which it is true."""


class Phrase(NamedTuple):
    """Words for some boxes or objects."""

    text: str
    """Its words, with `{s}` or `{es}` where the plural ends so."""
    of: Callable[[Scenes], np.ndarray]
    """Of N scenes: [N, 3] bool, of which boxes it is true, or [N, 3, 8], of which objects."""


class Amount(NamedTuple):
    """Words for a number, and which numbers they mean."""

    text: str
    plural: bool
    fits: Callable[[np.ndarray], np.ndarray]

    def times(self, phrase: Phrase) -> str:
        """The words of so many of something."""
        return f"{self.text} {numbered(phrase.text, self.plural)}"


def numbered(text: str, plural: bool) -> str:
    """The singular or the plural of the text of a phrase."""
    return text.replace("{s}", "s" * plural).replace("{es}", "es" * plural)


def amount(kind: str, number: int) -> Amount:
    """Args: kind: `some`, `no`, `exactly`, `only`, `at least`, `more than`, or `plain`, which means at least."""
    word = NUMBERS[number]
    if kind == "some":
        return Amount("a", False, lambda count: count >= 1)
    if kind == "no":
        return Amount("no", False, lambda count: count == 0)
    if kind == "more than":
        return Amount(f"more than {word}", number > 1, lambda count: count > number)
    text = word if kind == "plain" else f"{kind} {word}"
    exact = kind in ("exactly", "only")
    return Amount(text, number > 1, lambda count: (count == number) if exact else (count >= number))


def objects(
    colour: int | None = None, shape: int | None = None, size: int | None = None, noun: str = "item", place: str = ""
) -> Phrase:
    """Objects of a colour, a shape and a size at a place.

    Args:
        colour: number in `COLOURS`; None: any. shape, size: likewise.
        noun: the word for objects of any shape.
        place: words such as "touching the edge" or "not touching any edge"; see `PLACES`.
    """
    words = [SIZES[size]] if size is not None else []
    words += [COLOURS[colour]] if colour is not None else []
    words += [(SHAPES[shape] if shape is not None else noun) + "{s}", place]

    def of(scenes: Scenes) -> np.ndarray:
        found = scenes.present
        for wanted, has in ((colour, scenes.colour), (shape, scenes.shape), (size, scenes.size)):
            found = found if wanted is None else found & (has == wanted)
        return found & PLACES[place](scenes.walls) if place else found

    return Phrase(" ".join(filter(None, words)), of)


def _wall(name: str) -> Callable[[np.ndarray], np.ndarray]:
    return lambda walls: walls[..., WALLS.index(name)]


EDGE, CORNER = (lambda walls: walls.any(axis=-1)), (lambda walls: walls.sum(axis=-1) >= 2)
PLACES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    **{f"touching {edge}": EDGE for edge in ("the edge", "the wall", "the side", "any edge", "an edge")},
    **{f"not touching {edge}": lambda walls: ~EDGE(walls) for edge in ("the edge", "the wall", "any edge")},
    **{f"{touching} corner": CORNER for touching in ("touching the", "closely touching a")},
    **{f"{touching}": _wall("bottom") for touching in ("touching the base", "closely touching the bottom of a box")},
    "closely touching right wall of a box": _wall("right"),
    "closely touching left wall of a box": _wall("left"),
    "closely touching the top of a box": _wall("top"),
}
"""Places of objects, and which objects are there, by the walls that they touch [..., 4]."""


def count(phrase: Phrase) -> Callable[[Scenes], np.ndarray]:
    """Number of objects of each box [N, 3]."""
    return lambda scenes: phrase.of(scenes).sum(axis=2)


def holding(amount: Amount, phrase: Phrase, link: str = "with") -> Phrase:
    """Boxes with so many of some objects."""
    return Phrase(f"{link} {amount.times(phrase)}".strip(), lambda scenes: amount.fits(count(phrase)(scenes)))


def both(first: Phrase, second: Phrase) -> Phrase:
    """Boxes of which two phrases are true."""
    return Phrase(f"{first.text} {second.text}", lambda scenes: first.of(scenes) & second.of(scenes))


def level(colour: int, place: str, text: str) -> Phrase:
    """Boxes whose object at a place has a colour. Args: place: `top`, `base` or `second`, counted from the base."""

    def of(scenes: Scenes) -> np.ndarray:
        number = scenes.present.sum(axis=2, keepdims=True)
        index = number - 1 if place == "top" else np.full_like(number, place == "second")
        return np.take_along_axis(scenes.colour, index, axis=2)[..., 0] == colour

    return Phrase(text, of)


def relation(upper: int, lower: int, noun: str, word: str) -> Phrase:
    """Boxes with an object of a colour directly on one of another. Args: word: such as "over" or "below"."""
    first, second = (lower, upper) if word == "below" else (upper, lower)

    def of(scenes: Scenes) -> np.ndarray:
        return ((scenes.colour[..., 1:] == upper) & (scenes.colour[..., :-1] == lower)).any(axis=2)

    return Phrase(f"a {COLOURS[first]} {noun} {word} a {COLOURS[second]} {noun}", of)


def only_colours(colours: tuple[int, ...], text: str) -> Phrase:
    """Boxes with objects of each of these colours, and of no other."""

    def of(scenes: Scenes) -> np.ndarray:
        has = np.stack([(scenes.colour == colour).any(axis=2) for colour in range(len(COLOURS))], axis=-1)
        return (has == np.isin(np.arange(len(COLOURS)), colours)).all(axis=-1)

    return Phrase(text, of)


def of_colours(number: int, text: str) -> Phrase:
    """Boxes with objects of exactly so many colours."""

    def of(scenes: Scenes) -> np.ndarray:
        kinds = [(scenes.colour == colour).any(axis=2) for colour in range(len(COLOURS))]
        return np.stack(kinds).sum(axis=0) == number

    return Phrase(text, of)


def there_are(amount: Amount, phrase: Phrase, prefix: str | None = None) -> Statement:
    """There are so many objects, or boxes. Args: prefix: words in place of "there are" and the amount."""

    def holds(scenes: Scenes) -> np.ndarray:
        return amount.fits(phrase.of(scenes).reshape(len(scenes.colour), -1).sum(axis=1))

    start = f"there {'are' if amount.plural else 'is'} {amount.text}" if prefix is None else prefix
    return Statement(f"{start} {numbered(phrase.text, amount.plural)}", holds)


def all_boxes(text: str, content: Phrase, *, none: bool = False) -> Statement:
    """All boxes have a content, or none has."""

    def holds(scenes: Scenes) -> np.ndarray:
        return (content.of(scenes) != none).all(axis=1)

    return Statement(f"{text} {content.text}", holds)


def all_objects(phrase: Phrase, place: str) -> Statement:
    """There are such objects, and all of them are at a place."""

    def holds(scenes: Scenes) -> np.ndarray:
        things, there = phrase.of(scenes), PLACES[place](scenes.walls)
        return np.asarray(things.any(axis=(1, 2)) & ~(things & ~there).any(axis=(1, 2)))

    verb, negation = ("are not", place.removeprefix("not ")) if place.startswith("not ") else ("are", place)
    return Statement(f"{numbered(phrase.text, True)} {verb} {negation}", holds)


def in_the_same_box(phrase: Phrase) -> Statement:
    """There are such objects, and all of them are in one box."""

    def holds(scenes: Scenes) -> np.ndarray:
        return phrase.of(scenes).any(axis=2).sum(axis=1) == 1

    return Statement(f"all {numbered(phrase.text, True)} are in the same box", holds)


def of_those(text: str, some: Phrase, content: Phrase) -> Statement:
    """There are such boxes, and all of them have a content."""

    def holds(scenes: Scenes) -> np.ndarray:
        boxes = some.of(scenes)
        return np.asarray(boxes.any(axis=1) & ~(boxes & ~content.of(scenes)).any(axis=1))

    return Statement(text, holds)


def colours_there(number: int, place: str, text: str) -> Statement:
    """The objects at a place have exactly so many colours."""

    def holds(scenes: Scenes) -> np.ndarray:
        there = PLACES[place](scenes.walls)
        kinds = [((scenes.colour == colour) & there).any(axis=(1, 2)) for colour in range(len(COLOURS))]
        return np.stack(kinds).sum(axis=0) == number

    return Statement(text, holds)


def none_of(phrase: Phrase, place: str) -> Statement:
    """None of such objects is at a place."""

    def holds(scenes: Scenes) -> np.ndarray:
        return np.asarray(~(phrase.of(scenes) & PLACES[place](scenes.walls)).any(axis=(1, 2)))

    return Statement(f"none of the {numbered(phrase.text, True)} are {place}", holds)


def same(text: str, value: Callable[[Scenes], np.ndarray]) -> Statement:
    """Two boxes have the same value [N, 3]."""

    def holds(scenes: Scenes) -> np.ndarray:
        values = value(scenes)
        return (values == np.roll(values, 1, axis=1)).any(axis=1)

    return Statement(text, holds)
