"""A memory task of your own: a config, a class with one method, one line. This file is also a config.

    python experiments/train.py tests/examples/first_symbol_task.py --workdir runs/first --data.gap_length 200

The first token of a row is a symbol; after filler, a question mark asks for it.
"""

import dataclasses
from typing import ClassVar

import numpy as np

import memgpt_jax as mg
from memgpt_jax.data.batch import Batch
from memgpt_jax.data.tasks.base import scored_rows
from memgpt_jax.studies.command_line import load_config

FILLER, QUESTION, FIRST_SYMBOL = range(3)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FirstSymbolConfig(mg.TaskConfig):
    """Name the first symbol of the row after `gap_length` tokens of filler."""

    length_fields: ClassVar[tuple[str, ...]] = ("gap_length",)

    num_symbols: int = 16
    """Number of different symbols."""
    gap_length: int = 62
    """Tokens of filler between the symbol and the question."""

    @property
    def num_ids(self) -> int:
        """Filler, the question mark, the symbols."""
        return FIRST_SYMBOL + self.num_symbols

    @property
    def row_length(self) -> int:
        """The symbol, the filler, the question mark."""
        return self.gap_length + 2


class FirstSymbol(mg.Task):
    """Rows `symbol filler ... filler QUESTION`, whose last target is the symbol: the only one that is scored."""

    def batch(self, rng: np.random.Generator | int, batch_size: int, length: int) -> Batch:
        symbols = np.random.default_rng(rng).integers(self.config.num_symbols, size=batch_size)
        tokens = np.full((batch_size, length + 1), FILLER, np.int32)
        tokens[:, 0] = tokens[:, -1] = FIRST_SYMBOL + symbols
        tokens[:, -2] = QUESTION
        weights = np.zeros((batch_size, length), np.float32)
        weights[:, -1] = 1
        return scored_rows(tokens, weights)


mg.register_task("first_symbol", FirstSymbolConfig, FirstSymbol)


def config() -> mg.ExperimentConfig:
    base, data = load_config("recall"), FirstSymbolConfig()
    training = dataclasses.replace(base.training, steps=100, sequence_length=data.row_length)
    return dataclasses.replace(base, data=data, training=training)
