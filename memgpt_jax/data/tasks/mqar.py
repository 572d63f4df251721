"""Multi-query associative recall, also with keys that are rewritten.

Arora et al., "Zoology: Measuring and Improving Recall in Efficient Language Models", 2023, section 3 and appendix.
Their settings (length, pairs) are (64, 4), (128, 8), (256, 16) and (512, 64), with `vocab_size` 8192 and filler of the
whole vocabulary. Rewritten keys: Rodkin et al., "Associative Recurrent Memory Transformer", 2024 (the Rewrite task).
"""

import numpy as np

from memgpt_jax.config_tasks import MQARConfig
from memgpt_jax.data.tasks.base import Task, choose, scored_rows, writes


class MQARTask(Task):
    """Pairs k v at the start of a row, then filler with each key once more, as a question.

        k1 v1 k2 v2 ... kW vW  filler ... k2 filler ... k1 filler ...

    Questions stand at every second place at most: the g-th place after the pairs, g = 1, 2, ..., is drawn in
    proportion to g^(power - 1), one after the other without replacement. With `num_rewrites` keys stand in several
    pairs, in random order, and the last one counts; values of a row are distinct in any case. Ids: keys are the lower
    half of `vocab_size`, values the upper half, fillers of their own come after it. (The published code leaves key 0
    out.)

    Scored: at a question, the target is the key's value; it is not shown afterwards, the next input is filler. Filler
    of the whole vocabulary may be a key that is asked for elsewhere, which is not scored.
    """

    config: MQARConfig

    def batch(self, rng, batch_size, length):
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
        np.put_along_axis(batch["targets"], places, values[rows, last].astype(np.int32), axis=1)
        return batch

    def gaps(self, rng: np.random.Generator, batch_size: int) -> np.ndarray:
        """[B, num_pairs] distinct gaps from 0 on, drawn one after the other in proportion to (gap + 1)^(power - 1).

        The first of competing exponential clocks with rates p_g is g with probability p_g / sum p, and so is each
        next one among those that are left.
        """
        rates = np.arange(1, self.config.num_gaps + 1) ** (self.config.power - 1)
        clocks = rng.exponential(size=(batch_size, len(rates))) / rates[None]
        return np.argsort(clocks, axis=1)[:, : self.config.num_pairs]
