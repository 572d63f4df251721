"""Configuration of rotary positions."""

from dataclasses import dataclass
from typing import Literal

from memgpt_jax.config.checks import check, check_literals, check_positive, check_types


@dataclass(frozen=True, kw_only=True)
class RotaryScalingConfig:
    """Stretching of rotary wavelengths, for texts longer than the training context."""

    kind: Literal["none", "linear", "llama3", "yarn"] = "none"
    """`linear`: all wavelengths are multiplied by `factor`. `llama3` (Llama 3.1) and `yarn` (Peng et al., 2023): only
    wavelengths with few turns within `original_positions`."""
    factor: float = 1.0
    """Multiplier of the longest wavelengths."""
    original_positions: int = 8192
    """Context length of the original training, in tokens."""
    slow_turns: float = 1.0
    """Wavelengths with at most this number of turns within `original_positions` are multiplied by `factor`."""
    fast_turns: float = 4.0
    """Wavelengths with at least this number of turns are unchanged; those in between are interpolated."""
    attention_factor: float = 1.0
    """`yarn`: multiplier of rotated queries and keys."""

    def __post_init__(self) -> None:
        check_types(self)
        check(self.factor >= 1, f"rotary_scaling.factor must be at least 1, got {self.factor}")
        check(
            0 < self.slow_turns < self.fast_turns,
            f"rotary_scaling.slow_turns={self.slow_turns} must be positive and below fast_turns={self.fast_turns}",
        )
        check_positive(self)
        check_literals(self)
