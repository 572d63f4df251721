"""The head for transcripts: labels in the order of the tokens, without places (CTC)."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import nnx

from memgpt_jax.config.checks import check, instance_of
from memgpt_jax.config.heads import HeadConfig, PoolName, StreamHeadConfig
from memgpt_jax.config.model import StackConfig
from memgpt_jax.models.arguments import check_numbers, filled_flags
from memgpt_jax.models.heads.streams import StreamHead
from memgpt_jax.ops import Scores
from memgpt_jax.ops.ctc import ctc_losses, is_label
from memgpt_jax.shapes import Array, Flags, Float, Float32, Int32, Tokens


@dataclass(frozen=True, kw_only=True)
class CTCHeadConfig(StreamHeadConfig):
    """Logits of every token id and of a blank, the class `vocab_size`, at each token: `memgpt_jax.ops.ctc`.

    A row is one sound. It needs at least as many tokens as labels, and one more for each label that repeats the one
    before it.
    """

    target: ClassVar[str] = "transcript"

    pool: PoolName = "none"
    """`none`: each token has logits of its own."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.pool == "none", f"head.pool must be 'none': each token has logits of its own, got {self.pool!r}")


class CTCHead(StreamHead):
    """Logits [B, L, V + 1] at every token."""

    config: CTCHeadConfig

    def __init__(self, config: HeadConfig, stack: StackConfig, *, rngs: nnx.Rngs):
        config = instance_of(config, CTCHeadConfig, "head")
        super().__init__(replace(config, num_outputs=stack.vocab_size + 1, output_names=()), stack, rngs=rngs)

    @property
    def num_classes(self) -> int:
        return self.stack.vocab_size

    def check_targets(self, targets: Any, tokens: Tokens) -> Array:
        """The labels of each row [B, L] as int32, -1 after the last. Raises `ValueError` if they are not."""
        return check_numbers("targets['transcript']", targets, tokens.shape, self.num_classes, least=-1)

    def score(
        self,
        outputs: Float32[Array, "B L C"],
        targets: Int32[Array, "B L"],
        embedding: Float[Array, "V D"] | None = None,
        *,
        reset: Flags | None = None,
        valid: Flags | None = None,
    ) -> Scores:
        """-ln p(labels) of a row, divided equally among its labels, and whether the best path has the same label there.

        See `ctc_losses`; `reset` is ignored.
        """
        _, valid = filled_flags(targets.shape, None, valid)
        present = targets >= 0
        number = jnp.maximum(jnp.sum(present, axis=1, keepdims=True, dtype=jnp.float32), 1)
        losses = ctc_losses(outputs, valid, jnp.where(present, targets, 0), present)[:, None] / number
        return Scores(jnp.where(present, losses, 0.0), best_labels(outputs, valid) == jnp.where(present, targets, -2))


def best_labels(outputs: Float32[Array, "B L C"], valid: Flags) -> Int32[Array, "B L"]:
    """The labels of the best path of each row, -1 after the last."""
    blank = outputs.shape[-1] - 1
    best = jnp.where(valid, jnp.argmax(outputs, axis=-1).astype(jnp.int32), blank)
    found = is_label(best, jnp.full(len(best), blank, jnp.int32), blank)
    order = jnp.argsort(~found, axis=1, stable=True)
    return jnp.take_along_axis(jnp.where(found, best, -1), order, axis=1)
