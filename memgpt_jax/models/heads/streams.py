"""Heads of `HeadedConfig`: layers and a pool over a stream, with outputs at every token."""

from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from memgpt_jax.config.checks import check, instance_of
from memgpt_jax.config.heads import HeadConfig, StreamHeadConfig
from memgpt_jax.config.model import StackConfig
from memgpt_jax.memory.linear import linear
from memgpt_jax.models.arguments import check_targets, filled_flags
from memgpt_jax.models.heads.base import Head
from memgpt_jax.models.heads.layers import HEAD_LAYERS
from memgpt_jax.models.layers import dropout
from memgpt_jax.ops import Scores
from memgpt_jax.ops.linear import matmul
from memgpt_jax.ops.pools import POOLS, pool
from memgpt_jax.shapes import Array, Flags, Float, Float32, Stream, Tokens


class StreamHeadState(NamedTuple):
    """The state of a head between two calls: of fixed size, whatever the length of the document."""

    layers: tuple[Any, ...]
    """The state of each layer."""
    pool: Any
    """The element of the pool (`memgpt_jax.ops.pools`); () without a pool."""


class StreamHead(Head):
    """Outputs W pool(layers(h)) + b at every token, [B, L, C], float32, for the document up to and with this token."""

    config: StreamHeadConfig

    projects: ClassVar[bool] = True
    """Whether it has W and b. A head without them overrides `__call__`."""
    reads_embedding: ClassVar[bool] = False
    """Whether `__call__` has the argument `embedding`, [V, D]: what the backbone, a decoder, reads for each token."""

    def __init__(self, config: HeadConfig, stack: StackConfig, *, rngs: nnx.Rngs):
        config = instance_of(config, StreamHeadConfig, "head")
        super().__init__(config, stack, rngs=rngs)
        check(
            config.layers in HEAD_LAYERS,
            f"head.layers must be one of {', '.join(HEAD_LAYERS)}, got {config.layers!r}",
        )
        dtype, width = jnp.dtype(stack.dtype), config.width or stack.d_model
        layers, d_in = [], stack.d_model
        for _ in range(config.num_layers):
            layer = HEAD_LAYERS[config.layers].module(config, d_in, width, causal=stack.causal, dtype=dtype, rngs=rngs)
            layers.append(layer)
            d_in = layer.width
        self.layers, self.width = nnx.List(layers), d_in
        if config.pool == "attention":
            self.pool_logits = linear(d_in, 1, use_bias=False, dtype=dtype, rngs=rngs)
        if self.projects:
            self.output = linear(d_in, config.num_outputs, use_bias=True, dtype=jnp.float32, rngs=rngs)

    def init_state(self, batch_size: int) -> StreamHeadState:
        name = self.config.pool
        pooled = () if name == "none" else POOLS[name].empty(batch_size, self.width)
        return StreamHeadState(tuple(layer.init_state(batch_size) for layer in self.layers), pooled)

    def __call__(
        self,
        h: Stream,
        state: Any = None,
        reset: Flags | None = None,
        valid: Flags | None = None,
        *,
        dropout_key: Array | None = None,
    ) -> tuple[Float[Array, "B L C"], StreamHeadState]:
        """See `Head.__call__`. Args: dropout_key: a PRNG key; default: no dropout."""
        state = self.init_state(len(h)) if state is None else state
        x, state = self.features(h, state, reset, valid, dropout_key=dropout_key)
        return self.project(x), state

    def features(
        self,
        h: Stream,
        state: StreamHeadState,
        reset: Flags | None = None,
        valid: Flags | None = None,
        *,
        dropout_key: Array | None = None,
        **of_pool: Any,
    ) -> tuple[Float32[Array, "B L W"], StreamHeadState]:
        """The pooled outputs of the layers, float32, and the state after the call. Args: of_pool: see `pooled`."""
        reset, valid = filled_flags(h.shape[:2], reset, valid)
        keys = (None, None) if dropout_key is None else jax.random.split(dropout_key)
        x, rate = h, self.config.dropout
        x = dropout(x, rate, keys[0])
        states = []
        for layer, before in zip(self.layers, state.layers, strict=True):
            x, after = layer(x, before, reset, valid)
            states.append(after)
        x, pooled = self.pooled(x, state.pool, reset, valid, **of_pool)
        return dropout(x, rate, keys[1]), StreamHeadState(tuple(states), pooled)

    def pooled(
        self, x: Stream, state: Any, reset: Flags, valid: Flags, *, present: Flags | None = None
    ) -> tuple[Float32[Array, "B L W"], Any]:
        """The outputs of the layers, pooled, and the state of the pool after the call.

        Args:
            present: the tokens that are pooled; default: all.
        """
        name = self.config.pool
        if name == "none":
            return x.astype(jnp.float32), state
        logits = self.pool_logits(x)[..., 0].astype(jnp.float32) if name == "attention" else None
        return pool(POOLS[name], x, state, reset, valid, logits, present)

    def project(self, x: Float32[Array, "B L W"]) -> Float32[Array, "B L C"]:
        """W x + b."""
        assert self.output.bias is not None
        return matmul(x, self.output.kernel[...]) + self.output.bias[...][None, None]

    def check_targets(self, targets: Any, tokens: Tokens) -> Array:
        """The targets of a call as an array: classes [B, L] int32, or with `target_size` [B, L, C] of 0 and 1.

        A head with targets of another kind overrides this. Raises `ValueError` if shape, type or values are not valid.
        """
        name = self.config.target
        sizes = {} if self.target_size is None else {name: self.target_size}
        return check_targets({name: targets}, tokens, {name: self.num_classes}, sizes=sizes)[name]

    def score(
        self,
        outputs: Float32[Array, "B L C"],
        targets: Any,
        embedding: Float[Array, "V D"] | None = None,
        *,
        reset: Flags | None = None,
        valid: Flags | None = None,
    ) -> Scores:
        """Loss and correctness of each target.

        Args:
            outputs: outputs of `__call__`.
            targets: as `check_targets` returns them.
            embedding: not used.
            reset: as in the model's call, for a loss over all tokens of a document.
            valid: as in the model's call.
        """
        raise NotImplementedError

    def mixed_score(self, outputs: Float32[Array, "B L C"], targets: Any, asked: Flags, key: Array) -> Scores:
        """`score` in training, of a head whose configuration has `mixes_texts`.

        Args:
            outputs: outputs of `__call__`.
            targets: as `check_targets` returns them.
            asked: the tokens whose losses count; the others are not mixed.
            key: a PRNG key.
        """
        raise NotImplementedError
