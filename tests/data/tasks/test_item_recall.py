"""Associative recall of items: the item after the queried one, recomputed from the tokens."""

import numpy as np
import pytest

from memgpt_jax.data import make_task
from memgpt_jax.data.tasks.item_recall import ItemRecallConfig

FILLER, ITEM, QUESTION = 0, 1, 2
CONFIGS = [
    ItemRecallConfig(),
    ItemRecallConfig(num_symbols=2, item_length=2, min_items=4, max_items=4),
    ItemRecallConfig(num_symbols=9, item_length=1, min_items=3, max_items=8),
]


@pytest.mark.parametrize("blank", [False, True])
@pytest.mark.parametrize("config", CONFIGS)
def test_answers_by_brute_force(config, blank):
    config = ItemRecallConfig(**vars(config) | {"blank_answers": blank})
    batch = make_task(config, "train").batch(0, 64, config.row_length)
    size = config.item_length
    for tokens, targets, weights in zip(*(arrays["tokens"].tolist() for arrays in batch[:3]), strict=True):
        question = tokens.index(QUESTION)
        assert question % (size + 1) == 0 and tokens[: question : size + 1] == [ITEM] * (question // (size + 1))
        items = [tuple(tokens[start + 1 : start + 1 + size]) for start in range(0, question, size + 1)]
        assert config.min_items <= len(items) <= config.max_items and len(set(items)) == len(items)
        assert all(3 <= symbol < config.num_ids for item in items for symbol in item)
        start = question + size + 1  # of the answer, in the targets
        assert tokens[start] == QUESTION
        answer = list(items[items.index(tuple(tokens[question + 1 : start])) + 1])
        assert targets[start : start + size] == answer
        assert targets[:start] == tokens[1 : start + 1] and set(targets[start + size :]) <= {FILLER}
        assert weights == [0.0] * start + [1.0] * size + [0.0] * (config.row_length - start - size)
        shown = [FILLER] * size if blank else answer
        assert tokens[start + 1 :] == [*shown, *targets[start + size :]][: config.row_length - start - 1]


def test_numbers_of_items_and_questions_are_uniform():
    config = ItemRecallConfig(num_symbols=8, item_length=1, min_items=2, max_items=4)
    tokens = make_task(config, "train").batch(0, 6000, config.row_length).inputs["tokens"]
    start = (tokens == QUESTION).argmax(axis=1)
    assert set(start // 2) == {2, 3, 4} and np.bincount(start // 2)[2:].min() > 1850
    longest = tokens[start == 8]
    asked = (longest[:, 1:8:2] == longest[:, 9:10]).argmax(axis=1)
    assert set(asked) == {0, 1, 2} and np.bincount(asked).min() > 580  # about 2000 rows
    assert np.bincount(tokens[:, 1])[3:].min() > 650


def test_bad_values():
    for values, message in (
        ({"item_length": 0}, "item_length must be at least 1, got 0"),
        ({"min_items": 1}, "min_items=1 must be between 2 and max_items=6"),
        ({"min_items": 7}, "min_items=7 must be between 2 and max_items=6"),
        ({"num_symbols": 2, "item_length": 2}, "num_symbols=2 and item_length=2 give fewer than max_items=6"),
        ({"item_length": 11}, "item_length=11 give more than 2\\^62 different words"),
    ):
        with pytest.raises(ValueError, match=message):
            ItemRecallConfig(**values)
