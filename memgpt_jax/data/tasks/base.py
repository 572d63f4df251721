"""The interface of a task: rows of tokens, some of whose targets are answers that are scored."""

from collections.abc import Iterator

import numpy as np

from memgpt_jax.config_data import TaskConfig

Batch = dict[str, np.ndarray]


class Task:
    """A task on one split. Implement `batch`; a task with a finite test set overrides `held_out` too."""

    groups: tuple[str, ...] = ()
    """Names of the kinds of rows whose accuracies are reported one by one; a batch then says `group` [B] int32."""
    passing_accuracy: float | None = None
    """A group below this accuracy counts as failed; None: nothing is said of that."""

    def __init__(self, config: TaskConfig, split: str, tokenizer=None):
        """Args: split: `train`, `valid` or `test`. tokenizer: of the task's text; default: the one of the config."""
        self.config = config

    def batch(self, rng: np.random.Generator | int, batch_size: int, length: int) -> Batch:
        """A batch of rows of `length` tokens, each a task of its own.

        Args:
            rng: a generator, or its seed.
            batch_size: rows B.
            length: tokens L of a row.

        Returns:
            `tokens`, `targets` [B, L] int32; `reset` [B, L] bool, true at position 0; `weights` [B, L] float32, 1 where
            the target is an answer that is scored; `target_bytes` [B, L] int32, the UTF-8 bytes that the target stands
            for, 0 where it is no text. Where an answer has several tokens, `answer` [B, L] int32 too: equal numbers for
            the scored targets of one answer of a row, which is right where all of them are.
        """
        raise NotImplementedError

    def held_out(
        self, rng: np.random.Generator | int, batch_size: int, length: int, num_batches: int
    ) -> Iterator[Batch]:
        """The batches of an evaluation."""
        rng = np.random.default_rng(rng)
        for _ in range(num_batches):
            yield self.batch(rng, batch_size, length)


def choose(rng: np.random.Generator, rows: int, size: int, count: int) -> np.ndarray:
    """[rows, count] int64: for each row, `count` distinct numbers below `size`, in random order."""
    return rng.permuted(np.broadcast_to(np.arange(size), (rows, size)), axis=1)[:, :count]


def scored_rows(tokens: np.ndarray, weights: np.ndarray, target_bytes: np.ndarray | None = None) -> Batch:
    """The batch of rows [B, L + 1], of which all but the first token are targets, with weights [B, L] of these."""
    reset = np.zeros(weights.shape, bool)
    reset[:, 0] = True
    return {
        "tokens": tokens[:, :-1].astype(np.int32),
        "targets": tokens[:, 1:].astype(np.int32),
        "reset": reset,
        "weights": weights.astype(np.float32),
        "target_bytes": np.zeros(weights.shape, np.int32) if target_bytes is None else target_bytes,
    }
