"""The head for spans: where the answer to a question begins and ends."""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from memgpt_jax.config.checks import check, instance_of
from memgpt_jax.config.heads import HeadConfig, PoolName, StreamHeadConfig
from memgpt_jax.config.model import StackConfig
from memgpt_jax.config.texts import CleanConfig
from memgpt_jax.models.arguments import check_numbers, filled_flags, on_host
from memgpt_jax.models.heads.streams import StreamHead
from memgpt_jax.ops import Scores
from memgpt_jax.shapes import Array, Bool, Flags, Float, Float32, Int32, Tokens


@dataclass(frozen=True, kw_only=True)
class SpanHeadConfig(StreamHeadConfig):
    """Two logits at each token: the answer starts here, and it ends here (Devlin et al., "BERT" (2019), 4.2)."""

    target: ClassVar[str] = "spans"
    pipeline: ClassVar[str | None] = "question-answering"

    output_names: tuple[str, ...] = ("start", "end")
    """Names of the two logits."""
    pool: PoolName = "none"
    """`none`: each token has logits of its own."""
    no_answer: bool = False
    """Whether the first token of a document means that the text has no answer (SQuAD 2), which training sets from the
    data, for pipelines."""
    overlap: int = 32
    """Tokens that two windows of a long text share, which training sets from the data, for pipelines."""
    question_types: bool = False
    """Whether token types tell question (0) and text (1) apart, which training sets from the data, for pipelines."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.num_outputs == 2, f"head.num_outputs must be 2, start and end, got {self.num_outputs}")
        check(self.pool == "none", f"head.pool must be 'none': spans have two logits at each token, got {self.pool!r}")
        check(self.clean == CleanConfig(), "head.clean must be the default: questions and their texts are not cleaned")


class SpanHead(StreamHead):
    """Logits of start and end at every token."""

    config: SpanHeadConfig

    def __init__(self, config: HeadConfig, stack: StackConfig, *, rngs: nnx.Rngs):
        super().__init__(instance_of(config, SpanHeadConfig, "head"), stack, rngs=rngs)

    @property
    def num_classes(self) -> int:
        return 2

    def check_targets(self, targets: Any, tokens: Tokens) -> Array:
        """The targets [B, L, 2], int32, of start and end: 1 is the right token, 0 a candidate, -1 none.

        Raises `ValueError` if shape, type or values are not valid.
        """
        name = f"targets[{self.config.target!r}]"
        checked, values = check_numbers(name, targets, (*tokens.shape, 2)), on_host(targets)
        if values is not None and values.size:
            check(
                -1 <= values.min() <= values.max() <= 1,
                f"{name} must be -1 (no candidate), 0 (candidate) or 1 (the right one), "
                f"got {values.min()} to {values.max()}",
            )
        return checked

    def score(
        self,
        outputs: Float32[Array, "B L 2"],
        targets: Any,
        embedding: Float[Array, "V D"] | None = None,
        *,
        reset: Flags | None = None,
        valid: Flags | None = None,
    ) -> Scores:
        reset, valid = filled_flags(outputs.shape[:2], reset, valid)
        return span_scores(outputs, jnp.where(valid[..., None], targets, -1), reset)


def span_scores(
    logits: Float32[Array, "B L 2"], targets: Int32[Array, "B L 2"], reset: Bool[Array, "B L"] | np.ndarray
) -> Scores:
    """Loss in nats and correctness of the span of each document, at every token of the document.

    With s and e the logits, C the candidates of a document and S, E those with target 1:

        loss = -1/2 (mean_{i in S} ln softmax_C(s)_i + mean_{j in E} ln softmax_C(e)_j)

    Args:
        logits: of start and end.
        targets: 1: the answer starts or ends here; 0: a candidate; -1: none. Outside [-1, 1], the loss is NaN.
        reset: True for the first token of a document. A document is scored by its tokens in the row.

    Returns:
        The loss, 0 for a document without targets 1, such as padding; and whether targets have the highest logits.
    """
    length = logits.shape[1]
    document = jnp.cumsum(jnp.asarray(reset), axis=1)

    def row(logits: Array, targets: Array, document: Array) -> Scores:
        def over(reduce: Any, values: Array) -> Array:
            """A reduction over the tokens of each document, at all its tokens: [L, 2]."""
            return reduce(values, document, num_segments=length + 1)[document]

        candidate, right = targets >= 0, targets == 1
        masked = jnp.where(candidate, logits, -jnp.inf)
        top = jax.lax.stop_gradient(over(jax.ops.segment_max, masked))
        shift = jnp.where(jnp.isneginf(top), 0.0, top)
        # Where there is no candidate, the exponent is 0, so that its gradient is finite.
        exponents = jnp.where(candidate, jnp.exp(jnp.where(candidate, logits - shift, 0.0)), 0.0)
        total = over(jax.ops.segment_sum, exponents)
        number = over(jax.ops.segment_sum, right.astype(jnp.float32))
        chosen = over(jax.ops.segment_sum, jnp.where(right, logits, 0.0))
        log_total = jnp.log(jnp.where(number > 0, total, 1.0)) + shift
        losses = jnp.where(number > 0, log_total - chosen / jnp.maximum(number, 1.0), 0.0)
        best = over(jax.ops.segment_max, jnp.where(right, logits, -jnp.inf))
        correct = (best == top) & (number > 0)
        return Scores(jnp.mean(losses, axis=-1), jnp.all(correct & jnp.isfinite(losses), axis=-1))

    scores = jax.vmap(row)(logits, targets, document)
    known = jnp.all((targets >= -1) & (targets <= 1), axis=-1)
    return scores._replace(losses=jnp.where(known, scores.losses, jnp.nan))
