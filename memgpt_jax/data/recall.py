"""Associative recall, generated: does a memory bind keys to values and find them again?"""

import numpy as np

from memgpt_jax.config import RecallConfig


def recall_batch(config: RecallConfig, rng: np.random.Generator | int, batch_size: int) -> dict[str, np.ndarray]:
    """A batch of recall tasks, L = context_length + query_length tokens a row.

    A row is fillers with the pairs k v at random places that do not overlap, then `gap_length` fillers, then the
    queries `k1 v1 k2 v2 ...`, of distinct keys of the context. Ids: fillers from 0, then keys, then values.
    A target is scored (weight 1) where the token is a queried key, and so the target its value.

    Args:
        config: sizes of the task.
        rng: a generator, or its seed.
        batch_size: rows B.

    Returns:
        `tokens`, `targets` [B, L] int32, `reset` [B, L] bool (true at position 0), `weights` [B, L] float32,
        `target_bytes` [B, L] int32 (0: the tokens stand for no text). The last target, of which there is no next
        token, is filler and is not scored.
    """
    rng = np.random.default_rng(rng)
    rows = np.arange(batch_size)[:, None]
    keys = config.num_fillers + choose(rng, batch_size, config.num_keys, config.num_pairs)
    values = config.num_fillers + config.num_keys + choose(rng, batch_size, config.num_values, config.num_pairs)

    # Distinct places among all but num_pairs, sorted, become pairs by moving pair i on by the i before it.
    holds_pairs = config.context_length - config.gap_length
    places = np.sort(choose(rng, batch_size, holds_pairs - config.num_pairs, config.num_pairs), axis=1)
    places += np.arange(config.num_pairs)[None]
    length = config.context_length + config.query_length
    tokens = rng.integers(config.num_fillers, size=(batch_size, length + 1), dtype=np.int32)
    tokens[rows, places] = keys
    tokens[rows, places + 1] = values

    queried = choose(rng, batch_size, config.num_pairs, config.query_length // 2)
    tokens[:, config.context_length : length : 2] = keys[rows, queried]
    tokens[:, config.context_length + 1 : length : 2] = values[rows, queried]

    reset = np.zeros((batch_size, length), bool)
    reset[:, 0] = True
    weights = np.zeros((batch_size, length), np.float32)
    weights[:, config.context_length :: 2] = 1
    return {
        "tokens": tokens[:, :-1],
        "targets": tokens[:, 1:],
        "reset": reset,
        "weights": weights,
        "target_bytes": np.zeros((batch_size, length), np.int32),
    }


def choose(rng: np.random.Generator, rows: int, size: int, count: int) -> np.ndarray:
    """[rows, count] int64: for each row, `count` distinct numbers below `size`, in random order."""
    return rng.permuted(np.broadcast_to(np.arange(size), (rows, size)), axis=1)[:, :count]
