"""MemGPT: a GPT decoder whose layers have a memory."""

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from memgpt_jax.config.checks import instance_of
from memgpt_jax.config.memory import Alignment
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.memory import resolved
from memgpt_jax.memory.base import Memory
from memgpt_jax.memory.linear import linear
from memgpt_jax.memory.streaming import StreamState, begin, write_full
from memgpt_jax.models.arguments import (
    check_context,
    check_stream,
    check_targets,
    check_tokens,
    filled_flags,
    nan_where_invalid,
    on_host,
    padding_leads,
)
from memgpt_jax.models.attention import call_inputs
from memgpt_jax.models.base import Hidden, Model
from memgpt_jax.models.blocks import Block, LayerState, run_blocks
from memgpt_jax.models.features import make_features, read_features
from memgpt_jax.models.layers import make_norm
from memgpt_jax.models.memory_layer import NoMemoryLayer
from memgpt_jax.ops import Scores, cross_entropy
from memgpt_jax.ops.attention import relative_bias
from memgpt_jax.ops.attention.positions import document_positions, sinusoidal
from memgpt_jax.ops.linear import matmul
from memgpt_jax.ops.memory import gather_entries
from memgpt_jax.ops.mesh import split_vocabulary
from memgpt_jax.ops.quantized import StoredMatrix
from memgpt_jax.shapes import Array, Flags, Float, Float32, Int32, Rows, Stream, Targets, Tokens


class ModelState(NamedTuple):
    """The state of a decoder; every array has the batch axis first."""

    layers: tuple[LayerState, ...]
    position: Rows  # number of tokens of the open document so far
    features: Any = ()  # the last raw features, with `ModelConfig.features`


