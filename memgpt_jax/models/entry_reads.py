"""How much the tokens of a call read each entry of each memory of a decoder."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from memgpt_jax.config.checks import check
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
    traced, found = trace_call(model, tokens, state, valid), []
    for layer in traced.layers:
        if layer is not None:
            if layer.explanation is None:
                raise NotImplementedError(layer.memory.missing("explain"))
            found.append((layer.memory, layer.before, layer.explanation))
    return found, traced.state


class LayerTrace(NamedTuple):
    """What the memory of one layer did in a call."""

    memory: Memory[Any]
    before: Any
    """Its state before the call."""
    explanation: Explanation | None
    """Its reads; None: the mechanism does not implement `Memory.explain`."""
    write_gates: Float32[Array, "B L"] | None
    """None: the mechanism does not implement `Memory.write_gates`."""
    fusion_gates: Float32[Array, "B L"]
    """Mean over the width."""
    window: Float32[Array, "B H L W+L"]
    """Weights of self-attention: of the W tokens before the call, oldest first, and of the call's own."""


class CallTrace(NamedTuple):
    """What the memories of a decoder did in a call."""

    layers: list[LayerTrace | None]
    """None: the layer has no memory."""
    stream: Stream
    """The last hidden states [B, L, D], normalised."""
    state: ModelState
    """The state after the call."""


def trace_call(model: MemGPT, tokens: Tokens, state: ModelState, valid: Flags) -> CallTrace:
    """Run a decoder, and keep what its memories do. Arguments as in `entry_reads`.

    Raises `ValueError` if the decoder reads raw features.
    """
    check(model.features is None, "the memory of a decoder that reads raw features cannot be traced")
    reset = jnp.zeros(tokens.shape, bool)
    positions = document_positions(state.position, reset)
    inputs = call_inputs(reset, valid, positions=positions, distance_bias=model.distance_bias())
    x, found, layers = model.embed(tokens, positions, valid), [], []
    for block, layer in zip(model.blocks, state.layers, strict=True):
        y, after, gates = block(x, layer, inputs, "any", None)
        traced = None
        if not isinstance(block.memory_layer, NoMemoryLayer):
            memory = block.memory_layer.memory
            explanation, write_gates, window = _explained(block, x, layer, inputs)
            traced = LayerTrace(memory, layer.stream.memory, explanation, write_gates, gates, window)
        found.append(traced)
        layers.append(after)
        x = y
    position = state.position + jnp.sum(valid, axis=1, dtype=jnp.int32)
    return CallTrace(found, model.normalize_output(x), state._replace(layers=tuple(layers), position=position))


def _explained(
    block: Block, x: Stream, state: LayerState, inputs: CallInputs
) -> tuple[Explanation | None, Float32[Array, "B L"] | None, Float32[Array, "B H L W+L"]]:
    """The reads and the write gates of a block's memory for the stream x, and the weights of its self-attention.

    With fusion `attention`, both weights are those of the one softmax.
    """
    layer = block.memory_layer
    before = x if block.config.norm_position == "post" else block.attention_norm(x)
    assert isinstance(block.attention, SelfAttention)
    shares = isinstance(layer, SharedSoftmaxMemory)
    of_window = layer.window_inputs(inputs, state.stream) if shares else inputs
    window = block.attention.weights(before, state.window, of_window)
    if shares:
        _, lse, _ = block.attention.attend_with_lse(before, state.window, of_window)
        explanation = layer.explain(lse, before, state.stream, inputs)
        of_entries = jnp.moveaxis(jnp.sum(explanation.weights, axis=-1, keepdims=True), 1, 2)
        return explanation, _or_none(lambda: layer.memory.write_gates(before)), window * (1 - of_entries)
    assert isinstance(layer, MemoryLayer)
    if block.parallel:
        read = before
    else:
        attended, _ = block.attention(before, state.window, inputs)
        read = layer.normalised(block.add_attention(x, attended, state, (None, None)))
    explanation = _or_none(lambda: explain(layer.memory, read, state.stream))
    return explanation, _or_none(lambda: layer.memory.write_gates(read)), window


def _or_none(hook: Callable[[], Any]) -> Any:
    """What an optional hook of a mechanism returns; None if the mechanism does not implement it."""
    try:
        return hook()
    except NotImplementedError:
        return None
