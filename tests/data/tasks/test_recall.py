"""The recall task: labels by brute force, and the distribution of pairs, keys and queries."""

import numpy as np
import pytest

from memgpt_jax.data import recall_batch
from memgpt_jax.data.tasks.recall import RecallConfig
from tests.references.batches import arrays_of

CONFIGS = [
    RecallConfig(),
    RecallConfig(num_pairs=4, num_keys=4, num_values=5, num_fillers=1, context_length=8, query_length=8),
    RecallConfig(num_pairs=3, context_length=20, gap_length=14, query_length=4),
    RecallConfig(num_pairs=3, num_keys=9, num_values=9, num_fillers=4, context_length=33, query_length=2),
    RecallConfig(num_pairs=3, num_rewrites=6, num_keys=9, num_values=9, context_length=18, query_length=6),
]


@pytest.mark.parametrize("config", CONFIGS)
def test_labels_by_brute_force(config):
    batch = recall_batch(config, 0, 64)
    length = config.context_length + config.query_length
    first_key, first_value = config.num_fillers, config.num_fillers + config.num_keys
    for name, dtype in [("tokens", np.int32), ("targets", np.int32), ("reset", bool), ("weights", np.float32)]:
        array = arrays_of(batch)[name]
        assert array.shape == (64, length) and array.dtype == dtype
    assert batch.info["target_bytes"].shape == (64, length) and not batch.info["target_bytes"].any()
    for tokens, targets, reset, weights in zip(
        *(arrays_of(batch)[name].tolist() for name in ("tokens", "targets", "reset", "weights")), strict=True
    ):
        stored, values, position = {}, [], 0
        while position < config.context_length:  # read the context as its author would
            token = tokens[position]
            if token >= first_key:
                value = tokens[position + 1]
                assert first_key <= token < first_value <= value < config.num_ids
                assert value not in values and (config.num_rewrites or token not in stored)
                stored[token] = value  # the last one counts
                values.append(value)
                position += 1
            position += 1
        assert len(stored) == config.num_pairs and len(values) == config.num_pairs + config.num_rewrites
        gap = tokens[config.context_length - config.gap_length : config.context_length]
        assert all(token < first_key for token in gap)
        queries = tokens[config.context_length :: 2]
        assert len(set(queries)) == config.query_length // 2
        assert targets[config.context_length :: 2] == [stored[key] for key in queries]
        assert targets[:-1] == tokens[1:]
        assert weights == [0.0] * config.context_length + [1.0, 0.0] * (config.query_length // 2)
        assert reset == [True] + [False] * (length - 1)


def test_tasks_vary_with_the_seed_alone():
    config = RecallConfig()
    first, again, other = (recall_batch(config, seed, 8).inputs["tokens"] for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any() and (first[0] != first[1]).any()
    assert (recall_batch(config, np.random.default_rng(5), 8).inputs["tokens"] == first).all()


def test_pairs_keys_and_queries_are_uniform():
    config = RecallConfig(num_pairs=2, num_keys=4, num_values=4, context_length=10, query_length=2)
    tokens = recall_batch(config, 0, 4000).inputs["tokens"]
    is_key = (tokens >= config.num_fillers) & (tokens < config.num_fillers + config.num_keys)
    assert set(np.flatnonzero(is_key[:, :10].any(0))) == set(range(9))
    keys = np.bincount(tokens[:, 10])[config.num_fillers : config.num_fillers + 4]
    assert keys.min() > 900
    first_key = tokens[np.arange(4000), is_key[:, :10].argmax(1)]
    assert 0.45 < (tokens[:, 10] == first_key).mean() < 0.55
