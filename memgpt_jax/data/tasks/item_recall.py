"""Associative recall of items: given one item of a list, what came next?

Graves et al., "Neural Turing Machines", 2014, section 4.3.
"""

import numpy as np

from memgpt_jax.config_tasks import ItemRecallConfig
from memgpt_jax.data.tasks.base import Task, choose, scored_rows, spell

FILLER, ITEM, QUESTION, FIRST_SYMBOL = range(4)


class ItemRecallTask(Task):
    """A list of distinct items of `item_length` symbols, one of them again, and the item after it.

        ITEM a a a  ITEM b b b  ITEM c c c  ...  QUESTION b b b  QUESTION c c c  filler ...

    The number of items is drawn for each row, evenly between its bounds; the item asked about is any but the last.
    Ids: filler 0, ITEM 1, QUESTION 2, the symbols. Filler after the answer makes rows equally long.

    Scored: each symbol of the answer, from the second QUESTION on, one token at a time: the inputs of the answer are
    the right symbols before it, or filler with `blank_answers`. (The paper's symbols are vectors of 6 random bits,
    which need not give distinct items, and it counts wrong bits.)
    """

    config: ItemRecallConfig

    def batch(self, rng, batch_size, length):
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
            batch["tokens"][is_answer[:, :-1]] = FILLER
        return batch
