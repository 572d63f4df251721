"""The block that all models are stacks of: attention, memory, feed-forward."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from memgpt_jax.config.model import StackConfig
from memgpt_jax.memory.streaming import StreamAlignment, StreamState
from memgpt_jax.models.cross_attention import CrossAttention, SourceCache
from memgpt_jax.models.layers import Attention, FeedForward, FullAttention, SelfAttention, WindowCache, dropout, norm
from memgpt_jax.models.memory_layer import NoMemoryLayer, make_memory_layer
from memgpt_jax.models.shared_softmax import JoinedMemory
from memgpt_jax.ops.mesh import split_rows
from memgpt_jax.shapes import Array, Flags, Float32, Stream


class LayerState(NamedTuple):
    """What one block carries from call to call."""

    window: WindowCache | tuple[()]
    memory: StreamState | tuple[()]
    source: SourceCache | tuple[()] = ()


class Block(nnx.Module):
    """One block; normalised in front of its parts, or behind them (`ModelConfig.norm_position`).

    pre:   h = x + Attention(norm(x));   f, memory' = MemoryLayer(h, memory);   y = f + FeedForward(norm(f))
    post:  h = norm(x + Attention(x));   f, memory' = MemoryLayer(h, memory);   y = norm(f + FeedForward(f))

    With `ModelConfig.fusion` "attention" the memory is part of Attention, and f = h.

    With a source, h' = h + CrossAttention(norm(h), source), or norm(h + CrossAttention(h, source)), takes the place of
    h. The source stays what it is, also where a document ends.
    """

    def __init__(self, config: StackConfig, layer: int, rngs: nnx.Rngs, attention: type[Attention] | None = None):
        """attention: its kind; default: causal in a window, or full, as the config says."""
        self.config = config
        self.attention_norm = norm(config, config.d_model, rngs)
        self.attention = (attention or (SelfAttention if config.causal else FullAttention))(config, rngs)
        if config.attends_to_source:
            self.cross_attention_norm = norm(config, config.d_model, rngs)
            self.cross_attention = CrossAttention(config, rngs)
        has_memory = config.layer_has_memory(layer)
        self.joins_attention = has_memory and config.shares_softmax
        if self.joins_attention:
            self.memory_layer = JoinedMemory(config, rngs)
        else:
            self.memory_layer = (
                make_memory_layer(**vars(config.memory_layer), rngs=rngs) if has_memory else NoMemoryLayer()
            )
        self.feed_forward_norm = norm(config, config.d_model, rngs)
        self.feed_forward = FeedForward(config, rngs)

    def init_state(self, batch_size: int) -> LayerState:
        """An empty window, an empty memory and no source."""
        source = self.cross_attention.init_state(batch_size) if self.config.attends_to_source else ()
        return LayerState(self.attention.init_state(batch_size), self.memory_layer.init_state(batch_size), source)

    def __call__(
        self,
        x: Stream,
        state: LayerState,
        positions,
        reset: Flags,
        valid: Flags,
        alignment: StreamAlignment,
        dropout_key,
        distance_bias=None,
    ) -> tuple[Stream, LayerState, Float32[Array, "B L"]]:
        """The stream, the state, and the mean fusion gate of each token. distance_bias: see the kinds of attention."""
        before = self.attention_norm(x) if self.config.norm_position == "pre" else x
        seen = (before, state.window, positions, reset, valid, distance_bias)
        if self.joins_attention:
            (out, lse), window = self.attention.look(*seen, with_lse=True)
            out, memory, gate = self.memory_layer(out, lse, before, state.memory, reset, valid, alignment)
            attended = self.attention.project_out(out)
            y, _, _ = self.after_attention(x, attended, state, reset, valid, alignment, dropout_key)
        else:
            attended, window = self.attention(*seen)
            y, memory, gate = self.after_attention(x, attended, state, reset, valid, alignment, dropout_key)
        return y, LayerState(window, memory, state.source), gate

    def after_attention(
        self, x: Stream, attended: Stream, state: LayerState, reset, valid, alignment: StreamAlignment, dropout_key
    ):
        """The block from the stream and what attention adds to it: y, memory', and the gate of each token.

        The latter two are None where the memory was part of attention.
        """
        rate = self.config.dropout
        keys = (None,) * 4 if dropout_key is None else jax.random.split(dropout_key, 4)
        pre = self.config.norm_position == "pre"
        h = x + dropout(attended, rate, keys[0])
        h = h if pre else self.attention_norm(h)
        if self.config.attends_to_source:
            attended = self.cross_attention(self.cross_attention_norm(h) if pre else h, state.source)
            h = h + dropout(attended, rate, keys[3])
            h = h if pre else self.cross_attention_norm(h)
        f, memory, gate = h, None, None
        if not self.joins_attention:
            f, memory, gate = self.memory_layer.with_gate(h, state.memory, reset, valid, alignment, keys[1])
        y = f + dropout(self.feed_forward(self.feed_forward_norm(f) if pre else f), rate, keys[2])
        return y if pre else self.feed_forward_norm(y), memory, gate


def _call(block: Block, x, *arguments):
    return block(split_rows(x), *arguments)


CALLS = {
    "none": _call,
    "block": nnx.remat(_call, static_argnums=(6,)),
    "dots": nnx.remat(_call, static_argnums=(6,), policy=jax.checkpoint_policies.dots_with_no_batch_dims_saveable),
}
"""How a block is called, by `ModelConfig.remat`."""


def run_blocks(blocks, x: Stream, states, arguments: tuple, dropout_key, scanned: bool = False, distance_bias=None):
    """The blocks one after the other: the stream, and each one's state and gates.

    arguments: of `Block.__call__`, after its state. scanned: as one loop (`ModelConfig.scan_layers`).
    """
    run = _scanned if scanned else _unrolled
    x, layers, gates = run(blocks, x, states, arguments, dropout_key, distance_bias)
    return split_rows(x), layers, gates


def _unrolled(blocks, x, states, arguments, dropout_key, distance_bias):
    layers, gates = [], []
    for index, (block, state) in enumerate(zip(blocks, states, strict=True)):
        key = None if dropout_key is None else jax.random.fold_in(dropout_key, index)
        x, state, gate = CALLS[block.config.remat](block, x, state, *arguments, key, distance_bias)
        layers.append(state)
        gates.append(gate)
    return x, tuple(layers), tuple(gates)


def _scanned(blocks, x, states, arguments, dropout_key, distance_bias):
    """`_unrolled` as one loop. Parameters and states are stacked here, so that outside of it their layout is one."""
    number, (structure, _) = len(blocks), nnx.split(blocks[0])

    def turn(x, inputs):
        index, params, state = inputs
        key = None if dropout_key is None else jax.random.fold_in(dropout_key, index)
        block = nnx.merge(structure, params)
        x, state, gate = CALLS[block.config.remat](block, x, state, *arguments, key, distance_bias)
        return x, (state, gate)

    params = [nnx.split(block)[1] for block in blocks]
    stack = lambda *leaves: jnp.stack(leaves)  # noqa: E731
    inputs = jnp.arange(number), jax.tree.map(stack, *params), jax.tree.map(stack, *states)
    x, (layers, gates) = jax.lax.scan(turn, x, inputs)
    return x, tuple(jax.tree.map(lambda leaf, i=i: leaf[i], layers) for i in range(number)), tuple(gates)


def memory_stats(blocks, layers: tuple[LayerState, ...], gates) -> dict[str, Array]:
    """Measurements after a call, one row for each layer that owns a memory: fusion gates and the memory's stats."""
    owners = [i for i, block in enumerate(blocks) if not isinstance(block.memory_layer, NoMemoryLayer)]
    if not owners:
        return {}
    stats = [blocks[i].memory_layer.memory.stats(layers[i].memory.memory) for i in owners]
    stats = jax.tree.map(lambda *layers: jnp.stack(layers), *stats)
    return {"fusion_gate": jnp.stack([jnp.mean(gates[i]) for i in owners])} | stats
