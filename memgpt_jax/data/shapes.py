"""Coloured shapes: their names, words and pixels, and the edges of a graph of words and pictures."""

import numpy as np

COLOURS = {
    "red": (230, 40, 40),
    "green": (40, 200, 60),
    "blue": (50, 80, 240),
    "yellow": (240, 220, 40),
    "purple": (170, 60, 200),
    "white": (255, 255, 255),
}
SHAPES = ("circle", "square", "triangle", "cross")
WORDS = ("there", "is", "a", "what", "colour", "the", *COLOURS, *SHAPES)
TEXT_LENGTH = 5
"""Words of "there is a red circle" and of "what colour is the circle"."""
EDGES = ("word to word", "word to picture", "picture to word", "picture to picture")
"""The kinds of edges: a word and the next, words and all patches or objects, neighbouring patches or all objects."""


def drawn_shape(shape: str, colour: tuple[int, int, int], size: int) -> np.ndarray:
    """The pixels, uint8 [size, size, 3], of a shape of `SHAPES` in a black cell with a margin of a pixel."""
    y, x = np.indices((size, size)) - (size - 1) / 2
    radius = size / 2 - 1
    inside = {
        "circle": x**2 + y**2 <= radius**2,
        "square": np.maximum(abs(x), abs(y)) <= radius,
        "triangle": (abs(y) <= radius) & (abs(x) <= (y + radius) / 2 + 0.5),
        "cross": (np.minimum(abs(x), abs(y)) < 1) & (np.maximum(abs(x), abs(y)) <= radius),
    }[shape]
    return np.where(inside[..., None], np.array(colour, np.uint8), np.uint8(0))


def edges_of_rows(number: int, side: int | None) -> np.ndarray:
    """The edges [3, E, 3] of a row with everything, of one without the picture, and of one without the text.

    An edge is source, kind (an index of `EDGES`) and target, in both directions; the kind -1 fills up.

    Args:
        number: tokens of the picture, which come first.
        side: patches of a row of the picture; None: the tokens are objects.
    """
    words, picture = np.arange(number, number + TEXT_LENGTH), np.arange(number)
    if side is None:
        pairs = [(i, j) for i in picture for j in picture if i < j]
    else:
        pairs = [(i, i + 1) for i in picture if (i + 1) % side] + [(i, i + side) for i in picture if i + side < number]
    kinds = [
        [pair for i in words[:-1] for pair in ((i, i + 1), (i + 1, i))],
        [(word, place) for word in words for place in picture],
        [(place, word) for word in words for place in picture],
        [pair for i, j in pairs for pair in ((i, j), (j, i))],
    ]
    whole = np.array([(i, kind, j) for kind, found in enumerate(kinds) for i, j in found], np.int32)
    in_text, in_picture = (whole[:, 1:2] == kind for kind in (0, 3))
    none = np.array([0, -1, 0], np.int32)
    without_picture = np.where(in_text, whole - np.array([number, 0, number], np.int32), none)
    return np.stack([whole, without_picture, np.where(in_picture, whole, none)])
