"""Held-out evaluation of questions about documents: each document is read once, each question is a fork."""

import time
from collections.abc import Callable
from typing import NamedTuple, NotRequired, TypeVar

import numpy as np

from memgpt_jax import models
from memgpt_jax.config.checks import instance_of
from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.data.progress_bar import track
from memgpt_jax.data.tasks.document_questions import Document, DocumentQuestionsTask
from memgpt_jax.evaluation.metrics import metric
from memgpt_jax.evaluation.metrics.texts import TextMetrics, check_libraries, text_metrics
from memgpt_jax.evaluation.row_losses import row_losses
from memgpt_jax.generation.questions import answer_prompts, read_document
from memgpt_jax.models import ModelState

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
    seconds_per_question: NotRequired[float]
    """With `data.read_again`: seconds of reading these documents once and answering their questions, per question.
    Each document's computations are compiled, and run once, before they are measured."""
    seconds_per_question_read_again: NotRequired[float]
    """The same where each question reads its document again, as many questions at the same time."""
    same_answers: NotRequired[float]
    """Fraction of these questions to which both ways give the same answer."""


class Timing(NamedTuple):
    """One document answered in both ways."""

    once: float
    """Seconds of one reading and all answers."""
    again: float
    """Seconds of all answers, each with a reading."""
    same: int
    """Number of equal answers."""


def evaluate_document_questions(
    config: ExperimentConfig, params: models.Params, task: DocumentQuestionsTask
) -> DocumentQuestionsResult:
    """Answer the questions of a split, and compare the answers with the references.

    Documents are cut to `evaluation.max_tokens` tokens; `evaluation.batch_size` questions are answered at the same
    time.

    Raises `ValueError` if a loss is NaN or infinite, or a library is not installed.
    """
    check_document_questions(config, task)
    reader, answers, losses, timings = Reader(config, params, task), [], [], []
    documents = task.documents[: config.evaluation.max_documents]
    for number, document in enumerate(track(documents, "documents")):
        state = reader.read(document)
        losses.append(reader.losses(document, state))
        answers.append(reader.answers(document, state))
        if number < (task.config.read_again or 0):
            timings.append(reader.timing(document))
    nats = np.concatenate(losses)
    references = [question.answers for document in documents for question in document.questions]
    found = text_metrics(task.config.metrics, [text for texts in answers for text in texts], references)
    result = DocumentQuestionsResult(
        loss=metric("loss", nats=float(nats.sum(dtype=np.float64)), targets=len(nats)),
        targets=len(nats),
        documents=len(documents),
        questions=len(references),
        **found,
    )
    if timings:
        number = sum(len(document.questions) for document in documents[: len(timings)])
        result["seconds_per_question"] = sum(timing.once for timing in timings) / number
        result["seconds_per_question_read_again"] = sum(timing.again for timing in timings) / number
        result["same_answers"] = sum(timing.same for timing in timings) / number
    return result


def check_document_questions(config: ExperimentConfig, task: DocumentQuestionsTask) -> None:
    """Raise `ValueError` if a library that the metrics need is missing."""
    check_libraries(task.config.metrics)


class Reader:
    """Reads the documents of a task and answers their questions."""

    def __init__(self, config: ExperimentConfig, params: models.Params, task: DocumentQuestionsTask):
        self.config, self.settings, self.task, self.params = config, config.evaluation, task, params
        self.model = instance_of(config.model, ModelConfig, "model")

    def read(self, document: Document) -> ModelState:
        """The state after a document, one row."""
        return read_document(self.model, self.params, self._ids(document))

    def _ids(self, document: Document) -> np.ndarray:
        return self.task.tokens.document(document.text, self.settings.max_tokens)

    def answers(self, document: Document, state: ModelState | None) -> list[str]:
        """The answers to all questions from the state after the document; None: each question reads the document."""
        prompts = [self.task.tokens.question(question.text) for question in document.questions]
        if state is None:
            before = self._ids(document)
            prompts = [np.concatenate([before, prompt]) for prompt in prompts]
        return answer_prompts(
            (self.model, self.params),
            self.task.tokens,
            prompts,
            state,
            rows=self.settings.batch_size,
            max_new_tokens=self.task.config.max_new_tokens,
        )

    def timing(self, document: Document) -> Timing:
        """The seconds of both ways, after a first run that compiles."""
        once, forked = _timed(lambda: self.answers(document, self.read(document)))
        again, read_again = _timed(lambda: self.answers(document, None))
        return Timing(once, again, sum(a == b for a, b in zip(forked, read_again, strict=True)))

    def losses(self, document: Document, state: ModelState) -> np.ndarray:
        """The losses of the tokens of all first references, [targets] float32, from the state after the document."""
        rows = [self.task.tokens.after_document(q.text, q.answers[0]) for q in document.questions]
        return np.concatenate(row_losses(self.config, self.params, rows, state=state))


def _timed(call: Callable[[], Value]) -> tuple[float, Value]:
    """The seconds of a second call, and its value."""
    call()
    begin = time.perf_counter()
    value = call()
    return time.perf_counter() - begin, value
