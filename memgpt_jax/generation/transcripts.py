"""Transcripts of sounds by a head for transcripts: the best path, read in calls with the state carried."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from memgpt_jax import models
from memgpt_jax.config.checks import check
from memgpt_jax.config.heads import HeadedConfig
from memgpt_jax.data.progress_bar import track
from memgpt_jax.ops.ctc import is_label


def head_outputs(
    config: HeadedConfig,
    params: models.Params,
    sources: Sequence[np.ndarray],
    *,
    rows: int,
    call: int,
    noun: str = "",
) -> Iterator[tuple[int, np.ndarray]]:
    """The index of each source, the longest first, and the outputs [s, C] of the head for it.

    Sources are read in calls of `call` tokens with the state carried.

    Args:
        config: the model.
        params: its parameters.
        sources: features [s, F], a document each.
        rows: sources that are read at the same time.
        call: tokens of a call.
        noun: of the sources, for a progress bar; empty: no bar.
    """
    by_length = sorted(range(len(sources)), key=lambda index: -len(sources[index]))
    groups = [by_length[first : first + rows] for first in range(0, len(sources), rows)]
    for group in track(groups, noun) if noun else groups:
        chosen, parts = [sources[index] for index in group], []
        state = models.functional(config).init_state(rows)
        for first in range(0, len(chosen[0]), call):
            part = [source[first : first + call] for source in chosen]
            outputs, state = read_features(config, params, part, state, call, first)
            parts.append(outputs)
        outputs = np.concatenate(parts, axis=1)
        yield from ((index, outputs[row, : len(sources[index])]) for row, index in enumerate(group))


def read_features(
    config: HeadedConfig, params: models.Params, parts: Sequence[np.ndarray], state: Any, call: int, first: int
) -> tuple[np.ndarray, Any]:
    """The outputs [B, L, C] of one call, and the state after it.

    Args:
        parts: features [n, F], n from 0 to L, of at most B documents.
        state: the state after the previous call, of B rows.
        call: tokens L of the call.
        first: number of tokens of the documents that were read before.
    """
    rows, sizes = jax.tree.leaves(state)[0].shape[0], [len(part) for part in parts]
    features = np.zeros((rows, call, parts[0].shape[1]), np.float32)
    for row, part in enumerate(parts):
        features[row, : len(part)] = part
    places, sizes = np.arange(call)[None], np.array([*sizes, *[0] * (rows - len(parts))])
    reset = np.broadcast_to((places == 0) & (first == 0), features.shape[:2])
    outputs, state = _call(config, params, features, state, reset, places < sizes[:, None])
    return np.asarray(outputs), state


@functools.partial(jax.jit, static_argnums=0)
def _call(config: HeadedConfig, params: Any, features: Any, state: Any, reset: Any, valid: Any) -> tuple[Any, Any]:
    tokens = jax.numpy.zeros(features.shape[:2], int)
    return models.functional(config).apply(params, tokens, state, reset, valid, features=features)


class BestPath:
    """The labels of the best path, from outputs that arrive in parts: any division gives the same labels."""

    def __init__(self, blank: int):
        """Args: blank: number of the blank."""
        self.blank, self.last = blank, blank
        self.labels: list[int] = []

    def add(self, outputs: np.ndarray) -> list[int]:
        """All labels so far, those of the next outputs [s, C] included.

        Raises `ValueError` if the greatest output of a token is NaN or infinite.
        """
        check(
            bool(np.isfinite(np.max(outputs, axis=-1)).all()),
            "an output for a token is NaN or infinite: the features or the parameters may be, too",
        )
        best = np.asarray(outputs).argmax(axis=-1)[None]
        self.labels += best[is_label(best, np.array([self.last]), self.blank)].tolist()
        self.last = int(best[0, -1]) if best.size else self.last
        return self.labels
