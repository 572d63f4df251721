"""Dictionary lookup: values looked up in the definitions by brute force."""

import numpy as np
import pytest

from memgpt_jax.data import make_task
from memgpt_jax.data.tasks.dictionary import DictionaryConfig

FILLER, DEFINE, ASK, VALUE = range(4)
CONFIGS = [
    DictionaryConfig(),
    DictionaryConfig(num_entries=9, num_questions=9, num_symbols=3, key_length=2, value_length=1),
    DictionaryConfig(num_entries=300, num_questions=2, num_symbols=64, key_length=4, value_length=4),
]


@pytest.mark.parametrize("config", CONFIGS)
def test_values_by_brute_force(config):
    batch = make_task(config, "train").batch(0, 16, config.row_length)
    key, value = config.key_length, config.value_length
    size = 2 + key + value
    for tokens, targets, weights in zip(*(arrays["tokens"].tolist() for arrays in batch[:3]), strict=True):
        assert targets == [*tokens[1:], FILLER]
        entries = [tokens[start : start + size] for start in range(0, len(tokens), size)]
        assert len(entries) == config.num_entries + config.num_questions
        definitions, expected = {}, []
        for number, (mark, *word) in enumerate(entries):
            name = tuple(word[:key])
            assert word[key] == VALUE and all(4 <= symbol < config.num_ids for symbol in (*name, *word[key + 1 :]))
            if number < config.num_entries:
                assert mark == DEFINE and name not in definitions
                definitions[name] = word[key + 1 :]
                expected += [0.0] * size
            else:
                assert mark == ASK and definitions.pop(name) == word[key + 1 :]  # no key is asked for twice
                expected += [0.0] * (1 + key) + [1.0] * value + [0.0]
        assert weights == expected


def test_questions_and_symbols_are_uniform():
    config = DictionaryConfig(num_entries=4, num_questions=1, num_symbols=4, key_length=2, value_length=1)
    tokens = make_task(config, "train").batch(0, 4000, config.row_length).inputs["tokens"].reshape(4000, 5, 5)
    asked = (tokens[:, :4, 1:3] == tokens[:, 4:, 1:3]).all(axis=2)
    assert (asked.sum(axis=1) == 1).all() and asked.sum(axis=0).min() > 900
    for place in (1, 2, 4):
        assert np.bincount(tokens[:, 0, place])[4:].min() > 900


def test_bad_values():
    for values, message in (
        ({"key_length": 0}, "key_length must be at least 1, got 0"),
        ({"num_questions": 25}, "num_questions=25 must be at most num_entries=24"),
        ({"num_symbols": 4}, "num_symbols=4 and key_length=2 give fewer than num_entries=24 distinct keys"),
        ({"value_length": 13}, "value_length=13 give more than 2\\^62 different words"),
    ):
        with pytest.raises(ValueError, match=message):
            DictionaryConfig(**values)
