"""`Knowledge`: the entries of texts in each memory of a model, with the number of the text that each comes from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from memgpt_jax.config.checks import as_list, check
from memgpt_jax.interop.adapters import fingerprint
from memgpt_jax.models import Params
from memgpt_jax.ops.trees import named_leaves
from memgpt_jax.shapes import Float32, Int32


def sha256_of(params: Params) -> str:
    """SHA-256 of parameters."""
    return fingerprint({name: np.asarray(leaf) for name, leaf in named_leaves(params).items()})


class LayerEntries(NamedTuple):
    """The E entries of all texts in one memory, text by text."""

    keys: Float32[np.ndarray, "E G K"]
    values: Float32[np.ndarray, "E G K"]
    log_gate: Float32[np.ndarray, " E"]
    """The logarithm of the write gate g in (0, 1]."""
    source: Int32[np.ndarray, " E"]
    """The number of the text."""


@dataclass(frozen=True, eq=False)
class Knowledge:
    """Texts as entries of a model's memories. A value: its operations return another one."""

    layers: tuple[LayerEntries, ...]
    """For each layer with a memory, in order."""
    texts: Mapping[int, str]
    """The texts by number, in the order of their entries; numbers are at least 1."""
    model: str
    """SHA-256 of the parameters that encoded the texts."""

    def __len__(self) -> int:
        """The largest number of entries in a memory."""
        return max((len(layer.source) for layer in self.layers), default=0)

    def __add__(self, other: Knowledge) -> Knowledge:
        """The texts of both, those of `other` last.

        Raises:
            ValueError: both have a text of the same number, or other parameters encoded them.
        """
        both = self.texts.keys() & other.texts.keys()
        check(not both, f"both have the texts {_some(both)}: give other numbers, or remove them with `without`")
        check(self.model == other.model, "the texts were encoded by other parameters")
        layers = [
            LayerEntries(*map(np.concatenate, zip(a, b, strict=True)))
            for a, b in zip(self.layers, other.layers, strict=True)
        ]
        return Knowledge(tuple(layers), {**self.texts, **other.texts}, self.model)

    def without(self, sources: Iterable[int] | int) -> Knowledge:
        """All texts but these, or this one: the same, bitwise, as if they had never been encoded.

        Raises:
            ValueError: there is no text of such a number.
        """
        removed = self._known(sources)
        return self.only(number for number in self.texts if number not in removed)

    def only(self, sources: Iterable[int] | int) -> Knowledge:
        """These texts, or this one, in their order. Raises `ValueError` if there is none of such a number."""
        kept = self._known(sources)
        chosen = np.array(sorted(kept), np.int32)
        layers = []
        for layer in self.layers:
            here = np.isin(layer.source, chosen)
            layers.append(LayerEntries(*(array[here] for array in layer)))
        return Knowledge(tuple(layers), {n: text for n, text in self.texts.items() if n in kept}, self.model)

    def _known(self, sources: Iterable[int] | int) -> set[int]:
        numbers = set(as_list(sources))
        unknown = numbers - self.texts.keys()
        check(not unknown, f"there are no texts {_some(unknown)}; there are {len(self.texts)} texts")
        return numbers


def _some(numbers: Iterable[int]) -> str:
    """The first five of the numbers, in order."""
    ordered = sorted(numbers)
    return ", ".join(map(str, ordered[:5])) + (", ..." if len(ordered) > 5 else "")
