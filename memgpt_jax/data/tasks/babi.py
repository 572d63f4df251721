"""bAbI's question-answering tasks: stories are streamed through memory, and each question is answered in place.

An answer is one id, even if it is a list (`football,milk` in task 8, `s,e` in task 19), as in the literature; it is
right if this id has the highest logit at the question mark. Weston et al., 2015, "Towards AI-Complete Question
Answering"; a task counts as failed below an accuracy of 0.95.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from memgpt_jax.config.checks import check, check_literals, check_types
from memgpt_jax.config.data import TaskConfig
from memgpt_jax.data.batch import Batch
from memgpt_jax.data.corpora.reading import read_text
from memgpt_jax.data.tasks.babi_files import Story, babi_files, read_stories, words_of
from memgpt_jax.data.tasks.base import Task, digest, scored_rows
from memgpt_jax.data.tokenizers.base import Tokenizer


@dataclass(frozen=True, kw_only=True)
class BabiConfig(TaskConfig):
    """bAbI's tasks (Weston et al., 2015), read from the publishers' files: stories with interspersed questions.

    A row has `training.sequence_length` tokens: whole stories of one task, each with an empty memory at its start, then
    padding.
    """

    path: str | None = None
    """Folder of `qa1_..._train.txt`, `qa1_..._test.txt`, ..., which may be `.txt.gz`. `~` and `$VARIABLES` are
    expanded."""
    tasks: tuple[int, ...] = tuple(range(1, 21))
    """Numbers of the tasks that one model learns jointly; each training row has one of them, drawn uniformly."""
    num_words: int = 256
    """Number of ids for words, answers, padding and the blank; at least the number that the files need."""
    valid_share: float = 0.1
    """Fraction of the training file's stories that are used for validation, taken from its end."""
    long_stories: Literal["error", "cut"] = "error"
    """Treatment of a story longer than a row: raise an `error`, or `cut` it. A cut story gives one row with its first L
    tokens, and for each later question a row with the question and the sentences before it that fit."""
    show_answers: bool = True
    """Whether the input shows the answer after each question. False: it shows a blank, so that later questions must be
    answered from the statements alone, as in Memory Networks."""
    sentence_length: int | None = None
    """Pad each statement, and each question with its answer, to a multiple of this. If it is the model's segment
    length, no segment contains words of two sentences. Default: no padding."""

    def __post_init__(self) -> None:
        check_types(self)
        object.__setattr__(self, "tasks", tuple(self.tasks))
        check_babi(self)
        check(self.num_words >= 1, f"num_words must be at least 1, got {self.num_words}")
        check(
            self.sentence_length is None or self.sentence_length >= 1,
            f"sentence_length must be None or at least 1, got {self.sentence_length}",
        )
        check_literals(self)

    @property
    def num_ids(self) -> int:
        """Ids of words, whole answers, padding and the blank."""
        return self.num_words


def check_babi(config: Any) -> None:
    """Check the fields `tasks` and `valid_share` of a configuration."""
    check(
        len(config.tasks) > 0
        and set(config.tasks) <= set(range(1, 21))
        and len(set(config.tasks)) == len(config.tasks),
        f"tasks must be distinct numbers from 1 to 20, at least one, got {config.tasks}",
    )
    check(0 < config.valid_share < 1, f"valid_share must be between 0 and 1, got {config.valid_share}")


PADDING, BLANK = 0, 1  # ids; rows are initialised to 0; the ids of words follow


