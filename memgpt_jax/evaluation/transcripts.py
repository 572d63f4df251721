"""Held-out evaluation of transcripts by a head: each sound is read once, in calls with the state carried."""

import jax
import numpy as np

from memgpt_jax import models
from memgpt_jax.config.checks import instance_of
from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.heads import HeadedConfig
from memgpt_jax.data.tasks.ctc_transcripts import CTCTranscriptsTask
from memgpt_jax.evaluation.metrics import metric
from memgpt_jax.evaluation.metrics.texts import check_libraries
from memgpt_jax.evaluation.scoring import check_finite
from memgpt_jax.evaluation.texts import PairResult, written_result
from memgpt_jax.generation.transcripts import BestPath, head_outputs
from memgpt_jax.ops.ctc import ctc_losses
from memgpt_jax.shapes import Array


def evaluate_transcripts(config: ExperimentConfig, params: models.Params, task: CTCTranscriptsTask) -> PairResult:
    """Write the transcript of each sound of a split, and compare it with the text.

    Sounds are read in calls of `evaluation.chunk_length` tokens. The loss is -ln p(text), by CTC; it does not count
    texts with more labels than their sound has tokens.

    Raises `ValueError` if a loss is NaN or infinite, or a library is not installed.
    """
    check_transcripts(config, task)
    model, settings = instance_of(config.model, HeadedConfig, "model"), config.evaluation
    examples = task.examples[: settings.max_documents]
    rows = [task.row(index) for index in range(len(examples))]
    losses, texts = np.zeros(len(rows)), [""] * len(rows)
    for index, outputs in head_outputs(
        model,
        params,
        [row["features"] for row in rows],
        rows=settings.batch_size,
        call=min(settings.chunk_length, task.config.source_length),
        noun="sounds",
    ):
        losses[index] = transcript_loss(outputs, rows[index]["targets"])
        texts[index] = task.tokens.text(np.array(BestPath(model.vocab_size).add(outputs), np.int32))
    check_finite(losses)
    number = sum(int((row["targets"] >= 0).sum()) for row in rows)
    return written_result(task, examples, texts, metric("loss", nats=float(losses.sum()), targets=number), number)


def transcript_loss(outputs: np.ndarray, labels: np.ndarray) -> float:
    """-ln p(labels) of one sound, in nats; 0 without labels.

    Args:
        outputs: of the head, [s, C].
        labels: [s], -1 after the last.
    """
    size = -(-len(outputs) // PLACES) * PLACES
    if not (labels >= 0).any():
        return 0.0
    logits = np.pad(outputs, ((0, size - len(outputs)), (0, 0)))[None]
    valid = np.arange(size)[None] < len(outputs)
    return float(_losses(logits, valid, np.pad(labels, (0, size - len(labels)), constant_values=-1)[None])[0])


PLACES = 64
"""Sounds are padded to a multiple of this number of tokens, so that few programs are compiled."""


@jax.jit
def _losses(logits: Array, valid: Array, labels: Array) -> Array:
    return ctc_losses(logits, valid, jax.numpy.maximum(labels, 0), labels >= 0)


def check_transcripts(config: ExperimentConfig, task: CTCTranscriptsTask) -> None:
    """Raise `ValueError` if a library that the metrics need is missing."""
    check_libraries(task.config.metrics)
