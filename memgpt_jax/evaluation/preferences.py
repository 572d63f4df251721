"""Held-out evaluation of pairs of texts by their likelihoods: each text is scored once, from an empty memory."""

import numpy as np

from memgpt_jax import models
from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.data.tasks.preferences import PreferencesTask
from memgpt_jax.evaluation.metrics.preferences import PreferenceMetrics, preference_metrics
from memgpt_jax.evaluation.row_losses import row_losses


class PreferenceResult(PreferenceMetrics):
    """Results on pairs of texts of which one is preferred."""

    loss: float
    """Nats per token of the first texts."""
    pairs: int
    """Number of pairs."""


def evaluate_preferences(config: ExperimentConfig, params: models.Params, task: PreferencesTask) -> PreferenceResult:
    """Compare the log-likelihoods ln p(text) = sum_t ln p(x_t | x_<t) of the two texts of each pair of a split.

    The texts are read in calls of `evaluation.chunk_length` tokens. Raises `ValueError` if a loss is NaN or infinite.
    """
    examples = task.examples[: config.evaluation.max_documents]
    texts = [text for example in examples for text in (example.first, example.second)]
    losses = row_losses(config, params, [task.row(text) for text in texts])
    nats = np.array([losses_of_text.sum(dtype=np.float64) for losses_of_text in losses]).reshape(-1, 2)
    tokens = sum(len(losses_of_text) for losses_of_text in losses[::2])
    metrics = preference_metrics(nats[:, 1] - nats[:, 0], [example.group for example in examples])
    return PreferenceResult(loss=float(nats[:, 0].sum() / tokens), pairs=len(examples), **metrics)


def check_preferences(config: ExperimentConfig, task: PreferencesTask) -> None:
    """Nothing further can be wrong with the data."""
