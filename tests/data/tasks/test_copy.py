"""Copy, reverse, repeat-copy: every answer recomputed from the tokens."""

import numpy as np
import pytest

from memgpt_jax.data import make_task
from memgpt_jax.data.tasks.copy import CopyConfig

CONFIGS = [
    CopyConfig(num_symbols=5, min_length=2, max_length=7),
    CopyConfig(num_symbols=5, max_length=7, reverse=True),
    CopyConfig(num_symbols=3, max_length=4, min_repeats=2, max_repeats=5),
    CopyConfig(num_symbols=3, min_length=4, max_length=4, min_repeats=1, max_repeats=2, reverse=True),
]


@pytest.mark.parametrize("blank", [False, True])
@pytest.mark.parametrize("config", CONFIGS)
def test_answers_by_brute_force(config, blank):
    config = CopyConfig(**vars(config) | {"blank_answers": blank})
    batch = make_task(config, "train").batch(0, 64, config.row_length)
    first_symbol = 3 + config.max_repeats
    for tokens, targets, weights in zip(*(arrays["tokens"].tolist() for arrays in batch[:3]), strict=True):
        delimiter = next(place for place, token in enumerate(tokens) if place and token < first_symbol)
        assert tokens[0] == 2
        symbols, repeats = tokens[1:delimiter], tokens[delimiter] - 2
        assert config.min_length <= len(symbols) <= config.max_length
        assert config.min_repeats <= repeats <= config.max_repeats
        assert all(first_symbol <= symbol < config.num_ids for symbol in symbols)
        answer = (symbols[::-1] if config.reverse else symbols) * repeats
        answer += [1] if config.max_repeats > 1 else []
        stop = delimiter + len(answer)
        padding = [0] * (config.row_length - stop)
        assert targets == [*tokens[1:delimiter], tokens[delimiter], *answer, *padding]
        assert weights == [0.0] * delimiter + [1.0] * len(answer) + [0.0] * len(padding)
        shown = [0] * (len(answer) - 1) if blank else answer[:-1]
        assert (
            tokens[delimiter + 1 :]
            == [*shown, *(answer[-1:] if padding and not blank else []), *padding][: config.row_length - delimiter - 1]
        )


def test_lengths_repeats_and_symbols_are_uniform():
    config = CopyConfig(num_symbols=4, min_length=2, max_length=5, min_repeats=2, max_repeats=3)
    tokens = make_task(config, "train").batch(0, 4000, config.row_length).inputs["tokens"]
    delimiters = (tokens == 4) | (tokens == 5)
    assert (delimiters.sum(axis=1) == 1).all()
    lengths, repeats = delimiters.argmax(axis=1) - 1, tokens[delimiters] - 2
    assert set(lengths) == {2, 3, 4, 5} and np.bincount(lengths)[2:].min() > 900
    assert set(repeats) == {2, 3} and np.bincount(repeats)[2:].min() > 1900
    assert np.bincount(tokens[:, 1])[6:].min() > 900


def test_bad_values():
    for values, message in (
        ({"num_symbols": 0}, "num_symbols must be at least 1, got 0"),
        ({"min_length": 21}, "min_length=21 must be at most max_length=20"),
        ({"min_repeats": 2}, "min_repeats=2 must be at most max_repeats=1"),
    ):
        with pytest.raises(ValueError, match=message):
            CopyConfig(**values)
