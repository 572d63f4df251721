"""The order of items: every item once in an epoch, from the seed alone, for few items and for many."""

import numpy as np
import pytest

from memgpt_jax.data.examples.order import FEW, shuffled


@pytest.mark.parametrize("number", [1, 2, 5, FEW - 1, FEW])
def test_an_epoch_has_every_item_once_and_its_own_order(number):
    items = 10 + 3 * np.arange(number)
    first, second = (list(shuffled(items, 7)[start : start + number]) for start in (0, number))
    assert sorted(first) == sorted(second) == items.tolist() and all(type(item) is int for item in first)
    assert number < 5 or (first != second and first != items.tolist())
    again = shuffled(items, 7)
    assert [again[place] for place in reversed(range(2 * number))] == [*first, *second][::-1]
    assert number < 5 or first != list(shuffled(items, 8)[:number])


@pytest.mark.parametrize("number", [5, FEW])
def test_a_position_is_resumed(number):
    batches = iter(shuffled(np.arange(number), 3).to_iter_dataset())
    for _ in range(number + 2):
        next(batches)
    position = batches.get_state()
    expected = [next(batches) for _ in range(2 * number)]
    resumed = iter(shuffled(np.arange(number), 3).to_iter_dataset())
    resumed.set_state(position)
    assert [next(resumed) for _ in range(2 * number)] == expected
