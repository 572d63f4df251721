"""Multi-query associative recall: values recomputed from the tokens, gaps against their distribution."""

import numpy as np
import pytest

from memgpt_jax.data import make_task
from memgpt_jax.data.tasks.mqar import MQARConfig

PUBLISHED = [(64, 4), (128, 8), (256, 16), (512, 64)]
CONFIGS = [
    MQARConfig(),
    MQARConfig(num_rewrites=8),
    MQARConfig(vocab_size=12, num_pairs=3, num_rewrites=3, length=18, num_fillers=1),
    MQARConfig(filler="vocabulary"),
    MQARConfig(filler="vocabulary", vocab_size=32, length=34, num_rewrites=1),
    *(MQARConfig(vocab_size=8192, length=length, num_pairs=pairs, filler="vocabulary") for length, pairs in PUBLISHED),
]


@pytest.mark.parametrize("config", CONFIGS)
def test_values_by_brute_force(config):
    batch = make_task(config, "train").batch(0, 16, config.row_length)
    half, context = config.vocab_size // 2, 2 * (config.num_pairs + config.num_rewrites)
    for tokens, targets, weights in zip(*(arrays["tokens"].tolist() for arrays in batch[:3]), strict=True):
        assert len(tokens) == config.length
        stored = {}
        for place in range(0, context, 2):
            assert tokens[place] < half <= tokens[place + 1] < config.vocab_size
            stored[tokens[place]] = tokens[place + 1]
        assert len(stored) == config.num_pairs and len(set(tokens[1:context:2])) == context // 2
        asked = [place for place, weight in enumerate(weights) if weight]
        assert sorted(tokens[place] for place in asked) == sorted(stored)
        assert all(place >= context and place % 2 == 0 for place in asked)
        for place in range(config.length):
            if weights[place]:
                assert targets[place] == stored[tokens[place]]
            elif place + 1 < config.length:
                assert targets[place] == tokens[place + 1]
        filler = {tokens[place] for place in range(context, config.length) if place not in asked}
        if config.filler == "own":
            assert filler and all(config.vocab_size <= token < config.num_ids for token in filler)
        else:
            assert all(0 <= token < config.vocab_size for token in filler)


@pytest.mark.parametrize("power", [0.01, 1.0, -1.0])
def test_gaps_follow_the_power_law(power):
    config = MQARConfig(num_pairs=2, length=20, power=power)
    gaps = make_task(config, "train").gaps(np.random.default_rng(0), 40_000)
    assert gaps.shape == (40_000, 2) and config.num_gaps == 8 and (gaps[:, 0] != gaps[:, 1]).all()
    share = np.array([(gap + 1) ** (power - 1) for gap in range(8)])
    share /= share.sum()
    np.testing.assert_allclose(np.bincount(gaps[:, 0], minlength=8) / 40_000, share, atol=0.01)
    # The second is drawn among those that are left, as by `numpy.random.Generator.choice(replace=False, p=share)`.
    second = sum(share[first] * np.where(np.arange(8) == first, 0, share) / (1 - share[first]) for first in range(8))
    np.testing.assert_allclose(np.bincount(gaps[:, 1], minlength=8) / 40_000, second, atol=0.01)


def test_keys_and_rewrites_are_uniform():
    config = MQARConfig(vocab_size=16, num_pairs=2, num_rewrites=1, length=12)
    tokens = make_task(config, "train").batch(0, 8000, 12).inputs["tokens"]
    assert np.bincount(tokens[:, 0], minlength=8)[:8].min() > 880
    same = [tuple(row) for row in np.stack([tokens[:, 0] == tokens[:, 2], tokens[:, 2] == tokens[:, 4]], 1).tolist()]
    kinds = [same.count(kind) for kind in ((True, False), (False, True), (False, False))]
    assert sum(kinds) == 8000 and min(kinds) > 2500  # k k j, j k k, k j k


def test_bad_values():
    for values, message in (
        ({"num_pairs": 0}, "num_pairs must be at least 1, got 0"),
        ({"num_rewrites": -1}, "num_rewrites must be at least 0, got -1"),
        ({"vocab_size": 255}, "vocab_size=255 must be even and at least 16"),
        ({"vocab_size": 16, "num_rewrites": 1}, "vocab_size=16 must be even and at least 18"),
        ({"length": 63}, "length=63 must be even and at least 32"),
        ({"length": 46, "num_rewrites": 8}, "length=46 must be even and at least 48"),
        ({"filler": "none"}, "filler must be one of 'own', 'vocabulary', got 'none'"),
    ):
        with pytest.raises(ValueError, match=message):
            MQARConfig(**values)
