"""Held-out evaluation of text, objectives, tasks, and of recall in one long stream."""

from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple, get_type_hints

from memgpt_jax import data
from memgpt_jax.config.checks import check
from memgpt_jax.config.data import TaskConfig
from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.evaluation.document_questions import (
    DocumentQuestionsResult,
    absent_from_document_questions,
    check_document_questions,
    evaluate_document_questions,
)
from memgpt_jax.evaluation.documents import check_scored_documents
from memgpt_jax.evaluation.graph_questions import (
    GraphQuestionsResult,
    check_graph_questions,
    evaluate_graph_questions,
)
from memgpt_jax.evaluation.labels import LabelResult, evaluate_labels
from memgpt_jax.evaluation.links import LinkResult, check_links, evaluate_links
from memgpt_jax.evaluation.long_stream import RecallPoint, recall_along_stream
from memgpt_jax.evaluation.metrics import METRICS, Metric, register_metric
from memgpt_jax.evaluation.multi_labels import MultiLabelResult, evaluate_multi_labels
from memgpt_jax.evaluation.numbers import NumberResult, evaluate_numbers
from memgpt_jax.evaluation.objectives import ObjectiveResult, batch_results, check_batches, evaluate_batches
from memgpt_jax.evaluation.preferences import PreferenceResult, check_preferences, evaluate_preferences
from memgpt_jax.evaluation.ranking import RankingResult, check_ranking, evaluate_ranking
from memgpt_jax.evaluation.replies import ReplyResult, check_replies, evaluate_replies
from memgpt_jax.evaluation.retrieval import RetrievalResult, check_retrieval, evaluate_retrieval
from memgpt_jax.evaluation.scoring import HELD_OUT_SEED
from memgpt_jax.evaluation.spans import SpanResult, check_spans, evaluate_spans
from memgpt_jax.evaluation.speech import SpeechResult, check_speech, evaluate_speech
from memgpt_jax.evaluation.tags import TagResult, absent_from_tags, check_tags, evaluate_tags
from memgpt_jax.evaluation.tasks import TaskResult, check_task, evaluate_task
from memgpt_jax.evaluation.text import TextResult, check_text, evaluate_text
from memgpt_jax.evaluation.texts import PairResult, absent_from_texts, check_texts, evaluate_texts
from memgpt_jax.evaluation.transcripts import check_transcripts, evaluate_transcripts
from memgpt_jax.models import Params

Result = (
    TextResult
    | ObjectiveResult
    | TaskResult
    | LabelResult
    | MultiLabelResult
    | TagResult
    | NumberResult
    | RankingResult
    | PairResult
    | SpeechResult
    | SpanResult
    | PreferenceResult
    | RetrievalResult
    | ReplyResult
    | DocumentQuestionsResult
    | LinkResult
    | GraphQuestionsResult
)


class Evaluator(NamedTuple):
    """The evaluation of one kind of objective."""

    evaluate: Callable[[ExperimentConfig, Params, data.Tokenizer], Result]
    check: Callable[[ExperimentConfig, data.Tokenizer], None]
    """Raises the errors of `evaluate` about the data, before anything is trained."""


EVALUATORS = {"documents": Evaluator(evaluate_text, check_text), "batches": Evaluator(evaluate_batches, check_batches)}
"""The evaluator for each value of `Objective.evaluation`."""


class TaskEvaluator(NamedTuple):
    """The evaluation of one kind of task."""

    evaluate: Callable[[ExperimentConfig, Params, Any], Result]
    check: Callable[[ExperimentConfig, Any], None]
    """Raises the errors of `evaluate` about the data, before anything is trained."""
    absent: Callable[[Any], Collection[str]] = lambda task: ()
    """The names of results that a task does not have with the settings of its data."""


TASK_EVALUATORS = {
    "answers": TaskEvaluator(evaluate_task, check_task),
    "labels": TaskEvaluator(evaluate_labels, check_scored_documents),
    "multi_labels": TaskEvaluator(evaluate_multi_labels, check_scored_documents),
    "tags": TaskEvaluator(evaluate_tags, check_tags, absent_from_tags),
    "numbers": TaskEvaluator(evaluate_numbers, check_scored_documents),
    "ranking": TaskEvaluator(evaluate_ranking, check_ranking),
    "texts": TaskEvaluator(evaluate_texts, check_texts, absent_from_texts),
    "transcripts": TaskEvaluator(evaluate_transcripts, check_transcripts, absent_from_texts),
    "speech": TaskEvaluator(evaluate_speech, check_speech),
    "spans": TaskEvaluator(evaluate_spans, check_spans),
    "preferences": TaskEvaluator(evaluate_preferences, check_preferences),
    "retrieval": TaskEvaluator(evaluate_retrieval, check_retrieval),
    "replies": TaskEvaluator(evaluate_replies, check_replies),
    "document_questions": TaskEvaluator(
        evaluate_document_questions, check_document_questions, absent_from_document_questions
    ),
    "links": TaskEvaluator(evaluate_links, check_links),
    "graph_questions": TaskEvaluator(evaluate_graph_questions, check_graph_questions),
}
"""The evaluator for each value of `Task.evaluation`."""


