"""How much the tokens of a call read each entry of each memory of a decoder."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from memgpt_jax.memory.base import Explanation, Memory, Origins
from memgpt_jax.memory.streaming import explain
from memgpt_jax.models.attention import CallInputs, SelfAttention, call_inputs
from memgpt_jax.models.blocks import Block, LayerState
from memgpt_jax.models.decoder import MemGPT, ModelState
from memgpt_jax.models.memory_layer import MemoryLayer, NoMemoryLayer
from memgpt_jax.models.shared_softmax import SharedSoftmaxMemory
from memgpt_jax.ops.attention.positions import document_positions
from memgpt_jax.shapes import Array, Flags, Float32, Stream, Tokens


class EntryReads(NamedTuple):
    """The reads of the memory of one layer."""

    weights: Float32[Array, "B M"]
    """Weight of each entry: sum over tokens, mean over heads."""
    origins: Origins
    """The tokens from which the entries come."""


def entry_reads(
    model: MemGPT, tokens: Tokens, state: ModelState, counts: Flags, valid: Flags
) -> tuple[list[EntryReads], ModelState]:
    """The weights with which tokens read the entries of each layer that has a memory, and the state after the call.

    The weight of entry m is sum_t c_t mean_h w_thm, where w are the softmax weights of the read; with fusion
    `attention`, of the softmax that entries share with the window.

    Args:
        model: the decoder.
        tokens: ids [B, L]; each row continues its open document, and ends at the latest with its open segment.
        state: the state before the call.
        counts: c, the tokens whose reads are counted.
        valid: False for padding on the right.

    Raises:
        NotImplementedError: the mechanism does not implement `Memory.explain` and `Memory.origins`.
        ValueError: the entries of this configuration cannot be assigned to tokens.
    """
    explained, after = explained_reads(model, tokens, state, valid)
    counted, reads = (counts & valid).astype(jnp.float32), []
    for memory, before, explanation in explained:
        origins = memory.origins(before)
        weights = explanation.weights[..., : origins.start.shape[1]]  # without those of knowledge
        reads.append(EntryReads(jnp.einsum("bqhm,bq->bm", weights, counted) / weights.shape[2], origins))
    return reads, after


def explained_reads(
    model: MemGPT, tokens: Tokens, state: ModelState, valid: Flags
) -> tuple[list[tuple[Memory[Any], Any, Explanation]], ModelState]:
    """The reads of the tokens in each memory: the mechanism, its state before, `Explanation`; and the state after.

    With fusion `attention`, weights are those of the softmax that entries share with the window. Arguments and errors
    as in `entry_reads`.
    """
    reset = jnp.zeros(tokens.shape, bool)
    positions = document_positions(state.position, reset)
    inputs = call_inputs(reset, valid, positions=positions, distance_bias=model.distance_bias())
    x, found, layers = model.embed(tokens, positions, valid), [], []
    for block, layer in zip(model.blocks, state.layers, strict=True):
        if not isinstance(block.memory_layer, NoMemoryLayer):
            found.append((block.memory_layer.memory, layer.stream.memory, _explained(block, x, layer, inputs)))
        x, after, _ = block(x, layer, inputs, "any", None)
        layers.append(after)
    position = state.position + jnp.sum(valid, axis=1, dtype=jnp.int32)
    return found, state._replace(layers=tuple(layers), position=position)


def _explained(block: Block, x: Stream, state: LayerState, inputs: CallInputs) -> Explanation:
    """The reads of a block's memory for the stream x: its weights as part of the whole softmax."""
    layer = block.memory_layer
    before = x if block.config.norm_position == "post" else block.attention_norm(x)
    if isinstance(layer, SharedSoftmaxMemory):
        assert isinstance(block.attention, SelfAttention)
        _, lse, _ = block.attention.attend_with_lse(before, state.window, inputs)
        return layer.explain(lse, before, state.stream, inputs)
    assert isinstance(layer, MemoryLayer)
    if block.parallel:
        return explain(layer.memory, before, state.stream)
    attended, _ = block.attention(before, state.window, inputs)
    return layer.explain(block.add_attention(x, attended, state, (None, None)), state.stream)
