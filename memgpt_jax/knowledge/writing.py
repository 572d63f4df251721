"""Knowledge into a state."""

import jax.numpy as jnp
import numpy as np

from memgpt_jax.config.checks import check
from memgpt_jax.config.memory import KVMemoryConfig
from memgpt_jax.generation.request import GenerativeModel, decoder_of
from memgpt_jax.knowledge.cells import cells_of
from memgpt_jax.knowledge.entries import Knowledge, LayerEntries
from memgpt_jax.models import ModelState
from memgpt_jax.ops.memory import KnowledgeCells, KnowledgeEntries
from memgpt_jax.shapes import Array


def write(model: GenerativeModel, state: ModelState, knowledge: Knowledge) -> ModelState:
    """The state with this knowledge in every row, in place of the knowledge that it had.

    Each later token reads it together with the memory's own entries, also after a reset, until other knowledge is
    written. Nothing else of the state changes, so the outputs after `write(..., knowledge.without(sources))` are
    bitwise those of a state in which these texts have never been.

    Args:
        model: a `MemGPT` or `(config, params)`, with `memory.knowledge_size` of at least the number of entries.
        state: any state of the model; it is not modified.
        knowledge: of the same parameters, which is not checked here; `load` checks it.

    Raises:
        ValueError: the memory has no place for so many entries, or the entries or the state are not those of the model.
    """
    config = decoder_of(model).config
    size = config.memory.knowledge_size if isinstance(config.memory, KVMemoryConfig) else 0
    check(
        len(knowledge) <= size,
        f"the knowledge has {len(knowledge)} entries, model.memory.knowledge_size={size} is less",
    )
    places = [number for number, layer in enumerate(state.layers) if layer.stream]
    check(
        len(places) == len(knowledge.layers),
        f"the knowledge is of {len(knowledge.layers)} memories, the model has {len(places)}",
    )
    for number in places:
        held = getattr(state.layers[number].stream.memory, "knowledge", None)
        room = 0 if held is None else held.source.shape[1]
        check(room == size, f"the state is of knowledge_size={room}, the model of model.memory.knowledge_size={size}")
    if not size:
        return state  # there is nothing to write
    layers = list(state.layers)
    for number, entries in zip(places, knowledge.layers, strict=True):
        stream = layers[number].stream
        written = _written(stream.memory.knowledge, entries, size)
        layers[number] = layers[number]._replace(
            stream=stream._replace(memory=stream.memory._replace(knowledge=written))
        )
    return state._replace(layers=tuple(layers))


def _written(before: KnowledgeEntries, entries: LayerEntries, size: int) -> KnowledgeEntries:
    """The entries from place 0 on, in every row, followed by zeros, `size` places in all, and their index."""

    def padded(new: np.ndarray, old: Array) -> Array:
        check(
            new.shape[1:] == old.shape[2:],
            f"the knowledge has entries {new.shape[1:]}, the memory {old.shape[2:]}",
        )
        filled = np.zeros(old.shape[1:], old.dtype)
        filled[: len(new)] = new
        return jnp.broadcast_to(filled[None], old.shape)

    found = KnowledgeEntries(
        keys=padded(entries.keys, before.keys),
        values=padded(entries.values, before.values),
        log_gate=padded(entries.log_gate, before.log_gate),
        source=padded(entries.source, before.source),
    )
    if before.cells is None:
        return found
    rows, _, number, places = before.cells.members.shape
    index = cells_of(entries.keys, (number, places), size)
    means, members = (jnp.broadcast_to(new[None], (rows, *new.shape)) for new in index)
    return found._replace(cells=KnowledgeCells(means, members))