def evaluate(config: ExperimentConfig, params: Params, tokenizer: data.Tokenizer | None = None) -> Result:
    """Evaluate parameters on held-out data, with the settings of `config.evaluation`.

    To evaluate with another size of the memory, change `model.memory.memory_size`. The parameters of `tokens`, `titans`
    and of `associative` without `dpfp` depend on it. Rows of tasks and of batches are as long as in training.

    Args:
        config: the experiment.
        params: the parameters of its model.
        tokenizer: tokenizer of its text; default: the config's.

    Returns:
        A dictionary that JSON can hold: a `TaskResult`, `LabelResult`, `MultiLabelResult`, `TagResult`, `NumberResult`,
        `RankingResult`, `PairResult`, `SpeechResult`, `SpanResult`, `PreferenceResult`, `RetrievalResult`,
        `ReplyResult`, `DocumentQuestionsResult`, `LinkResult` or `GraphQuestionsResult` for tasks, a `TextResult` for
        causal language modelling, an `ObjectiveResult` for other objectives.

    Raises:
        ValueError: there is nothing to evaluate, or a loss is NaN or infinite.
    """
    if isinstance(config.data, TaskConfig):
        task = data.make_task(config.data, config.evaluation.split, tokenizer)
        return TASK_EVALUATORS[task.evaluation].evaluate(config, params, task)
    tokenizer = data.make_tokenizer(config.data) if tokenizer is None else tokenizer
    return EVALUATORS[data.make_objective(config.data.objective).evaluation].evaluate(config, params, tokenizer)


def check_evaluation(config: ExperimentConfig, tokenizer: data.Tokenizer | None) -> None:
    """Open the held-out data and make the first batch.

    Raises `ValueError` if `evaluate` would raise it for the data, or its results have no `evaluation.metric`.
    """
    if isinstance(config.data, TaskConfig):
        task = data.make_task(config.data, config.evaluation.split, tokenizer)
        evaluator = TASK_EVALUATORS[task.evaluation]
        absent = evaluator.absent(task)
        _check_metric(config, [name for name in measured_names(evaluator.evaluate) if name not in absent])
        return evaluator.check(config, task)
    tokenizer = data.make_tokenizer(config.data) if tokenizer is None else tokenizer
    kind = data.make_objective(config.data.objective).evaluation
    evaluator = EVALUATORS[kind]
    _check_metric(config, batch_results(config) if kind == "batches" else measured_names(evaluator.evaluate))
    return evaluator.check(config, tokenizer)


def measured_names(evaluation: Callable[..., Any]) -> list[str]:
    """The names of the numbers that an evaluation measures, without those that it counts."""
    results = get_type_hints(get_type_hints(evaluation)["return"])
    return [name for name, kind in results.items() if kind in (float, float | None)]


def _check_metric(config: ExperimentConfig, valid: Sequence[str]) -> None:
    check(
        config.evaluation.every is None or config.evaluation.metric in valid,
        f"evaluation.metric={config.evaluation.metric!r} is not in the results; valid: {', '.join(valid)}",
    )


__all__ = [
    "HELD_OUT_SEED",
    "METRICS",
    "DocumentQuestionsResult",
    "GraphQuestionsResult",
    "LabelResult",
    "LinkResult",
    "Metric",
    "MultiLabelResult",
    "NumberResult",
    "ObjectiveResult",
    "PairResult",
    "PreferenceResult",
    "RankingResult",
    "RecallPoint",
    "ReplyResult",
    "Result",
    "RetrievalResult",
    "SpanResult",
    "SpeechResult",
    "TagResult",
    "TaskResult",
    "TextResult",
    "check_evaluation",
    "evaluate",
    "evaluate_batches",
    "evaluate_document_questions",
    "evaluate_graph_questions",
    "evaluate_labels",
    "evaluate_links",
    "evaluate_multi_labels",
    "evaluate_numbers",
    "evaluate_preferences",
    "evaluate_ranking",
    "evaluate_replies",
    "evaluate_retrieval",
    "evaluate_spans",
    "evaluate_speech",
    "evaluate_tags",
    "evaluate_task",
    "evaluate_text",
    "evaluate_texts",
    "evaluate_transcripts",
    "recall_along_stream",
    "register_metric",
]
