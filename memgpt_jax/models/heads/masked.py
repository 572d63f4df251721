"""The head of masked language modelling: Devlin et al., "BERT" (2019), section 3.1, task 1."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from flax import nnx

from memgpt_jax.config.heads import HeadConfig
from memgpt_jax.config.model import StackConfig
from memgpt_jax.memory.linear import linear
from memgpt_jax.models.heads.base import Head
from memgpt_jax.models.layers import ACTIVATIONS, make_norm
from memgpt_jax.ops import Scores, cross_entropy
from memgpt_jax.ops.linear import matmul
from memgpt_jax.shapes import Array, Flags, Float, Float32, Int, Stream


@dataclass(frozen=True, kw_only=True)
class MaskedHeadConfig(HeadConfig):
    """Logits of the masked tokens. It has no settings: its activation and normalisation are those of the encoder."""


class MaskedHead(Head):
    """Outputs f = norm(a(W h + b)), [B, L, D]; logits E f + c, with the token embedding E [V, D]."""

    def __init__(self, config: HeadConfig, stack: StackConfig, *, rngs: nnx.Rngs):
        super().__init__(config, stack, rngs=rngs)
        self.transform = linear(stack.d_model, stack.d_model, use_bias=True, dtype=jnp.dtype(stack.dtype), rngs=rngs)
        self.norm = make_norm(stack, stack.d_model, rngs)
        self.bias = nnx.Param(jnp.zeros(stack.vocab_size, jnp.float32))

    @property
    def num_classes(self) -> int:
        return self.stack.vocab_size

    def __call__(
        self, h: Stream, state: Any = (), reset: Flags | None = None, valid: Flags | None = None
    ) -> tuple[Stream, Any]:
        return self.norm(ACTIVATIONS[self.stack.activation](self.transform(h))), state

    def logits(self, outputs: Stream, embedding: Float[Array, "V D"]) -> Float32[Array, "B L V"]:
        """The logits of every id, [B, L, V]."""
        logits = matmul(outputs, embedding.T, preferred_element_type=jnp.float32)
        return logits + self.bias[...][None, None]

    def score(
        self, outputs: Stream, targets: Int[Array, "B L"], embedding: Float[Array, "V D"] | None = None
    ) -> Scores:
        assert embedding is not None, "the head shares the token embedding"
        return cross_entropy(outputs, embedding, targets, bias=self.bias[...])
