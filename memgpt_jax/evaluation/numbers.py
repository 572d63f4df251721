"""Held-out evaluation of numbers: each document is read once, whole."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import jax.numpy as jnp
import numpy as np

from memgpt_jax import models
from memgpt_jax.config.checks import instance_of
from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.heads import HeadedConfig
from memgpt_jax.evaluation.documents import check_scored_documents, document_outputs
from memgpt_jax.evaluation.metrics.numbers import NumberMetrics, number_metrics
from memgpt_jax.evaluation.scoring import check_finite
from memgpt_jax.models.heads.scalars import ScalarHeadConfig, number_scores


class NumberedDocuments(Protocol):
    """A task with numbers at some tokens of each document."""

    documents: Sequence[Mapping[str, np.ndarray]]
    """`tokens` [n] of each document, and further inputs of the model by name."""
    places: Sequence[np.ndarray]
    """Indices of the tokens with a number."""
    targets: Sequence[np.ndarray]
    """The numbers at these tokens."""


class NumberResult(NumberMetrics):
    """Results on numbers."""

    loss: float
    """The head's loss per number: the error in standard deviations of the training numbers, squared with `mse`."""
    numbers: int
    """Number of targets."""
    documents: int
    """Number of documents."""


def evaluate_numbers(config: ExperimentConfig, params: models.Params, task: NumberedDocuments) -> NumberResult:
    """Evaluate the numbers of a split, in calls of `evaluation.chunk_length` tokens.

    Raises `ValueError` if an output is NaN or infinite, or scikit-learn is not installed.
    """
    check_scored_documents(config, task)
    number, settings = config.evaluation.max_documents, config.evaluation
    documents, places, expected = task.documents[:number], task.places[:number], task.targets[:number]
    options = {"rows": settings.batch_size, "length": settings.chunk_length, "noun": "documents"}
    outputs = document_outputs(config.model, params, documents, places, **options)
    predicted = [array[:, 0] for array in outputs]
    head = instance_of(instance_of(config.model, HeadedConfig, "model").head, ScalarHeadConfig, "model.head")
    together = [jnp.asarray(np.concatenate(side)[None], jnp.float32) for side in (predicted, expected)]
    losses = np.asarray(number_scores(*together, loss=head.loss, std=head.std).losses)
    check_finite(losses)
    return NumberResult(
        loss=float(losses.mean(dtype=np.float64)),
        numbers=losses.size,
        documents=len(documents),
        **number_metrics(predicted, expected),
    )
