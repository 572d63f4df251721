"""The heads of BERT for a whole row: Devlin et al., "BERT" (2019), section 3.1, task 2."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from flax import nnx

from memgpt_jax.config.heads import HeadConfig
from memgpt_jax.config.model import StackConfig
from memgpt_jax.memory.linear import linear
from memgpt_jax.models.heads.base import Head
from memgpt_jax.ops import Scores, logit_scores
from memgpt_jax.ops.linear import matmul
from memgpt_jax.shapes import Array, Flags, Float, Int, Stream


@dataclass(frozen=True, kw_only=True)
class PoolerConfig(HeadConfig):
    """The pooled first token of a call."""


@dataclass(frozen=True, kw_only=True)
class NextSentenceHeadConfig(HeadConfig):
    """Whether the second sentence of a row follows the first."""


class Pooler(Head):
    """Outputs tanh(W h + b) of the first token of the call, [B, 1, D]. It is not scored."""

    def __init__(self, config: HeadConfig, stack: StackConfig, *, rngs: nnx.Rngs):
        super().__init__(config, stack, rngs=rngs)
        self.dense = linear(stack.d_model, stack.d_model, use_bias=True, dtype=jnp.dtype(stack.dtype), rngs=rngs)

    def __call__(
        self, h: Stream, state: Any = (), reset: Flags | None = None, valid: Flags | None = None
    ) -> tuple[Float[Array, "B 1 C"], Any]:
        return jnp.tanh(self.dense(h[:, :1])), state


class NextSentenceHead(Head):
    """Outputs two logits W p + b, [B, 1, 2], of the pooled row p: 0, B follows A; 1, B comes from another document."""

    reads = "pooler"
    labels_rows = True

    def __init__(self, config: HeadConfig, stack: StackConfig, *, rngs: nnx.Rngs):
        super().__init__(config, stack, rngs=rngs)
        self.dense = linear(stack.d_model, 2, use_bias=True, dtype=jnp.dtype(stack.dtype), rngs=rngs)

    @property
    def num_classes(self) -> int:
        return 2

    def __call__(
        self, h: Stream, state: Any = (), reset: Flags | None = None, valid: Flags | None = None
    ) -> tuple[Float[Array, "B 1 C"], Any]:
        kernel = self.dense.kernel[...].astype(h.dtype)
        logits = matmul(h, kernel, preferred_element_type=jnp.float32)
        assert self.dense.bias is not None
        return logits + self.dense.bias[...][None, None], state

    def score(
        self, outputs: Float[Array, "B 1 2"], targets: Int[Array, "B"], embedding: Float[Array, "V D"] | None = None
    ) -> Scores:
        return logit_scores(outputs[:, 0], targets)
