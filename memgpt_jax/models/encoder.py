"""A bidirectional encoder whose layers have a memory."""

from collections.abc import Iterable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from memgpt_jax.config.checks import check, instance_of
from memgpt_jax.config.memory import Alignment
from memgpt_jax.config.model import EncoderConfig
from memgpt_jax.memory import resolved
from memgpt_jax.models.arguments import check_numbers, check_targets, check_tokens, filled_flags, nan_where_invalid
from memgpt_jax.models.attention import CallInputs, call_inputs
from memgpt_jax.models.base import Hidden, Model
from memgpt_jax.models.blocks import Block, LayerState, run_blocks
from memgpt_jax.models.features import make_features, read_features
from memgpt_jax.models.heads import in_order, make_heads
from memgpt_jax.models.layers import dropout, make_norm
from memgpt_jax.ops import Scores
from memgpt_jax.ops.attention import relative_bias
from memgpt_jax.ops.attention.positions import document_positions, sinusoidal
from memgpt_jax.ops.mesh import split_vocabulary
from memgpt_jax.shapes import Array, Flags, Float, Float32, Int32, Stream, Targets, Tokens


class EncoderState(NamedTuple):
    """The memories of all layers, and the states of heads and features; every array has the batch axis first."""

    layers: tuple[LayerState, ...]
    heads: dict[str, Any]
    features: Any = ()


