"""The compiled steps of evaluations. Configurations are static arguments: each is compiled once per process."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from memgpt_jax import models
from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.heads import HeadedConfig
from memgpt_jax.config.memory import Alignment
from memgpt_jax.config.model import BaseModelConfig
from memgpt_jax.data import Batch
from memgpt_jax.ops import Scores
from memgpt_jax.ops.mesh import replicate
from memgpt_jax.shapes import Targets, Tokens

HELD_OUT_SEED = 0x5EED
"""Seed of all held-out batches; no training batch is drawn with it."""


@functools.partial(jax.jit, static_argnums=0, static_argnames="alignment")
def score_chunk(
    model: BaseModelConfig, params: models.Params, *, targets: Targets, state: Any, alignment: Alignment, **inputs: Any
) -> tuple[dict[str, Scores], Any]:
    """`score` of a model, with replicated scores, which every process can fetch. Args: inputs: `Batch.inputs`."""
    scores, state = models.functional(model).score(params, targets=targets, state=state, alignment=alignment, **inputs)
    return jax.tree.map(replicate, scores), state


@functools.partial(jax.jit, static_argnums=0)
def read_chunk(model: BaseModelConfig, params: models.Params, tokens: Tokens, state: Any) -> Any:
    """The state after a chunk [B, L] of whole segments."""
    return models.functional(model).apply(params, tokens, state, alignment="aligned")[1]


@functools.partial(jax.jit, static_argnums=0, static_argnames="alignment")
def predict_chunk(model: BaseModelConfig, params: models.Params, *, targets: Targets, **inputs: Any) -> tuple[Any, Any]:
    """The most probable outputs [B, L] of a chunk, and the state after it. Args: inputs: as of `score_chunk`."""
    logits, state = models.functional(model).apply(params, **inputs)
    return replicate(jnp.argmax(logits, axis=-1)), state


class RowScores(NamedTuple):
    """Scores of the targets of a batch, on the host."""

    losses: np.ndarray
    """[B, L] float32, in nats."""
    correct: np.ndarray
    """[B, L] bool."""


def score_rows(config: ExperimentConfig, params: models.Params, batch: Batch) -> RowScores:
    """The scores of the head with targets; rows are read as by `read_rows`."""
    (head,) = batch.targets
    parts = [scores[head] for scores in read_rows(config, params, batch, score_chunk)]
    return RowScores(*(np.concatenate(arrays, axis=1) for arrays in zip(*parts, strict=True)))


def read_rows(config: ExperimentConfig, params: models.Params, batch: Batch, read: Callable[..., Any]) -> list[Any]:
    """What `read`, `score_chunk` or `predict_chunk`, gives for the chunks of a batch, on the host.

    Each row starts from a fresh state. Rows longer than `evaluation.chunk_length` are read in chunks with carried
    state, so that device memory does not grow with their length.
    """
    rows, length = batch.inputs["tokens"].shape
    whole = config.model.head.inputs if isinstance(config.model, HeadedConfig) else ()  # not divided by tokens
    chunk = length if any(name in batch.inputs for name in whole) else config.evaluation.chunk_length
    state, parts = models.functional(config.model).init_state(rows), []
    for first in range(0, length, chunk):
        inputs, targets = (
            {name: array if name in whole else array[:, first : first + chunk] for name, array in arrays.items()}
            for arrays in (batch.inputs, batch.targets)
        )
        # A chunk starts at a segment boundary only if the chunk length is a multiple of the segment length.
        alignment = config.model.alignment_of_inputs(inputs)
        alignment = alignment if chunk % config.model.segment_length == 0 else "any"
        options = {"targets": targets, "state": state, "alignment": alignment}
        found, state = read(config.model, params, **inputs, **options)
        parts.append(jax.device_get(found))
    return parts


def check_finite(losses: np.ndarray) -> None:
    """Raise `ValueError` if a loss is NaN or infinite."""
    wrong = int(np.sum(~np.isfinite(losses)))
    if wrong:
        raise ValueError(
            f"the loss of {wrong:,} of {losses.size:,} tokens is NaN or infinite: the parameters contain values that "
            "are not finite, or a computation overflows"
        )
