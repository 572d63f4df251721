"""Multi-query associative recall, also with keys that are rewritten.

Arora et al., "Zoology: Measuring and Improving Recall in Efficient Language Models", 2023, section 3 and appendix.
Their settings (length, pairs) are (64, 4), (128, 8), (256, 16) and (512, 64), with `vocab_size` 8192 and filler of the
whole vocabulary. Rewritten keys: Rodkin et al., "Associative Recurrent Memory Transformer", 2024 (the Rewrite task).
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from memgpt_jax.config.checks import check, check_literals, check_types
from memgpt_jax.config.data import TaskConfig
from memgpt_jax.data.batch import Batch
from memgpt_jax.data.tasks.base import Task, choose, scored_rows, writes


@dataclass(frozen=True, kw_only=True)
class MQARConfig(TaskConfig):
    """Multi-query associative recall: pairs of key and value, then each key once more as a query."""

    length_fields: ClassVar[tuple[str, ...]] = ("length",)

    vocab_size: int = 256
    """Ids of keys (the lower half) and values (the upper half); an even number."""
    length: int = 64
    """Tokens L of a row; an even number."""
    num_pairs: int = 8
    """Number of keys of a row, all distinct."""
    num_rewrites: int = 0
    """Number of additional pairs that give a key of the row a new value; the answer is the last value of a key."""
    power: float = 0.01
    """Exponent a of the distribution of gaps g = 1, 2, ... before the questions: p(g) is proportional to g^(a - 1)."""
    filler: Literal["own", "vocabulary"] = "own"
    """Tokens between questions: separate filler ids (`own`), or, as published, any id of the `vocabulary`, including
    keys that are queried."""
    num_fillers: int = 16
    """Number of filler ids if `filler` is `own`."""

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("num_pairs", "num_fillers"):
            check(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}")
        check(self.num_rewrites >= 0, f"num_rewrites must be at least 0, got {self.num_rewrites}")
        check(
            self.vocab_size % 2 == 0 and self.vocab_size >= 2 * (self.num_pairs + self.num_rewrites),
            f"vocab_size={self.vocab_size} must be even and at least {2 * (self.num_pairs + self.num_rewrites)}: half "
            "of the ids are values, and the values of a row are distinct",
        )
        check(
            self.length % 2 == 0 and self.num_gaps >= self.num_pairs,
            f"length={self.length} must be even and at least {4 * self.num_pairs + 2 * self.num_rewrites}, two tokens "
            "for each pair and each question",
        )
        check_literals(self)

    @property
    def num_gaps(self) -> int:
        """Places for a question: every second token after the pairs."""
        return self.length // 2 - self.num_pairs - self.num_rewrites

    @property
    def num_ids(self) -> int:
        """Keys, then values, then separate fillers."""
        return self.vocab_size + (self.num_fillers if self.filler == "own" else 0)

    @property
    def row_length(self) -> int:
        """`length`."""
        return self.length


class MQARTask(Task[MQARConfig]):
    """Pairs k v at the start of a row, then filler with each key once more, as a question.

        k1 v1 k2 v2 ... kW vW  filler ... k2 filler ... k1 filler ...

    A question can be at every second place after the pairs. The g-th of these places, g = 1, 2, ..., is drawn in
    proportion to g^(power - 1), one after the other without replacement. With `num_rewrites` some keys have several
    pairs, in random order, and the last value is the answer; the values of a row are always distinct. Ids: keys are the
    lower half of `vocab_size`, values the upper half, separate fillers follow. (The published code does not use key 0.)

    Scored: at a question, the target is the key's value; the next input is filler, not the value. Filler from the whole
    vocabulary may equal a key; it is not scored.
    """

    config: MQARConfig

    def batch(self, rng: np.random.Generator | int, batch_size: int, length: int) -> Batch:
        rng, config = np.random.default_rng(rng), self.config
        rows, half = np.arange(batch_size)[:, None], config.vocab_size // 2
        number = config.num_pairs + config.num_rewrites
        keys = choose(rng, batch_size, half, config.num_pairs)
        values = half + choose(rng, batch_size, half, number)
        pairs, last = writes(rng, batch_size, config.num_pairs, config.num_rewrites)

        low, high = (config.vocab_size, config.num_ids) if config.filler == "own" else (0, config.vocab_size)
        tokens = rng.integers(low, high, size=(batch_size, config.length + 1), dtype=np.int32)
        tokens[:, : 2 * number : 2] = keys[rows, pairs]
        tokens[:, 1 : 2 * number : 2] = values
        places = 2 * number + 2 * self.gaps(rng, batch_size)
        np.put_along_axis(tokens, places, keys, axis=1)

        weights = np.zeros((batch_size, config.length), np.float32)
        np.put_along_axis(weights, places, 1, axis=1)
        batch = scored_rows(tokens, weights)
        np.put_along_axis(batch.targets["tokens"], places, values[rows, last].astype(np.int32), axis=1)
        return batch

    def gaps(self, rng: np.random.Generator, batch_size: int) -> np.ndarray:
        """[B, num_pairs] distinct gaps from 0 on, drawn one after the other in proportion to (gap + 1)^(power - 1).

        Of independent exponential variables with rates p_g, the smallest is that of g with probability
        p_g / sum(p), and the next one follows the same rule among the remaining gaps. So sorting them draws without
        replacement.
        """
        rates = np.arange(1, self.config.num_gaps + 1) ** (self.config.power - 1)
        times = rng.exponential(size=(batch_size, len(rates))) / rates[None]
        return np.argsort(times, axis=1)[:, : self.config.num_pairs]
