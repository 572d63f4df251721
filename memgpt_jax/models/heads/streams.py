"""Heads of `HeadedConfig`: layers and a pool over a stream, with outputs at every token."""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from memgpt_jax.config.checks import check, instance_of
from memgpt_jax.config.heads import HeadConfig, StreamHeadConfig
from memgpt_jax.config.model import StackConfig
from memgpt_jax.memory.linear import linear
from memgpt_jax.models.arguments import filled_flags
from memgpt_jax.models.heads.base import Head
from memgpt_jax.models.heads.layers import HEAD_LAYERS
from memgpt_jax.models.layers import dropout
from memgpt_jax.ops import Scores
from memgpt_jax.ops.linear import matmul
from memgpt_jax.ops.pools import POOLS, pool
from memgpt_jax.shapes import Array, Flags, Float, Float32, Int, Stream


class StreamHeadState(NamedTuple):
    """The state of a head between two calls: of fixed size, whatever the length of the document."""

    layers: tuple[Any, ...]
    """The state of each layer."""
    pool: Any
    """The element of the pool (`memgpt_jax.ops.pools`); () without a pool."""


class StreamHead(Head):
    """Outputs W pool(layers(h)) + b at every token, [B, L, C], float32, for the document up to and with this token."""

    def __init__(self, config: HeadConfig, stack: StackConfig, *, rngs: nnx.Rngs):
        super().__init__(config, stack, rngs=rngs)
        self.settings = settings = instance_of(config, StreamHeadConfig, "head")
        check(
            settings.layers in HEAD_LAYERS,
            f"head.layers must be one of {', '.join(HEAD_LAYERS)}, got {settings.layers!r}",
        )
        dtype, width = jnp.dtype(stack.dtype), settings.width or stack.d_model
        layers, d_in = [], stack.d_model
        for _ in range(settings.num_layers):
            layer = HEAD_LAYERS[settings.layers].module(
                settings, d_in, width, causal=stack.causal, dtype=dtype, rngs=rngs
            )
            layers.append(layer)
            d_in = layer.width
        self.layers, self.width = nnx.List(layers), d_in
        if settings.pool == "attention":
            self.pool_logits = linear(d_in, 1, use_bias=False, dtype=dtype, rngs=rngs)
        self.output = linear(d_in, settings.num_outputs, use_bias=True, dtype=jnp.float32, rngs=rngs)

    def init_state(self, batch_size: int) -> StreamHeadState:
        name = self.settings.pool
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
    ) -> tuple[Float32[Array, "B L W"], StreamHeadState]:
        """The pooled outputs of the layers, float32, and the state after the call."""
        reset, valid = filled_flags(h.shape[:2], reset, valid)
        keys = (None, None) if dropout_key is None else jax.random.split(dropout_key)
        x, rate = h, self.settings.dropout
        x = dropout(x, rate, keys[0])
        states = []
        for layer, before in zip(self.layers, state.layers, strict=True):
            x, after = layer(x, before, reset, valid)
            states.append(after)
        pooled = state.pool
        if self.settings.pool == "none":
            x = x.astype(jnp.float32)
        else:
            has_logits = self.settings.pool == "attention"
            logits = self.pool_logits(x)[..., 0].astype(jnp.float32) if has_logits else None
            x, pooled = pool(POOLS[self.settings.pool], x, state.pool, reset, valid, logits)
        return dropout(x, rate, keys[1]), StreamHeadState(tuple(states), pooled)

    def project(self, x: Float32[Array, "B L W"]) -> Float32[Array, "B L C"]:
        """W x + b."""
        assert self.output.bias is not None
        return matmul(x, self.output.kernel[...]) + self.output.bias[...][None, None]


@dataclass(frozen=True, kw_only=True)
class LabelHeadConfig(StreamHeadConfig):
    """Classes of a document, or of each token with `pool="none"`.

    cross_entropy: one of C classes, softmax. binary: any number of C labels, a sigmoid each.
    """

    loss: Literal["cross_entropy", "binary"] = "cross_entropy"
    """`cross_entropy`: a target is a class. `binary`: a target is C numbers 0 or 1; the loss is their mean."""
    label_smoothing: float = 0.0
    """Probability e that is spread evenly over all classes: the target distribution is (1 - e) one-hot + e / C. The
    loss of evaluations is without it."""
    class_weights: tuple[float, ...] = ()
    """A weight of the training loss for each class, in the order of the labels; default: all 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "class_weights", tuple(self.class_weights))  # a list is also accepted
        check(0.0 <= self.label_smoothing < 1.0, f"head.label_smoothing must be in [0, 1), got {self.label_smoothing}")
        check(
            all(0 < weight < float("inf") for weight in self.class_weights),
            f"head.class_weights must be positive numbers, got {self.class_weights}",
        )


class LabelHead(StreamHead):
    """Logits of classes at every token."""

    def __init__(self, config: HeadConfig, stack: StackConfig, *, rngs: nnx.Rngs):
        self.labelling = instance_of(config, LabelHeadConfig, "head")
        weights = self.labelling.class_weights
        check(
            len(weights) in (0, self.labelling.num_outputs),
            f"head.class_weights must be {self.labelling.num_outputs} numbers, one for each class, got {weights}",
        )
        super().__init__(config, stack, rngs=rngs)

    @property
    def num_classes(self) -> int:
        return self.settings.num_outputs

    @property
    def target_size(self) -> int | None:
        return self.settings.num_outputs if self.labelling.loss == "binary" else None

    def score(
        self,
        outputs: Float32[Array, "B L C"],
        targets: Int[Array, "B ..."],
        embedding: Float[Array, "V D"] | None = None,
    ) -> Scores:
        return label_scores(
            outputs,
            targets,
            smoothing=self.labelling.label_smoothing,
            class_weights=self.labelling.class_weights,
        )


def label_scores(
    logits: Float32[Array, "B L C"],
    targets: Int[Array, "B ..."],
    *,
    smoothing: float = 0.0,
    class_weights: tuple[float, ...] = (),
) -> Scores:
    """Loss in nats and correctness of each target.

    Args:
        logits: of C classes.
        targets: classes [B, L], or for several labels 0 or 1 of each class [B, L, C].
        smoothing: probability e that is spread over all classes.
        class_weights: weight of each class; (): all 1.

    Returns:
        With q the target distribution and p the softmax: -sum_c q_c ln p_c, and whether the target has the highest
        logit. For several labels: the mean over classes of -q ln p - (1 - q) ln(1 - p), p the sigmoid, and whether all
        labels are right.
    """
    weights = jnp.asarray(class_weights or (1.0,) * logits.shape[-1], jnp.float32)
    if targets.ndim == logits.ndim:
        q = targets * (1 - smoothing) + smoothing / 2
        losses = -(q * jax.nn.log_sigmoid(logits) + (1 - q) * jax.nn.log_sigmoid(-logits))
        right = ((logits > 0) == (targets > 0)).all(axis=-1) & jnp.isfinite(logits).all(axis=-1)
        return Scores(jnp.mean(losses * weights[None, None], axis=-1), right)
    classes = logits.shape[-1]
    one_hot = jax.nn.one_hot(targets, classes, dtype=jnp.float32)
    q = one_hot * (1 - smoothing) + smoothing / classes
    log_p = jax.nn.log_softmax(logits)
    known = (targets >= 0) & (targets < classes)
    losses = jnp.where(known, -jnp.sum(q * log_p, axis=-1), jnp.nan)
    right = (jnp.argmax(logits, axis=-1) == targets) & jnp.isfinite(logits).all(axis=-1)
    return Scores(losses * jnp.take(weights, targets, mode="clip"), right)
