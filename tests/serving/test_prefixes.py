"""States of prefixes: for their owner alone, within a budget of bytes."""

import numpy as np

from memgpt_jax.serving.prefixes import Prefixes


def state(number: int, used: int = 10):
    """40 slots of 100 bytes, of which some are used."""
    array = np.zeros((1, 40, 100), np.uint8)
    array[:, :used] = number
    return {"x": array}


def test_they_stay_within_their_budget():
    """The least recently used ones leave; one that is too large is not kept, and drives none out."""
    prefixes, ids = Prefixes(3000), list(range(9))
    for number in (1, 2, 3):
        prefixes.keep("a", ids[:number], state(number))
    assert prefixes.bytes == 3000 and prefixes.longest("a", ids, [1])[0] == 1
    prefixes.keep("a", ids[:4], state(4))
    assert prefixes.bytes == 3000 and prefixes.longest("a", ids, [2]) is None
    prefixes.keep("a", ids[:5], state(5, used=31))
    end, found = prefixes.longest("a", ids, [1, 3, 4, 5])
    assert prefixes.bytes == 3000 and end == 4 and (found["x"] == state(4)["x"]).all()
    assert prefixes.longest("b", ids, [1, 3, 4]) is None
