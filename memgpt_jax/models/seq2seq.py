"""An encoder that reads a source, and a decoder that attends to it."""

from typing import Any, NamedTuple

import jax
from flax import nnx

from memgpt_jax.config.memory import Alignment
from memgpt_jax.config.model import Seq2SeqConfig
from memgpt_jax.memory import resolved
from memgpt_jax.models.arguments import check_tokens, filled_flags
from memgpt_jax.models.base import Hidden, Model
from memgpt_jax.models.decoder import MemGPT, ModelState
from memgpt_jax.models.encoder import Encoder, EncoderState
from memgpt_jax.ops import Scores
from memgpt_jax.shapes import Array, Bool, Flags, Float, Float32, Int, Targets, Tokens


class Seq2SeqState(NamedTuple):
    """The states of both stacks; every array has the batch axis first."""

    encoder: EncoderState
    decoder: ModelState  # includes the keys and values of the source


class EncoderDecoder(Model[Seq2SeqState]):
    """An encoder-decoder: an `Encoder` without heads, and a `MemGPT` whose layers cross-attend to its hidden states.

    Each stack has the memory of its configuration; both share the decoder's token embedding. The keys and values of the
    source are part of the decoder's state, so the decoder can stream, generate and fork by itself.

        state = model.read_source(source)
        logits, state = model(tokens, state)
    """

    def __init__(self, config: Seq2SeqConfig, *, rngs: nnx.Rngs):
        self.config = config = resolved(config)
        self.encoder = Encoder(config.encoder, rngs=rngs, own_embedding=False)
        self.decoder = MemGPT(config.decoder, rngs=rngs)

    def init_state(self, batch_size: int) -> Seq2SeqState:
        """The state before the first token, without a source. It holds no parameters."""
        return Seq2SeqState(self.encoder.init_state(batch_size), self.decoder.init_state(batch_size))

    def state_or_initial(self, state: Seq2SeqState | None, rows: int) -> Seq2SeqState:
        """The given state, or `init_state(rows)` for None. The encoder and the decoder check their parts of it."""
        if not isinstance(state, Seq2SeqState | None):
            raise ValueError(f"state must be a Seq2SeqState, got {type(state).__name__}: use init_state(batch_size)")
        return self.init_state(rows) if state is None else state

    def read_source(
        self,
        tokens: Tokens,
        state: Seq2SeqState | None = None,
        reset: Flags | None = None,
        valid: Flags | None = None,
        *,
        features: Float[Array, "B S F"] | None = None,
        dropout_key: Array | None = None,
    ) -> Seq2SeqState:
        """Encode a source: the state with its keys and values. Earlier sources remain only in the encoder's memories.

        Arguments are those of `Encoder.hidden`.

        Raises:
            ValueError: the source has more than `source_length` tokens, or as in `Encoder.hidden`.
        """
        state = self.state_or_initial(state, len(tokens))
        tokens = check_tokens(tokens, self.config.vocab_size, valid)
        places = self.config.decoder.source_length
        assert places is not None
        if tokens.shape[1] > places:
            raise ValueError(f"a source may have up to source_length={places} tokens, got {tokens.shape[1]}")
        _, valid = filled_flags(tokens.shape, reset, valid)
        options = {"embedding": self.decoder.embedding[...], "features": features, "dropout_key": dropout_key}
        hidden, encoder, *_ = self.encoder.hidden(tokens, state.encoder, reset, valid, **options)
        layers = tuple(
            layer._replace(source=block.cross_attention.read_source(hidden, valid))
            for block, layer in zip(self.decoder.blocks, state.decoder.layers, strict=True)
        )
        return Seq2SeqState(encoder, state.decoder._replace(layers=layers))

    def __call__(
        self,
        tokens: Tokens,
        state: Seq2SeqState | None = None,
        reset: Flags | None = None,
        valid: Flags | None = None,
        **options: Any,
    ) -> tuple[Float32[Array, "B L V"], Seq2SeqState]:
        """The decoder's logits, and the state after the call: see `MemGPT.__call__`."""
        state = self.state_or_initial(state, len(tokens))
        logits, decoder = self.decoder(tokens, state.decoder, reset, valid, **options)
        return logits, state._replace(decoder=decoder)

    def hidden(
        self,
        tokens: Tokens,
        state: Seq2SeqState | None = None,
        reset: Flags | None = None,
        valid: Flags | None = None,
        *,
        source: Int[Array, "B S"] | None = None,
        source_reset: Bool[Array, "B S"] | None = None,
        source_valid: Bool[Array, "B S"] | None = None,
        source_features: Float[Array, "B S F"] | None = None,
        dropout_key: Array | None = None,
        **options: Any,
    ) -> Hidden[Seq2SeqState]:
        """The decoder's last hidden states, the state after the call and the decoder's fusion gates.

        Arguments and errors are those of `score`.
        """
        given = (source, source_reset, source_valid, source_features)
        state, key = self._after_source(tokens, state, *given, dropout_key)
        found = self.decoder.hidden(tokens, state.decoder, reset, valid, dropout_key=key, **options)
        return Hidden(found.stream, state._replace(decoder=found.state), found.gates)

    def _after_source(
        self,
        tokens: Tokens,
        state: Seq2SeqState | None,
        source: Array | None,
        source_reset: Array | None,
        source_valid: Array | None,
        source_features: Array | None,
        dropout_key: Array | None,
    ) -> tuple[Seq2SeqState, Array | None]:
        """The state after the source, if there is one, and the dropout key of the decoder."""
        state = self.state_or_initial(state, len(tokens))
        if source is None and not (source_reset is None and source_valid is None and source_features is None):
            raise ValueError("source_reset, source_valid and source_features need a source")
        keys = (None, None) if dropout_key is None else jax.random.split(dropout_key)
        if source is not None:
            options = {"features": source_features, "dropout_key": keys[0]}
            state = self.read_source(source, state, source_reset, source_valid, **options)
        return state, keys[1]

    def score(
        self,
        tokens: Tokens,
        targets: Targets,
        state: Seq2SeqState | None = None,
        reset: Flags | None = None,
        valid: Flags | None = None,
        *,
        source: Int[Array, "B S"] | None = None,
        source_reset: Bool[Array, "B S"] | None = None,
        source_valid: Bool[Array, "B S"] | None = None,
        source_features: Float[Array, "B S F"] | None = None,
        dropout_key: Array | None = None,
        **options: Any,
    ) -> tuple[dict[str, Scores], Seq2SeqState]:
        """The decoder's loss and correctness of each target: see `MemGPT.score`.

        Args:
            tokens: ids of the decoder, like `targets`, `reset`, `valid` and `options` as in `MemGPT.score`.
            targets: {"tokens": ids [B, L]}.
            state: the state after the previous call; default: that of `init_state`.
            reset: True for the first token of a document.
            valid: False for padding on the right.
            source: ids that are encoded first (`read_source`); default: the source in the state.
            source_reset: `reset` of the source.
            source_valid: `valid` of the source.
            source_features: raw features of the tokens of the source, with `EncoderConfig.features`.
            dropout_key: a PRNG key; default: no dropout.
            **options: as in `MemGPT.score`.

        Raises:
            ValueError: another argument of the source without `source`, or as in `read_source` and `MemGPT.score`.
        """
        given = (source, source_reset, source_valid, source_features)
        state, key = self._after_source(tokens, state, *given, dropout_key)
        scores, decoder = self.decoder.score(tokens, targets, state.decoder, reset, valid, dropout_key=key, **options)
        return scores, state._replace(decoder=decoder)

    def diagnostics(
        self,
        tokens: Tokens,
        state: Seq2SeqState | None = None,
        reset: Flags | None = None,
        valid: Flags | None = None,
        *,
        source: Int[Array, "B S"],
        source_reset: Bool[Array, "B S"] | None = None,
        source_valid: Bool[Array, "B S"] | None = None,
        source_features: Float[Array, "B S F"] | None = None,
        alignment: Alignment = "any",
    ) -> dict[str, Array]:
        """`Model.diagnostics` of both stacks; names begin with `encoder_` or `decoder_`."""
        state = self.state_or_initial(state, len(tokens))
        options = {"embedding": self.decoder.embedding[...], "features": source_features}
        of_encoder = self.encoder.diagnostics(source, state.encoder, source_reset, valid=source_valid, **options)
        state = self.read_source(source, state, source_reset, source_valid, features=source_features)
        of_decoder = self.decoder.diagnostics(tokens, state.decoder, reset, valid, alignment=alignment)
        stacks = {"encoder": of_encoder, "decoder": of_decoder}
        return {f"{stack}_{name}": value for stack, found in stacks.items() for name, value in found.items()}
