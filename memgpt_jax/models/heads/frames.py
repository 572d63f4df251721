"""The head for frames of sound: what a decoder says next, and whether it has finished (Tacotron)."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from memgpt_jax.config.checks import check, instance_of
from memgpt_jax.config.features import FramesConfig
from memgpt_jax.config.heads import HeadConfig, PoolName, StreamHeadConfig
from memgpt_jax.config.model import PositionedStackConfig, StackConfig
from memgpt_jax.models.arguments import on_host
from memgpt_jax.models.heads.streams import StreamHead
from memgpt_jax.ops import Scores
from memgpt_jax.shapes import Array, Flags, Float, Float32, Tokens


@dataclass(frozen=True, kw_only=True)
class FramesHeadConfig(StreamHeadConfig):
    """The frames of the next token, F numbers, and the logit of the end of the sound, at each token of a decoder.

    Shen et al., "Natural TTS Synthesis by Conditioning WaveNet on Mel Spectrogram Predictions" (Tacotron 2, 2018),
    without its convolutions after the last frame. F is `FramesConfig.size` of the decoder.
    """

    target: ClassVar[str] = "frames"

    pool: PoolName = "none"
    """`none`: each token has frames of its own."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.pool == "none", f"head.pool must be 'none': each token has frames of its own, got {self.pool!r}")


class FramesHead(StreamHead):
    """Frames and the logit of the end at every token, [B, L, F + 1]."""

    config: FramesHeadConfig

    def __init__(self, config: HeadConfig, stack: StackConfig, *, rngs: nnx.Rngs):
        config = instance_of(config, FramesHeadConfig, "head")
        features = stack.features if isinstance(stack, PositionedStackConfig) else None
        if not isinstance(features, FramesConfig) or not stack.causal:
            raise ValueError(f"head=FramesHeadConfig needs a decoder with features=FramesConfig(...), got {features}")
        super().__init__(replace(config, num_outputs=features.size + 1, output_names=()), stack, rngs=rngs)

    def check_targets(self, targets: Any, tokens: Tokens) -> Array:
        """The targets as float32. Raises `ValueError` unless they are finite floats [B, L, F + 1]."""
        shape = (*tokens.shape, self.config.num_outputs)
        is_array = isinstance(targets, np.ndarray | jax.Array)
        got = f"{targets.dtype}{list(targets.shape)}" if is_array else f"a {type(targets).__name__}"
        fits = is_array and targets.shape == shape and jnp.issubdtype(targets.dtype, jnp.floating)
        check(fits, f"targets['frames'] must be floats{list(shape)}, frames and the end, got {got}")
        values = on_host(targets)
        check(values is None or bool(np.isfinite(values).all()), "targets['frames'] must be finite")
        return jnp.asarray(targets, jnp.float32)

    def score(
        self,
        outputs: Float32[Array, "B L C"],
        targets: Float32[Array, "B L C"],
        embedding: Float[Array, "V D"] | None = None,
        *,
        reset: Flags | None = None,
        valid: Flags | None = None,
    ) -> Scores:
        """See `frame_scores`."""
        return frame_scores(outputs, targets)


def frame_scores(outputs: Float32[Array, "B L C"], targets: Float32[Array, "B L C"]) -> Scores:
    """The mean absolute error of the frames plus the cross-entropy of the end, and whether the end is right.

        loss = (1 - e) sum_f |y_f - x_f| / F - e ln p - (1 - e) ln(1 - p),   p = sigmoid(y_F)

    Args:
        outputs: y.
        targets: frames x of the next token, and e: 1 at the last token of the sound, after which there are none.
    """
    end, logit = targets[..., -1], outputs[..., -1]
    errors = jnp.mean(jnp.abs(outputs[..., :-1] - targets[..., :-1]), axis=-1)
    nats = -end * jax.nn.log_sigmoid(logit) - (1 - end) * jax.nn.log_sigmoid(-logit)
    return Scores((1 - end) * errors + nats, (logit > 0) == (end > 0))
