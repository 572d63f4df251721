"""The losses of rows of any length, each read once."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from memgpt_jax import models
from memgpt_jax.config.experiment import EvaluationConfig
from memgpt_jax.config.model import BaseModelConfig
from memgpt_jax.data.examples.pair_tokens import source_inputs
from memgpt_jax.evaluation.scoring import check_finite, score_chunk
from memgpt_jax.generation.decode import take_rows
from memgpt_jax.generation.prefill import power_of_two
from memgpt_jax.models import ModelState

Row = dict[str, np.ndarray]
"""`tokens`, `targets` and `weights` [n], and for an encoder-decoder the `source` [s]."""


def row_losses(
    model: BaseModelConfig,
    params: models.Params,
    settings: EvaluationConfig,
    rows: Sequence[Row],
    source_length: int | None = None,
    *,
    state: ModelState | None = None,
    of: Sequence[int] | None = None,
    head: str = "tokens",
) -> list[np.ndarray]:
    """The losses -ln p of the targets with a weight, in nats, one float32 array for each row.

    Rows are read in calls of `chunk_length` tokens with the state carried, `batch_size` at the same time, the longest
    rows first. Rows that are shorter than a call are read in one of as few whole segments as hold the longest of them.

    Args:
        model: the configuration of the model.
        params: its parameters.
        settings: `chunk_length` and `batch_size`.
        rows: the rows.
        source_length: largest number of tokens of the sources, which an encoder reads in the first call; None: there
            are none.
        state: a state; default: rows are documents of their own.
        of: the row of `state` that each row continues; default: the first.
        head: the head of the model that is scored.

    Raises:
        ValueError: a loss is NaN or infinite.
    """
    segment = model.segment_length
    order = sorted(range(len(rows)), key=lambda index: -len(rows[index]["tokens"]))
    size = min(settings.batch_size, power_of_two(len(rows)))  # few shapes to compile
    found = [np.zeros(0, np.float32)] * len(rows)
    for start in range(0, len(order), size):
        places = order[start : start + size]
        group = [rows[index] for index in places]
        chunk = min(settings.chunk_length, -(-len(group[0]["tokens"]) // segment) * segment)
        if state is None:
            carried = models.functional(model).init_state(size)
        else:
            of_group = [0 if of is None else of[index] for index in places]
            carried = take_rows(state, of_group + [0] * (size - len(group)))
        sources = {}
        if source_length is not None:
            sources = source_inputs([row["source"] for row in group], size, source_length)
        for first in range(0, len(group[0]["tokens"]), chunk):
            arrays = _call(group, first, size, chunk)
            arrays["reset"][:, 0] = first == 0 and state is None
            weights, targets = arrays.pop("weights"), {head: arrays.pop("targets")}
            inputs = arrays | (sources if first == 0 else {})
            scores, carried = score_chunk(model, params, targets=targets, state=carried, alignment="any", **inputs)
            losses = np.asarray(scores[head].losses)
            for row, index in enumerate(places):
                found[index] = np.concatenate([found[index], losses[row][weights[row] > 0]])
    check_finite(np.concatenate(found))
    return found


def _call(rows: list[Row], first: int, number: int, length: int) -> dict[str, Any]:
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
    return arrays | {"reset": np.zeros((number, length), bool), "valid": np.arange(length)[None] < sizes[:, None]}
