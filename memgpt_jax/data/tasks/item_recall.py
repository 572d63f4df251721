"""Associative recall of items: given one item of a list, what came next?

Graves et al., "Neural Turing Machines", 2014, section 4.3.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from memgpt_jax.config.checks import check, check_positive
from memgpt_jax.config.data import TaskConfig
from memgpt_jax.data.batch import Batch
from memgpt_jax.data.tasks.base import Task, check_codes, choose, scored_rows, spell


@dataclass(frozen=True, kw_only=True)
class ItemRecallConfig(TaskConfig):
    """Associative recall of the Neural Turing Machine's paper: given an item of a list, answer with the next one."""

    length_fields: ClassVar[tuple[str, ...]] = ("min_items", "max_items")

    num_symbols: int = 64
    """Size of the alphabet; the paper's symbols are 6 random bits."""
    item_length: int = 3
    """Number of symbols of an item."""
    min_items: int = 2
    """Minimum number of items of a row, at least 2; each row draws its own number."""
    max_items: int = 6
    """Maximum number of items of a row."""
    blank_answers: bool = False
    """Whether the inputs at the positions of the answer are filler, as in the paper, instead of the preceding tokens of
    the answer."""

    def __post_init__(self) -> None:
        check_positive(self)
        check(
            2 <= self.min_items <= self.max_items,
            f"min_items={self.min_items} must be between 2 and max_items={self.max_items}",
        )
        check_codes(self.num_symbols, "item_length", self.item_length)
        check(
            self.num_symbols**self.item_length >= self.max_items,
            f"num_symbols={self.num_symbols} and item_length={self.item_length} give fewer than "
            f"max_items={self.max_items} distinct items",
        )

    @property
    def num_ids(self) -> int:
        """Filler, the two delimiters, the symbols."""
        return 3 + self.num_symbols

    @property
    def row_length(self) -> int:
        """Items with one delimiter each, the question with two, and the answer without its last symbol."""
        return (self.max_items + 1) * (self.item_length + 1) + self.item_length


FILLER, ITEM, QUESTION, FIRST_SYMBOL = range(4)


class ItemRecallTask(Task[ItemRecallConfig]):
    """A list of distinct items of `item_length` symbols, then one of them as the question, and the next item.

        ITEM a a a  ITEM b b b  ITEM c c c  ...  QUESTION b b b  QUESTION c c c  filler ...

    The number of items is drawn uniformly between its bounds for each row; the queried item is any but the last.
    Ids: filler 0, ITEM 1, QUESTION 2, the symbols. Filler after the answer gives all rows the same length.

    Scored: each symbol of the answer, from the second QUESTION on, one token at a time: the inputs of the answer are
    the right symbols before it, or filler with `blank_answers`. (The paper's symbols are vectors of 6 random bits,
    which need not give distinct items, and it counts wrong bits.)
    """

    config: ItemRecallConfig

    def batch(self, rng: np.random.Generator | int, batch_size: int, length: int) -> Batch:
        rng, config = np.random.default_rng(rng), self.config
        rows, size = np.arange(batch_size), config.item_length
        number = rng.integers(config.min_items, config.max_items + 1, size=batch_size)
        codes = choose(rng, batch_size, config.num_symbols**size, config.max_items)
        items = np.full((batch_size, config.max_items, 1 + size), ITEM)
        items[:, :, 1:] = FIRST_SYMBOL + spell(codes, config.num_symbols, size)
        asked = rng.integers(number - 1)
        question = np.full((batch_size, 2, 1 + size), QUESTION)
        question[:, :, 1:] = items[rows[:, None], np.stack([asked, asked + 1], axis=1), 1:]

        place = np.arange(config.row_length + 1)[None]
        start = number[:, None] * (1 + size)
        tokens = np.full((batch_size, config.row_length + 1), FILLER)
        tokens[:, : config.max_items * (1 + size)] = items.reshape(batch_size, -1)
        tokens[place >= start] = FILLER
        np.put_along_axis(tokens, start + np.arange(2 * (1 + size)), question.reshape(batch_size, -1), axis=1)
        is_answer = (place >= start + 2 + size) & (place < start + 2 * (1 + size))
        batch = scored_rows(tokens, is_answer[:, 1:])
        if config.blank_answers:
            batch.inputs["tokens"][is_answer[:, :-1]] = FILLER
        return batch
