"""RULER's haystack of noise: sentences hidden among five others that are repeated over and over.

Hsieh et al., "RULER: What's the Real Context Size of Your Long-Context Language Models?", 2024, sections 3 and 4.
Needles and variable tracking hide their sentences here; every word is one id, so no corpus and no tokenizer is needed.
"""

import numpy as np

from memgpt_jax.config_tasks import NoiseConfig, NoiseNeedleConfig
from memgpt_jax.data.tasks.base import Batch, Task, choose, insert, scored_rows


class NoiseTask(Task):
    """Base of the tasks that hide sentences in noise and ask about them at the end of a row.

    Ids: the words and marks of noise and templates in the order of `config.words`, then those of the task.
    """

    config: NoiseConfig

    def __init__(self, config: NoiseConfig, split: str, tokenizer=None):
        super().__init__(config, split, tokenizer)
        self.ids = {word: token for token, word in enumerate(config.words)}
        self.first_id = len(self.ids)

    def sentences(self, template: str, fields: dict[str, np.ndarray]) -> np.ndarray:
        """[B, N, S]: a template of the config with ids [B, N, size] for each of its {fields}."""
        shape = next(iter(fields.values())).shape[:2]
        parts = [
            fields[word.strip("{}")] if word.startswith("{") else np.full((*shape, 1), self.ids[word])
            for word in self.config.templates[template].split()
        ]
        return np.concatenate(parts, axis=2)

    def hide(self, rng: np.random.Generator, sentences: np.ndarray) -> np.ndarray:
        """[B, context_length]: noise with the sentences [B, N, S] in it, in order, each at the end of another sentence.

        The noise ends with a whole sentence; its first one may be cut.
        """
        batch_size, number, size = sentences.shape
        period = np.array([self.ids[word] for word in self.config.noise.split()])
        length = self.config.context_length - number * size
        noise = np.resize(period[::-1], length)[::-1]
        places = 1 + np.flatnonzero(noise == self.ids["."])
        places = places[np.sort(choose(rng, batch_size, len(places), number), axis=1)]
        return insert(np.broadcast_to(noise, (batch_size, length)), places, sentences)

    def ask(self, context: np.ndarray, questions: np.ndarray, num_answers: int) -> Batch:
        """Rows of a context [B, F] and questions [B, Q, S], the last `num_answers` tokens of which are scored."""
        batch_size = len(context)
        scored = np.zeros(questions.shape, np.float32)
        scored[:, :, -num_answers:] = 1
        after = np.full((batch_size, 1), self.ids["."])  # the last target, which has no next token
        tokens = np.concatenate([context, questions.reshape(batch_size, -1), after], axis=1)
        weights = np.zeros(tokens.shape, np.float32)
        weights[:, context.shape[1] : -1] = scored.reshape(batch_size, -1)
        return scored_rows(tokens, weights[:, 1:])


class NoiseNeedleTask(NoiseTask):
    """`num_needles` sentences that give distinct words a number, hidden in noise; then questions.

        ... One of the special magic numbers for W is : 1 2 3 4 5 6 7 . ...
        What is the special magic number for W mentioned in the provided text ?
        The special magic number for W mentioned in the provided text is 1 2 3 4 5 6 7

    Needles stand between sentences of noise, at places drawn evenly, no two at the same one. Ids: words and marks, ten
    digits, the words W that facts are about. Without RULER's introduction in front, and with one question for each word
    (its singular form); its keys are pairs of adjective and noun, its numbers do not begin with 0.

    Scored: each digit of an answer, one token at a time with the right digits before it as input. (RULER generates, and
    looks for the whole number in what was generated.)
    """

    config: NoiseNeedleConfig

    def batch(self, rng, batch_size, length):
        rng, config = np.random.default_rng(rng), self.config
        rows = np.arange(batch_size)[:, None]
        words = self.first_id + 10 + choose(rng, batch_size, config.num_words, config.num_needles)[..., None]
        digits = self.first_id + rng.integers(10, size=(batch_size, config.num_needles, config.num_digits))
        context = self.hide(rng, self.sentences("needle", {"word": words, "number": digits}))
        asked = choose(rng, batch_size, config.num_needles, config.num_questions)
        fields = {"word": words[rows, asked], "number": digits[rows, asked]}
        return self.ask(context, self.sentences("question", fields), config.num_digits)
