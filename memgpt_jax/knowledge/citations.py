"""Which knowledge tokens read: the entries of each token, and the weight of each text in a row of tokens."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from memgpt_jax import models
from memgpt_jax.config.checks import check, whole
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.generation.citations import segment_calls
from memgpt_jax.generation.decode import fork
from memgpt_jax.generation.prefill import power_of_two
from memgpt_jax.generation.prompts import row_of_ids
from memgpt_jax.generation.request import GenerativeModel, decoder_of
from memgpt_jax.knowledge.entries import Knowledge, LayerEntries
from memgpt_jax.models import ModelState, Params
from memgpt_jax.models.entry_reads import explained_reads
from memgpt_jax.ops.memory import KnowledgeEntries
from memgpt_jax.shapes import Array, Flags, Float32, Int32, Tokens

COMPARED = 65536
"""Entries that are compared at a time."""


class Citation(NamedTuple):
    """A read of one entry of knowledge by one token."""

    source: int
    """The number of the text."""
    text: str
    weight: float
    """The weight of the entry in the softmax of the read; with fusion `attention`, of that shared with the window."""
    layer: int
    head: int


class _Reads(NamedTuple):
    """The heaviest reads of each token; source 0 where there are fewer."""

    weight: Float32[Array, "B L top"]
    source: Int32[Array, "B L top"]
    layer: Int32[Array, "B L top"]
    head: Int32[Array, "B L top"]


def cite(
    model: GenerativeModel, state: ModelState, knowledge: Knowledge, ids: Sequence[int] | np.ndarray, *, top: int = 5
) -> list[list[Citation]]:
    """For each of n tokens the `top` reads of entries of knowledge with the greatest weights, over layers and heads.

    Args:
        model: a `MemGPT` or `(config, params)`.
        state: one row, in which `knowledge` has been written (`write`). It is not modified.
        knowledge: gives the texts.
        ids: the tokens, which continue the state.
        top: reads of each token.

    Raises:
        ValueError: the state has more than one row or other knowledge, there are no ids, or one is not of the model.
    """
    decoder, top = decoder_of(model), whole("top", top, 1)
    rows = [row_of_ids(decoder.config, "ids", ids)]
    _check_state(state, knowledge)
    found = []
    for _, tokens, valid in segment_calls(decoder.config, state, rows):
        reads, state = _top_reads(decoder.config, top, decoder.params, tokens, valid, state)
        weights, *places = (np.asarray(array[0])[valid[0]] for array in jax.device_get(reads))
        for weight, source, layer, head in zip(weights, *places, strict=True):
            of_token = zip(source.tolist(), weight.tolist(), layer.tolist(), head.tolist(), strict=True)
            found.append([Citation(s, knowledge.texts[s], w, i, h) for s, w, i, h in of_token if s])
    return found


def source_weights(
    model: GenerativeModel,
    state: ModelState,
    knowledge: Knowledge,
    rows: Sequence[np.ndarray],
    *,
    number: int = 16,
) -> Float32[np.ndarray, "rows S"]:
    """How much the tokens of each row read each of the S texts: mean over tokens, layers and heads of the weights.

    Args:
        model, state, knowledge: as in `cite`.
        rows: ids, each of which continues the state.
        number: rows that are read at the same time.
    """
    decoder, number = decoder_of(model), whole("number", number, 1)
    rows = [row_of_ids(decoder.config, "ids", row) for row in rows]
    _check_state(state, knowledge)
    column = {source: place for place, source in enumerate(knowledge.texts)}
    places = [np.array([column[source] for source in layer.source.tolist()], np.int64) for layer in knowledge.layers]
    found = np.zeros((len(rows), len(column)), np.float32)
    for first in range(0, len(rows), number):
        group = rows[first : first + number]
        after = fork(state, min(number, power_of_two(len(group))))
        for _, tokens, valid in segment_calls(decoder.config, after, group):
            reads, after = _entry_weights(decoder.config, decoder.params, tokens, valid, after)
            for weights, texts in zip(jax.device_get(reads), places, strict=True):
                for row in range(len(group)):
                    found[first + row] += np.bincount(texts, weights[row, : len(texts)], len(column))
    lengths = np.array([len(row) for row in rows])
    return found / (lengths[:, None] * len(knowledge.layers))


def _check_state(state: ModelState, knowledge: Knowledge) -> None:
    """Raise `ValueError` unless the state is one row that holds exactly these entries, in the types of the state."""
    streams = [layer.stream for layer in state.layers if layer.stream]
    check(state.position.shape[0] == 1, f"the state has {state.position.shape[0]} rows, must have 1")
    same = len(streams) == len(knowledge.layers) and all(
        _holds(stream.memory.knowledge, layer) for stream, layer in zip(streams, knowledge.layers, strict=True)
    )
    check(same, "the state holds other knowledge: write it first (`mg.knowledge.write`)")


def _holds(held: KnowledgeEntries | None, entries: LayerEntries) -> bool:
    """Whether the first row of a memory holds these entries and no others."""
    number = len(entries.source)
    if held is None or np.count_nonzero(held.source[0]) != number:
        return held is None and number == 0
    for start in range(0, number, COMPARED):
        for name, array in entries._asdict().items():
            part = array[start : start + COMPARED]
            of_state = np.asarray(getattr(held, name)[0, start : start + len(part)])
            if not np.array_equal(of_state, part.astype(of_state.dtype)):
                return False
    return True


@functools.partial(jax.jit, static_argnums=(0, 1))
def _top_reads(
    config: ModelConfig, top: int, params: Params, tokens: Tokens, valid: Flags, state: ModelState
) -> tuple[_Reads, ModelState]:
    explained, after = explained_reads(models.from_params(config, params), tokens, state, valid)
    of_layers = []
    places = [number for number, layer in enumerate(state.layers) if layer.stream]
    for number, (_, before, explanation) in zip(places, explained, strict=True):
        source = before.knowledge.source
        of_knowledge = explanation.weights[..., -source.shape[1] :]  # [B, L, H, N]
        batch, length, num_heads, size = of_knowledge.shape
        weight, place = jax.lax.top_k(of_knowledge.reshape(batch, length, -1), min(top, num_heads * size))
        source = jnp.take_along_axis(source[:, None, :], place % size, axis=2)
        of_layers.append(_Reads(weight, source, jnp.full_like(place, number), place // size))
    merged = jax.tree.map(lambda *arrays: jnp.concatenate(arrays, axis=2), *of_layers)
    order = jax.lax.top_k(merged.weight, min(top, merged.weight.shape[2]))[1]
    return jax.tree.map(lambda array: jnp.take_along_axis(array, order, axis=2), merged), after


@functools.partial(jax.jit, static_argnums=0)
def _entry_weights(
    config: ModelConfig, params: Params, tokens: Tokens, valid: Flags, state: ModelState
) -> tuple[list[Float32[Array, "B N"]], ModelState]:
    """For each memory, the weight of each entry of knowledge: sum over tokens, mean over heads."""
    explained, after = explained_reads(models.from_params(config, params), tokens, state, valid)
    found = []
    for _, before, explanation in explained:
        weights = explanation.weights[..., -before.knowledge.source.shape[1] :]
        found.append(jnp.einsum("bqhn,bq->bn", weights, valid.astype(jnp.float32)) / weights.shape[2])
    return found, after
