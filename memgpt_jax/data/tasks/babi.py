"""bAbI's question-answering tasks: stories streamed through memory, each question answered where it stands.

An answer is one id, also where it is a list (`football,milk` of task 8, `s,e` of task 19), as in the literature; it is
right where that id has the highest logit at the question mark. Weston et al., 2015, "Towards AI-Complete Question
Answering"; a task counts as failed below an accuracy of 0.95.
"""

import numpy as np

from memgpt_jax.config_reading import BabiConfig
from memgpt_jax.data.sources import read_text
from memgpt_jax.data.tasks.babi_files import Story, babi_files, read_stories, words_of
from memgpt_jax.data.tasks.base import Task, scored_rows

PADDING, BLANK = 0, 1  # ids; the words follow

Piece = tuple[np.ndarray, np.ndarray]  # [n] int32 tokens of a story or of the end of one; [n] bool: a scored answer


class BabiTask(Task):
    """The tasks of a folder, each a group of its own; `words` gives the ids."""

    passing_accuracy = 0.95

    def __init__(self, config: BabiConfig, split: str, tokenizer=None):
        """Raises `ValueError` where a file is absent or damaged, or `num_words` is too small."""
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
        self.stories = [
            [self._encode(story) for story in read_stories(files, task, split, config.valid_share)]
            for task in config.tasks
        ]
        """For each task, its stories, each a list of lines: tokens, and whether the line is a question."""
        self._pieces: dict[int, list[list[Piece]]] = {}

    def batch(self, rng, batch_size, length):
        """`Task.batch`; each row holds stories of one task, `group` [B]; `reset` is true where each begins.

        Raises:
            ValueError: a row cannot hold a story, and `long_stories` is not `cut`; or not even one question.
        """
        rng, pieces = np.random.default_rng(rng), self.pieces(length)
        group = rng.integers(len(pieces), size=batch_size)
        return self._rows([self._random_row(rng, pieces[task], length) for task in group], group, batch_size, length)

    def held_out(self, rng, batch_size, length, num_batches):
        """All stories of the split, each once, whatever `num_batches` says; rows of padding fill the last batch."""
        rows = [(row, task) for task, pieces in enumerate(self.pieces(length)) for row in packed(pieces, length)]
        for first in range(0, len(rows), batch_size):
            part, group = zip(*rows[first : first + batch_size], strict=True)
            yield self._rows(part, np.array(group), batch_size, length)

    def pieces(self, length: int) -> list[list[Piece]]:
        """For each task, what can stand in a row of L targets: whole stories, and the ends of those that are longer."""
        if length not in self._pieces:
            self._pieces[length] = [
                [piece for story in stories for piece in self._cut(story, length, group)]
                for stories, group in zip(self.stories, self.groups, strict=True)
            ]
        return self._pieces[length]

    def _encode(self, story: Story) -> list[tuple[np.ndarray, bool]]:
        lines = []
        for line in story:
            ids = [self.words[word] for word in words_of(line.text)]
            if line.answer is not None:
                ids.append(self.words[line.answer.lower()])
            padding = 0 if self.config.sentence_length is None else -len(ids) % self.config.sentence_length
            lines.append((np.array(ids + padding * [PADDING], np.int32), line.answer is not None))
        return lines

    def _cut(self, story: list[tuple[np.ndarray, bool]], length: int, group: str) -> list[Piece]:
        """The story as one piece, or as several that ask each of its questions once."""
        ends = np.cumsum([len(tokens) for tokens, _ in story])
        if ends[-1] > length and self.config.long_stories == "error":
            raise ValueError(
                f"a story of {group} has {ends[-1]} tokens, a row {length}: set training.sequence_length to at least "
                "that, or data.long_stories='cut'"
            )
        fit = int(np.sum(ends <= length))
        pieces = [self._piece(story[:fit], [asks for _, asks in story[:fit]])]
        for last in range(fit, len(story)):
            if story[last][1]:
                first = 1 + int(np.sum(ends < ends[last] - length))
                if first > last:
                    raise ValueError(f"a question of {group} has {len(story[last][0])} tokens, a row only {length}")
                lines = story[first : last + 1]
                pieces.append(self._piece(lines, [False] * (len(lines) - 1) + [True]))
        return [piece for piece in pieces if piece[1].any()]

    def _piece(self, lines: list[tuple[np.ndarray, bool]], scored: list[bool]) -> Piece:
        """Lines one after the other; the answer of a question is its last token that is not padding."""
        tokens = [tokens for tokens, _ in lines]
        answers = [
            asked & (np.arange(len(ids)) == np.count_nonzero(ids) - 1)
            for ids, asked in zip(tokens, scored, strict=True)
        ]
        return np.concatenate(tokens or [np.empty(0, np.int32)]), np.concatenate(answers or [np.empty(0, bool)])

    def _random_row(self, rng: np.random.Generator, pieces: list[Piece], length: int) -> list[Piece]:
        """Random pieces, as long as the next one fits."""
        row, room = [], length
        while len((piece := pieces[rng.integers(len(pieces))])[0]) <= room:
            row.append(piece)
            room -= len(piece[0])
        return row

    def _rows(self, rows, group: np.ndarray, batch_size: int, length: int) -> dict[str, np.ndarray]:
        tokens = np.full((batch_size, length + 1), PADDING, np.int32)
        scored, begins = (np.zeros((batch_size, length + 1), bool) for _ in range(2))
        for i, row in enumerate(rows):
            place = 0
            for piece, answers in row:
                part = np.s_[i, place : place + len(piece)]
                tokens[part], scored[part], begins[i, place] = piece, answers, True
                place += len(piece)
        batch = scored_rows(tokens, scored[:, 1:])
        batch["reset"] |= begins[:, :-1]
        if not self.config.show_answers:
            batch["tokens"] = np.where(scored[:, :-1], np.int32(BLANK), batch["tokens"])
        return batch | {"group": np.pad(group, (0, batch_size - len(group))).astype(np.int32)}


def packed(pieces: list[Piece], length: int) -> list[list[Piece]]:
    """Rows of pieces in order, each row as full as they allow."""
    rows, room = [], -1
    for piece in pieces:
        if len(piece[0]) > room:
            rows.append([])
            room = length
        rows[-1].append(piece)
        room -= len(piece[0])
    return rows


def vocabulary(files) -> list[str]:
    """All words and whole answers of the files, in alphabetical order: the same whatever tasks are chosen."""
    words = set()
    for path in files.values():
        for line in read_text(path).splitlines():
            text, *rest = line.partition(" ")[2].split("\t")
            words.update(words_of(text), (answer.strip().lower() for answer in rest[:1]))
    return sorted(words)
