"""Held-out evaluation of labelled texts, pictures and sounds: each is read once, whole."""

from collections.abc import Mapping, Sequence
from typing import Any, NotRequired, Protocol

import jax
import numpy as np

from memgpt_jax import models
from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.data.tasks.labelled_text import LabelledTextTask
from memgpt_jax.evaluation.documents import check_scored_documents, end_outputs
from memgpt_jax.evaluation.metrics import metric
from memgpt_jax.evaluation.metrics.by_length import ByLength, by_length
from memgpt_jax.evaluation.metrics.classification import ClassificationMetrics, classification_metrics
from memgpt_jax.evaluation.mistakes import Mistake, worst
from memgpt_jax.evaluation.scoring import check_finite


class LabelledDocuments(Protocol):
    """A task with a label for each document."""

    config: Any
    """Its `labels` are the names of the labels."""
    documents: Sequence[Mapping[str, np.ndarray]]
    """`tokens` [n] of each document, and further inputs of the model by name."""
    examples: Sequence[Any]
    """For each document `where`, `text` and `label`, the number of its label."""


class LabelResult(ClassificationMetrics):
    """Results on labelled texts, pictures or sounds, which are called texts here."""

    loss: float
    """Cross-entropy in nats per text, without label smoothing and class weights."""
    examples: int
    """Number of texts."""
    by_length: NotRequired[ByLength]
    """`accuracy` by the number of words, of texts alone."""
    mistakes: list[Mistake]
    """The wrong predictions with the highest losses."""


def evaluate_labels(config: ExperimentConfig, params: models.Params, task: LabelledDocuments) -> LabelResult:
    """Evaluate the label of each text of a split at its end, in calls of `evaluation.chunk_length` tokens.

    Raises `ValueError` if an output is NaN or infinite, or scikit-learn is not installed.
    """
    check_scored_documents(config, task)
    number, settings = config.evaluation.max_documents, config.evaluation
    options = {"rows": settings.batch_size, "length": settings.chunk_length, "noun": "texts"}
    logits = np.stack(end_outputs(config.model, params, task.documents[:number], **options))
    check_finite(logits)
    targets = np.array([example.label for example in task.examples[:number]])
    log_p = np.asarray(jax.nn.log_softmax(logits))
    losses, best = -log_p[np.arange(len(targets)), targets].astype(np.float64), log_p.argmax(axis=1)
    found = classification_metrics(np.exp(log_p), targets, task.config.labels)
    mistakes = worst(
        Mistake(
            where=example.where,
            text=example.text,
            expected=task.config.labels[example.label],
            predicted=task.config.labels[label],
            loss=float(loss),
        )
        for example, label, loss in zip(task.examples[:number], best, losses, strict=True)
        if label != example.label
    )
    loss = metric("loss", nats=losses.sum(), targets=len(targets))
    result = LabelResult(loss=loss, examples=len(targets), mistakes=mistakes, **found)
    if isinstance(task, LabelledTextTask):
        sizes, right = [len(example.text.split()) for example in task.examples[:number]], best == targets
        result["by_length"] = by_length("accuracy", "words", sizes, lambda chosen: float(right[chosen].mean()))
    return result
