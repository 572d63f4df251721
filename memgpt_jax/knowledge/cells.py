"""The index of knowledge: cells of equal size, of entries whose keys are similar."""

import numpy as np

from memgpt_jax.shapes import Float32, Int32


def cells_of(
    keys: Float32[np.ndarray, "E G K"], shape: tuple[int, int], none: int
) -> tuple[Float32[np.ndarray, "G C K"], Int32[np.ndarray, "G C S"]]:
    """The mean key and the entries of each cell: see `KnowledgeCells`.

    All entries of a head are halved at the median of the direction in which their keys vary most, then each half again,
    until there are C cells (a principal axis tree: McNames, 2001), whose sizes differ by at most 1.

    Args:
        keys: of E entries.
        shape: (C, S), C a power of 2, C S >= E.
        none: the place that stands for no entry, at least E.
    """
    number, heads, width = keys.shape
    cells, size = shape
    means = np.zeros((heads, cells, width), np.float32)
    members = np.full((heads, *shape), none, np.int32)
    for head in range(heads):
        own = np.asarray(keys[:, head], np.float32)
        for cell, places in enumerate(_halved(own, np.arange(number, dtype=np.int32), cells)):
            if len(places):
                members[head, cell, : len(places)] = np.sort(places)
                means[head, cell] = own[places].mean(axis=0)
    return means, members


def _halved(keys: np.ndarray, places: np.ndarray, parts: int) -> list[np.ndarray]:
    """The places in `parts` groups, whose sizes differ by at most 1."""
    if parts == 1:
        return [places]
    own = keys[places]
    centred = own - own.mean(axis=0) if len(own) else own
    axis = np.linalg.eigh(centred.T @ centred)[1][:, -1]
    half = (len(places) + 1) // 2
    order = np.argpartition(centred @ axis, half - 1) if half < len(places) else np.arange(len(places))
    first, second = places[order[:half]], places[order[half:]]
    return _halved(keys, first, parts // 2) + _halved(keys, second, parts // 2)
