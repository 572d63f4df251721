"""Rotary and sinusoidal position encodings that stay exact in streams of any length.

Frequencies are fixed-point numbers: multiples of 2^-32 turns per token. The phase of position p is p f mod 2^32 in
unsigned 32-bit integers. It is exact for every p, also after the position counter has wrapped around.
"""

import dataclasses
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from memgpt_jax.config.rotary import RotaryScalingConfig
from memgpt_jax.shapes import Array, Bool, Float, Float32, Int32

Scaling = Literal["none", "linear", "llama3", "yarn"]


def scale_frequencies(
    turns: np.ndarray,
    base: float,
    *,
    kind: Scaling = "none",
    factor: float = 1.0,
    original_positions: int = 8192,
    slow_turns: float = 1.0,
    fast_turns: float = 4.0,
) -> np.ndarray:
    """Frequencies f_i [num], in turns per token, for a longer context: f_i (1 - s_i) + s_i f_i / factor.

    - `none`: s = 0
    - `linear`: s = 1
    - `llama3` (Llama 3.1): s falls from 1 to 0 as f_i original_positions grows from `slow_turns` to `fast_turns`
    - `yarn` (Peng et al., "YaRN", 2023): as `llama3`, but linear in the index i between whole numbers

    Args:
        original_positions: context length, in tokens, that the model was trained with.
        slow_turns, fast_turns: turns within `original_positions`. Slower frequencies are divided by all of `factor`;
            faster ones do not change.
    """
    if kind == "none":
        return turns
    share = np.ones_like(turns)
    if kind == "llama3":
        within = original_positions * turns
        share = np.clip((fast_turns - within) / (fast_turns - slow_turns), 0, 1)
    if kind == "yarn":

        def index_of(turned: float):
            return len(turns) * np.log(original_positions / (2 * np.pi * turned)) / np.log(base)

        first = max(np.floor(index_of(fast_turns)), 0)
        last = min(np.ceil(index_of(slow_turns)), 2 * len(turns) - 1)
        share = np.clip((np.arange(len(turns)) - first) / (last - first or 1e-3), 0, 1)
    return turns * (1 - share) + turns / factor * share


def compute_frequencies(num: int, base: float, **scaling) -> np.ndarray:
    """base^(-i / num) radians per token for i in range(num), as uint32 multiples of 2^-32 turns.

    scaling: options of `scale_frequencies`.
    """
    turns = base ** (-np.arange(num, dtype=np.float64) / num) / (2 * np.pi)
    return np.round(scale_frequencies(turns, base, **scaling) * 2.0**32).astype(np.uint32)


def phases(positions: Int32[Array, "*s"], frequencies: np.ndarray) -> Float32[Array, "*s {len(frequencies)}"]:
    """The angle of each position and each of the `frequencies`, in radians, reduced to [0, 2 pi)."""
    turns = jnp.einsum("...,f->...f", positions.astype(jnp.uint32), frequencies)
    return turns.astype(jnp.float32) * jnp.float32(2 * np.pi / 2.0**32)


def rotate(
    x: Float[Array, "B L heads K"],
    positions: Int32[Array, "B L"],
    frequencies: np.ndarray,
    amplitude: float = 1.0,
) -> Float[Array, "B L heads K"]:
    """Rotary positions: channel pairs (i, i + K/2) turned by the angle of their position.

        (a, b) -> amplitude (a cos t - b sin t, a sin t + b cos t),    t = p f_i

    Source: Su et al., "RoFormer" (2021), section 3.2.

    Args:
        frequencies: uint32 [K/2], from `compute_frequencies`.
        amplitude: factor of the result; YaRN scales queries and keys.
    """
    half = x.shape[-1] // 2
    angle = phases(positions, frequencies)[:, :, None, :]
    cos, sin = (
        (jnp.cos(angle) * jnp.float32(amplitude)).astype(x.dtype),
        (jnp.sin(angle) * jnp.float32(amplitude)).astype(x.dtype),
    )
    a, b = x[..., :half], x[..., half:]
    return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)


@dataclass(frozen=True)
class Rotary:
    """The rotary positions of self-attention: `rotate` with its frequencies."""

    head_dim: int
    base: float
    scaling: RotaryScalingConfig

    def __call__(self, x: Float[Array, "B L heads K"], positions: Int32[Array, "B L"]) -> Float[Array, "B L heads K"]:
        """Queries or keys, rotated to their positions."""
        scaling = dataclasses.asdict(self.scaling)
        amplitude = scaling.pop("attention_factor")
        return rotate(x, positions, compute_frequencies(self.head_dim // 2, self.base, **scaling), amplitude)


def sinusoidal(positions: Int32[Array, "B L"], d_model: int, base: float) -> Float32[Array, "B L {d_model}"]:
    """[sin t, cos t] with t = p base^(-2i / D).

    Source: Vaswani et al., "Attention Is All You Need" (2017), section 3.5.
    """
    angle = phases(positions, compute_frequencies(d_model // 2, base))
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)


def document_positions(start: Int32[Array, "B"], reset: Bool[Array, "B L"]) -> Int32[Array, "B L"]:
    """Position of each token in its document; the first token of the call has position `start` if it is not reset."""
    index = jnp.arange(reset.shape[1], dtype=jnp.int32)[None, :]
    last_reset = jax.lax.cummax(jnp.where(reset, index, -1), axis=1)
    return jnp.where(last_reset >= 0, index - last_reset, start[:, None] + index)
