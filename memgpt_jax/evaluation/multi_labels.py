"""Held-out evaluation of texts with any number of labels: each text is read once, whole."""

import jax
import numpy as np

from memgpt_jax import models
from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.data.tasks.multi_label_text import MultiLabelTextTask
from memgpt_jax.evaluation.documents import check_scored_documents, end_outputs
from memgpt_jax.evaluation.metrics import metric
from memgpt_jax.evaluation.metrics.multi_labels import MultiLabelMetrics, multi_label_metrics
from memgpt_jax.evaluation.mistakes import Mistake, worst
from memgpt_jax.evaluation.scoring import check_finite


class MultiLabelResult(MultiLabelMetrics):
    """Results on texts with any number of labels."""

    loss: float
    """Binary cross-entropy in nats per text, the mean over labels, without label smoothing and class weights."""
    examples: int
    """Number of texts."""
    mistakes: list[Mistake]
    """The texts with a wrong label that have the highest losses."""


def evaluate_multi_labels(
    config: ExperimentConfig, params: models.Params, task: MultiLabelTextTask
) -> MultiLabelResult:
    """Evaluate the labels of each text of a split at its end: those with a probability above 0.5 are predicted.

    Raises `ValueError` if an output is NaN or infinite, or scikit-learn is not installed.
    """
    check_scored_documents(config, task)
    number, settings = config.evaluation.max_documents, config.evaluation
    options = {"rows": settings.batch_size, "length": settings.chunk_length, "noun": "texts"}
    logits = np.stack(end_outputs(config.model, params, task.ids[:number], **options))
    check_finite(logits)
    targets = np.stack([task.target(index) for index in range(len(logits))])
    predicted = (logits > 0).astype(np.int32)
    losses = -np.asarray(jax.nn.log_sigmoid(np.where(targets, logits, -logits)), np.float64).mean(axis=1)
    wrong = np.flatnonzero((predicted != targets).any(axis=1))

    def names(row: np.ndarray) -> str:
        return ", ".join(task.config.labels[label] for label in np.flatnonzero(row)) or "none"

    mistakes = worst(
        Mistake(
            where=task.examples[index].where,
            text=task.examples[index].text,
            expected=names(targets[index]),
            predicted=names(predicted[index]),
            loss=float(losses[index]),
        )
        for index in wrong
    )
    loss = metric("loss", nats=losses.sum(), targets=len(targets))
    found = multi_label_metrics(predicted, targets, task.config.labels)
    return MultiLabelResult(loss=loss, examples=len(targets), mistakes=mistakes, **found)
