"""Held-out evaluation of texts that are written after a source: each is generated once, its reference scored once."""

from collections.abc import Sequence
from typing import NotRequired

import numpy as np

from memgpt_jax import models
from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.data.tasks.media_texts import MediaText, MediaTextsTask
from memgpt_jax.data.tasks.text_pairs import TextPair, TextPairsTask
from memgpt_jax.evaluation.metrics import metric
from memgpt_jax.evaluation.metrics.by_length import ByLength
from memgpt_jax.evaluation.metrics.texts import (
    GroupMetrics,
    TextMetrics,
    absent_text_metrics,
    check_libraries,
    metrics_by_group,
    same_phrase,
    scores_by_length,
    text_metrics,
    text_scores,
)
from memgpt_jax.evaluation.row_losses import row_losses
from memgpt_jax.generation.targets import write_targets
from memgpt_jax.models.quantization import laid_out


class PairResult(TextMetrics):
    """Results on pairs of a source and a text."""

    loss: float
    """Nats per token of the references, each predicted from the true tokens before it."""
    targets: int
    """Number of tokens of the references, the end of each included."""
    examples: int
    """Number of pairs."""
    phrase: NotRequired[float]
    """With `data.phrase`: of the texts whose first reference has a match, the fraction with the same match."""
    by_length: NotRequired[ByLength]
    """The first of `data.metrics` that is a mean over texts, by the number of words of the source."""
    groups: NotRequired[dict[str, GroupMetrics]]
    """With `data.group_column`: the metrics by the name of the group."""


WritingTask = TextPairsTask | MediaTextsTask
"""The tasks in which a text is written after a source."""


def evaluate_texts(config: ExperimentConfig, params: models.Params, task: WritingTask) -> PairResult:
    """Generate the target of each source of a split, and compare it with the references.

    The loss is that of the first reference, read in calls of `evaluation.chunk_length` tokens.

    Raises `ValueError` if a loss is NaN or infinite, or a library is not installed.
    """
    check_texts(config, task)
    settings, examples = config.evaluation, task.examples[: config.evaluation.max_documents]
    rows = [task.row(index) for index in range(len(examples))]
    losses = np.concatenate(row_losses(config.model, params, settings, rows, task.tokens.source_length))
    texts = write_targets(
        config.model,
        laid_out(config.model, params, settings.batch_size * task.config.num_beams),
        task.tokens,
        [task.source(index) for index in range(len(examples))],
        rows=settings.batch_size,
        max_new_tokens=task.config.max_new_tokens,
        num_beams=task.config.num_beams,
        noun="texts",
    )
    loss = metric("loss", nats=float(losses.sum(dtype=np.float64)), targets=len(losses))
    return written_result(task, examples, texts, loss, len(losses))


def written_result(
    task: WritingTask, examples: Sequence[TextPair] | Sequence[MediaText], texts: list[str], loss: float, targets: int
) -> PairResult:
    """The results of texts that were written for examples. Args: loss: nats per token of the references."""
    names, references = task.config.metrics, [example.targets for example in examples]
    scores = text_scores(names, texts, references)
    found = text_metrics(names, texts, references, scores)
    result = PairResult(loss=loss, targets=targets, examples=len(examples), **found)
    if task.config.phrase is not None and (share := same_phrase(task.config.phrase, texts, references)) is not None:
        result["phrase"] = share
    sizes = [len(example.source.split()) for example in examples if isinstance(example, TextPair)]
    if sizes and (by_length := scores_by_length(scores, "words of the source", sizes)) is not None:
        result["by_length"] = by_length
    if any(example.group for example in examples):
        result["groups"] = metrics_by_group(names, texts, references, [example.group for example in examples])
    return result


def check_texts(config: ExperimentConfig, task: WritingTask) -> None:
    """Raise `ValueError` if a library that the metrics need is missing."""
    check_libraries(task.config.metrics)


def absent_from_texts(task: WritingTask) -> set[str]:
    """The names of a `PairResult` that a task does not have with its settings."""
    return absent_text_metrics(task.config.metrics) | (set() if task.config.phrase else {"phrase"})
