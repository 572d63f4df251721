"""BABILong: the statements of a bAbI story, distributed over a text of any length, and a question at its end.

Kuratov et al., 2024, "BABILong: Testing the Limits of LLMs with Long Context Reasoning-in-a-Haystack". An answer is
right if its id has the highest logit after the last token. Answers are additional ids after those of the tokenizer;
statements and questions are encoded as text.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from memgpt_jax.config.checks import check, check_types
from memgpt_jax.config.data import TaskConfig, TextConfig
from memgpt_jax.data.batch import Batch
from memgpt_jax.data.corpora.text import documents, make_tokenizer
from memgpt_jax.data.tasks.babi import check_babi
from memgpt_jax.data.tasks.babi_files import Story, babi_files, read_stories
from memgpt_jax.data.tasks.base import Task, digest, scored_rows
from memgpt_jax.data.tokenizers.base import Tokenizer


@dataclass(frozen=True, kw_only=True)
class BabiLongConfig(TaskConfig):
    """BABILong (Kuratov et al., 2024): the statements of a bAbI story, in order, at random places among the sentences
    of real text; then the question.

    A row has `training.sequence_length` tokens and ends with the question; any length may be evaluated.
    """

    text: TextConfig = field(default_factory=TextConfig)
    """The text that surrounds the statements, and the tokenizer."""
    path: str | None = None
    """Folder of bAbI's files, as in `BabiConfig`."""
    tasks: tuple[int, ...] = (1,)
    """Numbers of bAbI's tasks; each row has one of them, drawn uniformly."""
    num_answers: int = 8
    """Number of answer ids, after the tokenizer's ids; at least the number of distinct answers of the tasks."""
    train_on_all_questions: bool = True
    """Whether training rows also contain the earlier questions of the story with their answers, because one answer per
    row is a weak training signal. Evaluation rows contain the last question only."""
    valid_share: float = 0.1
    """Fraction of the training file's stories that are used for validation, taken from its end."""

    def __post_init__(self) -> None:
        check_types(self)
        object.__setattr__(self, "tasks", tuple(self.tasks))
        check_babi(self)
        check(self.num_answers >= 1, f"num_answers must be at least 1, got {self.num_answers}")

    @property
    def num_ids(self) -> int:
        """The answers."""
        return self.num_answers


class Question(NamedTuple):
    """A question about the preceding lines of a story."""

    before: tuple[np.ndarray, ...]
    """Tokens (int32) of each preceding statement, and of each earlier question with its answer."""
    tokens: np.ndarray
    """Tokens of the question, [n] int32."""
    answer: np.int32
    """Id of the answer."""


class BabiLongTask(Task[BabiLongConfig]):
    """The task on one split of bAbI and of a corpus; evaluations draw random questions of the split."""

    passing_accuracy: float | None = 0.95

    def __init__(self, config: BabiLongConfig, split: str, tokenizer: Tokenizer | None = None):
        """Raises `ValueError` if bAbI's files or the corpus are not valid, or `num_answers` is too small."""
        super().__init__(config, split, tokenizer)
        self.tokenizer = tokenizer or make_tokenizer(config.text)
        self.groups = tuple(f"qa{task}" for task in config.tasks)
        files = babi_files(config.path)
        shares = {part: [read_stories(files, task, part, config.valid_share) for task in config.tasks]
                  for part in ("train", "valid", "test")}  # fmt: skip
        # All splits are read, so that an answer has the same id in each.
        lines = (line for tasks in shares.values() for stories in tasks for story in stories for line in story)
        self.answers = sorted({line.answer for line in lines if line.answer is not None})
        if len(self.answers) > config.num_answers:
            raise ValueError(
                f"the tasks have {len(self.answers)} answers, but data.num_answers is {config.num_answers}: set it to "
                f"at least that, and model.vocab_size to at least {self.tokenizer.vocab_size + len(self.answers)}"
            )
        self.ask_all = config.train_on_all_questions and split == "train"
        self.questions = [[q for story in stories for q in self._questions(story)] for stories in shares[split]]
        """For each task, its questions."""
        text = documents(config.text, split, self.tokenizer)
        self.flat, self.content = text.flat, digest(text.fingerprint, self.answers, shares[split])
        ends = [self.tokenizer.decode([i]).endswith((".", "!", "?", "\n")) for i in range(self.tokenizer.vocab_size)]
        self.ends_sentence = np.array(ends)
        self.token_bytes = np.pad(self.tokenizer.token_bytes, (0, config.num_answers))

    def batch(self, rng: np.random.Generator | int, batch_size: int, length: int) -> Batch:
        """`Task.batch`; each row is text with the lines of a story, then the question; with `group`.

        Raises:
            ValueError: a row cannot hold a story and its question.
        """
        rng = np.random.default_rng(rng)
        group = rng.integers(len(self.questions), size=batch_size).astype(np.int32)
        tokens = np.empty((batch_size, length + 1), np.int32)
        for row, task in zip(tokens, group, strict=True):
            question = self.questions[task][rng.integers(len(self.questions[task]))]
            context = self.hide(rng, question.before, length - len(question.tokens))
            row[:] = np.concatenate([context, question.tokens, [question.answer]])
        is_answer = tokens[:, 1:] >= self.tokenizer.vocab_size
        return scored_rows(tokens, is_answer, self.token_bytes[tokens[:, 1:]], group=group)

    def hide(self, rng: np.random.Generator, lines: tuple[np.ndarray, ...], length: int) -> np.ndarray:
        """[length]: text from a random place on, with `lines` inserted in order between random sentences."""
        fillers = length - sum(map(len, lines))
        if fillers < 0:
            raise ValueError(
                f"a story of {length - fillers} tokens and its question do not fit into a row: set "
                "training.sequence_length to more"
            )
        text = self.flat[(rng.integers(len(self.flat)) + np.arange(fillers)) % len(self.flat)].astype(np.int32)
        between = np.concatenate([[0], 1 + np.flatnonzero(self.ends_sentence[text])])
        places = np.sort(rng.choice(between, len(lines)))
        parts = [part for pair in zip(np.split(text, places), (*lines, []), strict=True) for part in pair]
        return np.concatenate(parts).astype(np.int32)

    def _questions(self, story: Story) -> list[Question]:
        before, questions = [], []
        for line in story:
            tokens = np.array(self.tokenizer.encode(f" {line.text}"), np.int32)
            if line.answer is None:
                before.append(tokens)
                continue
            answer = np.int32(self.tokenizer.vocab_size + self.answers.index(line.answer))
            questions.append(Question(tuple(before), tokens, answer))
            if self.ask_all:
                before.append(np.append(tokens, answer))
        return questions
