"""Dictionary lookup: definitions first, questions later, in a context as long as one likes.

The synthetic task of Tworkowski et al., "Focused Transformer: Contrastive Training for Context Scaling", 2023.
"""

import numpy as np

from memgpt_jax.config_tasks import DictionaryConfig
from memgpt_jax.data.tasks.base import Task, choose, scored_rows, spell

FILLER, DEFINE, ASK, VALUE, FIRST_SYMBOL = range(5)


class DictionaryTask(Task):
    """`num_entries` definitions, then `num_questions` questions about distinct keys.

        DEFINE k k VALUE v v  DEFINE k k VALUE v v  ...  ASK k k VALUE v v  ASK k k VALUE v v  ...

    Keys of a row are distinct words of `key_length` symbols, so single symbols recur; values are any words of
    `value_length` symbols of the same alphabet. Ids: filler 0, DEFINE 1, ASK 2, VALUE 3, the symbols. Filler is only
    the last target, which has no next token.

    Scored: each symbol of a question's value, from its VALUE on, one token at a time with the right symbols before it
    as input. (The paper's words have 4 symbols; its marks differ.)
    """

    config: DictionaryConfig

    def batch(self, rng, batch_size, length):
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
