"""The random order of examples, which a seed determines. Grain is imported on first use."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

FEW = 64
"""Below this number of items, `shuffled` draws the whole order of an epoch."""


def shuffled(items: np.ndarray, seed: int) -> Any:
    """An endless Grain `MapDataset` with every item of an array [n] once in each epoch, in random order.

    Grain computes the item at each place by itself, the more slowly the fewer items there are. Below `FEW` items the
    order of an epoch is drawn in one call.
    """
    import grain

    if len(items) < FEW:
        return grain.MapDataset.source(_Permutations(items, seed)).seed(seed)
    return grain.MapDataset.source(items.tolist()).seed(seed).shuffle().repeat()


class _Permutations(Sequence[int]):
    """The permutations of n items of all epochs: number e n + i is number i of epoch e, drawn from (seed, e)."""

    def __init__(self, items: np.ndarray, seed: int):
        self.items, self.seed = items, seed
        self.permutation = functools.lru_cache(maxsize=1)(self._permutation)

    def __len__(self) -> int:
        return 2**62

    def __getitem__(self, place: int) -> int:
        epoch, number = divmod(place, len(self.items))
        return self.permutation(epoch)[number].item()

    def _permutation(self, epoch: int) -> np.ndarray:
        return np.random.default_rng((self.seed, epoch)).permutation(self.items)
