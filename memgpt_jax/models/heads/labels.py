"""The head for labels: classes of documents and tags of tokens."""

from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from memgpt_jax.config.checks import check, instance_of
from memgpt_jax.config.heads import HeadConfig, StreamHeadConfig
from memgpt_jax.config.model import StackConfig
from memgpt_jax.models.arguments import check_numbers, filled_flags
from memgpt_jax.models.heads.streams import StreamHead
from memgpt_jax.ops import Scores
from memgpt_jax.ops.crf import Chain, chain_scores
from memgpt_jax.ops.mixup import of_partners, partners
from memgpt_jax.shapes import Array, Flags, Float, Float32, Int, Tokens


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
    crf: bool = False
    """For tags: a linear chain (`memgpt_jax.ops.crf`): the tag of a word depends on that of the word before. The
    loss is that of the tags of a document together; the predicted tags are the most probable sequence."""
    mixup: float = 0.0
    """Alpha of mixup, which mixes the pooled vectors of two texts of a training batch, and their targets, with the
    weights w and 1 - w, w ~ Beta(alpha, alpha); 0: no mixing. Needs a pool."""

    @property
    def pipeline(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Tags without a pool, else classes."""
        return "token-classification" if self.pool == "none" else "text-classification"

    def __post_init__(self) -> None:
        super().__post_init__()
        check(
            not isinstance(self.class_weights, str),
            f"head.class_weights must be a list of numbers, got {self.class_weights!r}",
        )
        object.__setattr__(self, "class_weights", tuple(self.class_weights))  # a list is also accepted
        check(0.0 <= self.label_smoothing < 1.0, f"head.label_smoothing must be in [0, 1), got {self.label_smoothing}")
        check(
            all(0 < weight < float("inf") for weight in self.class_weights),
            f"head.class_weights must be positive numbers, got {self.class_weights}",
        )
        check(0.0 <= self.mixup < float("inf"), f"head.mixup must be a number of at least 0, got {self.mixup}")
        check(
            not self.mixup or self.pool != "none",
            f"head.mixup={self.mixup} mixes texts, not their tokens: it needs another pool than 'none', such as 'mean'",
        )
        plain = self.loss == "cross_entropy" and not self.label_smoothing and not self.class_weights
        check(
            not self.crf or (self.pool == "none" and plain),
            "head.crf=True needs head.pool='none', and works without loss='binary', label_smoothing and class_weights",
        )

    @property
    def mixes_texts(self) -> bool:
        return self.mixup > 0


class LabelHead(StreamHead):
    """Logits of classes at every token."""

    config: LabelHeadConfig

    def __init__(self, config: HeadConfig, stack: StackConfig, *, rngs: nnx.Rngs):
        config = instance_of(config, LabelHeadConfig, "head")
        weights = config.class_weights
        check(
            len(weights) in (0, config.num_outputs),
            f"head.class_weights must be {config.num_outputs} numbers, one for each class, got {weights}",
        )
        super().__init__(config, stack, rngs=rngs)
        if self.config.crf:
            classes = self.config.num_outputs
            self.chain_transitions = nnx.Param(jnp.zeros((classes, classes), jnp.float32))
            self.chain_start, self.chain_end = (nnx.Param(jnp.zeros(classes, jnp.float32)) for _ in range(2))

    @property
    def num_classes(self) -> int:
        return self.config.num_outputs

    @property
    def target_size(self) -> int | None:
        return self.config.num_outputs if self.config.loss == "binary" else None

    def check_targets(self, targets: Any, tokens: Tokens) -> Array:
        """See `StreamHead.check_targets`; of classes, -1 is no class, with loss 0."""
        if self.target_size is not None:
            return super().check_targets(targets, tokens)
        name = f"targets[{self.config.target!r}]"
        return check_numbers(name, targets, tokens.shape, self.num_classes, least=-1)

    def score(
        self,
        outputs: Float32[Array, "B L C"],
        targets: Int[Array, "B ..."],
        embedding: Float[Array, "V D"] | None = None,
        *,
        reset: Flags | None = None,
        valid: Flags | None = None,
    ) -> Scores:
        if self.config.crf:
            reset, valid = filled_flags(outputs.shape[:2], reset, valid)
            chain = Chain(self.chain_transitions[...], self.chain_start[...], self.chain_end[...])
            return chain_scores(outputs, jnp.where(valid, targets, -1), chain, reset)
        return self._label_scores(outputs, targets)

    def mixed_score(
        self, outputs: Float32[Array, "B L C"], targets: Int[Array, "B ..."], asked: Flags, key: Array
    ) -> Scores:
        """`score` with mixup; see `StreamHead.mixed_score`. With the partner j of each asked token i (`ops.mixup`),

            loss_i = w loss(z, y_i) + (1 - w) loss(z, y_j),   z = w outputs_i + (1 - w) outputs_j

        and one w ~ Beta(alpha, alpha) for the call. As the outputs are a linear function of the pooled vectors, mixing
        the outputs is mixing these. `correct` is that of the outputs before mixing.
        """
        of_weight, of_partner = jax.random.split(key)
        weight = jax.random.beta(of_weight, self.config.mixup, self.config.mixup, dtype=jnp.float32)
        partner = partners(of_partner, asked)
        mixed = weight * outputs + (1 - weight) * of_partners(outputs, partner)
        own, other = (self._label_scores(mixed, ids).losses for ids in (targets, of_partners(targets, partner)))
        return Scores(weight * own + (1 - weight) * other, self._label_scores(outputs, targets).correct)

    def _label_scores(self, outputs: Float32[Array, "B L C"], targets: Int[Array, "B ..."]) -> Scores:
        smoothing, weights = self.config.label_smoothing, self.config.class_weights
        return label_scores(outputs, targets, smoothing=smoothing, class_weights=weights)


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
        targets: classes [B, L], -1 for none; or for several labels 0 or 1 of each class [B, L, C].
        smoothing: probability e that is spread over all classes.
        class_weights: weight of each class; (): all 1.

    Returns:
        With q the target distribution and p the softmax: -sum_c q_c ln p_c, and whether the target has the highest
        logit; the loss is 0 for -1, and NaN for a class that does not exist. For several labels: the mean over classes
        of -q ln p - (1 - q) ln(1 - p), p the sigmoid, and whether all labels are right.
    """
    weights = jnp.asarray(class_weights or (1.0,) * logits.shape[-1], jnp.float32)
    if targets.ndim == logits.ndim:
        q = targets.astype(jnp.float32) * (1 - smoothing) + smoothing / 2
        losses = -(q * jax.nn.log_sigmoid(logits) + (1 - q) * jax.nn.log_sigmoid(-logits))
        right = ((logits > 0) == (targets > 0)).all(axis=-1) & jnp.isfinite(logits).all(axis=-1)
        return Scores(jnp.mean(losses * weights[None, None], axis=-1), right)
    classes = logits.shape[-1]
    one_hot = jax.nn.one_hot(targets, classes, dtype=jnp.float32)
    q = one_hot * (1 - smoothing) + smoothing / classes
    log_p = jax.nn.log_softmax(logits)
    known = (targets >= 0) & (targets < classes)
    losses = jnp.where(known, -jnp.sum(q * log_p, axis=-1), jnp.where(targets == -1, 0.0, jnp.nan))
    right = (jnp.argmax(logits, axis=-1) == targets) & jnp.isfinite(logits).all(axis=-1)
    return Scores(losses * jnp.take(weights, targets, mode="clip"), right)


def chain_of(params: dict[str, Any]) -> Chain:
    """The linear chain in the parameters of a `LabelHead` with `crf`, on the host."""
    return Chain(*(np.asarray(params[f"chain_{name}"]) for name in Chain._fields))
