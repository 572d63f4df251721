"""States on the host without empty slots: a short text in a large window takes few bytes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from memgpt_jax.config.checks import check


@dataclass(frozen=True, eq=False)
class PackedArray:
    """An array [B, N, ...] without the slots 0 <= n < N at both ends whose bytes are 0 in every row."""

    slots: np.ndarray
    """The slots from `start` on; of an array without slots, all of it."""
    start: int
    shape: tuple[int, ...]
    """Of the whole array."""

    def whole(self) -> np.ndarray:
        """The array, bitwise."""
        if self.slots.shape == self.shape:
            return self.slots
        array = np.zeros(self.shape, self.slots.dtype)
        array[:, self.start : self.start + self.slots.shape[1]] = self.slots
        return array


def pack(state: Any, most_bytes: int | None = None) -> Any:
    """The state with a `PackedArray` in place of each array; None: its slots take more than `most_bytes`.

    They own their slots, as a view of a JAX array on a CPU keeps the array's buffer. Nothing is copied before all are
    known to fit, and no array is fetched from the device after the first one that does not.
    """
    leaves, structure = jax.tree.flatten(state)
    used, total = [], 0
    for leaf in leaves:
        array = np.asarray(leaf)
        slots, start = _used(array)
        total += slots.nbytes
        if most_bytes is not None and total > most_bytes:
            return None
        used.append((slots, start, array.shape))
    return structure.unflatten(PackedArray(slots.copy(), start, shape) for slots, start, shape in used)


def unpack(packed: Any) -> Any:
    """The state that `pack` was given, on the host, bitwise."""
    return jax.tree.map(PackedArray.whole, packed)


def packed_bytes(packed: Any) -> int:
    """Bytes of the slots of a packed state."""
    return sum(array.slots.nbytes for array in jax.tree.leaves(packed))


def packed_array(content: bytes, shape: Sequence[int], start: int, like: jax.ShapeDtypeStruct) -> PackedArray:
    """The `PackedArray` of bytes that were stored.

    Args:
        content: of `PackedArray.slots`.
        shape: of the slots.
        start: the first slot.
        like: shape and type of the whole array.

    Raises `ValueError` if they are not a part of such an array.
    """
    whole, shape = tuple(like.shape), tuple(shape)
    fits = shape == whole
    if len(shape) == len(whole) > 1 and shape[:1] + shape[2:] == whole[:1] + whole[2:]:
        fits = 0 <= start <= start + shape[1] <= whole[1]
    fits = fits and len(content) == int(np.prod(shape)) * like.dtype.itemsize
    check(fits, f"slots of the shape {shape} from {start} on are no part of an array of the shape {whole}")
    return PackedArray(np.frombuffer(content, like.dtype).reshape(shape), start, whole)


def starts_of(arrays: Mapping[str, PackedArray]) -> dict[str, int]:
    """The first slots of the arrays that are not whole, by name."""
    return {name: array.start for name, array in arrays.items() if array.slots.shape != array.shape}


def _used(array: np.ndarray) -> tuple[np.ndarray, int]:
    """A view of the slots that `PackedArray` keeps, and the first of them."""
    if array.ndim < 2 or not array.size:
        return array, 0
    used = np.flatnonzero(_bytes_of_slots(array).any(axis=(0, 2)))
    start, end = (int(used[0]), int(used[-1]) + 1) if used.size else (0, 0)
    return array[:, start:end], start


def _bytes_of_slots(array: np.ndarray) -> np.ndarray:
    """The bytes of each slot, [B, N, bytes], in the widest unsigned integers that divide them."""
    bytes_ = np.ascontiguousarray(array).view(np.uint8).reshape(*array.shape[:2], -1)
    size = next(size for size in (8, 4, 2, 1) if bytes_.shape[-1] % size == 0)
    return bytes_.view(f"u{size}")
