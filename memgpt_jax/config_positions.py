"""Configuration of positions."""

from dataclasses import dataclass
from typing import Literal

from memgpt_jax.checks import check, check_literals, check_positive


@dataclass(frozen=True, kw_only=True)
class RotaryScalingConfig:
    """How rotary wavelengths are stretched, so that a model reads further than it was trained to."""

    kind: Literal["none", "linear", "llama3", "yarn"] = "none"
    """`linear`: all of them by `factor`. `llama3` (Llama 3.1) and `yarn` (Peng et al., 2023): only those that turned
    less than a few times within `original_positions`."""
    factor: float = 1.0
    """By how much the longest ones are stretched."""
    original_positions: int = 8192
    """Tokens that the model was first trained on."""
    slow_turns: float = 1.0
    """Wavelengths that turn at most so often within them are stretched by all of `factor`."""
    fast_turns: float = 4.0
    """Wavelengths that turn at least so often within them stay. In between, a mixture."""
    attention_factor: float = 1.0
    """`yarn`: what rotated queries and keys are multiplied by."""

    def __post_init__(self):
        check(self.factor >= 1, f"rotary_scaling.factor must be at least 1, got {self.factor}")
        check(
            0 < self.slow_turns < self.fast_turns,
            f"rotary_scaling.slow_turns={self.slow_turns} must be positive and below fast_turns={self.fast_turns}",
        )
        check_positive(self)
        check_literals(self)
