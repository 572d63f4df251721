"""Held-out evaluation of questions about documents: each document is read once, each question is a fork."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, NotRequired, TypeVar

import numpy as np

from memgpt_jax import models
from memgpt_jax.config.checks import check, instance_of
from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.extras import library
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.data.progress_bar import track
from memgpt_jax.data.tasks.document_questions import Document, DocumentQuestionsTask
from memgpt_jax.data.text.passages import Span
from memgpt_jax.data.text.sentences import sentences
from memgpt_jax.evaluation.metrics import metric
from memgpt_jax.evaluation.metrics.by_length import ByLength
from memgpt_jax.evaluation.metrics.texts import (
    TextMetrics,
    absent_text_metrics,
    check_libraries,
    scores_by_length,
    text_metrics,
    text_scores,
)
from memgpt_jax.evaluation.row_losses import row_losses
from memgpt_jax.generation.citations import check_citable, question_weights, sources
from memgpt_jax.generation.decode import take_rows
from memgpt_jax.generation.questions import answer_prompts, read_documents
from memgpt_jax.models import ModelState
from memgpt_jax.models.quantization import laid_out

Value = TypeVar("Value")


class DocumentQuestionsResult(TextMetrics):
    """Results on questions about documents."""

    loss: float
    """Nats per token of the first reference of each question, each predicted from the true tokens before it."""
    targets: int
    """Number of tokens of these references, the end of each included."""
    documents: int
    """Number of documents."""
    questions: int
    """Number of questions."""
    by_length: NotRequired[ByLength]
    """The first of `data.metrics` that is a mean over texts, by the number of words between the evidence and the
    question, of the questions whose context the document holds; if there are none, by the words of the document. What
    follows `evaluation.max_tokens` tokens of a document does not count."""
    seconds_per_question: NotRequired[float]
    """With `data.read_again`: seconds of reading these documents once and answering their questions, per question.
    Each document's computations are compiled, and run once, before they are measured."""
    seconds_per_question_read_again: NotRequired[float]
    """The same where each question reads its document again, as many questions at the same time."""
    same_answers: NotRequired[float]
    """Fraction of these questions to which both ways give the same answer."""
    source_right: NotRequired[float]
    """With `data.cite`: fraction of the questions whose first source is in their context."""
    source_chance: NotRequired[float]
    """The share of the characters of the document, as it is read, that the context has, mean over these questions."""
    source_questions: NotRequired[int]
    """Number of these questions: those with a context that the document, as it is read, holds; with
    `context="nearest"`, all with a context."""


class Timing(NamedTuple):
    """One document answered in both ways."""

    once: float
    """Seconds of one reading and all answers."""
    again: float
    """Seconds of all answers, each with a reading."""
    same: int
    """Number of equal answers."""


class Citation(NamedTuple):
    """The first source of a question and its answer."""

    right: bool
    """The middle of the sentence is in the context of the question."""
    share: float
    """The share of the characters of the document, as it is read, that the context has."""


