"""Held-out evaluation of pairs of texts: each target is generated once, and its reference is scored once."""

from typing import Any

import numpy as np

from memgpt_jax import models
from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.data.examples.pair_tokens import source_inputs
from memgpt_jax.data.tasks.text_pairs import TextPairsTask
from memgpt_jax.evaluation.metrics import metric
from memgpt_jax.evaluation.metrics.libraries import library
from memgpt_jax.evaluation.metrics.texts import LIBRARIES, TextMetrics, text_metrics
from memgpt_jax.evaluation.scoring import check_finite, score_chunk
from memgpt_jax.generation.targets import write_targets


class PairResult(TextMetrics):
    """Results on pairs of texts."""

    loss: float
    """Nats per token of the references, each predicted from the true tokens before it."""
    targets: int
    """Number of tokens of the references, the end of each included."""
    examples: int
    """Number of pairs."""


def evaluate_texts(config: ExperimentConfig, params: models.Params, task: TextPairsTask) -> PairResult:
    """Generate the target of each source of a split, and compare it with the references.

    The loss is that of the first reference, read in calls of `evaluation.chunk_length` tokens.

    Raises `ValueError` if a loss is NaN or infinite, or a library is not installed.
    """
    check_texts(config, task)
    settings, examples = config.evaluation, task.examples[: config.evaluation.max_documents]
    rows = [task.row(index) for index in range(len(examples))]
    losses = _losses(config, params, rows, task.config.source_length)
    check_finite(losses)
    texts = write_targets(
        config.model,
        params,
        task.tokens,
        [example.source for example in examples],
        rows=settings.batch_size,
        max_new_tokens=task.config.max_new_tokens,
        num_beams=task.config.num_beams,
        noun="texts",
    )
    loss = metric("loss", nats=float(losses.sum(dtype=np.float64)), targets=len(losses))
    found = text_metrics(task.config.metrics, texts, [example.targets for example in examples])
    return PairResult(loss=loss, targets=len(losses), examples=len(examples), **found)


def check_texts(config: ExperimentConfig, task: TextPairsTask) -> None:
    """Raise `ValueError` if a library that the metrics need is missing."""
    for name in task.config.metrics:
        if name in LIBRARIES:
            library(LIBRARIES[name])


def _losses(
    config: ExperimentConfig, params: models.Params, rows: list[dict[str, np.ndarray]], source_length: int | None
) -> np.ndarray:
    """The losses of all targets with a weight, [targets] float32.

    Rows are read in calls of `evaluation.chunk_length` tokens with the state carried; an encoder reads its source in
    the first call.
    """
    settings, segment = config.evaluation, config.model.segment_length
    by_length = sorted(rows, key=lambda row: -len(row["tokens"]))
    longest, size, found = len(by_length[0]["tokens"]), settings.batch_size, []
    chunk = min(settings.chunk_length, -(-longest // segment) * segment)
    for start in range(0, len(by_length), size):
        group = by_length[start : start + size]
        state = models.functional(config.model).init_state(size)
        sources = {}
        if source_length is not None:
            sources = source_inputs([row["source"] for row in group], size, source_length)
        for first in range(0, len(group[0]["tokens"]), chunk):
            arrays = _call(group, first, size, chunk)
            weights, targets = arrays.pop("weights"), {"tokens": arrays.pop("targets")}
            inputs = arrays | (sources if first == 0 else {})
            scores, state = score_chunk(config.model, params, targets=targets, state=state, alignment="any", **inputs)
            found.append(np.asarray(scores["tokens"].losses)[weights > 0])
    return np.concatenate(found)


def _call(rows: list[dict[str, np.ndarray]], first: int, number: int, length: int) -> dict[str, Any]:
    """The arrays [number, length] of the tokens from `first` on, padded on the right."""
    arrays = {
        "tokens": np.zeros((number, length), np.int32),
        "targets": np.zeros((number, length), np.int32),
        "weights": np.zeros((number, length), np.float32),
    }
    sizes = np.zeros(number, int)
    for place, row in enumerate(rows):
        for name, array in arrays.items():
            part = row[name][first : first + length]
            array[place, : len(part)] = part
            sizes[place] = len(part)
    reset = np.zeros((number, length), bool)
    reset[:, 0] = first == 0
    return arrays | {"reset": reset, "valid": np.arange(length)[None] < sizes[:, None]}
