"""Single entries of a `kv` memory: what the memory holds, and the memory after one of them has been changed."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from memgpt_jax import models
from memgpt_jax.config.checks import check, whole
from memgpt_jax.config.memory import Gate, KVMemoryConfig
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.generation.request import GenerativeModel, decoder_of
from memgpt_jax.inspector.editing import emptied
from memgpt_jax.memory import MEMORIES
from memgpt_jax.memory.kv import KVState
from memgpt_jax.models import ModelState
from memgpt_jax.ops.int8_vectors import as_floats, in_form_of
from memgpt_jax.shapes import Array, Float, Float32

SMALLEST_SCALE = 1e-6
"""Keys and values that have been multiplied by a smaller gate are too inexact to be given another one."""


class EntryList(NamedTuple):
    """The N entries of one memory, in the order of their places. NumPy arrays [N]."""

    place: np.ndarray
    """int32: the place in the memory, by which `edit_entry` finds the entry."""
    token: np.ndarray
    """int32: the first token of the document that the entry comes from; -1: not known."""
    length: np.ndarray
    """int32: the number of tokens from which it comes: 1, or those of a segment; 0: not known."""
    age: np.ndarray
    """int32: segments since it was written; 1 for the last one."""
    gate: np.ndarray
    """float32: its write gate."""


def list_entries(model: GenerativeModel, state: ModelState, layer: int) -> EntryList:
    """The entries of the memory of one layer.

    With `visibility="token"` or `initial_entries`, the tokens of entries are not known.

    Args:
        model: a `MemGPT`, or `(config, params)` of one.
        state: one row.
        layer: number of the layer.

    Raises:
        ValueError: the layer has no `kv` memory, or the state has several rows.
    """
    config, params, _ = decoder_of(model)
    settings = _memory_config(config, state, layer)
    memory = models.from_params(config, params).blocks[layer].memory_layer.memory
    stream = jax.device_get(state.layers[layer].stream)
    entries = stream.memory.entries
    place = np.flatnonzero(entries.valid[0]).astype(np.int32)
    token, length = np.full_like(place, -1), np.zeros_like(place)
    if settings.visibility == "segment" and settings.initial_entries == 0:
        origins = jax.device_get(memory.origins(stream.memory))
        written = np.asarray(state.position)[0] - (stream.offset - stream.start)[0]
        token, length = written - origins.start[0, place], origins.length[0, place]
    return EntryList(
        place=place,
        token=token,
        length=length,
        age=entries.age[0, place],
        gate=np.exp(entries.log_gate[0, place]),
    )


def edit_entry(model: GenerativeModel, state: ModelState, layer: int, place: int, *, gate: float = 0.0) -> ModelState:
    """The state with another write gate at one entry of one layer; 0 deletes the entry.

    After a deletion, whatever follows is bitwise as if the entry had never been valid. With `evict="oldest"` its place
    stays empty until the entry would be evicted; the other rules fill it first. What later entries have taken over from
    it remains, and so does its token in the window.

    Args:
        model: a `MemGPT`, or `(config, params)` of one.
        state: one row. It is not modified.
        layer: number of the layer.
        place: of the entry, from `list_entries`.
        gate: from 0 to 1.

    Raises:
        ValueError: the layer has no `kv` memory, the state has several rows, there is no entry at the place, or the
            gate is out of range; or it is not 0, and the memory has no gates, or the gate that the entry has is below
            1e-6 and has been multiplied into its keys or values.
    """
    config = decoder_of(model).config
    kind = _memory_config(config, state, layer).gate
    check(0 <= gate <= 1, f"gate must be from 0 to 1, got {gate}")
    entries, number = state.layers[layer].stream.memory.entries, whole("place", place, 0)
    valid = np.asarray(entries.valid)[0]
    check(
        number < len(valid) and valid[number], f"there is no entry at place {place} of layer {layer}: list them first"
    )
    if gate:
        check(kind != "none", "entries of a memory with gate='none' have no gates: gate must be 0, which deletes one")
        own = float(np.exp(np.asarray(entries.log_gate)[0, number]))
        is_exact = kind == "log_bias" or own >= SMALLEST_SCALE
        check(is_exact, f"the entry has been multiplied by its gate of {own:.1e}: it cannot be given another one")
    return _edited(config, state, np.int32(layer), np.int32(number), np.float32(gate))


def _memory_config(config: ModelConfig, state: ModelState, layer: int) -> KVMemoryConfig:
    """The configuration of the memory of a layer. Raises `ValueError` unless it is a `kv` memory of one row."""
    check(state.position.shape == (1,), f"the state must have one row, got {state.position.shape[0]}")
    if not isinstance(config.memory, KVMemoryConfig):
        name = MEMORIES.name_of(config.memory)
        raise ValueError(f"only `kv` memories have single entries to list and edit, got `{name}`")
    having = [number for number, each in enumerate(state.layers) if each.stream]
    known = ", ".join(map(str, having))
    check(layer in having, f"layer must be one with a memory ({known}), got {layer}")
    return config.memory


@functools.partial(jax.jit, static_argnums=0)
def _edited(config: ModelConfig, state: ModelState, layer: Any, place: Any, gate: Any) -> ModelState:
    assert isinstance(config.memory, KVMemoryConfig)
    kind, layers = config.memory.gate, []
    for number, each in enumerate(state.layers):
        if each.stream:
            memory = each.stream.memory
            here = (jnp.arange(memory.entries.valid.shape[1]) == place)[None] & (layer == number)
            each = each._replace(stream=each.stream._replace(memory=_with_gate(memory, kind, here, gate)))
        layers.append(each)
    return state._replace(layers=tuple(layers))


def _with_gate(memory: KVState, kind: Gate, here: Any, gate: Any) -> KVState:
    """The memory with a gate at the entries where `here` holds."""
    entries = as_floats(memory.entries, jnp.float32)
    factor = jnp.where(here, gate * jnp.exp(-entries.log_gate), 1.0)[..., None, None]
    if kind == "scale":
        entries = entries._replace(keys=_scaled(entries.keys, factor))
    if kind in ("scale", "scale_value"):
        entries = entries._replace(values=_scaled(entries.values, factor))
    entries = entries._replace(log_gate=jnp.where(here, jnp.log(gate), entries.log_gate))
    entries = in_form_of(memory.entries, entries)
    return memory._replace(entries=emptied(entries, here & (gate == 0)))


def _scaled(stored: Float[Array, "B M G K"], factor: Float32[Array, "B M 1 1"]) -> Float[Array, "B M G K"]:
    return (stored.astype(jnp.float32) * factor).astype(stored.dtype)
