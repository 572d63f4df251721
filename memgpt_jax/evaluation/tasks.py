"""Held-out evaluation of tasks: the fraction of right answers, and the loss of their tokens."""

from typing import Any, NotRequired, TypedDict

import numpy as np

from memgpt_jax import data, models
from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.evaluation.metrics import metric
from memgpt_jax.evaluation.metrics.answers import count_answers
from memgpt_jax.evaluation.scoring import HELD_OUT_SEED, check_finite, score_rows


class TaskResult(TypedDict):
    """Results on a task. An answer is right if each of its tokens has the highest logit."""

    loss: float
    """Nats per token of the answers."""
    accuracy: float
    """Fraction of the answers that are right."""
    answers: int
    """Number of answers."""
    failed_tasks: NotRequired[int]
    """Number of `groups` below `Task.passing_accuracy`, if the task has one."""
    groups: NotRequired[dict[str, float]]
    """Accuracy of each of `Task.groups` of which anything was asked, if the task has groups."""


def evaluate_task(config: ExperimentConfig, params: models.Params, task: data.Task[Any]) -> TaskResult:
    """Evaluate the held-out batches of a task, which do not depend on the training seed, but on the split.

    Raises `ValueError` if a loss is NaN or infinite.
    """
    rows, length = config.evaluation.batch_size, config.row_length or config.training.sequence_length
    nats, tokens, right, answers = (np.zeros(max(1, len(task.groups))) for _ in range(4))
    for batch in task.held_out(HELD_OUT_SEED, rows, length, config.evaluation.num_batches):
        losses, correct = score_rows(config, params, batch)
        (weights,), group = batch.weights.values(), batch.info.get("group", np.zeros(rows, np.int32))
        check_finite(losses[weights > 0])
        counts = count_answers(correct, weights, batch.info.get("answer"))
        for total, values in (
            (nats, np.sum(np.where(weights > 0, losses, 0) * weights, axis=1, dtype=np.float64)),
            (tokens, np.sum(weights, axis=1, dtype=np.float64)),
            (right, counts.right),
            (answers, counts.answers),
        ):
            np.add.at(total, group, values)
    accuracies = {
        name: float(right[group] / answers[group]) for group, name in enumerate(task.groups) if answers[group]
    }
    result = TaskResult(
        loss=metric("loss", nats=nats.sum(), targets=tokens.sum()),
        accuracy=metric("exact_answers", right=right.sum(), answers=answers.sum()),
        answers=int(answers.sum()),
    )
    if task.passing_accuracy is not None:
        result["failed_tasks"] = sum(accuracy < task.passing_accuracy for accuracy in accuracies.values())
    if task.groups:
        result["groups"] = accuracies
    return result


def check_task(config: ExperimentConfig, task: data.Task[Any]) -> None:
    """Make the first batch of `evaluate_task`; `ValueError` if the data of the task are not valid."""
    settings, length = config.evaluation, config.row_length or config.training.sequence_length
    next(iter(task.held_out(HELD_OUT_SEED, settings.batch_size, length, settings.num_batches)))
