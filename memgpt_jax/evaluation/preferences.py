"""Held-out evaluation of pairs of texts by their likelihoods: each text is scored from an empty memory."""

import numpy as np

from memgpt_jax import models
from memgpt_jax.config.checks import check
from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.model import EncoderConfig
from memgpt_jax.data.objectives.special_ids import special_ids
from memgpt_jax.data.tasks.labelled_text import document_ids
from memgpt_jax.data.tasks.preferences import PreferencesTask
from memgpt_jax.evaluation.metrics.preferences import PreferenceMetrics, preference_metrics
from memgpt_jax.evaluation.row_losses import row_losses


class PreferenceResult(PreferenceMetrics):
    """Results on pairs of texts of which one is preferred."""

    loss: float
    """Nats per scored token of the first texts."""
    pairs: int
    """Number of pairs."""


def evaluate_preferences(config: ExperimentConfig, params: models.Params, task: PreferencesTask) -> PreferenceResult:
    """Compare the log-likelihoods of the two texts of each pair of a split.

        decoder      ln p(text) = sum_t ln p(x_t | x_<t)
        encoder      PLL(text)  = sum_t ln p(x_t | x without x_t), x_t replaced by the mask token

    With `data.shared_only` the sum is over the tokens that both texts share. A decoder reads each text in calls of
    `evaluation.chunk_length` tokens. An encoder reads it once for each scored token, in one call.

    Sources: Salazar et al., "Masked Language Model Scoring" (2020); shared tokens: Nangia et al., "CrowS-Pairs" (2020).

    Raises `ValueError` if a loss is NaN or infinite, or as `check_preferences`.
    """
    check_preferences(config, task)
    examples, masked = task.examples[: config.evaluation.max_documents], isinstance(config.model, EncoderConfig)
    rows, numbers = [], []  # of each row, 2 i for the first text of pair i, 2 i + 1 for the second
    tokens = 0
    for place, example in enumerate(examples):
        flags = task.scored(example)
        tokens += int(flags[0].sum())
        for number, (text, scored) in enumerate(zip(example.texts, flags, strict=True), start=2 * place):
            found = task.masked_rows(text, scored) if masked else [task.row(text, scored=scored)]
            rows += found
            numbers += [number] * len(found)
    losses = row_losses(config.model, params, config.evaluation, rows, head="masked" if masked else "tokens")
    sums = [losses_of_row.sum(dtype=np.float64) for losses_of_row in losses]
    nats = np.bincount(numbers, sums, minlength=2 * len(examples)).reshape(-1, 2)
    metrics = preference_metrics(nats[:, 1] - nats[:, 0], [example.group for example in examples])
    return PreferenceResult(loss=float(nats[:, 0].sum() / tokens), pairs=len(examples), **metrics)


def check_preferences(config: ExperimentConfig, task: PreferencesTask) -> None:
    """Raise `ValueError` if two texts share no token that is scored, or an encoder cannot read a text in one call."""
    masked, most = isinstance(config.model, EncoderConfig), config.evaluation.chunk_length
    mask, size = special_ids(task.tokenizer).mask, config.model.vocab_size
    check(
        not masked or mask < size,
        f"the tokenizer has no mask token, and model.vocab_size={size} has no id {mask} for it: an encoder that was "
        "trained with MaskedConfig has one",
    )
    for example in task.examples[: config.evaluation.max_documents]:
        task.scored(example)
        longest = max(len(document_ids(task.tokenizer, text)) for text in example.texts)
        check(
            not masked or longest <= most,
            f"{example.where}: a text has {longest} tokens, and an encoder reads it in one call: "
            f"evaluation.chunk_length={most} must be at least that",
        )
