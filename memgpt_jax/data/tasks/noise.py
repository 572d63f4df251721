"""RULER's haystack of noise: sentences hidden in a periodic repetition of five other sentences.

Hsieh et al., "RULER: What's the Real Context Size of Your Long-Context Language Models?", 2024, sections 3 and 4.
The tasks with needles and with variable tracking use it. Every word is one id; no corpus or tokenizer is needed.
"""

from dataclasses import dataclass
from typing import ClassVar, TypeVar

import numpy as np

from memgpt_jax.config.checks import check, check_positive
from memgpt_jax.config.data import TaskConfig
from memgpt_jax.data.batch import Batch
from memgpt_jax.data.tasks.base import Task, choose, insert, scored_rows
from memgpt_jax.data.tokenizers.base import Tokenizer


@dataclass(frozen=True, kw_only=True)
class NoiseConfig(TaskConfig):
    """Base of the configurations of tasks that hide sentences in RULER's noise; every word is one id."""

    length_fields: ClassVar[tuple[str, ...]] = ("context_length",)
    noise: ClassVar[str] = (
        "The grass is green . The sky is blue . The sun is yellow . Here we go . There and back again ."
    )
    """The sentences that are repeated as noise."""
    templates: ClassVar[dict[str, str]] = {}
    """The sentences of the task by name; fields in {braces} are replaced by ids of the task."""

    context_length: int = 256
    """Tokens before the questions: the noise, and the sentences hidden in it."""

    @property
    def words(self) -> tuple[str, ...]:
        """The words of noise and templates; the index of a word is its id."""
        words = " ".join((self.noise, *self.templates.values())).split()
        return tuple(dict.fromkeys(word for word in words if not word.startswith("{")))

    def size(self, template: str) -> int:
        """Tokens of a template; each field in braces counts as one token."""
        return len(self.templates[template].split())

    def check_hides(self, number: int, size: int) -> None:
        """Raise `ValueError` unless `number` sentences of `size` tokens fit, each after a sentence of noise."""
        noise = self.noise.split()
        left = self.context_length - number * size
        whole, rest = divmod(left, len(noise))
        room = whole * noise.count(".") + noise[len(noise) - rest :].count(".") if left > 0 else 0
        check(
            room >= number,
            f"context_length={self.context_length} cannot hold {number} sentences of {size} tokens, each after a "
            "sentence of noise",
        )


@dataclass(frozen=True, kw_only=True)
class NoiseNeedleConfig(NoiseConfig):
    """RULER's needles in a haystack of noise: sentences that assign numbers to words, then questions about them."""

    templates: ClassVar[dict[str, str]] = {
        "needle": "One of the special magic numbers for {word} is : {number} .",
        "question": "What is the special magic number for {word} mentioned in the provided text ? "
        "The special magic number for {word} mentioned in the provided text is {number}",
    }

    num_needles: int = 4
    """Facts hidden in each row, about distinct words."""
    num_questions: int = 1
    """Facts queried at the end of a row, at most `num_needles`."""
    num_words: int = 64
    """Number of words that facts are about; each is one id."""
    num_digits: int = 7
    """Number of digits of each number; each digit is one id."""

    def __post_init__(self) -> None:
        check_positive(self)
        check(
            self.num_questions <= self.num_needles <= self.num_words,
            f"num_questions={self.num_questions} must be at most num_needles={self.num_needles}, and that at most "
            f"num_words={self.num_words}",
        )
        self.check_hides(self.num_needles, self.size("needle") - 1 + self.num_digits)

    @property
    def num_ids(self) -> int:
        """Words and punctuation marks of the sentences, digits, the words that facts are about."""
        return len(self.words) + 10 + self.num_words

    @property
    def row_length(self) -> int:
        """The haystack and the questions."""
        return self.context_length + self.num_questions * (self.size("question") - 1 + self.num_digits)


Config = TypeVar("Config", bound=NoiseConfig)


class NoiseTask(Task[Config]):
    """Base of the tasks that hide sentences in noise and ask about them at the end of a row.

    Ids: the words and punctuation marks of noise and templates in the order of `config.words`, then the task's ids.
    """

    def __init__(self, config: Config, split: str, tokenizer: Tokenizer | None = None):
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
        """[B, context_length]: noise with the sentences [B, N, S] inserted in order, each after a sentence of noise.

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
        """Rows of a context [B, F] and questions [B, Q, S]; the last `num_answers` tokens of a question are scored."""
        batch_size = len(context)
        scored = np.zeros(questions.shape, np.float32)
        scored[:, :, -num_answers:] = 1
        after = np.full((batch_size, 1), self.ids["."])  # the last target
        tokens = np.concatenate([context, questions.reshape(batch_size, -1), after], axis=1)
        weights = np.zeros(tokens.shape, np.float32)
        weights[:, context.shape[1] : -1] = scored.reshape(batch_size, -1)
        return scored_rows(tokens, weights[:, 1:])


class NoiseNeedleTask(NoiseTask[NoiseNeedleConfig]):
    """`num_needles` sentences that assign numbers to distinct words, hidden in noise; then questions.

        ... One of the special magic numbers for W is : 1 2 3 4 5 6 7 . ...
        What is the special magic number for W mentioned in the provided text ?
        The special magic number for W mentioned in the provided text is 1 2 3 4 5 6 7

    Needles are inserted between sentences of noise, at distinct places drawn uniformly. Ids: words and punctuation
    marks, ten digits, the words W that facts are about. Differences from RULER: there is no introduction, and one
    question for each word (RULER's singular form); RULER's keys are pairs of adjective and noun, and its numbers do not
    begin with 0.

    Scored: each digit of an answer, one token at a time with the right digits before it as input. (RULER searches the
    generated text for the whole number.)
    """

    def batch(self, rng: np.random.Generator | int, batch_size: int, length: int) -> Batch:
        rng, config = np.random.default_rng(rng), self.config
        rows = np.arange(batch_size)[:, None]
        words = self.first_id + 10 + choose(rng, batch_size, config.num_words, config.num_needles)[..., None]
        digits = self.first_id + rng.integers(10, size=(batch_size, config.num_needles, config.num_digits))
        context = self.hide(rng, self.sentences("needle", {"word": words, "number": digits}))
        asked = choose(rng, batch_size, config.num_needles, config.num_questions)
        fields = {"word": words[rows, asked], "number": digits[rows, asked]}
        return self.ask(context, self.sentences("question", fields), config.num_digits)
