"""Answers of a `WalkHead` to many questions, each with a memory of its own."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from memgpt_jax import models
from memgpt_jax.config.model import BaseModelConfig
from memgpt_jax.data.examples.neighbourhoods import Neighbourhood
from memgpt_jax.data.progress_bar import track
from memgpt_jax.evaluation.scoring import check_finite
from memgpt_jax.generation.prefill import power_of_two
from memgpt_jax.ops.memory import gather_entries
from memgpt_jax.ops.mesh import replicate
from memgpt_jax.shapes import Array


class Found(NamedTuple):
    """What a model finds for one question."""

    scores: np.ndarray
    """[n] the logarithm of the probability of each entity of the memory, from number 0 on."""
    reads: np.ndarray
    """[hops, E] the weight of each triple in each read."""

    @property
    def best(self) -> int:
        """The entity with the best score, the first one of several."""
        return int(self.scores.argmax())


def answer(
    model: BaseModelConfig,
    params: models.Params,
    questions: Sequence[np.ndarray],
    memories: Sequence[Neighbourhood],
    *,
    rows: int,
    noun: str = "",
) -> list[Found]:
    """Answer questions, each with its own triples in memory.

    Args:
        model: a `HeadedConfig` with a `WalkHeadConfig`.
        params: its parameters.
        questions: the ids of each question.
        memories: the triples of each question.
        rows: questions read at the same time.
        noun: of the questions, for a progress bar; empty: no bar.

    Raises:
        ValueError: a score is NaN or infinite.
    """
    found: list[Found | None] = [None] * len(questions)
    order = sorted(range(len(questions)), key=lambda number: len(memories[number].triples))
    groups = [order[first : first + rows] for first in range(0, len(order), rows)]
    for group in track(groups, noun) if noun else groups:
        size = power_of_two(max(1, *(len(memories[number].triples) for number in group)))  # few shapes are compiled
        length = power_of_two(max(len(questions[number]) for number in group))
        tokens, valid = np.zeros((rows, length), np.int32), np.zeros((rows, length), bool)
        graphs = np.full((rows, size, 3), -1, np.int32)
        for row, number in enumerate(group):
            tokens[row, : len(questions[number])], valid[row, : len(questions[number])] = questions[number], True
            graphs[row, : len(memories[number].triples)] = memories[number].triples
        scores, reads = jax.device_get(_answer(model, params, tokens, valid, graphs))
        for row, number in enumerate(group):
            triples, entities = memories[number]
            found[number] = Found(scores[row, : len(entities)], reads[row, :, : len(triples)])
            check_finite(scores[row])
    return [one for one in found if one is not None]


@functools.partial(jax.jit, static_argnums=0)
def _answer(
    config: BaseModelConfig, params: models.Params, tokens: Array, valid: Array, triples: Array
) -> tuple[Array, Array]:
    """Scores [B, C] and reads [B, hops, E] at the last token of each row."""
    model = models.from_params(config, params)
    state = model.init_state(len(tokens))
    stream = model.hidden(tokens, state, valid=valid).stream
    x, _ = model.head.features(stream, state.head.stream, valid=valid)
    last = jnp.maximum(jnp.sum(valid, axis=1, dtype=jnp.int32) - 1, 0)
    scores, found = model.head.answers(gather_entries(x, last[:, None]), triples)
    return replicate(scores[:, 0]), replicate(found.reads[..., 0])
