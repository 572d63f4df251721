"""Questions about long documents: a document is read once, and each question is answered in words."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from memgpt_jax.config.checks import check
from memgpt_jax.config.data import ObjectiveConfig
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.data.batch import Batch, zeros
from memgpt_jax.data.examples.files import ExamplesConfig, read_split
from memgpt_jax.data.examples.json_objects import field_of
from memgpt_jax.data.examples.question_tokens import DOCUMENT, QUESTION, QuestionTokens
from memgpt_jax.data.examples.records import Record
from memgpt_jax.data.examples.rows import streamed_rows
from memgpt_jax.data.tasks.base import digest
from memgpt_jax.data.tasks.examples import ExamplesTask
from memgpt_jax.data.tasks.text_pairs import PairMetric, check_metrics
from memgpt_jax.data.text.passages import Span, joined, nearest_passages
from memgpt_jax.data.tokenizers.base import Tokenizer


@dataclass(frozen=True, kw_only=True)
class AnswersConfig(ObjectiveConfig):
    """Predict the tokens of an answer after a document and a question. Needs a decoder."""

    def check_model(self, model: Any, length: int) -> None:
        """Raise `ValueError` if the model is not a decoder."""
        super().check_model(model, length)
        check(isinstance(model, ModelConfig), f"questions about documents need a decoder, not a {type(model).__name__}")


@dataclass(frozen=True, kw_only=True)
class DocumentQuestionsConfig(ExamplesConfig):
    """Answer questions about documents of any length, in words, by a decoder.

    A record is a document with its questions: an object with `document`, a text, and `questions`, a list of objects
    with `question`, `answers` (a list of texts) and perhaps `context`, the part of the document that holds the answer.
    Only tokens of answers, and the end after each, have a weight.

    In training, a document, up to `questions_per_reading` questions and their first answers are a document of the
    stream, which is read in calls of `training.sequence_length` tokens with the memory carried. In evaluation, a
    document is read once, and each question is a fork of the state after it.
    """

    pipeline: ClassVar[str | None] = "document-questions"

    carries: ClassVar[bool] = True

    context: Literal["document", "given", "nearest"] = "document"
    """What is read before a question: the whole document; its `context`, if it has one; or the `passages` of the
    document that are nearest to the question by BM25, in the order of the document."""
    passages: int = 4
    """With `context="nearest"`: number of passages."""
    passage_words: int = 100
    """With `context="nearest"`: maximum number of words of a passage, which consists of consecutive sentences. A longer
    sentence is a passage of its own."""
    bm25_language: str | None = "english"
    """Language of the Snowball stemmer that BM25 applies to words; None: whole words."""
    prompt: str = f"{DOCUMENT}\nQuestion: {QUESTION}\nAnswer: "
    """The text before the answer. Spaces at its end are the beginning of the answer."""
    document_tokens: int | None = None
    """In training, longer documents are cut to this number of tokens; default: no document is cut."""
    questions_per_reading: int = 1
    """In training, maximum number of questions that follow one reading of their document, each with its answer. More
    questions use the tokens of a long document better, but a question also reads the questions and answers before it,
    which it does not in evaluation."""
    metrics: tuple[PairMetric, ...] = ("rouge", "exact")
    """Metrics of the answers in evaluation; of several references, ROUGE and exact match take the best one."""
    max_new_tokens: int = 64
    """Maximum number of tokens of an answer in evaluation."""
    repetition_penalty: float | None = None
    """In evaluation and in pipelines, the logits of ids of the question and of the answer so far are reduced by this
    factor, see `mg.Sampling`: against loops in answers of several sentences. Default: none."""
    no_repeat_ngram_size: int | None = None
    """In evaluation and in pipelines, no n-gram of this number of ids is twice in an answer, see `mg.Sampling`: against
    loops, too. Default: n-grams are repeated freely."""
    read_again: int | None = None
    """In evaluation, the questions of this number of documents are also answered by reading the document again for each
    question, and the seconds of both ways are compared; default: of none."""
    cite: bool = False
    """In evaluation, also find the sentence whose memory entries question and answer read most beyond what questions
    usually read, and report how often it is in the `context` of the question. Needs a memory whose entries come from
    tokens, such as `kv`. Not with `context="given"`, where the context is all that is read."""

    @property
    def input_columns(self) -> tuple[str, ...]:
        """The column of the document of a question."""
        return ("context",)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_metrics(self)
        penalty = self.repetition_penalty
        check(
            penalty is None or 1 <= penalty <= 1000,
            f"data.repetition_penalty must be from 1 (no penalty) to 1000, got {penalty}",
        )
        check(
            penalty in (None, 1) or self.read_again is None,
            "data.read_again cannot be compared with data.repetition_penalty, which would then also penalize the ids "
            "of the document: leave out one of them",
        )
        number = self.questions_per_reading
        check(number >= 1, f"data.questions_per_reading must be at least 1, got {number}")
        places = self.prompt.count(DOCUMENT), self.prompt.count(QUESTION)
        check(
            places == (1, 1) and self.prompt.index(DOCUMENT) < self.prompt.index(QUESTION),
            f"data.prompt must hold {DOCUMENT} and, after it, {QUESTION}, each once, got {self.prompt!r}",
        )
        check(
            not self.cite or self.context != "given",
            "data.cite=True with data.context='given': the whole text that is read is the context; valid: 'document', "
            "'nearest'",
        )

    @property
    def objective(self) -> AnswersConfig:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Predict the tokens of the answer."""
        return AnswersConfig()

    @property
    def sampling(self) -> dict[str, Any]:
        """The options of `mg.Sampling` for answers."""
        return {"repetition_penalty": self.repetition_penalty, "no_repeat_ngram_size": self.no_repeat_ngram_size}

    def nearest(self, text: str, questions: Sequence[str]) -> list[list[Span]]:
        """For each question the spans of the passages of a text that it reads with `context="nearest"`."""
        return nearest_passages(text, questions, self.passages, self.passage_words, self.bm25_language)

    def tokens(self, tokenizer: Tokenizer) -> QuestionTokens:
        """Encodes documents, questions and answers by a tokenizer."""
        return QuestionTokens(tokenizer, self.prompt)


