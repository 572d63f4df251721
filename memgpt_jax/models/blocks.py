"""The transformer block of all models: attention, memory, feed-forward."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from memgpt_jax.config.model import ModelConfig, StackConfig
from memgpt_jax.memory.streaming import StreamAlignment
from memgpt_jax.models.attention import Attention, CallInputs, FullAttention, SelfAttention
from memgpt_jax.models.cross_attention import CrossAttention
from memgpt_jax.models.layers import FeedForward, dropout, make_norm
from memgpt_jax.models.memory_layer import MemoryLayer, NoMemoryLayer, make_memory_layer
from memgpt_jax.models.shared_softmax import SharedSoftmaxMemory
from memgpt_jax.ops.mesh import split_rows
from memgpt_jax.shapes import Array, Flags, Float32, Stream


class LayerState(NamedTuple):
    """The state of one block."""

    window: Any
    """A `WindowCache`; () where attention has no state."""
    stream: Any
    """A `StreamState`: the memory, and the tokens of the incomplete segment; () without a memory."""
    source: Any = ()
    """A `SourceCache`; () without a source."""


class Block(nnx.Module):
    """A block of attention, memory and feed-forward; `norm_position` is the place of its normalisations.

    pre:   h = x + Attention(norm(x));   f, memory' = MemoryLayer(h, memory);   y = f + FeedForward(norm(f))
    post:  h = norm(x + Attention(x));   f, memory' = MemoryLayer(h, memory);   y = norm(f + FeedForward(f))
    parallel:  n = norm(x);  f, memory' = Fusion(x, n, Read(memory, n)), Write(memory, n)
               y = f + Attention(n) + FeedForward(n)          (Chowdhery et al., "PaLM", 2022, section 2)

    With fusion `attention`, memory entries and window tokens share one softmax, and f = h, or with `parallel` f = x.

    With a source, h is replaced by h + CrossAttention(norm(h), source), or norm(h + CrossAttention(h, source)); with
    `parallel`, CrossAttention(n, source) is added to y. The source is the same for all documents of a row.
    """

    def __init__(self, config: StackConfig, layer: int, rngs: nnx.Rngs, attention: type[Attention] | None = None):
        """Args: attention: the class of self-attention; default: by `config.causal`, in a window or full."""
        self.config = config
        self.attention_norm = make_norm(config, config.d_model, rngs)
        attention = attention or (SelfAttention if config.causal else FullAttention)
        self.attention = attention(config, rngs)
        self.parallel = config.norm_position == "parallel"
        if isinstance(config, ModelConfig) and config.attends_to_source:
            if not self.parallel:
                self.cross_attention_norm = make_norm(config, config.d_model, rngs)
            self.cross_attention = CrossAttention(config, rngs)
        has_memory = config.layer_has_memory(layer)
        self.memory_layer: SharedSoftmaxMemory | MemoryLayer | NoMemoryLayer
        if has_memory and config.shares_softmax:
            self.memory_layer = SharedSoftmaxMemory(config, rngs)
        else:
            self.memory_layer = (
                make_memory_layer(**vars(config.memory_layer), normalises=not self.parallel, rngs=rngs)
                if has_memory
                else NoMemoryLayer()
            )
        if not self.parallel:
            self.feed_forward_norm = make_norm(config, config.d_model, rngs)
        self.feed_forward = FeedForward(config, rngs)

    def attention_input(self, x: Stream) -> Stream:
        """What self-attention reads of the stream before the block."""
        return x if self.config.norm_position == "post" else self.attention_norm(x)

    def init_state(self, batch_size: int) -> LayerState:
        """An empty window, an empty memory and no source."""
        source = self.cross_attention.init_state(batch_size) if self.config.attends_to_source else ()
        return LayerState(self.attention.init_state(batch_size), self.memory_layer.init_state(batch_size), source)

    def __call__(
        self,
        x: Stream,
        state: LayerState,
        inputs: CallInputs,
        alignment: StreamAlignment,
        dropout_key: Array | None,
    ) -> tuple[Stream, LayerState, Float32[Array, "B L"]]:
        """The output stream, the state after the call, and the mean fusion gate of each token."""
        normed = self.attention_input(x)
        shared: Any = None  # the memory's state and gate, if the memory is part of attention
        if isinstance(self.memory_layer, SharedSoftmaxMemory):
            assert isinstance(self.attention, SelfAttention)
            window_inputs = self.memory_layer.window_inputs(inputs, state.stream)
            out, lse, window = self.attention.attend_with_lse(normed, state.window, window_inputs)
            out, *shared = self.memory_layer(out, lse, normed, state.stream, inputs, alignment)
            attended = self.attention.project_out(out)
        else:
            attended, window = self.attention(normed, state.window, inputs)
        if self.parallel:
            y, memory, gate = self.beside_attention(x, normed, attended, state, inputs, alignment, dropout_key)
        else:
            y, memory, gate = self.after_attention(x, attended, state, inputs, alignment, dropout_key)
        if shared is not None:
            memory, gate = shared
        return y, LayerState(window, memory, state.source), gate

    def beside_attention(
        self,
        x: Stream,
        normed: Stream,
        attended: Stream,
        state: LayerState,
        inputs: CallInputs,
        alignment: StreamAlignment,
        dropout_key: Array | None,
    ) -> tuple[Stream, Any, Any]:
        """The sum of a `parallel` block, whose self-attention gave `attended`; returns what `after_attention` does."""
        rate = self.config.dropout
        keys = (None,) * 4 if dropout_key is None else jax.random.split(dropout_key, 4)
        y, memory, gate = x, None, None
        if not isinstance(self.memory_layer, SharedSoftmaxMemory):
            y, memory, gate = self.memory_layer.with_gate(
                x, state.stream, inputs.reset, inputs.valid, alignment, normed=normed, dropout_key=keys[1]
            )
        y = y + dropout(attended, rate, keys[0]) + dropout(self.feed_forward(normed), rate, keys[2])
        if self.config.attends_to_source:
            y = y + dropout(self.cross_attention(normed, state.source), rate, keys[3])
        return y, memory, gate

    def after_attention(
        self,
        x: Stream,
        attended: Stream,
        state: LayerState,
        inputs: CallInputs,
        alignment: StreamAlignment,
        dropout_key: Array | None,
    ) -> tuple[Stream, Any, Any]:
        """The rest of the block after self-attention, whose output is `attended`.

        Returns (y, the state of the memory layer, the mean fusion gate of each token); with fusion `attention`, the
        last two are None.
        """
        rate = self.config.dropout
        keys = (None,) * 4 if dropout_key is None else jax.random.split(dropout_key, 4)
        pre = self.config.norm_position == "pre"
        h = self.add_attention(x, attended, state, (keys[0], keys[3]))
        f, memory, gate = h, None, None
        if not isinstance(self.memory_layer, SharedSoftmaxMemory):
            f, memory, gate = self.memory_layer.with_gate(
                h, state.stream, inputs.reset, inputs.valid, alignment, dropout_key=keys[1]
            )
        y = f + dropout(self.feed_forward(self.feed_forward_norm(f) if pre else f), rate, keys[2])
        return y if pre else self.feed_forward_norm(y), memory, gate

    def add_attention(
        self, x: Stream, attended: Stream, state: LayerState, keys: tuple[Array | None, Array | None]
    ) -> Stream:
        """h: the stream after self-attention, whose output is `attended`, and cross-attention.

        keys: of the dropout of the two; None: no dropout.
        """
        rate, pre = self.config.dropout, self.config.norm_position == "pre"
        h = x + dropout(attended, rate, keys[0])
        h = h if pre else self.attention_norm(h)
        if self.config.attends_to_source:
            attended = self.cross_attention(self.cross_attention_norm(h) if pre else h, state.source)
            h = h + dropout(attended, rate, keys[1])
            h = h if pre else self.cross_attention_norm(h)
        return h


def _call(
    block: Block, x: Any, state: LayerState, inputs: CallInputs, alignment: StreamAlignment, dropout_key: Array | None
) -> tuple[Any, LayerState, Array]:
    return block(split_rows(x), state, inputs, alignment, dropout_key)


ALIGNMENT_ARGUMENT = 4
"""Index of the static argument `alignment` of `_call`."""
CALLS = {
    "none": _call,
    "block": nnx.remat(_call, static_argnums=(ALIGNMENT_ARGUMENT,)),
    "dots": nnx.remat(
        _call,
        static_argnums=(ALIGNMENT_ARGUMENT,),
        policy=jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    ),
}
"""The function that calls a block, for each value of `StackConfig.remat`."""


class BlocksRun(NamedTuple):
    """What a call of the blocks gives."""

    stream: Any
    """After the last block."""
    layers: tuple[LayerState, ...]
    gates: tuple[Float32[Array, "B L"], ...]
    """The mean fusion gate of each token in each block."""
    last_input: Any
    """The stream before the last block."""


def run_blocks(
    blocks: Sequence[Block],
    x: Any,
    states: tuple[LayerState, ...],
    inputs: CallInputs,
    *,
    alignment: StreamAlignment,
    dropout_key: Array | None,
    scanned: bool,
) -> BlocksRun:
    """Run the blocks one after the other.

    Args:
        x: the stream [B, L, D]; for `TwoStreamBlock`, a pair of streams.
        scanned: whether the blocks run as one loop (`StackConfig.scan_layers`).
    """
    run = _scanned if scanned and blocks else _unrolled
    found = run(blocks, x, states, inputs, alignment, dropout_key)
    return found._replace(stream=split_rows(found.stream))


def _unrolled(
    blocks: Sequence[Block],
    x: Any,
    states: tuple[LayerState, ...],
    inputs: CallInputs,
    alignment: StreamAlignment,
    dropout_key: Array | None,
) -> BlocksRun:
    layers, gates, before = [], [], x
    for index, (block, state) in enumerate(zip(blocks, states, strict=True)):
        key = None if dropout_key is None else jax.random.fold_in(dropout_key, index)
        before = x
        x, state, gate = CALLS[block.config.remat](block, x, state, inputs, alignment, key)
        layers.append(state)
        gates.append(gate)
    return BlocksRun(x, tuple(layers), tuple(gates), before)


def _scanned(
    blocks: Sequence[Block],
    x: Any,
    states: tuple[LayerState, ...],
    inputs: CallInputs,
    alignment: StreamAlignment,
    dropout_key: Array | None,
) -> BlocksRun:
    """`_unrolled` as one loop.

    Parameters and states are stacked inside; arguments and results have one array per layer."""
    number, (structure, _) = len(blocks), nnx.split(blocks[0])

    def step(carried: tuple[Any, Any], layer: tuple[Array, Any, LayerState]) -> Any:
        (x, _), (index, params, state) = carried, layer
        key = None if dropout_key is None else jax.random.fold_in(dropout_key, index)
        block = nnx.merge(structure, params)
        y, state, gate = CALLS[block.config.remat](block, x, state, inputs, alignment, key)
        return (y, x), (state, gate)

    def stacked(trees: Sequence[Any]) -> Any:
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)

    params = [nnx.split(block)[1] for block in blocks]
    (x, before), (layers, gates) = jax.lax.scan(step, (x, x), (jnp.arange(number), stacked(params), stacked(states)))
    of_layers = tuple(jax.tree.map(lambda leaf, i=i: leaf[i], layers) for i in range(number))
    return BlocksRun(x, of_layers, tuple(gates), before)


def memory_stats(
    blocks: Sequence[Block],
    layers: tuple[LayerState, ...],
    gates: Sequence[Float32[Array, "B L"]],
    valid: Flags | None = None,
) -> dict[str, Array]:
    """Mean fusion gates of the valid tokens and memory statistics after a call, one row per layer with a memory."""
    owners = [i for i, block in enumerate(blocks) if not isinstance(block.memory_layer, NoMemoryLayer)]
    if not owners:
        return {}
    owned: list[Any] = [blocks[i].memory_layer for i in owners]
    stats = [layer.memory.stats(layers[i].stream.memory) for i, layer in zip(owners, owned, strict=True)]
    stats = jax.tree.map(lambda *layers: jnp.stack(layers), *stats)
    return {"fusion_gate": jnp.stack([jnp.mean(gates[i], where=valid) for i in owners])} | stats
