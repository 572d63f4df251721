"""MemGPT: a GPT decoder whose layers own a memory."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from memgpt_jax.config import ModelConfig
from memgpt_jax.config_memory import NoMemoryConfig
from memgpt_jax.memory.stream import Promise, StreamState
from memgpt_jax.models.layers import FeedForward, SelfAttention, WindowCache, dropout, filled_flags, linear, norm
from memgpt_jax.models.memory_layer import MemoryLayer, make_memory_layer
from memgpt_jax.ops import Scores, cross_entropy, document_positions, flat_dot_general, sinusoidal, take
from memgpt_jax.shapes import Array, Flags, Float, Float32, Int32, Rows, Stream, Tokens

Params = Any  # nested dictionaries of float32 arrays


class LayerState(NamedTuple):
    """What one block carries from call to call."""

    window: WindowCache
    memory: StreamState | tuple[()]


class ModelState(NamedTuple):
    """Everything that a model carries from call to call; every array has the batch axis first."""

    layers: tuple[LayerState, ...]
    position: Rows  # tokens since the open document began


class Block(nnx.Module):
    """One decoder block.

    h = x + SelfAttention(norm(x));   f, memory' = MemoryLayer(h, memory);   y = f + FeedForward(norm(f))
    """

    def __init__(self, config: ModelConfig, layer: int, rngs: nnx.Rngs):
        self.config = config
        self.attention_norm = norm(config, config.d_model, rngs)
        self.attention = SelfAttention(config, rngs)
        self.memory_layer = make_memory_layer(
            config.memory if config.layer_has_memory(layer) else NoMemoryConfig(),
            d_model=config.d_model,
            segment_length=config.segment_length,
            num_heads=config.num_heads,
            fusion=config.fusion,
            fusion_bias=config.fusion_bias,
            norm=config.norm,
            dropout=config.dropout,
            dtype=config.dtype,
            rngs=rngs,
        )
        self.feed_forward_norm = norm(config, config.d_model, rngs)
        self.feed_forward = FeedForward(config, rngs)

    def init_state(self, batch_size: int) -> LayerState:
        """An empty window and an empty memory."""
        return LayerState(self.attention.init_state(batch_size), self.memory_layer.init_state(batch_size))

    def __call__(
        self, x: Stream, state: LayerState, positions, reset: Flags, valid: Flags, promise: Promise, dropout_key
    ) -> tuple[Stream, LayerState, Float32[Array, "B L"]]:
        """The stream, the state, and the mean fusion gate of each token."""
        rate = self.config.dropout
        keys = (None,) * 3 if dropout_key is None else jax.random.split(dropout_key, 3)
        attended, window = self.attention(self.attention_norm(x), state.window, positions, reset, valid)
        h = x + dropout(attended, rate, keys[0])
        f, memory, gate = self.memory_layer.with_gate(h, state.memory, reset, valid, promise, keys[1])
        y = f + dropout(self.feed_forward(self.feed_forward_norm(f)), rate, keys[2])
        return y, LayerState(window, memory), gate


class MemGPT(nnx.Module):
    """A decoder that reads a stream in calls of any length and remembers.

    Holds parameters only. `logits, state = model(tokens, state)`: any way of cutting a stream into calls gives the
    same logits and the same state.
    """

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.config = config
        normal = jax.nn.initializers.normal(config.d_model**-0.5)
        self.embedding = nnx.Param(normal(rngs.params(), (config.vocab_size, config.d_model)))
        if config.position == "learned":
            self.position_embedding = nnx.Param(normal(rngs.params(), (config.num_positions, config.d_model)))
        self.blocks = nnx.List([Block(config, layer, rngs) for layer in range(config.num_layers)])
        self.final_norm = norm(config, config.d_model, rngs)
        if not config.tie_embeddings:
            self.output = linear(config, config.d_model, config.vocab_size, rngs)

    def init_state(self, batch_size: int) -> ModelState:
        """The state before the first token. It holds no parameters."""
        layers = tuple(block.init_state(batch_size) for block in self.blocks)
        return ModelState(layers, jnp.zeros(batch_size, jnp.int32))

    def __call__(
        self,
        tokens: Tokens,
        state: ModelState,
        reset: Flags | None = None,
        valid: Flags | None = None,
        *,
        aligned: bool = False,
        inside: bool = False,
        dropout_key: Array | None = None,
    ) -> tuple[Float32[Array, "B L V"], ModelState]:
        """Logits of each next token, and the state after the call; any L >= 1.

        reset: a new document begins with this token: nothing from before it is visible to it or after it.
        valid: False marks trailing padding, which reads nothing, writes nothing and moves nothing.
        aligned: the caller's promise that each row stands at a segment boundary, that the segment length divides L
            and that every token is valid; faster. A broken promise gives NaN.
        inside: the promise that the one token of each row neither begins a stream or document nor fills a segment.
        dropout_key: a PRNG key; dropout acts only when it is given.
        """
        x, state, _ = self.hidden(tokens, state, reset, valid, aligned=aligned, inside=inside, dropout_key=dropout_key)
        logits = flat_dot_general(x, self.output_embedding().T, (((2,), (0,)), ((), ())))
        return logits.astype(jnp.float32), state

    def hidden(
        self,
        tokens: Tokens,
        state: ModelState,
        reset=None,
        valid=None,
        *,
        aligned=False,
        inside=False,
        dropout_key=None,
    ) -> tuple[Stream, ModelState, tuple[Float32[Array, "B L"], ...]]:
        """The normalised last hidden states, the state, and each layer's mean fusion gates."""
        check_call(self.config, tokens, state)
        reset, valid = filled_flags(tokens.shape, reset, valid)
        positions = document_positions(state.position, reset)
        promise = "aligned" if aligned else "inside" if inside else None
        x = self._embed(tokens, positions)
        run = _scanned if self.config.scan_layers and tokens.shape[1] > 1 else _unrolled
        x, layers, gates = run(self.blocks, x, state.layers, (positions, reset, valid, promise), dropout_key)
        last = jnp.sum(valid, axis=1, dtype=jnp.int32)[:, None] - 1
        after = jnp.take_along_axis(positions, jnp.maximum(last, 0), axis=1)[:, 0] + 1
        position = jnp.where(last[:, 0] >= 0, after, state.position)
        return self.final_norm(x), ModelState(layers, position), gates

    def next_logits(
        self, tokens: Tokens, state: ModelState, reset=None, valid=None, **options
    ) -> tuple[Float32[Array, "B V"], ModelState]:
        """Logits after the last valid token of each row, and the state: `__call__` without the logits in between."""
        x, state, _ = self.hidden(tokens, state, reset, valid, **options)
        tokens_read = (
            jnp.full(x.shape[0], x.shape[1], jnp.int32) if valid is None else jnp.sum(valid, axis=1, dtype=jnp.int32)
        )
        x = take(x, jnp.maximum(tokens_read - 1, 0)[:, None])[:, 0]
        return (x @ self.output_embedding().T).astype(jnp.float32), state

    def generate(self, prompt, **options):
        """`memgpt_jax.generate` with this model."""
        from memgpt_jax.generation import generate  # against the order of the layers, for the user's convenience

        return generate(self, prompt, **options)

    def _embed(self, tokens: Tokens, positions: Int32[Array, "B L"]) -> Stream:
        """Embeddings enter the stream at unit RMS: with smaller ones the memory does not learn to bind."""
        config = self.config
        x = self.embedding[...][tokens] * jnp.float32(config.d_model**0.5)
        if config.position == "learned":
            table = self.position_embedding[...] * jnp.float32(config.d_model**0.5)
            x = x + table[positions % config.num_positions]
        elif config.position == "sinusoidal":
            x = x + sinusoidal(positions, config.d_model, config.rotary_base)
        return x.astype(config.dtype)

    def output_embedding(self) -> Float[Array, "V D"]:
        """What hidden states are multiplied with, in the compute type."""
        weights = self.embedding[...] if self.config.tie_embeddings else self.output.kernel[...].T
        return weights.astype(self.config.dtype)

    def score(
        self, tokens: Tokens, targets: Tokens, state: ModelState, reset=None, valid=None, **options
    ) -> tuple[Scores, ModelState]:
        """Loss in nats and correctness of each target, without the logits of the whole call in memory."""
        x, state, _ = self.hidden(tokens, state, reset, valid, **options)
        return cross_entropy(x, self.output_embedding(), targets), state

    def diagnostics(self, tokens: Tokens, state: ModelState, reset=None, *, aligned=False) -> dict[str, Array]:
        """Measurements of a call, one row for each layer that owns a memory: fusion gates and the memory's stats."""
        _, state, gates = self.hidden(tokens, state, reset, aligned=aligned)
        owners = [i for i, block in enumerate(self.blocks) if isinstance(block.memory_layer, MemoryLayer)]
        if not owners:
            return {}
        stats = [self.blocks[i].memory_layer.memory.stats(state.layers[i].memory.memory) for i in owners]
        stats = jax.tree.map(lambda *layers: jnp.stack(layers), *stats)
        return {"fusion_gate": jnp.stack([jnp.mean(gates[i]) for i in owners])} | stats


