"""Memories that have been read into, made smaller."""

import dataclasses
import functools
from typing import get_args

import jax
import jax.numpy as jnp

from memgpt_jax.config.checks import check, whole
from memgpt_jax.config.memory import Compression, KVMemoryConfig
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.models.decoder import MemGPT, ModelState
from memgpt_jax.models.model_functions import Params, from_params, to_params
from memgpt_jax.ops.int8_vectors import as_floats, in_form_of
from memgpt_jax.ops.memory import clean_entries, highest_gates, merge_older_entries, newest_entries


def compress_memory(
    model: MemGPT | tuple[ModelConfig, Params], state: ModelState, memory_size: int, by: Compression = "merge"
) -> tuple[MemGPT, ModelState]:
    """A model whose memories have fewer entries, and a state with the compressed memories.

    >>> small, state = mg.compress_memory(model, state, 256)
    >>> mg.generate(small, prompt, state=state, max_new_tokens=8)

    The model has the same parameters and a smaller `memory_size`, and continues from the returned state. Windows, open
    segments and knowledge stay as they are.

    Args:
        model: a `MemGPT` with `kv` memories, or `(config, params)` of one.
        state: any number of rows. It is not modified.
        memory_size: entries of each layer afterwards, fewer than before.
        by: what stays.
            `merge`: the newest entries, half of `memory_size`, and the older ones, of which near duplicates become one
            until the number fits. Entries a and b of gates g become one of gate g_a + g_b, with the means of keys and
            values by gate; pairs with the lowest g_a g_b / (g_a + g_b) |k_a - k_b|^2 are merged. Needs
            `gate="log_bias"`, which gives a merged entry the weight of both.
            `gate`: the entries with the highest write gates. Needs a gate.
            `oldest`: the newest entries; the oldest ones go.

    Raises:
        ValueError: the model has no `kv` memory, or its gate does not fit `by`; or the state has not more entries than
            the size.
    """
    decoder = from_params(*model) if isinstance(model, tuple) else model
    config, valid = decoder.config, get_args(Compression)
    kind = type(decoder).__name__
    check(isinstance(config, ModelConfig), f"only memories of decoders can be compressed, got a {kind}")
    memory = config.memory
    check(isinstance(memory, KVMemoryConfig), f"only `kv` memories can be compressed, got a {type(memory).__name__}")
    assert isinstance(memory, KVMemoryConfig)
    sizes = {layer.stream.memory.entries.valid.shape[1] for layer in state.layers if layer.stream}
    size, before = whole("memory_size", memory_size, 1), max(sizes, default=0)
    check(size < before, f"memory_size={size} must be below the {before} entries of the state")
    check(by in valid, f"by must be one of {', '.join(map(repr, valid))}, got {by!r}")
    gates = {"merge": ("log_bias",), "gate": ("log_bias", "scale", "scale_value")}.get(by, (memory.gate,))
    check(memory.gate in gates, f"by={by!r} needs memory.gate {' or '.join(map(repr, gates))}, got {memory.gate!r}")
    compressed = memory.compressed if by == "oldest" or memory.compressed == "merge" else by
    smaller = dataclasses.replace(memory, memory_size=size, match_state_bytes=None, compressed=compressed)
    found = from_params(dataclasses.replace(config, memory=smaller), to_params(decoder))
    if hasattr(decoder, "origin"):
        found.origin = decoder.origin
    return found, _compressed(state, by, size)


CHANGES = {"merge": merge_older_entries, "gate": highest_gates, "oldest": newest_entries}


@functools.partial(jax.jit, static_argnums=(1, 2))
def _compressed(state: ModelState, by: Compression, size: int) -> ModelState:
    layers = []
    for layer in state.layers:
        if layer.stream:
            memory = layer.stream.memory
            entries = clean_entries(CHANGES[by](as_floats(memory.entries, jnp.float32), size))
            memory = memory._replace(entries=in_form_of(memory.entries, entries))
            layer = layer._replace(stream=layer.stream._replace(memory=memory))
        layers.append(layer)
    return state._replace(layers=tuple(layers))