class MemGPT(Model[ModelState]):
    """A decoder whose layers have a memory. It reads a stream of tokens in calls of any length.

        logits, state = model(tokens)         # a new stream
        logits, state = model(tokens, state)  # its continuation

    The logits and the final state do not depend on how a stream is divided into calls.
    """

    decayed: ClassVar[tuple[str, ...]] = ("embedding", "position_embedding", "relative_embedding")

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        instance_of(rngs, nnx.Rngs, "rngs")
        self.config = config = resolved(config)
        normal = jax.nn.initializers.normal(config.d_model**-0.5, jnp.float32)
        self.embedding = nnx.Param(normal(rngs.params(), (config.vocab_size, config.d_model)))
        if config.position == "learned":
            self.position_embedding = nnx.Param(normal(rngs.params(), (config.num_positions, config.d_model)))
        if config.position == "relative":
            self.relative_embedding = nnx.Param(normal(rngs.params(), (config.relative_buckets, config.num_heads)))
        self.blocks = nnx.List([Block(config, layer, rngs) for layer in range(config.num_layers)])
        self.final_norm = make_norm(config, config.d_model, rngs) if config.num_layers else None
        if not config.tie_embeddings:
            dtype = jnp.dtype(config.dtype)
            self.output = linear(config.d_model, config.vocab_size, use_bias=False, dtype=dtype, rngs=rngs)
        self.features = make_features(config, rngs)

    def init_state(self, batch_size: int) -> ModelState:
        """The state before the first token. It holds no parameters."""
        layers = tuple(block.init_state(batch_size) for block in self.blocks)
        features = () if self.features is None else self.features.init_state(batch_size)
        return ModelState(layers, jnp.zeros(batch_size, jnp.int32), features)

    def state_or_initial(self, state: ModelState | None, rows: int) -> ModelState:
        layers = self.config.num_layers
        if state is not None and (not isinstance(state, ModelState) or len(state.layers) != layers):
            raise ValueError(f"state must be a ModelState of {layers} layers: use init_state(batch_size)")
        return super().state_or_initial(state, rows)

    def __call__(
        self,
        tokens: Tokens,
        state: ModelState | None = None,
        reset: Flags | None = None,
        valid: Flags | None = None,
        *,
        features: Float32[Array, "B L F"] | None = None,
        alignment: Alignment = "any",
        dropout_key: Array | None = None,
    ) -> tuple[Float32[Array, "B L V"], ModelState]:
        """Logits of each next token, and the state after the call.

        Args:
            tokens: ids, any L >= 1.
            state: the state after the previous call; default: a new stream (`init_state`).
            reset: True for the first token of a document, which starts with an empty window and memory; default: False.
            valid: False for padding on the right, which does not change the state; default: all True.
            features: raw features of each token, with `ModelConfig.features`.
            alignment: a guarantee that makes the call faster; if it does not hold, the result is NaN.
                `any`: no guarantee. `aligned`: each row is at a segment boundary, the segment length divides L, and all
                tokens are valid. `mid_segment`: no token is the first of a stream or document or the last of a segment.
                `unwritten`: L = 1, and no token is the first of a stream or document; the segments that they fill are
                not written, and `write_full` does it before the next call.
            dropout_key: a PRNG key; default: no dropout.

        Raises:
            ValueError: an argument has a wrong shape or type; or, if values are on the host, an id is not in the
                vocabulary, padding is not on the right, or a token is beyond the table of learned positions. If values
                are traced, the row gives NaN from that token on, or from an earlier one.
        """
        options: dict[str, Any] = {"features": features, "alignment": alignment, "dropout_key": dropout_key}
        x, state, *_ = self.hidden(tokens, state, reset, valid, **options)
        return self.logits(x), state

    def hidden(
        self,
        tokens: Tokens,
        state: ModelState | None = None,
        reset: Flags | None = None,
        valid: Flags | None = None,
        *,
        features: Float32[Array, "B L F"] | None = None,
        alignment: Alignment = "any",
        dropout_key: Array | None = None,
    ) -> Hidden[ModelState]:
        """The last hidden states, normalised and multiplied by `logit_scale`. Arguments and errors as in `__call__`."""
        tokens = check_tokens(tokens, self.config.vocab_size, valid)
        state = self.state_or_initial(state, len(tokens))
        reset, valid = filled_flags(tokens.shape, reset, valid)
        positions = document_positions(state.position, reset)
        check_context(self.config, positions, valid)
        x = self.embed(tokens, positions, valid)
        added, after = read_features(self.features, features, tokens, state.features, reset, valid)
        x = x if added is None else x + added.astype(x.dtype)
        x, state = nan_where_invalid(x, tokens, self.config.vocab_size, valid), state._replace(features=after)
        return self._run(x, state, positions, reset, valid, alignment=alignment, dropout_key=dropout_key)

    def run(
        self,
        x: Stream,
        state: ModelState | None = None,
        reset: Flags | None = None,
        valid: Flags | None = None,
        *,
        alignment: Alignment = "any",
        dropout_key: Array | None = None,
    ) -> Hidden[ModelState]:
        """`hidden` of embeddings x [B, L, D] in place of tokens: `run(embed(tokens))` equals `hidden(tokens)`.

        Raises `ValueError` if an argument has a wrong shape or type, or padding is not on the right; inside `jit`, rows
        with such padding give NaN.
        """
        check_stream(self.config, x, "x")
        state = self.state_or_initial(state, len(x))
        reset, valid = filled_flags(x.shape[:2], reset, valid)
        positions = document_positions(state.position, reset)
        check_context(self.config, positions, valid)
        x = jnp.where(padding_leads(valid)[:, None, None], jnp.nan, x.astype(self.config.dtype))
        return self._run(x, state, positions, reset, valid, alignment=alignment, dropout_key=dropout_key)

    def _run(
        self,
        x: Stream,
        state: ModelState,
        positions: Int32[Array, "B L"],
        reset: Flags,
        valid: Flags,
        *,
        alignment: Alignment,
        dropout_key: Array | None,
    ) -> Hidden[ModelState]:
        """`run` with checked arguments."""
        found = run_blocks(
            self.blocks,
            x,
            state.layers,
            call_inputs(reset, valid, positions=positions, distance_bias=self.distance_bias()),
            alignment=alignment,
            dropout_key=dropout_key,
            scanned=self.config.scan_layers and x.shape[1] > 1,
        )
        last = jnp.sum(valid, axis=1, dtype=jnp.int32)[:, None] - 1
        after = jnp.take_along_axis(positions, jnp.maximum(last, 0), axis=1)[:, 0] + 1
        position = jnp.where(last[:, 0] >= 0, after, state.position)
        state = state._replace(layers=found.layers, position=position)
        return Hidden(self.normalize_output(found.stream), state, found.gates, found.last_input)

    def normalize_output(self, x: Stream) -> Stream:
        """The last hidden states of the stream after the last block: normalised, times `logit_scale`."""
        x = x if self.final_norm is None else self.final_norm(x)
        if self.config.logit_scale != 1.0:
            x = (x.astype(jnp.float32) * self.config.logit_scale).astype(x.dtype)
        return x

    def next_logits(
        self,
        tokens: Tokens,
        state: ModelState | None = None,
        reset: Flags | None = None,
        valid: Flags | None = None,
        **options: Any,
    ) -> tuple[Float32[Array, "B V"], ModelState]:
        """Logits after the last valid token of each row, and the state after the call; arguments as in `__call__`."""
        x, state, *_ = self.hidden(tokens, state, reset, valid, **options)
        tokens_read = (
            jnp.full(x.shape[0], x.shape[1], jnp.int32) if valid is None else jnp.sum(valid, axis=1, dtype=jnp.int32)
        )
        x = gather_entries(x, jnp.maximum(tokens_read - 1, 0)[:, None])[:, 0]
        return self.logits(x), state

    def begin(self, state: ModelState) -> ModelState:
        """The state with initial memories in rows without a token, which the alignment `unwritten` expects."""
        return self._with_streams(state, begin)

    def write_full(self, state: ModelState) -> ModelState:
        """The state after the segments that tokens of the alignment `unwritten` have filled have been written."""
        return self._with_streams(state, write_full)

    def _with_streams(self, state: ModelState, change: Callable[[Memory[Any], StreamState], StreamState]) -> ModelState:
        layers: list[LayerState] = []
        for block, layer in zip(self.blocks, state.layers, strict=True):
            if not isinstance(block.memory_layer, NoMemoryLayer):
                layer = layer._replace(stream=change(block.memory_layer.memory, layer.stream))
            layers.append(layer)
        return state._replace(layers=tuple(layers))

    def embed(self, tokens: Tokens, positions: Int32[Array, "B L"] | None = None, valid: Flags | None = None) -> Stream:
        """The embeddings of tokens and positions, multiplied by `embedding_scale`: the input of `run`.

        The default scale gives embeddings of unit RMS: with smaller ones the memory does not learn to bind.

        Args:
            tokens: ids, which are not checked.
            positions: position of each token in its document; default: 0, 1, 2, ...
            valid: False for padding, whose positions are not checked; default: all True.

        Raises:
            ValueError: a position is beyond the table of learned positions; inside `jit`, its embedding is NaN.
        """
        if positions is None:
            positions = jnp.broadcast_to(jnp.arange(tokens.shape[1], dtype=jnp.int32)[None], tokens.shape)
        config, scale = self.config, jnp.float32(self.config.stream_scale)
        x = split_vocabulary(self.embedding[...])[tokens] * scale
        if config.position == "learned":
            beyond = positions >= config.num_positions
            beyond = beyond if valid is None else valid & beyond
            if (found := on_host(beyond)) is not None and found.any():
                raise ValueError(
                    f"position {np.asarray(positions)[found].max()} of a document exceeds the learned positions 0 to "
                    f"{config.num_positions - 1} (num_positions={config.num_positions}): use shorter documents"
                )
            x = x + jnp.where(beyond[..., None], jnp.nan, jnp.asarray(self.position_embedding[...])[positions]) * scale
        elif config.position == "sinusoidal":
            x = x + sinusoidal(positions, config.d_model, config.rotary_base)
        return x.astype(config.dtype)

    def distance_bias(self) -> Float32[Array, "H W"] | None:
        """Bias of attention logits for each head and each distance in the window."""
        config = self.config
        if config.position != "relative":
            return None
        distance = np.arange(config.window_size)
        return relative_bias(self.relative_embedding[...], distance, config.relative_max_distance, causal=True)

    def output_embedding(self) -> Float[Array, "V D"] | StoredMatrix:
        """Output projection: logits are its product with hidden states; in the compute type, or a `StoredMatrix`."""
        weights = self.embedding[...] if self.config.tie_embeddings else self.output.kernel[...]
        if isinstance(weights, StoredMatrix):  # also of the output, stored as [V, D]
            return weights
        return (weights if self.config.tie_embeddings else weights.T).astype(self.config.dtype)

    def logits(self, x: Float[Array, "*b D"]) -> Float32[Array, "*b V"]:
        """Logits of the last hidden states."""
        weights = self.output_embedding()
        kernel = weights if isinstance(weights, StoredMatrix) else weights.T
        return matmul(x, kernel, preferred_element_type=jnp.float32)

    def score(
        self,
        tokens: Tokens,
        targets: Targets,
        state: ModelState | None = None,
        reset: Flags | None = None,
        valid: Flags | None = None,
        **options: Any,
    ) -> tuple[dict[str, Scores], ModelState]:
        """Loss in nats and correctness of each target, without the logits of the whole call in memory.

        Args:
            tokens: ids, any L >= 1.
            targets: {"tokens": ids [B, L]}; the scores have the same key.
            state: as in `__call__`, like the other arguments.
            reset: as in `__call__`.
            valid: as in `__call__`.
            **options: as in `__call__`.

        Raises:
            ValueError: as in `__call__`, or targets are not vocabulary ids in the shape of the tokens.
        """
        targets = check_targets(targets, tokens, {"tokens": self.config.vocab_size})
        x, state, *_ = self.hidden(tokens, state, reset, valid, **options)
        return self.score_hidden(x, targets), state

    def score_hidden(self, x: Stream, targets: Targets) -> dict[str, Scores]:
        """`score` of the last hidden states."""
        return {"tokens": cross_entropy(x, self.output_embedding(), targets["tokens"])}