CALLS = {
    "none": Block.__call__,
    "block": nnx.remat(Block.__call__, static_argnums=(6,)),
    "dots": nnx.remat(
        Block.__call__, static_argnums=(6,), policy=jax.checkpoint_policies.dots_with_no_batch_dims_saveable
    ),
}
"""How a block is called, by `ModelConfig.remat`."""


def _unrolled(blocks, x, states, arguments, dropout_key):
    """The blocks one after the other: the stream, and each one's state and gates."""
    layers, gates = [], []
    for index, (block, state) in enumerate(zip(blocks, states, strict=True)):
        key = None if dropout_key is None else jax.random.fold_in(dropout_key, index)
        x, state, gate = CALLS[block.config.remat](block, x, state, *arguments, key)
        layers.append(state)
        gates.append(gate)
    return x, tuple(layers), tuple(gates)


def _scanned(blocks, x, states, arguments, dropout_key):
    """`_unrolled` as one loop. Parameters and states are stacked here, so that outside of it their layout is one."""
    number, (structure, _) = len(blocks), nnx.split(blocks[0])

    def turn(x, inputs):
        index, params, state = inputs
        key = None if dropout_key is None else jax.random.fold_in(dropout_key, index)
        block = nnx.merge(structure, params)
        x, state, gate = CALLS[block.config.remat](block, x, state, *arguments, key)
        return x, (state, gate)

    params = [nnx.split(block)[1] for block in blocks]
    stack = lambda *leaves: jnp.stack(leaves)  # noqa: E731
    inputs = jnp.arange(number), jax.tree.map(stack, *params), jax.tree.map(stack, *states)
    x, (layers, gates) = jax.lax.scan(turn, x, inputs)
    return x, tuple(jax.tree.map(lambda leaf, i=i: leaf[i], layers) for i in range(number)), tuple(gates)


