"""Memories from which something has been taken: everything, or what came from a part of the document."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from memgpt_jax import models
from memgpt_jax.config.checks import check
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.generation.request import GenerativeModel, decoder_of
from memgpt_jax.memory.kv import KVMemory, KVState
from memgpt_jax.models import ModelState, Params
from memgpt_jax.ops.memory import Entries
from memgpt_jax.ops.trees import where_rows
from memgpt_jax.shapes import Array, Bool


def without_memory(model: GenerativeModel, state: ModelState) -> ModelState:
    """The state with empty memories. Windows, the tokens of the open segment, and knowledge stay.

    Args: model: a `MemGPT`, or `(config, params)` of one.
    """
    decoder = decoder_of(model)
    return _emptied(decoder.config, decoder.params, state)


@functools.partial(jax.jit, static_argnums=0)
def _emptied(config: ModelConfig, params: Params, state: ModelState) -> ModelState:
    layers = []
    for block, layer in zip(models.from_params(config, params).blocks, state.layers, strict=True):
        if layer.stream:
            stream = layer.stream
            empty = block.memory_layer.memory.restarted(stream.memory, stream.offset.shape[0])
            layer = layer._replace(stream=stream._replace(memory=empty))
        layers.append(layer)
    return state._replace(layers=tuple(layers))


def forget(model: GenerativeModel, state: ModelState, start: int, end: int) -> ModelState:
    """The state without the entries of all segments that hold one of the tokens `start` to `end` - 1 of the document.

    Whole segments are forgotten, because an entry is known by the age of its segment. What later entries have taken
    over from them remains, and so do the windows and the open segment. With `evict="oldest"` the places of
    forgotten entries stay empty until they would be evicted; the other rules fill them first.

    Args:
        model: a `MemGPT`, or `(config, params)` of one.
        state: any number of rows, all at the same token. It is not modified.
        start: the first token; 0 is the one that begins the document.
        end: the token after the last one.

    Raises:
        ValueError: the memory is no `kv` memory, has initial entries, its entries have been merged
            (`mg.compress_memory`), or the range is empty or beyond what has been read.
    """
    config, params, _ = decoder_of(model)
    read = int(np.asarray(state.position)[0])
    check(0 <= start < end <= read, f"start and end must be from 0 to {read} and rise, got {start} and {end}")
    for block, layer in zip(models.from_params(config, params).blocks, state.layers, strict=True):
        memory = block.memory_layer.memory if layer.stream else None
        check(isinstance(memory, KVMemory | None), f"only a `kv` memory can forget, got {type(memory).__name__}")
        check(
            not isinstance(memory, KVMemory) or memory.config.initial_entries == 0,
            "initial entries, which are parameters, cannot be told from those of tokens: forget needs "
            "memory.initial_entries=0",
        )
        check(
            not isinstance(memory, KVMemory) or memory.config.compressed != "merge",
            "merged entries hold several tokens, of which single ones cannot be forgotten: forget before "
            "`mg.compress_memory(..., by='merge')`",
        )
    return _forgotten(config, state, start, end)


@functools.partial(jax.jit, static_argnums=0)
def _forgotten(config: ModelConfig, state: ModelState, start: Any, end: Any) -> ModelState:
    layers: list[Any] = []
    for layer in state.layers:
        if layer.stream:
            stream = layer.stream
            written = state.position - (stream.offset - stream.start)  # tokens up to the last written segment
            layer = layer._replace(stream=stream._replace(memory=_without(stream.memory, config, written, start, end)))
        layers.append(layer)
    return state._replace(layers=tuple(layers))


def _without(memory: KVState, config: ModelConfig, written: Any, start: int, end: int) -> KVState:
    """The memory without the entries of the segments of tokens; the others keep their places."""
    length, entries = config.segment_length, memory.entries
    first = written[:, None] - length * entries.age  # the first token of the entry's segment
    hit = (first < end) & (first + length > start)
    return memory._replace(entries=emptied(entries, hit))


def emptied(entries: Entries, places: Bool[Array, "B M"]) -> Entries:
    """Entries without those at some places, which hold zeros as places do that were never written."""
    kept = entries._replace(valid=entries.valid & ~places)
    return where_rows(kept.valid, kept, jax.tree.map(jnp.zeros_like, kept))
