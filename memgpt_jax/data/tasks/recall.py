"""Generated associative recall: does a memory bind keys to values and retrieve them?"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from memgpt_jax.config.checks import check, check_types
from memgpt_jax.config.data import TaskConfig
from memgpt_jax.data.batch import Batch
from memgpt_jax.data.tasks.base import Task, choose, scored_rows, writes


@dataclass(frozen=True, kw_only=True)
class RecallConfig(TaskConfig):
    """Associative recall: key-value pairs among filler, then keys whose values must be recalled."""

    length_fields: ClassVar[tuple[str, ...]] = ("context_length",)

    num_pairs: int = 8
    """Number of key-value pairs in each context."""
    num_rewrites: int = 0
    """Number of additional pairs that give a key of the context a new value; the answer is the last value of a key."""
    num_keys: int = 64
    """Size of the key alphabet; keys of one context are distinct."""
    num_values: int = 64
    """Size of the value alphabet; values of one context are distinct."""
    num_fillers: int = 16
    """Size of the filler alphabet, disjoint from keys and values."""
    context_length: int = 64
    """Tokens of the pairs and the filler; a multiple of the model's segment length."""
    gap_length: int = 0
    """Number of filler tokens at the end of the context. If it is at least num_layers x window_size, only a memory can
    carry a pair to its query."""
    query_length: int = 16
    """Tokens of the queries: key, value, key, value, ...; an even number, at most 2 num_pairs."""

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("num_pairs", "num_keys", "num_values", "num_fillers", "context_length", "query_length"):
            check(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("gap_length", "num_rewrites"):
            check(getattr(self, name) >= 0, f"{name} must be at least 0, got {getattr(self, name)}")
        check(
            self.num_pairs <= self.num_keys and self.num_pairs + self.num_rewrites <= self.num_values,
            f"num_pairs={self.num_pairs} must be at most num_keys={self.num_keys}, and with num_rewrites="
            f"{self.num_rewrites} at most num_values={self.num_values}",
        )
        check(
            2 * (self.num_pairs + self.num_rewrites) <= self.context_length - self.gap_length,
            f"context_length={self.context_length} less gap_length={self.gap_length} cannot hold "
            f"num_pairs={self.num_pairs} and num_rewrites={self.num_rewrites} pairs of two tokens",
        )
        check(
            self.query_length % 2 == 0 and 2 <= self.query_length <= 2 * self.num_pairs,
            f"query_length must be even and between 2 and {2 * self.num_pairs}, got {self.query_length}",
        )

    @property
    def num_ids(self) -> int:
        """Fillers, then keys, then values."""
        return self.num_fillers + self.num_keys + self.num_values

    @property
    def row_length(self) -> int:
        """The context and the queries."""
        return self.context_length + self.query_length


class RecallTask(Task[RecallConfig]):
    """`recall_batch` as a task; the length of a row follows from the config."""

    def batch(self, rng: np.random.Generator | int, batch_size: int, length: int) -> Batch:
        return recall_batch(self.config, rng, batch_size)


def recall_batch(config: RecallConfig, rng: np.random.Generator | int, batch_size: int) -> Batch:
    """A batch of recall tasks, L = context_length + query_length tokens per row.

    A row is fillers with the pairs k v at random places that do not overlap, then `gap_length` fillers, then the
    queries `k1 v1 k2 v2 ...`, of distinct keys of the context. With rewrites a key has several pairs, all values of a
    row are distinct, and the last value is the answer (as in the Rewrite task of Rodkin et al., "Associative Recurrent
    Memory Transformer", 2024). Ids: fillers from 0, then keys, then values.
    Scored (weight 1) are the values of queried keys. The last target of a row, which has no next token, is filler and
    is not scored.

    Args and returns: as `Task.batch`.
    """
    rng = np.random.default_rng(rng)
    rows = np.arange(batch_size)[:, None]
    number = config.num_pairs + config.num_rewrites
    keys = config.num_fillers + choose(rng, batch_size, config.num_keys, config.num_pairs)
    values = config.num_fillers + config.num_keys + choose(rng, batch_size, config.num_values, number)
    pairs, last = writes(rng, batch_size, config.num_pairs, config.num_rewrites)

    # Sorted distinct places in a context without the pairs' second tokens; pair i is shifted by the i pairs before it.
    pairs_end = config.context_length - config.gap_length
    places = np.sort(choose(rng, batch_size, pairs_end - number, number), axis=1)
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