def evaluate_document_questions(
    config: ExperimentConfig, params: models.Params, task: DocumentQuestionsTask
) -> DocumentQuestionsResult:
    """Answer the questions of a split, and compare the answers with the references.

    Documents are cut to `evaluation.max_tokens` tokens; `evaluation.batch_size` questions are answered at the same
    time, and documents that have no more questions together are read at the same time.

    Raises `ValueError` if a loss is NaN or infinite, or a library is not installed.
    """
    check_document_questions(config, task)
    reader, written, losses, cited = Reader(config, params, task), [], [], []
    documents = task.documents[: config.evaluation.max_documents]
    for group in track(_groups(documents, config.evaluation.batch_size), "groups of documents"):
        state = reader.read(group)
        losses.append(reader.losses(group, state))
        answers = reader.answers(group, state)
        written += answers
        if task.config.cite:
            for row, document in enumerate(group):
                own, answers = answers[: len(document.questions)], answers[len(document.questions) :]
                cited += reader.citations(document, take_rows(state, [row]), own)
    again = documents[: task.config.read_again or 0]
    timings = [reader.timing(document) for document in track(again, "documents read again")]
    nats = np.concatenate(losses)
    references = [question.answers for document in documents for question in document.questions]
    scores = text_scores(task.config.metrics, written, references)
    found = text_metrics(task.config.metrics, written, references, scores)
    result = DocumentQuestionsResult(
        loss=metric("loss", nats=float(nats.sum(dtype=np.float64)), targets=len(nats)),
        targets=len(nats),
        documents=len(documents),
        questions=len(references),
        **found,
    )
    if (by_length := _by_length(task, [_as_read(config, task, each) for each in documents], scores)) is not None:
        result["by_length"] = by_length
    if timings:
        number = sum(len(document.questions) for document in again)
        result["seconds_per_question"] = sum(timing.once for timing in timings) / number
        result["seconds_per_question_read_again"] = sum(timing.again for timing in timings) / number
        result["same_answers"] = sum(timing.same for timing in timings) / number
    if cited:
        result["source_right"] = sum(citation.right for citation in cited) / len(cited)
        result["source_chance"] = sum(citation.share for citation in cited) / len(cited)
        result["source_questions"] = len(cited)
    return result


def _groups(documents: Sequence[Document], most: int) -> list[list[Document]]:
    """Consecutive documents, in groups of at most `most` questions; a document with more is a group."""
    groups: list[list[Document]] = []
    for document in documents:
        if groups and sum(len(each.questions) for each in [*groups[-1], document]) <= most:
            groups[-1].append(document)
        else:
            groups.append([document])
    return groups


def _evidence(task: DocumentQuestionsTask, document: Document, question: int) -> list[Span] | None:
    """The spans of the text that are in the context of a question. None: that is not known.

    With `context="nearest"`, where the text holds parts of the document alone, the sentences that are in the context.
    """
    context, text = document.contexts[question], document.text
    if task.config.context != "nearest":
        return document.places(question) or None
    return [(start, end) for start, end in sentences(text) if text[start:end] in context] if context else None


def _as_read(config: ExperimentConfig, task: DocumentQuestionsTask, document: Document) -> Document:
    """The document without the text after `evaluation.max_tokens` tokens."""
    return document._replace(text=task.tokens.held(document.text, config.evaluation.max_tokens))


def _by_length(
    task: DocumentQuestionsTask, documents: Sequence[Document], scores: Mapping[str, np.ndarray]
) -> ByLength | None:
    """A metric of the answers by the distance to the evidence, where a split knows it, else by the document."""
    asked = [(index, document, q) for index, document in enumerate(documents) for q in range(len(document.questions))]
    places = [document.places(q) for _, document, q in asked]
    if task.config.context == "document" and any(places):
        known = [number for number, place in enumerate(places) if place]
        ends = [max(end for _, end in places[number]) for number in known]
        asked = [asked[number] for number in known]
        lengths = [len(document.text[end:].split()) for (_, document, _), end in zip(asked, ends, strict=True)]
        unit, scores = "words after the evidence", {name: found[known] for name, found in scores.items()}
    else:
        unit, lengths = "words of the document", [len(document.text.split()) for _, document, _ in asked]
    return scores_by_length(scores, unit, lengths, [index for index, _, _ in asked])


def check_document_questions(config: ExperimentConfig, task: DocumentQuestionsTask) -> None:
    """Raise `ValueError` if a library that the metrics need is missing, or sources are asked for and not possible."""
    check_libraries(task.config.metrics)
    if task.config.cite:
        check_citable(instance_of(config.model, ModelConfig, "model"))
        library("sentencex", "sentence boundaries")
        read = (_as_read(config, task, document) for document in task.documents[: config.evaluation.max_documents])
        check(
            any(_evidence(task, document, q) for document in read for q in range(len(document.questions))),
            "data.cite=True needs questions with a context that their document holds, within evaluation.max_tokens="
            f"{config.evaluation.max_tokens} tokens; there is none",
        )