class Question(NamedTuple):
    """A question."""

    text: str
    answers: tuple[str, ...]
    """Alternatives; training uses the first."""


class Document(NamedTuple):
    """A text and the questions about it."""

    where: str
    """File and line."""
    text: str
    questions: tuple[Question, ...]
    contexts: tuple[str, ...]
    """Of each question the part of the text that holds the answer; "": not known."""

    def places(self, question: int) -> list[tuple[int, int]]:
        """The characters (start, end) of the context of a question: in one piece, or of each of its lines.

        A line is searched after the line before it, then in the whole text. []: the text does not hold them all.
        """
        context, end, found = self.contexts[question].strip(), 0, []
        parts = [context] if context in self.text else [line.strip() for line in context.splitlines()]
        for part in filter(None, parts):
            start = self.text.find(part, end)
            start = self.text.find(part) if start < 0 else start
            if start < 0:
                return []
            end = start + len(part)
            found.append((start, end))
        return found


class DocumentQuestionsTask(ExamplesTask[DocumentQuestionsConfig]):
    """The documents of one split."""

    evaluation = "document_questions"

    def __init__(self, config: DocumentQuestionsConfig, split: str, tokenizer: Tokenizer | None = None):
        """Raises `ValueError` if a record lacks a text, or there is no tokenizer."""
        super().__init__(config, split, tokenizer)
        self.documents = documents(self.config, split)
        self.content = digest(*((document.text, document.questions) for document in self.documents))
        self.tokens = self.config.tokens(self.tokenizer)
        step = self.config.questions_per_reading
        self.readings = [(d, q) for d, each in enumerate(self.documents) for q in range(0, len(each.questions), step)]
        """Of each reading in training, the indices of the document and of the first question."""
        self._ids: dict[int, np.ndarray] = {}

    @classmethod
    def training_texts(cls, config: DocumentQuestionsConfig) -> list[str]:
        """The documents, questions and answers."""
        return [text for document in documents(config, "train") for text in _texts(document)]

    @classmethod
    def shapes(cls, config: DocumentQuestionsConfig, rows: int, length: int) -> Batch:
        """A batch of zeros with the arrays of `batches`."""
        shape = (rows, length)
        return zeros({"tokens": (shape, np.int32), "reset": (shape, bool)}, {"tokens": shape})

    def batches(self, seed: int, rows: int, length: int) -> Any:
        """Endless batches, a Grain `IterDataset`: every question once in each epoch, the readings in random order.
        Rows are streams, which continue in the next batch."""
        return streamed_rows(self.row, len(self.readings), seed, rows, length)

    def training_tokens(self, length: int) -> int:
        return sum(len(self.row(number)["tokens"]) for number in range(len(self.readings)))

    def row(self, number: int) -> dict[str, np.ndarray]:
        """`QuestionTokens.row` of a reading."""
        document, first = self.readings[number]
        if document not in self._ids:
            text = self.documents[document].text
            self._ids[document] = self.tokens.document(text, self.config.document_tokens)
        asked = self.documents[document].questions[first : first + self.config.questions_per_reading]
        return self.tokens.row(self._ids[document], [(question.text, question.answers[0]) for question in asked])


def documents(config: DocumentQuestionsConfig, split: str) -> list[Document]:
    """The documents of a split. Raises `ValueError` with file and line if a text is missing or empty."""
    return [document for record in read_split(config, split) for document in _documents(config, record)]


def _documents(config: DocumentQuestionsConfig, record: Record) -> list[Document]:
    """The document of a record, or the parts of it that its questions read, each with these questions."""
    whole, asked = _text(record.values, "document", record.where), []
    for number, item in enumerate(field_of(record.values, "questions", list, record.where), start=1):
        where = f"{record.where}, question {number}"
        question, answers = _text(item, "question", where), field_of(item, "answers", list, where)
        check(
            bool(answers) and all(isinstance(answer, str) and answer.strip() for answer in answers),
            f"{where}: field 'answers' must be a list of texts that are not empty, got {answers!r:.60}",
        )
        context = "" if item.get("context") in (None, "") else _text(item, "context", where)
        asked.append((Question(question, tuple(answer.strip() for answer in answers)), context))
    check(bool(asked), f"{record.where}: the document has no questions")
    texts = [context if context and config.context == "given" else whole for _, context in asked]
    if config.context == "nearest":
        texts = [joined(whole, spans) for spans in config.nearest(whole, [question.text for question, _ in asked])]
    by_text: dict[str, list[tuple[Question, str]]] = {}
    for text, each in zip(texts, asked, strict=True):
        by_text.setdefault(text, []).append(each)
    return [Document(record.where, text, *zip(*each, strict=True)) for text, each in by_text.items()]


def _text(values: Any, name: str, where: str) -> str:
    text = field_of(values, name, str, where).strip()
    check(bool(text), f"{where}: field {name!r} is empty")
    return text


def _texts(document: Document) -> list[str]:
    return [document.text, *(text for question in document.questions for text in (question.text, *question.answers))]