class Encoder(Model[EncoderState]):
    """A bidirectional encoder that reads a document in one or more calls, with a memory of the earlier calls.

    Within a call, every token attends to all tokens of its document. Earlier calls are available only through the
    memory, which is read and written segment by segment as in `MemGPT`. Positions count from the start of the call.

        state = encoder.init_state(batch_size)
        hidden, state, *_ = encoder.hidden(tokens, state)
    """

    decayed: ClassVar[tuple[str, ...]] = ("embedding", "position_embedding", "relative_embedding", "type_embedding")

    def __init__(self, config: EncoderConfig, *, rngs: nnx.Rngs, own_embedding: bool = True):
        """Args: own_embedding: whether the encoder has a token embedding; if not, it is an argument of each call.

        The embedding of the decoder says nothing about features: their tokens then have none.
        """
        instance_of(rngs, nnx.Rngs, "rngs")
        self.config = config = resolved(config)
        width = config.d_model
        normal = jax.nn.initializers.normal(width**-0.5, jnp.float32)
        self.owns_embedding = own_embedding
        if own_embedding:
            self.embedding = nnx.Param(normal(rngs.params(), (config.vocab_size, width)))
        if config.position == "learned":
            places = config.num_positions + (config.position_offset or 0)
            self.position_embedding = nnx.Param(normal(rngs.params(), (places, width)))
        if config.position == "relative":
            self.relative_embedding = nnx.Param(normal(rngs.params(), (config.relative_buckets, config.num_heads)))
        if config.token_types is not None:
            self.type_embedding = nnx.Param(normal(rngs.params(), (config.token_types, width)))
        if config.embedding_norm:
            self.embedding_norm = make_norm(config, width, rngs)
        self.blocks = nnx.List([Block(config, layer, rngs) for layer in range(config.num_layers)])
        if config.norm_position != "post":
            self.final_norm = make_norm(config, width, rngs)
        self.heads = make_heads(config, rngs=rngs)
        self.features = make_features(config, rngs)

    def init_state(self, batch_size: int) -> EncoderState:
        """Empty memories, and the heads' states before the first call. They hold no parameters."""
        heads = {name: head.init_state(batch_size) for name, head in self.heads.items()}
        features = () if self.features is None else self.features.init_state(batch_size)
        return EncoderState(tuple(block.init_state(batch_size) for block in self.blocks), heads, features)

    def hidden(
        self,
        tokens: Tokens,
        state: EncoderState | None = None,
        reset: Flags | None = None,
        valid: Flags | None = None,
        *,
        token_types: Int32[Array, "B L"] | None = None,
        features: Float32[Array, "B L F"] | None = None,
        embedding: Float32[Array, "V D"] | None = None,
        alignment: Alignment = "any",
        dropout_key: Array | None = None,
    ) -> Hidden[EncoderState]:
        """The last hidden states [B, L, D], the state after the call and the fusion gates.

        Args:
            tokens: ids, any L >= 1.
            state: the state after the previous call; default: that of `init_state`.
            reset: True for the first token of a document.
            valid: False for padding on the right, to which no token attends.
            token_types: type of each token, from 0 to `EncoderConfig.token_types` - 1; default: 0.
            features: raw features of each token, with `EncoderConfig.features`.
            embedding: token embedding; default: the encoder's own.
            alignment: as in `MemGPT.__call__`.
            dropout_key: as in `MemGPT.__call__`.

        Raises:
            ValueError: the call has more than `num_positions` tokens and positions are learned, a token type is not
                valid, or as in `MemGPT.__call__`.
        """
        keys = (None, None) if dropout_key is None else jax.random.split(dropout_key)
        inputs = {"token_types": token_types, "features": features, "embedding": embedding}
        x, state, called = self.started_call(tokens, state, reset, valid, **inputs)
        found = run_blocks(
            self.blocks,
            dropout(x, self.config.dropout, keys[0]),
            state.layers,
            called,
            alignment=alignment,
            dropout_key=keys[1],
            scanned=self.config.scan_layers,
        )
        x = found.stream if self.config.norm_position == "post" else self.final_norm(found.stream)
        return Hidden(x, state._replace(layers=found.layers), found.gates)

    def started_call(
        self,
        tokens: Tokens,
        state: EncoderState | None,
        reset: Flags | None,
        valid: Flags | None,
        *,
        token_types: Int32[Array, "B L"] | None = None,
        features: Float32[Array, "B L F"] | None = None,
        embedding: Float32[Array, "V D"] | None = None,
    ) -> tuple[Stream, EncoderState, CallInputs]:
        """What the first block of a call receives: the stream, the state, and the inputs of all blocks.

        Args and errors: as in `hidden`. In the state, that of the features is the one after the call.
        """
        config = self.config
        tokens = check_tokens(tokens, config.vocab_size, valid)
        state = self.state_or_initial(state, len(tokens))
        if config.position == "learned" and tokens.shape[1] > config.num_positions:
            raise ValueError(
                f"a call may have up to num_positions={config.num_positions} tokens, got {tokens.shape[1]}"
            )
        reset, valid = filled_flags(tokens.shape, reset, valid)
        if token_types is not None:
            check(
                config.token_types is not None,
                "token_types: this model has no token types (EncoderConfig.token_types=None)",
            )
            token_types = check_numbers("token_types", token_types, tokens.shape, config.token_types)
        positions = document_positions(jnp.zeros(tokens.shape[0], jnp.int32), reset)
        added, after = read_features(self.features, features, tokens, state.features, reset, valid)
        x = self.embed(tokens, positions, token_types, self.embedding[...] if embedding is None else embedding, added)
        x = nan_where_invalid(x, tokens, config.vocab_size, valid)
        called = call_inputs(reset, valid, positions=positions, distance_bias=self._distance_bias(tokens.shape[1]))
        if config.separate_types and token_types is not None:
            called = called._replace(document=called.document * (config.token_types or 1) + token_types)
        return x, state._replace(features=after), called

    def _distance_bias(self, length: int) -> Float32[Array, "H 2*L-1"] | None:
        """Bias of attention logits for each head and the distances from 1 - L to L - 1."""
        config = self.config
        if config.position != "relative":
            return None
        distance = np.arange(1 - length, length)
        return relative_bias(self.relative_embedding[...], distance, config.relative_max_distance, causal=False)

    def embed(
        self,
        tokens: Tokens,
        positions: Int32[Array, "B L"],
        token_types: Int32[Array, "B L"] | None,
        embedding: Float32[Array, "V D"],
        added: Stream | None = None,
    ) -> Stream:
        """The sum of the embeddings of tokens, positions and token types, normalised with `embedding_norm`.

        added: what the features add to the sum; None: nothing.
        """
        config, scale = self.config, jnp.float32(self.config.stream_scale)
        x = split_vocabulary(embedding)[tokens] * scale
        if config.features is not None and not self.owns_embedding:
            x = jnp.where(jnp.isin(tokens, jnp.array(config.features.tokens))[..., None], 0, x)
        if config.position == "learned":
            x = x + jnp.asarray(self.position_embedding[...])[positions + (config.position_offset or 0)] * scale
        elif config.position == "sinusoidal":
            x = x + sinusoidal(positions, config.d_model, config.rotary_base)
        if config.token_types is not None:
            types = jnp.zeros_like(tokens) if token_types is None else token_types
            known = ((types >= 0) & (types < config.token_types))[..., None]
            x = x + jnp.where(known, jnp.asarray(self.type_embedding[...])[types], jnp.nan) * scale
        x = x if added is None else x + added
        return self.embedding_norm(x) if config.embedding_norm else x.astype(config.dtype)

    def __call__(
        self,
        tokens: Tokens,
        state: EncoderState | None = None,
        reset: Flags | None = None,
        valid: Flags | None = None,
        **options: Any,
    ) -> tuple[Float32[Array, "B L V"], EncoderState]:
        """Logits [B, L, V] of the head `masked`, and the state after the call."""
        if "masked" not in self.config.heads:
            raise ValueError(f"this encoder has no 'masked' head (heads={self.config.heads})")
        x, state, *_ = self.hidden(tokens, state, reset, valid, **options)
        outputs, state = self._read_heads(x, ("masked",), state, reset, valid)
        return self.heads["masked"].logits(outputs["masked"], self._embedding()), state

    def score(
        self,
        tokens: Tokens,
        targets: Targets,
        state: EncoderState | None = None,
        reset: Flags | None = None,
        valid: Flags | None = None,
        **options: Any,
    ) -> tuple[dict[str, Scores], EncoderState]:
        """Loss in nats and correctness of each target, by head, without the logits of the whole call in memory.

        Args:
            tokens: ids, any L >= 1.
            targets: targets of one or more heads of the model, by name: for `masked`, the ids of the tokens [B, L]; for
                `next_sentence`, 0 if a row's second sentence follows the first, else 1, [B].
            state: as in `hidden`, like the other arguments.
            reset: as in `hidden`.
            valid: as in `hidden`.
            **options: as in `hidden`.

        Raises:
            ValueError: the model does not have a head of that name, its targets are not valid, or as in `hidden`.
        """
        classes = {name: head.num_classes for name, head in self.heads.items() if head.num_classes}
        rows = [name for name, head in self.heads.items() if head.labels_rows]
        targets = check_targets(targets, tokens, classes, rows)
        x, state, *_ = self.hidden(tokens, state, reset, valid, **options)
        outputs, state = self._read_heads(x, targets, state, reset, valid)
        return self._score_outputs(outputs, targets), state

    def score_hidden(self, x: Stream, targets: Targets) -> dict[str, Scores]:
        """`score` of the last hidden states, with heads in their initial state."""
        outputs, _ = self._read_heads(x, targets, self.init_state(len(x)))
        return self._score_outputs(outputs, targets)

    def _read_heads(
        self,
        x: Stream,
        names: Iterable[str],
        state: EncoderState,
        reset: Flags | None = None,
        valid: Flags | None = None,
    ) -> tuple[dict[str, Float[Array, "B P C"]], EncoderState]:
        """The outputs of the named heads and of the heads that they read, and the state after the call."""
        outputs, states = {}, dict(state.heads)
        for name in in_order(names):
            head = self.heads[name]
            h = x if head.reads is None else outputs[head.reads]
            outputs[name], states[name] = head(h, states[name], reset, valid)
        return outputs, state._replace(heads=states)

    def _score_outputs(self, outputs: dict[str, Array], targets: Targets) -> dict[str, Scores]:
        embedding = self._embedding()
        return {name: self.heads[name].score(outputs[name], ids, embedding) for name, ids in targets.items()}

    def _embedding(self) -> Float[Array, "V D"]:
        return self.embedding[...].astype(self.config.dtype)
