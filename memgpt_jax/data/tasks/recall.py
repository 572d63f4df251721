"""Associative recall, generated: does a memory bind keys to values and find them again?"""

import numpy as np

from memgpt_jax.config_data import RecallConfig
from memgpt_jax.data.tasks.base import Batch, Task, choose, scored_rows, writes


class RecallTask(Task):
    """`recall_batch` as a task; the length of a row follows from the config."""

    def batch(self, rng, batch_size, length):
        return recall_batch(self.config, rng, batch_size)


def recall_batch(config: RecallConfig, rng: np.random.Generator | int, batch_size: int) -> Batch:
    """A batch of recall tasks, L = context_length + query_length tokens a row.

    A row is fillers with the pairs k v at random places that do not overlap, then `gap_length` fillers, then the
    queries `k1 v1 k2 v2 ...`, of distinct keys of the context. With rewrites a key stands in several pairs, no two of
    a row with the same value, and the last one counts (as in the Rewrite task of Rodkin et al., "Associative Recurrent
    Memory Transformer", 2024). Ids: fillers from 0, then keys, then values.
    A target is scored (weight 1) where the token is a queried key, and so the target its value. The last target, of
    which there is no next token, is filler and is not scored.

    Args and returns: as `Task.batch`.
    """
    rng = np.random.default_rng(rng)
    rows = np.arange(batch_size)[:, None]
    number = config.num_pairs + config.num_rewrites
    keys = config.num_fillers + choose(rng, batch_size, config.num_keys, config.num_pairs)
    values = config.num_fillers + config.num_keys + choose(rng, batch_size, config.num_values, number)
    pairs, last = writes(rng, batch_size, config.num_pairs, config.num_rewrites)

    # Distinct places among all but `number`, sorted, become pairs by moving pair i on by the i before it.
    holds_pairs = config.context_length - config.gap_length
    places = np.sort(choose(rng, batch_size, holds_pairs - number, number), axis=1)
    places += np.arange(number)[None]
    length = config.row_length
    tokens = rng.integers(config.num_fillers, size=(batch_size, length + 1), dtype=np.int32)
    tokens[rows, places] = keys[rows, pairs]
    tokens[rows, places + 1] = values

    queried = choose(rng, batch_size, config.num_pairs, config.query_length // 2)
    tokens[:, config.context_length : length : 2] = keys[rows, queried]
    tokens[:, config.context_length + 1 : length : 2] = values[rows, last[rows, queried]]

    weights = np.zeros((batch_size, length), np.float32)
    weights[:, config.context_length :: 2] = 1
    return scored_rows(tokens, weights)
