"""Questions to a text, whose answers are spans of it."""

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from memgpt_jax.config.checks import check
from memgpt_jax.data.batch import Batch, zeros
from memgpt_jax.data.examples.files import ExamplesConfig, SpansConfig, read_split
from memgpt_jax.data.examples.records import Record
from memgpt_jax.data.examples.rows import packed_rows
from memgpt_jax.data.tasks.base import digest
from memgpt_jax.data.tasks.examples import ExamplesTask
from memgpt_jax.data.tasks.windows import EncodedText, Windows, encode_text
from memgpt_jax.data.tokenizers.base import Tokenizer


@dataclass(frozen=True, kw_only=True)
class QuestionsConfig(ExamplesConfig):
    """Predict where the answer to a question starts and ends in a text, from SQuAD's JSON or from tables.

    Parts of `train` for `valid` and `test` are made of whole articles (`title`), or without titles of whole texts.
    Articles that share a text are one article: no text is in two splits.
    """

    text_column: str = "context"
    """The column that holds the text. With `form='squad'` the columns are those of the format."""
    question_column: str = "question"
    """The column that holds the question."""
    answer_column: str = "answer"
    """The column that holds the answer, a part of the text; with `no_answer`, empty or null if there is none. Several
    are a dictionary of the lists `text` and `answer_start`, as in the SQuAD of Hugging Face's datasets."""
    start_column: str = "start"
    """The column that holds the offset of the answer in the text, in characters (Unicode code points)."""
    no_answer: bool = False
    """Whether questions may have no answer, as in SQuAD 2: the right span is then the first token."""
    question_types: bool = False
    """Give token types, 0 for the question and 1 for the text, as BERT's sentences A and B."""
    overlap: int = 32
    """A text that is longer than a row is read in windows; most tokens that two consecutive ones share. In training,
    windows without the answer are left out, or with `no_answer` have none."""
    max_answer_tokens: int = 30
    """Longest answer in evaluations, in tokens."""

    @property
    def objective(self) -> SpansConfig:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Predict start and end."""
        return SpansConfig(token_types=self.question_types)

    @property
    def head_settings(self) -> dict[str, Any]:
        return {"no_answer": self.no_answer, "overlap": self.overlap, "question_types": self.question_types}

    def records(self, split: str) -> list[Record]:
        """The questions of a split. Raises `ValueError` if two have the same `id`."""
        records = read_split(self, split, units=self._articles)
        _check_ids(records)
        return records

    def _articles(self, records: list[Record]) -> list[int]:
        """The number of the article of each question: the connected parts of the graph of titles and texts."""
        _check_ids(records)
        nodes: dict[tuple[str, str], int] = {}
        edges = np.empty((len(records), 2), np.int64)
        for edge, record in zip(edges, records, strict=True):
            text = "text", record.text(self.text_column)
            title = record.values.get("title")
            keys = (text if title is None or title == "" else ("title", str(title))), text
            edge[:] = [nodes.setdefault(key, len(nodes)) for key in keys]
        graph = coo_array((np.ones(len(edges)), tuple(edges.T)), shape=(len(nodes), len(nodes)))
        return connected_components(graph, directed=False)[1][edges[:, 0]].tolist()


def _check_ids(records: list[Record]) -> None:
    """Raise `ValueError` if two records have the same `id`."""
    seen: dict[object, str] = {}
    for record in records:
        name = record.values.get("id")
        if name is not None and name != "":
            earlier = seen.setdefault(str(name), record.where)
            check(earlier == record.where, f"{record.where}: another question has the id {name!r}, {earlier}")


class Question(NamedTuple):
    """One question."""

    where: str
    """File and line, or id."""
    question: str
    text: str
    answers: list[tuple[str, int]]
    """Texts of the right answers and their offsets; []: there is no answer."""

    @property
    def target(self) -> tuple[int, int] | None:
        """The characters (start, end) of the answer given most often, of equal ones the first; None: no answer."""
        if not self.answers:
            return None
        (text, start), _ = Counter(self.answers).most_common(1)[0]
        return start, start + len(text)


class Row(NamedTuple):
    """A window in training."""

    question: int
    head: list[int]
    words: range
    target: tuple[int, int] | None
    """The first and last word of the answer; None: the window does not hold it."""


class QuestionsTask(ExamplesTask[QuestionsConfig]):
    """The questions of one split; their texts are tokenized once."""

    evaluation = "spans"

    def __init__(self, config: QuestionsConfig, split: str, tokenizer: Tokenizer | None = None):
        """Raises `ValueError` if a text, question or answer is missing or does not fit, or there is no tokenizer."""
        super().__init__(config, split, tokenizer)
        self.examples = [self._example(record) for record in self.config.records(split)]
        self.content = digest(*(example[1:] for example in self.examples))  # files may move
        self.texts: dict[str, EncodedText] = {}
        for example in self.examples:
            if example.text not in self.texts:
                self.texts[example.text] = encode_text(self.tokenizer, example.text)
        self.targets = [self._words(example) for example in self.examples]
        """The first and last word of each answer."""

    @classmethod
    def training_texts(cls, config: QuestionsConfig) -> list[str]:
        """The questions, and the texts, each once."""
        records = config.records("train")
        texts = dict.fromkeys(record.text(config.text_column) for record in records)
        return [*texts, *(record.text(config.question_column) for record in records)]

    def _example(self, record: Record) -> Question:
        config = self.config
        text, question = record.text(config.text_column), record.text(config.question_column)
        check(bool(question.strip()), f"{record.where}: the question is empty")
        answers = _answers(record, config)
        check(
            bool(answers) or config.no_answer,
            f"{record.where}: the question has no answer; set data.no_answer=True if the text may hold none",
        )
        for answer, start in answers:
            check(0 <= start < len(text), f"{record.where}: start={start} is outside the {len(text)} characters")
            check(bool(answer.strip()), f"{record.where}: the answer is empty")
            found = text[start : start + len(answer)]
            check(
                found == answer, f"{record.where}: the answer is {answer!r}, but the text at start={start} is {found!r}"
            )
        return Question(record.where, question, text, answers)

    def _words(self, example: Question) -> tuple[int, int] | None:
        encoded, target = self.texts[example.text], example.target
        check(bool(encoded.ids), f"{example.where}: the text has no words")
        words = None if target is None else encoded.words_of(*target)
        check(target is None or words is not None, f"{example.where}: the answer has no words with tokens")
        return words

    def windows(self, length: int) -> Windows:
        """How questions and texts become documents of at most `length` tokens."""
        return Windows(self.tokenizer, length, self.config.overlap, self.config.question_types)

    def rows(self, length: int) -> list[Row]:
        """The windows to train on. Raises `ValueError` if there are none."""
        windows, rows = self.windows(length), []
        for index, (example, target) in enumerate(zip(self.examples, self.targets, strict=True)):
            head = windows.head(example.question)
            for words in windows.ranges(head, self.texts[example.text]):
                is_here = target is not None and target[0] in words and target[1] in words
                if is_here or self.config.no_answer:
                    rows.append(Row(index, head, words, target if is_here else None))
        check(bool(rows), f"no window of {length} tokens holds an answer: give longer rows")
        return rows

    @classmethod
    def shapes(cls, config: QuestionsConfig, rows: int, length: int) -> Batch:
        """A batch of zeros with the arrays of `batches`."""
        shape = (rows, length)
        inputs = {"tokens": (shape, np.int32), "reset": (shape, bool)}
        if config.question_types:
            inputs["token_types"] = (shape, np.int32)
        batch = zeros(inputs, {"spans": (*shape, 2)})
        return batch._replace(weights=zeros({}, {"spans": shape}).weights)

    def batches(self, seed: int, rows: int, length: int) -> Any:
        """Endless batches, a Grain `IterDataset`: all windows in each epoch, in random order, packed into rows."""
        found, windows = self.rows(length), self.windows(length)
        return packed_rows(
            lambda number: self.arrays(windows, found[number]), len(found), seed, rows, length, head="spans"
        )

    def training_tokens(self, length: int) -> int:
        windows = self.windows(length)
        return sum(len(self.arrays(windows, row)["tokens"]) for row in self.rows(length))

    def arrays(self, windows: Windows, row: Row) -> dict[str, np.ndarray]:
        """The arrays of a window: inputs [n], `targets` [n, 2] and `weights` [n], 1 at the last token."""
        window = windows.window(row.head, self.texts[self.examples[row.question].text], row.words)
        number = len(window.inputs["tokens"])
        targets, weights = np.full((number, 2), -1, np.int32), np.zeros(number, np.float32)
        targets[window.starts, 0] = targets[window.ends, 1] = 0
        weights[-1] = 1
        if self.config.no_answer:
            targets[0] = int(row.target is None)
        if row.target is not None:
            first, last = row.target[0] - row.words.start, row.target[1] - row.words.start
            targets[window.starts[first], 0] = targets[window.ends[last], 1] = 1
        return window.inputs | {"targets": targets, "weights": weights}


def _answers(record: Record, config: QuestionsConfig) -> list[tuple[str, int]]:
    """The answers of a record. Raises `ValueError` if an offset is not a whole number."""
    answer = record.get(config.answer_column)
    if answer is None or answer == "":
        return []
    if not isinstance(answer, dict):
        return [_answer(record, config.answer_column, config.start_column)]
    texts, starts = answer.get("text"), answer.get("answer_start")
    if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
        raise ValueError(
            f"{record.where}: column {config.answer_column!r} must be an answer, or a dictionary of the lists 'text' "
            f"and 'answer_start' of equal length, got {answer!r}"
        )
    parts = [{"text": text, "answer_start": start} for text, start in zip(texts, starts, strict=True)]
    return [_answer(replace(record, values=part), "text", "answer_start") for part in parts]


def _answer(record: Record, answer_column: str, start_column: str) -> tuple[str, int]:
    start = record.get(start_column)
    try:
        number = int(float(start))
        check(not isinstance(start, bool) and number == float(start), "")
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{record.where}: column {start_column!r} must be a whole number, got {start!r}") from None
    return record.text(answer_column), number
