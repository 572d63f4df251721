"""Training on batches of one's own: an iterator with a position that can be saved."""

import numpy as np

from memgpt_jax.data import Batch


class Countdown:
    """Rows that count down from a random number; batch n depends on the seed and n alone."""

    def __init__(self, rows: int, length: int, vocab_size: int, seed: int = 0):
        self.rows, self.length, self.vocab_size, self.seed = rows, length, vocab_size, seed
        self.number = 0

    def __next__(self) -> Batch:
        rng = np.random.default_rng((self.seed, self.number))
        self.number += 1
        start = rng.integers(self.vocab_size, size=(self.rows, 1))
        row = ((start - np.arange(self.length + 1)) % self.vocab_size).astype(np.int32)
        reset = np.zeros((self.rows, self.length), bool)
        reset[:, 0] = True
        return Batch(
            inputs={"tokens": row[:, :-1], "reset": reset},
            targets={"tokens": row[:, 1:]},
            weights={"tokens": np.ones((self.rows, self.length), np.float32)},
            info={},
        )

    def get_state(self) -> dict[str, int]:
        return {"seed": self.seed, "number": self.number}

    def set_state(self, state: dict[str, int]) -> None:
        if state["seed"] != self.seed:
            raise ValueError(f"the position belongs to seed {state['seed']}, but this is seed {self.seed}")
        self.number = state["number"]
