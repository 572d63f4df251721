"""Scenes of three boxes of objects, as in NLVR: how they are drawn, their features, and the edges of their graph."""

from typing import NamedTuple, Self

import numpy as np

COLOURS = ("yellow", "black", "blue")
SHAPES = ("circle", "square", "triangle")
SIZES = ("small", "medium", "big")
"""Objects of 10, 20 and 30 pixels."""
BOXES = 3
SLOTS = 8
"""Maximum number of objects of a box."""
SCATTERED = 15
"""Maximum number of objects of a scene that is drawn."""
SIDE = 100
"""Width and height of a box in pixels."""
WALLS = ("bottom", "top", "left", "right")
NAMING = 6
"""Maximum number of words of a sentence that have edges to the objects that they name: the first ones."""
EDGES = (
    "object to box",
    "box to object",
    "object to the next above",
    "object to the next below",
    "word to object",
    "word to other object",
    "object to word",
    "word to box",
    "box to word",
    "word to the next",
    "word to the one before",
)
"""The kinds of edges. Words that name a colour, a shape or a size have edges to the objects that have it, and edges of
another kind to those that have not: an object is what several words name if it has no edge of that kind.

Loops fill up the edges from objects to their box, and to a word, to the largest number of objects: the mean of messages
then is a sum, from which nodes can count.
"""
NAMES = {
    **{name: number for number, name in enumerate((*COLOURS, *SHAPES, *SIZES))},
    **{f"{name}s": len(COLOURS) + number for number, name in enumerate(SHAPES)},
}
"""What words name: the number of a colour, 3 + that of a shape, 6 + that of a size."""
OBJECT_FEATURES = len(COLOURS) + len(SHAPES) + len(SIZES) + len(WALLS) + BOXES + 3
"""Features of an object: colour, shape, size, walls that it touches, box, centre; the last is 1 for a box."""
COUNTED = (1 + len(COLOURS)) * (1 + len(SHAPES))
"""What is counted in a box: objects of any or each colour and any or each shape."""
FEATURES = OBJECT_FEATURES + COUNTED * SLOTS
"""Features of a token: those of an object, and for a box whether it has at least 1, ..., 8 objects of each colour and
shape."""


class Scenes(NamedTuple):
    """N scenes, int32 [N, 3, 8] each. The objects of a box come first, from the lowest to the highest."""

    colour: np.ndarray
    """Number in `COLOURS`; -1: there is no object."""
    shape: np.ndarray
    """Number in `SHAPES`."""
    size: np.ndarray
    """Number in `SIZES`."""
    x: np.ndarray
    """Pixels from the left wall of the box to the object."""
    y: np.ndarray
    """Pixels from the top of the box to the object."""

    @property
    def present(self) -> np.ndarray:
        """[N, 3, 8] bool: where there is an object."""
        return self.colour >= 0

    @property
    def walls(self) -> np.ndarray:
        """[N, 3, 8, 4] bool: which of `WALLS` an object touches."""
        far = SIDE - 10 * (self.size + 1)
        return np.stack([self.y == far, self.y == 0, self.x == 0, self.x == far], axis=-1) & self.present[..., None]

    @property
    def features(self) -> tuple[np.ndarray, np.ndarray]:
        """Features of boxes [N, 3, F] and of objects [N, 3, 8, F], float32."""
        half, shape = 5 * (self.size + 1), self.colour.shape
        centre = np.stack([self.x + half, self.y + half], axis=-1) / (SIDE / 2) - 1
        one_hot = [np.eye(3)[numbers] for numbers in (self.colour, self.shape, self.size)]
        box = np.broadcast_to(np.eye(BOXES)[:, None], (*shape, BOXES))
        blank = np.zeros((*shape, 1 + COUNTED * SLOTS))
        objects = np.concatenate([*one_hot, self.walls, box, centre, blank], axis=-1)
        any_of = [np.concatenate([np.ones((*shape, 1)), values], axis=-1) for values in one_hot[:2]]
        pairs = any_of[0][..., :, None] * any_of[1][..., None, :] * self.present[..., None, None]
        counts = pairs.sum(axis=2).reshape(*shape[:2], COUNTED, 1)
        boxes = np.zeros((*shape[:2], FEATURES))
        boxes[..., OBJECT_FEATURES - 3 - BOXES : OBJECT_FEATURES - 3] = np.eye(BOXES)
        boxes[..., OBJECT_FEATURES - 1] = 1
        boxes[..., OBJECT_FEATURES:] = (counts > np.arange(SLOTS)).reshape(*shape[:2], -1)
        return boxes.astype(np.float32), objects.astype(np.float32)

    def at(self, rows: np.ndarray) -> Self:
        """The scenes of these numbers."""
        return self._replace(**{name: array[rows] for name, array in self._asdict().items()})

    def changed(self, boxes: np.ndarray, colours: np.ndarray) -> Self:
        """The scenes with boxes in another order [N, 3], and objects of other colours: c becomes `colours[n, c]`."""
        moved = {name: np.take_along_axis(array, boxes[:, :, None], axis=1) for name, array in self._asdict().items()}
        kept = moved["colour"].reshape(len(boxes), -1)
        new = np.where(kept >= 0, np.take_along_axis(colours, np.maximum(kept, 0), axis=1), -1)
        return self._replace(**moved | {"colour": new.reshape(moved["colour"].shape).astype(np.int32)})


