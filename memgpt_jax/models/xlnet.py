"""XLNet: attention by distance in any order of tokens, in two streams, with layers that own a memory."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from memgpt_jax.config.checks import check
from memgpt_jax.config.memory import Alignment
from memgpt_jax.config.model import XLNetConfig
from memgpt_jax.memory import resolved
from memgpt_jax.memory.streaming import StreamAlignment
from memgpt_jax.models.arguments import check_numbers, check_targets, check_tokens, filled_flags, poisoned
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
"""The stream alignment of each alignment: no token reads what its own call writes."""


class RelativeAttention(Attention):
    """Attention to all tokens of the call that are of the same document, by their distance.

        a_ij  = ((q_i + u) . k_j + (q_i + v) . W_r R_(i-j) + (q_i + s) . e_ij) / sqrt(K)
        out_i = W_o concat_h sum_j softmax_j(a_ij) v_j

    q = W_q x, k = W_k h, v_j = W_v h; R_d [D] is the sinusoid of a distance, e_ij [K] one of two learned vectors: for
    tokens of one type, and for others. u, v, s [H, K] are learned. With an order, the content stream h at i sees the
    tokens with rank_j <= rank_i, the query stream g those with rank_j < rank_i. Both have the same parameters.

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
        self.type_keys = nnx.Param(jax.nn.initializers.normal(width**-0.5)(rngs.params(), (2, heads, width)))  # e

    def __call__(self, h: Stream, g: Stream | None, inputs: CallInputs) -> tuple[Stream, Stream | None]:
        """Attention of the content stream and of the query stream, if there is one, to the content stream."""
        relations = inputs.relations
        assert relations is not None
        query, keys, values = self.project_in(h, None)
        documents = inputs.document, jnp.where(inputs.valid, inputs.document, -1)
        distance_keys = self._distance_keys(h.shape[1])

        def attended(query, ranks):
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

    h' is `Block` of h; g' the same of g, which attends to h and reads the memory, but writes nothing. Tokens read the
    memory as it was before the call: what a call writes, of tokens of any rank, later calls alone can read.
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
    """A model of tokens given any others of a document, which it reads call by call, and remembers the calls before.

        state = model.init_state(batch_size)
        hidden, state, _ = model.hidden(tokens, state)                         # an encoder: all tokens see each other
        scores, state = model.score(tokens, tokens, state, order=order)        # each given those of lower rank

    The content stream starts as embeddings, the query stream as one learned vector at every place: it knows where it
    stands, and not which token stands there, which it predicts. It has all places of the call, also those that are
    not to be predicted.

    In place of XLNet's `mems`, the hidden states of the call before, each layer has a memory, read at the start of a
    call and written at its end. So gradient reaches a memory's Writer through later calls alone: train on two or more.
    (`memgpt_jax.training` makes one a batch: there the Reader learns to use what a Writer writes that does not learn.)

    Source: Yang et al., "XLNet: Generalized Autoregressive Pretraining for Language Understanding" (2019).
    """

    decayed = ("embedding", "query_embedding")

    def __init__(self, config: XLNetConfig, *, rngs: nnx.Rngs):
        self.config = config = resolved(config)
        normal = jax.nn.initializers.normal(config.d_model**-0.5)
        self.embedding = nnx.Param(normal(rngs.params(), (config.vocab_size, config.d_model)))
        self.query_embedding = nnx.Param(normal(rngs.params(), (1, config.d_model)))
        self.blocks = nnx.List([TwoStreamBlock(config, layer, rngs) for layer in range(config.num_layers)])
        if config.output_bias:
            self.output_bias = nnx.Param(jnp.zeros(config.vocab_size, jnp.float32))

    def init_state(self, batch_size: int) -> EncoderState:
        """Empty memories. They hold no parameters."""
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

        reset: a new document begins with this token. valid: False marks padding on the right, which nothing attends to.
        order: each token's rank. The hidden states are then those of the query stream, which depend on the tokens of
            lower rank in the same document; tokens of equal rank see each other in the content stream. Without it, they
            are those of the content stream, which depend on all tokens of the document.
        token_types: the kind of each token; attention knows which are of the same kind. Default: all are.
        alignment: `any` or `aligned`, as in `MemGPT.__call__`.

        Raises `ValueError` if `order` or `token_types` are not integers like the tokens, and as `MemGPT.__call__`.
        """
        config = self.config
        check(alignment in DETACHED, f"alignment must be 'any' or 'aligned', got {alignment!r}")
        tokens = check_tokens(tokens, config.vocab_size, valid)
        state = self.started(state, len(tokens))
        order = None if order is None else check_numbers("order", order, tokens)
        token_types = None if token_types is None else check_numbers("token_types", token_types, tokens)
        reset, valid = filled_flags(tokens.shape, reset, valid)
        keys = (None,) * 3 if dropout_key is None else jax.random.split(dropout_key, 3)

        def scaled_and_dropped(x, key):
            return dropout((x * jnp.float32(config.stream_scale)).astype(config.dtype), config.dropout, key)

        h, g = scaled_and_dropped(split_vocabulary(self.embedding[...])[tokens], keys[0]), None
        h = poisoned(h, tokens, config.vocab_size, valid)
        if order is not None:
            g = scaled_and_dropped(jnp.broadcast_to(self.query_embedding[...][None], h.shape), keys[1])
        (h, g), layers, gates = run_blocks(
            self.blocks,
            (h, g),
            state.layers,
            call_inputs(reset, valid, relations=Relations(order, token_types)),
            alignment=DETACHED[alignment],
            dropout_key=keys[2],
            scanned=config.scan_layers,
        )
        return Hidden(h if g is None else g, state._replace(layers=layers), gates)

    def __call__(
        self,
        tokens: Tokens,
        state: EncoderState | None = None,
        reset: Flags | None = None,
        valid: Flags | None = None,
        **options: Any,
    ) -> tuple[Float32[Array, "B L V"], EncoderState]:
        """Logits [B, L, V] of what each token is, and the state after the call; options as in `hidden`."""
        x, state, _ = self.hidden(tokens, state, reset, valid, **options)
        embedding = self.embedding[...].astype(x.dtype)
        logits = matmul(x, embedding.T).astype(jnp.float32)
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

        targets: {"tokens": ids [B, L]}, and the scores by the same name. With an `order` and the tokens as targets,
            each token is predicted from those of lower rank.
        """
        targets = check_targets(targets, tokens, {"tokens": self.config.vocab_size})
        x, state, _ = self.hidden(tokens, state, reset, valid, **options)
        return self.score_hidden(x, targets), state

    def score_hidden(self, x: Stream, targets: Targets) -> dict[str, Scores]:
        """`score` of the last hidden states."""
        bias = self.output_bias[...] if self.config.output_bias else None
        return {"tokens": cross_entropy(x, self.embedding[...].astype(x.dtype), targets["tokens"], bias=bias)}