def check_call(config: ModelConfig, tokens, state) -> None:
    """Raise `ValueError` where the arguments of a call do not fit the model or each other."""
    if tokens.ndim != 2 or tokens.shape[1] < 1 or not jnp.issubdtype(tokens.dtype, jnp.integer):
        raise ValueError(f"tokens must be integers [B, L] with L >= 1, got {tokens.dtype}{list(tokens.shape)}")
    if not isinstance(state, ModelState) or len(state.layers) != config.num_layers:
        raise ValueError(f"state must be a ModelState of {config.num_layers} layers: use init_state(batch_size)")
    if state.position.shape[0] != tokens.shape[0]:
        raise ValueError(f"state has {state.position.shape[0]} rows, tokens have {tokens.shape[0]}")


@functools.lru_cache(maxsize=256)
def graph(config: ModelConfig) -> nnx.GraphDef:
    """The structure of a model, without arrays."""
    return nnx.split(abstract_model(config), nnx.Param)[0]


def abstract_model(config: ModelConfig) -> MemGPT:
    """A model of shapes without values: what needs no parameters can be asked of it."""
    return nnx.eval_shape(lambda: MemGPT(config, rngs=nnx.Rngs(0)))


def init(config: ModelConfig, key: Array) -> Params:
    """Fresh parameters as nested dictionaries of float32 arrays."""
    return split(MemGPT(config, rngs=nnx.Rngs(params=key)))


def split(model: MemGPT) -> Params:
    """The parameters of a module as nested dictionaries."""

    def named(tree):  # lists become dictionaries with the keys "0", "1", ...
        return {str(key): named(value) for key, value in tree.items()} if isinstance(tree, dict) else tree

    return named(nnx.to_pure_dict(nnx.state(model, nnx.Param)))


def merge(config: ModelConfig, params: Params) -> MemGPT:
    """The module with the given parameters; `split` undone."""
    return nnx.merge(graph(config), nnx.restore_int_paths(params))


def init_state(config: ModelConfig, batch_size: int) -> ModelState:
    """The state before the first token: `MemGPT.init_state` without a model."""
    return abstract_model(config).init_state(batch_size)


def apply(
    config: ModelConfig, params: Params, tokens: Tokens, state: ModelState, reset=None, valid=None, **options
) -> tuple[Float32[Array, "B L V"], ModelState]:
    """`MemGPT.__call__` as a pure function of plain pytrees."""
    return merge(config, params)(tokens, state, reset, valid, **options)


def score_tokens(
    config: ModelConfig, params: Params, tokens: Tokens, targets: Tokens, state: ModelState, **options
) -> tuple[Scores, ModelState]:
    """`MemGPT.score` as a pure function of plain pytrees."""
    return merge(config, params).score(tokens, targets, state, **options)


def diagnostics(config: ModelConfig, params: Params, tokens: Tokens, state: ModelState, reset=None, **options) -> dict:
    """`MemGPT.diagnostics` as a pure function of plain pytrees."""
    return merge(config, params).diagnostics(tokens, state, reset, **options)