def joined(*parts: Scenes) -> Scenes:
    """All scenes of several."""
    return Scenes(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def tower_scenes(rng: np.random.Generator, number: int) -> Scenes:
    """Scenes of three towers of one to four squares of 20 pixels."""
    level = np.broadcast_to(np.arange(SLOTS), (number, BOXES, SLOTS))
    present = level < rng.integers(1, 5, size=(number, BOXES, 1))
    colour = _colours(rng, number)
    values = (np.where(present, colour, -1), 1, 1, 40, 80 - 21 * level)
    return _scenes(*(np.where(present, value, 0 if i else -1) for i, value in enumerate(values)))


def scattered_scenes(rng: np.random.Generator, number: int) -> Scenes:
    """Scenes of one to seven objects of any kind in each box, many of which touch a wall."""
    shape = (number, BOXES, SLOTS)
    size = rng.integers(3, size=shape)
    cell = rng.permuted(np.broadcast_to(np.arange(9), (number, BOXES, 9)), axis=2)[..., :SLOTS]
    row, column = np.divmod(cell, 3)
    room, far = 33 - 10 * (size + 1), SIDE - 10 * (size + 1)
    places = []
    for place in (column, row):
        inside = np.clip(34 * place + rng.integers(0, room + 1, size=shape), 1, far - 1)
        wall = np.where(place == 0, 0, far)
        places.append(np.where((place != 1) & (rng.random(shape) < 0.3), wall, inside))
    x, y = places
    counts = 1 + rng.choice(7, size=(number, BOXES), p=(0.2, 0.22, 0.2, 0.14, 0.1, 0.08, 0.06))
    counts[:, 2] = np.minimum(counts[:, 2], np.maximum(1, SCATTERED - counts[:, :2].sum(axis=1)))
    present = np.arange(SLOTS) < counts[..., None]
    values = [np.where(present, _colours(rng, number), -1), rng.integers(3, size=shape), size, x, y]
    return in_order(_scenes(*(np.where(present, value, 0 if i else -1) for i, value in enumerate(values))))


def in_order(scenes: Scenes) -> Scenes:
    """The scenes with the objects of each box from the lowest to the highest, and from left to right."""
    bottom = scenes.y + 10 * (scenes.size + 1)
    key = np.where(scenes.present, (SIDE - bottom) * SIDE + scenes.x, SIDE**3)
    order = np.argsort(key, axis=2, kind="stable")
    return Scenes(*(np.take_along_axis(array, order, axis=2) for array in scenes))


def _scenes(*arrays: np.ndarray) -> Scenes:
    return Scenes(*(np.ascontiguousarray(array, np.int32) for array in arrays))


def _colours(rng: np.random.Generator, number: int) -> np.ndarray:
    """Colours [N, 3, 8], of one, two or three colours in a box."""
    palette = rng.permuted(np.broadcast_to(np.arange(3), (number, BOXES, 3)), axis=2)
    kinds = rng.choice(3, size=(number, BOXES, 1), p=(0.15, 0.35, 0.5)) + 1
    return np.take_along_axis(palette, rng.integers(kinds, size=(number, BOXES, SLOTS)), axis=2)


def edges_of(scenes: Scenes, lengths: np.ndarray, named: np.ndarray) -> np.ndarray:
    """The edges [N, E, 3] of sentences and their scenes: source, kind in `EDGES` and target; the kind -1 fills up.

    The nodes of a row are its words, the three boxes, and the objects.

    Args:
        scenes: N scenes.
        lengths: words of each sentence [N].
        named: [N, W] what each word names: the number of a colour, 3 + that of a shape, 6 + that of a size; -1: none.
    """
    rows, words = named.shape
    present = scenes.present.reshape(rows, -1)
    first = lengths[:, None]
    box = first + np.arange(BOXES)
    item = np.where(present, first + BOXES + np.cumsum(present, axis=1) - 1, -1)
    place = np.where(np.arange(words) < first, np.arange(words), -1)
    own_box = np.repeat(box, SLOTS, axis=1)
    above = np.where((np.arange(BOXES * SLOTS) + 1) % SLOTS, np.roll(item, -1, axis=1), -1)
    later = np.append(place[:, 1:], np.full((rows, 1), -1), axis=1)

    naming = np.argsort(named < 0, axis=1, kind="stable")[:, :NAMING]
    what = np.take_along_axis(named, naming, axis=1)[..., None]
    word = np.where(what >= 0, naming[..., None], -1)
    kinds = np.stack([scenes.colour, 3 + scenes.shape, 6 + scenes.size], axis=-1).reshape(rows, 1, -1, 3)
    fits = (kinds == what[..., None]).any(axis=-1) & present[:, None]
    misses = ~fits & present[:, None]
    thing = np.broadcast_to(item[:, None], fits.shape)
    pairs = (
        (np.where(present, item, own_box), own_box),
        (own_box, item),
        (item, above),
        (above, item),
        (np.where(fits, word, -1), thing),
        (np.where(misses, word, -1), thing),
        (np.where(fits, thing, word), np.broadcast_to(word, fits.shape)),
        (place[:, :, None], box[:, None]),
        (box[:, None], place[:, :, None]),
        (place, later),
        (later, place),
    )
    found = []
    for kind, pair in enumerate(pairs):
        source, target = (array.reshape(rows, -1) for array in np.broadcast_arrays(*pair))
        exists = (source >= 0) & (target >= 0)
        ends = (np.where(exists, array, 0) for array in (source, target))
        found.append(np.stack([next(ends), np.where(exists, kind, -1), next(ends)], axis=-1))
    return np.concatenate(found, axis=1).astype(np.int32)


def num_edges(words: int) -> int:
    """The number of edges E of sentences of at most W words."""
    objects = BOXES * SLOTS
    return 4 * objects + 3 * min(NAMING, words) * objects + 2 * BOXES * words + 2 * words