def absent_from_document_questions(task: DocumentQuestionsTask) -> set[str]:
    """The names of a `DocumentQuestionsResult` that a task does not have with its settings."""
    absent = absent_text_metrics(task.config.metrics)
    if not task.config.read_again:
        absent |= {"seconds_per_question", "seconds_per_question_read_again", "same_answers"}
    if not task.config.cite:
        absent |= {"source_right", "source_chance"}
    return absent


class Reader:
    """Reads the documents of a task and answers their questions."""

    def __init__(self, config: ExperimentConfig, params: models.Params, task: DocumentQuestionsTask):
        self.config, self.settings, self.task = config, config.evaluation, task
        self.model = instance_of(config.model, ModelConfig, "model")
        self.params = laid_out(self.model, params, self.settings.batch_size)

    def read(self, documents: Sequence[Document]) -> ModelState:
        """The state after documents, a row each."""
        return read_documents(self.model, self.params, [self._ids(document) for document in documents])

    def _ids(self, document: Document) -> np.ndarray:
        return self.task.tokens.document(document.text, self.settings.max_tokens)

    def answers(self, documents: Sequence[Document], state: ModelState | None) -> list[str]:
        """The answers to all questions from the state after the documents; None: each question reads its document."""
        asked = [(row, question) for row, document in enumerate(documents) for question in document.questions]
        prompts = [self.task.tokens.question(question.text) for _, question in asked]
        if state is None:
            before = [self._ids(document) for document in documents]
            prompts = [np.concatenate([before[row], prompt]) for (row, _), prompt in zip(asked, prompts, strict=True)]
        return answer_prompts(
            (self.model, self.params),
            self.task.tokens,
            prompts,
            state,
            [row for row, _ in asked],
            rows=self.settings.batch_size,
            max_new_tokens=self.task.config.max_new_tokens,
            **self.task.config.sampling,
        )

    def citations(self, document: Document, state: ModelState, answers: list[str]) -> list[Citation]:
        """The first source of each question whose context the document holds, with the model's answers."""
        tokens, ends = self.task.tokens, self.task.tokens.ends(document.text)[: int(state.position[0])]
        document, found = _as_read(self.config, self.task, document), []
        places = [_evidence(self.task, document, number) for number in range(len(document.questions))]
        asked = [number for number, place in enumerate(places) if place is not None]
        pairs = [(document.questions[q].text, answers[q]) for q in asked]
        model, rows = (self.model, self.params), self.settings.batch_size
        weights = question_weights(model, state, tokens, pairs, number=rows)
        for number, of_row in zip(asked, weights.asked, strict=True):
            (best,) = sources(document.text, ends, of_row, weights.usual, 1)
            middle = (best["start"] + best["end"]) // 2
            evidence = places[number] or []
            right = any(start <= middle < end for start, end in evidence)
            found.append(Citation(right, sum(end - start for start, end in evidence) / len(document.text)))
        return found

    def timing(self, document: Document) -> Timing:
        """The seconds of both ways, after a first run that compiles."""
        once, forked = _timed(lambda: self.answers([document], self.read([document])))
        again, read_again = _timed(lambda: self.answers([document], None))
        return Timing(once, again, sum(a == b for a, b in zip(forked, read_again, strict=True)))

    def losses(self, documents: Sequence[Document], state: ModelState) -> np.ndarray:
        """The losses of the tokens of all first references, [targets] float32, from the state after the documents."""
        asked = [(row, question) for row, document in enumerate(documents) for question in document.questions]
        rows = [self.task.tokens.after_document(question.text, question.answers[0]) for _, question in asked]
        of = [row for row, _ in asked]
        return np.concatenate(row_losses(self.config.model, self.params, self.settings, rows, state=state, of=of))


def _timed(call: Callable[[], Value]) -> tuple[float, Value]:
    """The seconds of a second call, and its value."""
    call()
    begin = time.perf_counter()
    value = call()
    return time.perf_counter() - begin, value
