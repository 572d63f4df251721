"""Copy, reverse and repeat-copy: does a memory reproduce a sequence symbol by symbol?

Graves et al., "Neural Turing Machines", 2014, sections 4.1 and 4.2 (copy, repeat copy); Graves et al., "Hybrid
computing using a neural network with dynamic external memory", 2016; Bulatov et al., "Recurrent Memory Transformer",
2022 (copy, reverse).
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from memgpt_jax.config.checks import check, check_positive
from memgpt_jax.config.data import TaskConfig
from memgpt_jax.data.batch import Batch
from memgpt_jax.data.tasks.base import Task, scored_rows


@dataclass(frozen=True, kw_only=True)
class CopyConfig(TaskConfig):
    """Copy, reverse and repeat-copy: symbols between two marks, then the symbols again."""

    length_fields: ClassVar[tuple[str, ...]] = ("min_length", "max_length")

    num_symbols: int = 10
    """Size of the alphabet."""
    min_length: int = 1
    """Minimum number of symbols of a row; each row draws its own number."""
    max_length: int = 20
    """Maximum number of symbols of a row."""
    reverse: bool = False
    """Whether the answer is the reversed sequence."""
    min_repeats: int = 1
    """Minimum number of copies; each row draws its own number."""
    max_repeats: int = 1
    """Maximum number of copies. If it is more than 1, the answer ends with an end marker, which is scored too."""
    blank_answers: bool = False
    """Whether the inputs at the positions of the answer are filler, as in the Neural Turing Machine's paper, instead of
    the preceding tokens of the answer."""

    def __post_init__(self) -> None:
        check_positive(self)
        check(
            self.min_length <= self.max_length,
            f"min_length={self.min_length} must be at most max_length={self.max_length}",
        )
        check(
            self.min_repeats <= self.max_repeats,
            f"min_repeats={self.min_repeats} must be at most max_repeats={self.max_repeats}",
        )

    @property
    def num_ids(self) -> int:
        """Filler, the end marker, the start, the delimiters of 1 to `max_repeats` copies, the symbols."""
        return 3 + self.max_repeats + self.num_symbols

    @property
    def row_length(self) -> int:
        """The longest row: start, symbols, delimiter, the copies; an end marker after them is only a target."""
        return 2 + self.max_length * (1 + self.max_repeats)


FILLER, END, START, FIRST_DELIMITER = range(4)


class CopyTask(Task[CopyConfig]):
    """A start mark, symbols s1 ... sn, a delimiter that states the number r of copies, and r copies.

        START  s1 ... sn  D_r  s1 ... sn  s1 ... sn  ...  END  filler ...          copies backwards with `reverse`

    n and r are drawn uniformly between their bounds for each row, symbols uniformly with replacement. Ids: filler 0,
    END 1, START 2, the delimiters D_1 ... D_max_repeats, the symbols. Rows have END only if `max_repeats` is above 1:
    the model has to count. Filler after the answer gives all rows the same length.

    Scored: each symbol of the answer and END, from the delimiter on, one token at a time: the inputs of the answer are
    the right symbols before it, or filler with `blank_answers`. (In the papers, symbols are vectors of bits and the
    number of copies is a scalar, and wrong bits are counted. Here each number of copies is an id, so numbers above
    `max_repeats` cannot be evaluated.)
    """

    config: CopyConfig

    def batch(self, rng: np.random.Generator | int, batch_size: int, length: int) -> Batch:
        rng, config = np.random.default_rng(rng), self.config
        number = rng.integers(config.min_length, config.max_length + 1, size=(batch_size, 1))
        repeats = rng.integers(config.min_repeats, config.max_repeats + 1, size=(batch_size, 1))
        symbols = rng.integers(config.num_symbols, size=(batch_size, config.max_length))
        symbols += FIRST_DELIMITER + config.max_repeats

        place = np.arange(-1, config.row_length)[None]  # counted from the first symbol
        start, end = number + 1, number + 1 + number * repeats  # of the answer
        answer = (place - start) % number
        source = np.where(place < number, place, number - 1 - answer if config.reverse else answer)
        tokens = np.take_along_axis(symbols, np.maximum(source, 0), axis=1)
        tokens[:, 0] = START
        np.put_along_axis(tokens, number + 1, FIRST_DELIMITER - 1 + repeats, axis=1)
        tokens[place >= end] = FILLER
        if config.max_repeats > 1:
            np.put_along_axis(tokens, end + 1, END, axis=1)
            end = end + 1
        is_answer = (place >= start) & (place < end)
        batch = scored_rows(tokens, is_answer[:, 1:])
        if config.blank_answers:
            batch.inputs["tokens"][is_answer[:, :-1]] = FILLER
        return batch
