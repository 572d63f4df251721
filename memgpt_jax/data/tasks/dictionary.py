"""Dictionary lookup: definitions first, questions later, in a context of any length.

The synthetic task of Tworkowski et al., "Focused Transformer: Contrastive Training for Context Scaling", 2023.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from memgpt_jax.config.checks import check, check_positive
from memgpt_jax.config.data import TaskConfig
from memgpt_jax.data.batch import Batch
from memgpt_jax.data.tasks.base import Task, check_codes, choose, scored_rows, spell


@dataclass(frozen=True, kw_only=True)
class DictionaryConfig(TaskConfig):
    """Dictionary lookup: definitions of distinct keys, then questions about some of them."""

    length_fields: ClassVar[tuple[str, ...]] = ("num_entries",)

    num_entries: int = 24
    """Number of definitions of a row."""
    num_questions: int = 8
    """Number of questions at the end of a row, about distinct keys; at most `num_entries`."""
    key_length: int = 2
    """Number of symbols of a key."""
    value_length: int = 2
    """Number of symbols of a value."""
    num_symbols: int = 32
    """Size of the alphabet of keys and values."""

    def __post_init__(self) -> None:
        check_positive(self)
        check(
            self.num_questions <= self.num_entries,
            f"num_questions={self.num_questions} must be at most num_entries={self.num_entries}",
        )
        for name in ("key_length", "value_length"):
            check_codes(self.num_symbols, name, getattr(self, name))
        check(
            self.num_symbols**self.key_length >= self.num_entries,
            f"num_symbols={self.num_symbols} and key_length={self.key_length} give fewer than "
            f"num_entries={self.num_entries} distinct keys",
        )

    @property
    def num_ids(self) -> int:
        """Filler, the marks of a definition, of a question and of a value, the symbols."""
        return 4 + self.num_symbols

    @property
    def row_length(self) -> int:
        """Definitions and questions, each with two marks."""
        return (self.num_entries + self.num_questions) * (2 + self.key_length + self.value_length)


FILLER, DEFINE, ASK, VALUE, FIRST_SYMBOL = range(5)


class DictionaryTask(Task[DictionaryConfig]):
    """`num_entries` definitions, then `num_questions` questions about distinct keys.

        DEFINE k k VALUE v v  DEFINE k k VALUE v v  ...  ASK k k VALUE v v  ASK k k VALUE v v  ...

    The keys of a row are distinct words of `key_length` symbols, which may have symbols in common; values are any words
    of `value_length` symbols of the same alphabet. Ids: filler 0, DEFINE 1, ASK 2, VALUE 3, the symbols. Filler is only
    the last target, which has no next token.

    Scored: each symbol of a question's value, from its VALUE on, one token at a time with the right symbols before it
    as input. (The paper's words have 4 symbols; its marks differ.)
    """

    config: DictionaryConfig

    def batch(self, rng: np.random.Generator | int, batch_size: int, length: int) -> Batch:
        rng, config = np.random.default_rng(rng), self.config
        rows, number = np.arange(batch_size)[:, None], config.num_entries
        keys = choose(rng, batch_size, config.num_symbols**config.key_length, number)
        values = rng.integers(config.num_symbols, size=(batch_size, number, config.value_length))
        mark = np.full((batch_size, number, 1), DEFINE)
        words = FIRST_SYMBOL + spell(keys, config.num_symbols, config.key_length)
        entries = np.concatenate([mark, words, np.full_like(mark, VALUE), FIRST_SYMBOL + values], axis=2)
        questions = entries[rows, choose(rng, batch_size, number, config.num_questions)]
        questions[:, :, 0] = ASK

        sentences = np.concatenate([entries, questions], axis=1)
        scored = np.zeros(sentences.shape, np.float32)
        scored[:, number:, -config.value_length :] = 1
        end = np.full((batch_size, 1), FILLER)
        tokens, weights = (np.concatenate([x.reshape(batch_size, -1), end], axis=1) for x in (sentences, scored))
        return scored_rows(tokens, weights[:, 1:])
