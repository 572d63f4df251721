"""The head for numbers: a rating, a price or another quantity."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from memgpt_jax.config.checks import check, instance_of
from memgpt_jax.config.heads import HeadConfig, StreamHeadConfig
from memgpt_jax.config.model import StackConfig
from memgpt_jax.models.arguments import on_host
from memgpt_jax.models.heads.streams import StreamHead
from memgpt_jax.ops import Scores
from memgpt_jax.shapes import Array, Flags, Float, Float32, Tokens

TOLERANCE = 0.5
"""A number counts as correct if the output differs from it by at most this, in the unit of the numbers."""


@dataclass(frozen=True, kw_only=True)
class ScalarHeadConfig(StreamHeadConfig):
    """A number of a document, or of each token with `pool="none"`.

    output = mean + std (W x + b), so that W and b learn standardised numbers whatever their unit.
    """

    target: ClassVar[str] = "numbers"
    pipeline: ClassVar[str | None] = "text-regression"

    num_outputs: int = 1
    """Number of outputs C: always 1."""
    loss: Literal["mse", "mae"] = "mse"
    """With d = (output - target) / std: `mse`, the squared error d^2; `mae`, the absolute error |d|."""
    mean: float = 0.0
    """Mean of the targets, which training sets from the data."""
    std: float = 1.0
    """Standard deviation of the targets, positive, which training sets from the data."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.num_outputs == 1, f"head.num_outputs must be 1, got {self.num_outputs}")
        check(
            math.isfinite(self.mean) and 0 < self.std < math.inf,
            f"head.mean must be finite and head.std positive, got {self.mean} and {self.std}",
        )


class ScalarHead(StreamHead):
    """A number at every token, [B, L, 1], in the unit of the targets."""

    config: ScalarHeadConfig

    def __init__(self, config: HeadConfig, stack: StackConfig, *, rngs: nnx.Rngs):
        config = instance_of(config, ScalarHeadConfig, "head")
        super().__init__(config, stack, rngs=rngs)

    def project(self, x: Float32[Array, "B L W"]) -> Float32[Array, "B L 1"]:
        """mean + std (W x + b)."""
        return self.config.mean + self.config.std * super().project(x)

    def check_targets(self, targets: Any, tokens: Tokens) -> Array:
        """The targets as float32. Raises `ValueError` unless they are finite floats [B, L]."""
        is_array = isinstance(targets, np.ndarray | jax.Array)
        got = f"{targets.dtype}{list(targets.shape)}" if is_array else f"a {type(targets).__name__}"
        fits = is_array and targets.shape == tokens.shape and jnp.issubdtype(targets.dtype, jnp.floating)
        check(fits, f"targets['numbers'] must be floats{list(tokens.shape)} like tokens, got {got}")
        values = on_host(targets)
        check(values is None or bool(np.isfinite(values).all()), "targets['numbers'] must be finite")
        return jnp.asarray(targets, jnp.float32)

    def score(
        self,
        outputs: Float32[Array, "B L 1"],
        targets: Float32[Array, "B L"],
        embedding: Float[Array, "V D"] | None = None,
        *,
        reset: Flags | None = None,
        valid: Flags | None = None,
    ) -> Scores:
        """The loss of each target, without unit, and whether the output is within `TOLERANCE` of it."""
        return number_scores(outputs[..., 0], targets, loss=self.config.loss, std=self.config.std)


def number_scores(
    outputs: Float32[Array, "B L"], targets: Float32[Array, "B L"], *, loss: Literal["mse", "mae"], std: float
) -> Scores:
    """d^2 (`mse`) or |d| (`mae`) with d = (output - target) / std, and whether |output - target| <= `TOLERANCE`."""
    difference = outputs - targets
    d = difference / std
    return Scores(jnp.square(d) if loss == "mse" else jnp.abs(d), jnp.abs(difference) <= TOLERANCE)
