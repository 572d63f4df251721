"""The head for vectors of texts: similar ones for texts that belong together."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from memgpt_jax.config.checks import check, instance_of
from memgpt_jax.config.heads import HeadConfig, StreamHeadConfig
from memgpt_jax.config.model import StackConfig
from memgpt_jax.models.arguments import check_numbers
from memgpt_jax.models.heads.streams import StreamHead
from memgpt_jax.ops import Scores
from memgpt_jax.shapes import Array, Flags, Float, Float32, Int, Tokens


@dataclass(frozen=True, kw_only=True)
class VectorHeadConfig(StreamHeadConfig):
    """A vector of length 1 for each document: v = (W x + b) / |W x + b|, with the pooled outputs x of the layers.

    W starts as the identity if it is square, so that an untrained head gives the pooled hidden states.
    """

    target: ClassVar[str] = "pairs"
    pipeline: ClassVar[str | None] = "feature-extraction"

    num_outputs: int | None = None  # pyright: ignore[reportIncompatibleVariableOverride]
    """Width of the vectors; default: that of x."""
    temperature: float = 0.05
    """T of the loss, positive."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.temperature > 0, f"head.temperature must be positive, got {self.temperature}")
        check(self.pool != "none", "head.pool='none' gives no vector of a text: choose another pool, such as 'mean'")


class VectorHead(StreamHead):
    """A unit vector at every token, for the document up to and with this token, [B, L, C]."""

    config: VectorHeadConfig

    def __init__(self, config: HeadConfig, stack: StackConfig, *, rngs: nnx.Rngs):
        config = instance_of(config, VectorHeadConfig, "head")
        width = config.num_outputs or config.width or stack.d_model
        super().__init__(replace(config, num_outputs=width), stack, rngs=rngs)
        self.temperature = config.temperature
        if width == self.width:
            self.output.kernel[...] = jnp.eye(width, dtype=jnp.float32)

    def project(self, x: Float32[Array, "B L W"]) -> Float32[Array, "B L C"]:
        """(W x + b) / |W x + b|."""
        vectors = super().project(x)
        return vectors * jax.lax.rsqrt(jnp.sum(jnp.square(vectors), axis=-1, keepdims=True) + 1e-12)

    def check_targets(self, targets: Any, tokens: Tokens) -> Array:
        """The targets as int32. Raises `ValueError` unless they are integers [B, L]."""
        return check_numbers("targets['pairs']", targets, tokens.shape)

    def score(
        self,
        outputs: Float32[Array, "B L C"],
        targets: Int[Array, "B L"],
        embedding: Float[Array, "V D"] | None = None,
        *,
        reset: Flags | None = None,
        valid: Flags | None = None,
    ) -> Scores:
        """The contrastive loss (InfoNCE) among the texts of the batch, one in each row.

        A target n > 0 marks the last token of query n, and -n that of a document that is relevant for it; other tokens
        have 0. With the vectors v of the marked tokens, for a query i, and with the roles exchanged for a document,

            loss_i = -ln sum_{j relevant for i} exp(v_i . v_j / T) / sum_{j document} exp(v_i . v_j / T)

        A target is correct if its most similar text belongs to it. Other tokens have the loss 0. If a row has several
        targets, its last one counts, and the others have the loss 0.

        Source: van den Oord et al., "Representation Learning with Contrastive Predictive Coding" (2018).
        """
        length = targets.shape[1]
        place = length - 1 - jnp.argmax(targets[:, ::-1] != 0, axis=1)
        vectors = jnp.take_along_axis(outputs, place[:, None, None], axis=1)[:, 0]
        number = jnp.take_along_axis(targets, place[:, None], axis=1)[:, 0]
        losses, correct = contrast(vectors, number, self.temperature)
        here = jnp.arange(length)[None] == place[:, None]
        return Scores(jnp.where(here, losses[:, None], 0.0), here & correct[:, None])


def contrast(
    vectors: Float32[Array, "B C"], numbers: Int[Array, "B"], temperature: float
) -> tuple[Float32[Array, "B"], Flags]:
    """The loss of each text and whether its most similar text belongs to it; see `VectorHead.score`.

    Args:
        vectors: unit vectors of the texts.
        numbers: n of a query, -n of a document that belongs to it, 0 of a row without a text, whose loss is 0.
        temperature: T.
    """
    lowest = jnp.finfo(jnp.float32).min
    logits = vectors @ vectors.T / temperature
    signs = jnp.sign(numbers)
    other = signs[:, None] * signs[None] < 0
    own = other & (numbers[:, None] == -numbers[None])
    among_all = jax.nn.logsumexp(jnp.where(other, logits, lowest), axis=1)
    among_own = jax.nn.logsumexp(jnp.where(own, logits, lowest), axis=1)
    scored = jnp.any(own, axis=1)
    best = jnp.argmax(jnp.where(other, logits, lowest), axis=1)
    correct = jnp.take_along_axis(own, best[:, None], axis=1)[:, 0]
    return jnp.where(scored, among_all - among_own, 0.0), scored & correct