class BabiTask(Task[BabiConfig]):
    """The tasks of a folder; each task is a group. `words` maps words and answers to ids."""

    passing_accuracy: float | None = 0.95

    def __init__(self, config: BabiConfig, split: str, tokenizer: Tokenizer | None = None):
        """Raises `ValueError` if a file is missing or damaged, or `num_words` is too small."""
        super().__init__(config, split, tokenizer)
        files = babi_files(config.path)
        self.words = {word: BLANK + 1 + i for i, word in enumerate(vocabulary(files))}
        needed = BLANK + 1 + len(self.words)
        if needed > config.num_words:
            raise ValueError(
                f"{config.path} needs {needed} ids, but data.num_words is {config.num_words}: set data.num_words and "
                f"model.vocab_size to at least {needed}"
            )
        self.groups = tuple(f"qa{task}" for task in config.tasks)
        stories = [read_stories(files, task, split, config.valid_share) for task in config.tasks]
        self.content = digest([*self.words], stories)
        self.stories = [[self._encode(story) for story in of_task] for of_task in stories]
        """For each task its stories, each a list of lines [3, n] int32: target words; input words (a blank for an
        answer that is not shown); 1 for scored answers, 0 for all other words."""
        self._pieces: dict[int, list[list[np.ndarray]]] = {}

    def batch(self, rng: np.random.Generator | int, batch_size: int, length: int) -> Batch:
        """`Task.batch`; each row contains stories of one task, `group` [B]; `reset` is True where a story begins.

        Raises:
            ValueError: a story is longer than a row and `long_stories` is `error`, or a question is longer than a row.
        """
        rng, pieces = np.random.default_rng(rng), self.pieces(length)
        group = rng.integers(len(pieces), size=batch_size)
        return self._rows([self._random_row(rng, pieces[task], length) for task in group], group, batch_size, length)

    def held_out(
        self, rng: np.random.Generator | int, batch_size: int, length: int, num_batches: int
    ) -> Iterator[Batch]:
        """All stories of the split, each once; `num_batches` is ignored. The last batch is filled with padding rows."""
        rows = [(row, task) for task, pieces in enumerate(self.pieces(length)) for row in packed(pieces, length)]
        for first in range(0, len(rows), batch_size):
            part, group = zip(*rows[first : first + batch_size], strict=True)
            yield self._rows(part, np.array(group), batch_size, length)

    def pieces(self, length: int) -> list[list[np.ndarray]]:
        """For each task the pieces [3, n] that fit into a row of L targets: whole stories, or parts of longer ones."""
        if length not in self._pieces:
            self._pieces[length] = [
                [piece for story in stories for piece in self._cut(story, length, group)]
                for stories, group in zip(self.stories, self.groups, strict=True)
            ]
        return self._pieces[length]

    def _encode(self, story: Story) -> list[np.ndarray]:
        lines = []
        for line in story:
            ids = [self.words[word] for word in words_of(line.text)]
            asks = line.answer is not None
            if line.answer is not None:
                ids.append(self.words[line.answer.lower()])
            padding = 0 if self.config.sentence_length is None else -len(ids) % self.config.sentence_length
            encoded = np.zeros((3, len(ids) + padding), np.int32)
            encoded[:2, : len(ids)] = ids
            if asks:
                encoded[2, len(ids) - 1] = 1
                encoded[1, len(ids) - 1] = ids[-1] if self.config.show_answers else BLANK
            lines.append(encoded)
        return lines

    def _cut(self, story: list[np.ndarray], length: int, group: str) -> list[np.ndarray]:
        """The story as one piece, or as several that ask each of its questions once."""
        ends = np.cumsum([line.shape[1] for line in story])
        if ends[-1] > length and self.config.long_stories == "error":
            raise ValueError(
                f"a story of {group} has {ends[-1]} tokens, a row {length}: set training.sequence_length to at least "
                "that, or data.long_stories='cut'"
            )
        fit = int(np.sum(ends <= length))
        pieces = [np.concatenate(story[:fit], axis=1)] if fit else []
        for last in range(fit, len(story)):
            if story[last][2].any():
                first = 1 + int(np.sum(ends < ends[last] - length))
                if first > last:
                    raise ValueError(f"a question of {group} has {story[last].shape[1]} tokens, a row only {length}")
                piece = np.concatenate(story[first : last + 1], axis=1)
                piece[2, : -story[last].shape[1]] = 0  # earlier questions are scored in other pieces
                pieces.append(piece)
        return [piece for piece in pieces if piece[2].any()]

    def _random_row(self, rng: np.random.Generator, pieces: list[np.ndarray], length: int) -> list[np.ndarray]:
        """Random pieces, until the next one does not fit."""
        row, room = [], length
        while (piece := pieces[rng.integers(len(pieces))]).shape[1] <= room:
            row.append(piece)
            room -= piece.shape[1]
        return row

    def _rows(self, rows: Sequence[list[np.ndarray]], group: np.ndarray, batch_size: int, length: int) -> Batch:
        words, seen, scored = np.zeros((3, batch_size, length + 1), np.int32)
        begins = np.zeros((batch_size, length + 1), bool)
        for i, row in enumerate(rows):
            place = 0
            for piece in row:
                part = np.s_[i, place : place + piece.shape[1]]
                words[part], seen[part], scored[part] = piece
                begins[i, place] = True
                place += piece.shape[1]
        group = np.pad(group, (0, batch_size - len(group))).astype(np.int32)
        batch = scored_rows(words, scored[:, 1:], group=group)
        batch.inputs["tokens"] = seen[:, :-1]
        batch.inputs["reset"] |= begins[:, :-1]
        return batch


def packed(pieces: list[np.ndarray], length: int) -> list[list[np.ndarray]]:
    """Pack pieces into rows, in order: a new row begins where the next piece does not fit."""
    rows, room = [], -1
    for piece in pieces:
        if piece.shape[1] > room:
            rows.append([])
            room = length
        rows[-1].append(piece)
        room -= piece.shape[1]
    return rows


def vocabulary(files: Mapping[tuple[int, str], Path]) -> list[str]:
    """All words and whole answers of the files, in alphabetical order; independent of the chosen tasks."""
    words = set()
    for path in files.values():
        for line in read_text(path).splitlines():
            text, *rest = line.partition(" ")[2].split("\t")
            words.update(words_of(text), (answer.strip().lower() for answer in rest[:1]))
    return sorted(words)
