"""XLNet: two-stream relative attention for any order of prediction, in layers that have a memory."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from memgpt_jax.config.checks import check, instance_of
from memgpt_jax.config.memory import Alignment
from memgpt_jax.config.model import XLNetConfig
from memgpt_jax.memory import resolved
from memgpt_jax.memory.streaming import StreamAlignment
from memgpt_jax.models.arguments import check_numbers, check_targets, check_tokens, filled_flags, nan_where_invalid
from memgpt_jax.models.attention import Attention, CallInputs, Relations, call_inputs, split_heads
from memgpt_jax.models.base import Hidden, Model
from memgpt_jax.models.blocks import Block, LayerState, run_blocks
from memgpt_jax.models.encoder import EncoderState
from memgpt_jax.models.layers import adapted_linear, dropout
from memgpt_jax.ops import Scores, cross_entropy
from memgpt_jax.ops.attention import RelativeTerms, full_attention
from memgpt_jax.ops.attention.positions import sinusoidal
from memgpt_jax.ops.linear import matmul
from memgpt_jax.ops.mesh import split_vocabulary
from memgpt_jax.shapes import Array, Flags, Float, Float32, Int32, Stream, Targets, Tokens

DETACHED: dict[str, StreamAlignment] = {"any": "detached", "aligned": "detached_aligned"}
"""`StreamAlignment` for each value of `alignment`: all tokens read the memory as it was before the call."""


class RelativeAttention(Attention):
    """Relative attention to all tokens of the same document in the call.

        a_ij  = ((q_i + u) . k_j + (q_i + v) . W_r R_(i-j) + (q_i + s) . e_ij) / sqrt(K)
        out_i = W_o concat_h sum_j softmax_j(a_ij) v_j

    q = W_q x, k = W_k h, v_j = W_v h; R_d [D] is the sinusoid of a distance, e_ij [K] one of two learned vectors: one
    for pairs of tokens of equal type, one for all others. u, v, s [H, K] are learned. With an order, the content stream
    h at i attends to the tokens with rank_j <= rank_i, the query stream g to those with rank_j < rank_i. Both streams
    use the same parameters.

    Sources: Dai et al., "Transformer-XL" (2019), section 3.3; Yang et al., "XLNet" (2019), sections 2.3 and 2.5.
    """

    config: XLNetConfig

    def __init__(self, config: XLNetConfig, rngs: nnx.Rngs):
        super().__init__(config, rngs)
        heads, width = config.num_heads, config.attention_head_dim
        self.position_key = adapted_linear(config, config.d_model, heads * width, rngs)  # W_r
        self.content_bias = nnx.Param(jnp.zeros((heads, width), jnp.float32))  # u
        self.position_bias = nnx.Param(jnp.zeros((heads, width), jnp.float32))  # v
        self.type_bias = nnx.Param(jnp.zeros((heads, width), jnp.float32))  # s
        normal = jax.nn.initializers.normal(width**-0.5, jnp.float32)
        self.type_keys = nnx.Param(normal(rngs.params(), (2, heads, width)))  # e

    def __call__(self, h: Stream, g: Stream | None, inputs: CallInputs) -> tuple[Stream, Stream | None]:
        """Attention of the content stream and of the query stream, if there is one, to the content stream."""
        relations = inputs.relations
        assert relations is not None
        query, keys, values = self.project_in(h, None)
        documents = inputs.document, jnp.where(inputs.valid, inputs.document, -1)
        distance_keys = self._distance_keys(h.shape[1])

        def attended(query: Array, ranks: Array | None) -> Stream:
            content = query + self.content_bias[...].astype(query.dtype)[None, None]
            terms = RelativeTerms(
                query=query,
                token_types=relations.token_types,
                order=relations.order,
                rank=ranks,
                distance_keys=distance_keys,
                position_bias=self.position_bias[...],
                type_keys=self.type_keys[...],
                type_bias=self.type_bias[...],
            )
            return self.project_out(full_attention(content, keys, values, *documents, relative=terms))

        order = relations.order
        if g is None:
            return attended(query, order), None
        assert order is not None, "the query stream needs an order"
        return attended(query, order), attended(self.project_in(g, None)[0], order - 1)

    def _distance_keys(self, length: int) -> Float[Array, "2L-1 H K"]:
        """W_r R_d of the distances d from L - 1 down to 1 - L."""
        config = self.config
        distance = jnp.arange(length - 1, -length, -1, dtype=jnp.int32)[None]
        if config.max_distance is not None:
            distance = jnp.clip(distance, -config.max_distance, config.max_distance)
        waves = sinusoidal(distance, config.d_model, config.distance_base).astype(config.dtype)
        return split_heads(self.position_key(waves), config.attention_head_dim)[0]


class TwoStreamBlock(Block):
    """`Block` with `RelativeAttention`, of the content stream h and the query stream g.

    h' = Block(h). g' is computed in the same way from g, which attends to h and reads the memory without writing it.
    Tokens read the memory as it was before the call: only later calls read what a call writes, because that depends on
    tokens of every rank.
    """

    attention: RelativeAttention

    def __init__(self, config: XLNetConfig, layer: int, rngs: nnx.Rngs):
        super().__init__(config, layer, rngs, attention=RelativeAttention)

    def __call__(
        self,
        x: tuple[Stream, Stream | None],
        state: LayerState,
        inputs: CallInputs,
        alignment: StreamAlignment,
        dropout_key: Array | None,
    ) -> tuple[tuple[Stream, Stream | None], LayerState, Float32[Array, "B L"]]:
        """The streams (h, g), g None if there is only one; the state; and the mean fusion gate of each token of h."""
        keys = (None, None) if dropout_key is None else jax.random.split(dropout_key)
        h, g = x
        attended_h, attended_g = self.attention(h, g, inputs)
        h, memory, gate = self.after_attention(h, attended_h, state, inputs, alignment, keys[0])
        if g is not None and attended_g is not None:
            g, _, _ = self.after_attention(g, attended_g, state, inputs, alignment, keys[1])
        return (h, g), LayerState(state.window, memory), gate


class XLNet(Model[EncoderState]):
    """XLNet: predicts tokens in any order from the tokens of lower rank, with a memory of earlier calls.

        state = model.init_state(batch_size)
        hidden, state, *_ = model.hidden(tokens, state)                         # encoder: each attends to all
        scores, state = model.score(tokens, tokens, state, order=order)        # from tokens of lower rank

    The content stream starts from the embeddings. The query stream starts from one learned vector at every position, so
    it depends on the position of a token, but not on the token, which it predicts. It is computed at all positions of
    the call, including those without a target.

    Instead of XLNet's `mems`, the hidden states of the previous call, each layer has a memory that is read at the start
    of a call and written at its end. Gradients reach its Writer only through later calls, so train on two or more calls
    per update. (`memgpt_jax.training` makes one call per update: the Reader learns, the Writer does not.)

    Source: Yang et al., "XLNet: Generalized Autoregressive Pretraining for Language Understanding" (2019).
    """

    decayed: ClassVar[tuple[str, ...]] = ("embedding", "query_embedding")

    def __init__(self, config: XLNetConfig, *, rngs: nnx.Rngs):
        instance_of(rngs, nnx.Rngs, "rngs")
        self.config = config = resolved(config)
        normal = jax.nn.initializers.normal(config.d_model**-0.5, jnp.float32)
        self.embedding = nnx.Param(normal(rngs.params(), (config.vocab_size, config.d_model)))
        self.query_embedding = nnx.Param(normal(rngs.params(), (1, config.d_model)))
        self.blocks = nnx.List([TwoStreamBlock(config, layer, rngs) for layer in range(config.num_layers)])
        if config.output_bias:
            self.output_bias = nnx.Param(jnp.zeros(config.vocab_size, jnp.float32))

    def init_state(self, batch_size: int) -> EncoderState:
        """Empty memories. The state holds no parameters."""
        return EncoderState(tuple(block.init_state(batch_size) for block in self.blocks), heads={})

    def hidden(
        self,
        tokens: Tokens,
        state: EncoderState | None = None,
        reset: Flags | None = None,
        valid: Flags | None = None,
        *,
        order: Int32[Array, "B L"] | None = None,
        token_types: Int32[Array, "B L"] | None = None,
        alignment: Alignment = "any",
        dropout_key: Array | None = None,
    ) -> Hidden[EncoderState]:
        """The last hidden states [B, L, D], the state after the call and the fusion gates; any L >= 1.

        Args:
            tokens: ids, any L >= 1.
            state: the state after the previous call; default: that of `init_state`.
            reset: True for the first token of a document.
            valid: False for padding on the right, to which no token attends.
            order: rank of each token. The result is then the query stream, which depends on the tokens of lower rank
                in the same document; in the content stream, tokens of equal rank attend to each other. Default: the
                result is the content stream, which depends on all tokens of the document.
            token_types: type of each token; attention depends on whether two types are equal. Default: all are equal.
            alignment: `any` or `aligned`, as in `MemGPT.__call__`.
            dropout_key: a PRNG key; default: no dropout.

        Raises:
            ValueError: `order` or `token_types` are not integers in the shape of the tokens, or as in
                `MemGPT.__call__`.
        """
        config = self.config
        check(alignment in DETACHED, f"alignment must be 'any' or 'aligned', got {alignment!r}")
        tokens = check_tokens(tokens, config.vocab_size, valid)
        state = self.state_or_initial(state, len(tokens))
        order = None if order is None else check_numbers("order", order, tokens.shape)
        token_types = None if token_types is None else check_numbers("token_types", token_types, tokens.shape)
        reset, valid = filled_flags(tokens.shape, reset, valid)
        keys = (None,) * 3 if dropout_key is None else jax.random.split(dropout_key, 3)

        def scaled_and_dropped(x: Array, key: Array | None) -> Stream:
            return dropout((x * jnp.float32(config.stream_scale)).astype(config.dtype), config.dropout, key)

        h, g = scaled_and_dropped(split_vocabulary(self.embedding[...])[tokens], keys[0]), None
        h = nan_where_invalid(h, tokens, config.vocab_size, valid)
        if order is not None:
            g = scaled_and_dropped(jnp.broadcast_to(self.query_embedding[...][None], h.shape), keys[1])
        found = run_blocks(
            self.blocks,
            (h, g),
            state.layers,
            call_inputs(reset, valid, relations=Relations(order, token_types)),
            alignment=DETACHED[alignment],
            dropout_key=keys[2],
            scanned=config.scan_layers,
        )
        h, g = found.stream
        return Hidden(h if g is None else g, state._replace(layers=found.layers), found.gates)

    def __call__(
        self,
        tokens: Tokens,
        state: EncoderState | None = None,
        reset: Flags | None = None,
        valid: Flags | None = None,
        **options: Any,
    ) -> tuple[Float32[Array, "B L V"], EncoderState]:
        """Logits [B, L, V] of the token at each position, and the state after the call; options as in `hidden`."""
        x, state, *_ = self.hidden(tokens, state, reset, valid, **options)
        embedding = self.embedding[...].astype(x.dtype)
        logits = matmul(x, embedding.T, preferred_element_type=jnp.float32)
        return logits + self.output_bias[...][None, None] if self.config.output_bias else logits, state

    def score(
        self,
        tokens: Tokens,
        targets: Targets,
        state: EncoderState | None = None,
        reset: Flags | None = None,
        valid: Flags | None = None,
        **options: Any,
    ) -> tuple[dict[str, Scores], EncoderState]:
        """Loss in nats and correctness of each predicted token, without the logits of the whole call in memory.

        Args:
            tokens: ids, any L >= 1.
            targets: {"tokens": ids [B, L]}; the scores have the same key. With an `order` and the tokens as targets,
                each token is predicted from the tokens of lower rank.
            state: as in `hidden`, like the other arguments.
            reset: as in `hidden`.
            valid: as in `hidden`.
            **options: as in `hidden`.
        """
        targets = check_targets(targets, tokens, {"tokens": self.config.vocab_size})
        x, state, *_ = self.hidden(tokens, state, reset, valid, **options)
        return self.score_hidden(x, targets), state

    def score_hidden(self, x: Stream, targets: Targets) -> dict[str, Scores]:
        """`score` of the last hidden states."""
        bias = self.output_bias[...] if self.config.output_bias else None
        return {"tokens": cross_entropy(x, self.embedding[...].astype(x.dtype), targets["tokens"], bias=bias)}
