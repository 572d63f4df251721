"""Rotary and sinusoidal positions that stay exact however long the stream is.

Frequencies are fixed-point numbers: multiples of 2^-32 turns per token. The phase of position p is then p * f mod 2^32
in unsigned 32-bit integers, exact for every p, also after the position counter itself has wrapped around.
"""

import jax
import jax.numpy as jnp
import numpy as np

from memgpt_jax.shapes import Array, Bool, Float, Float32, Int32


def frequencies(num: int, base: float, scaling=None) -> np.ndarray:
    """base ** (-i / num) radians per token for i in range(num), stretched, as uint32 multiples of 2^-32 turns."""
    turns = base ** (-np.arange(num, dtype=np.float64) / num) / (2 * np.pi)
    return np.round(stretched(turns, base, scaling) * 2.0**32).astype(np.uint32)


def stretched(turns: np.ndarray, base: float, scaling) -> np.ndarray:
    """Turns per token, slowed down by `scaling.factor` where its kind says so."""
    if scaling is None or scaling.kind == "none":
        return turns
    slowed = np.ones_like(turns)  # how much of the factor each takes, 0 to 1
    if scaling.kind == "llama3":
        within = scaling.original_positions * turns
        slowed = np.clip((scaling.fast_turns - within) / (scaling.fast_turns - scaling.slow_turns), 0, 1)
    if scaling.kind == "yarn":  # linear in the number of the channel, between whole numbers
        channel = lambda turned: len(turns) * np.log(scaling.original_positions / (2 * np.pi * turned)) / np.log(base)  # noqa: E731
        first = max(np.floor(channel(scaling.fast_turns)), 0)
        last = min(np.ceil(channel(scaling.slow_turns)), 2 * len(turns) - 1)
        slowed = np.clip((np.arange(len(turns)) - first) / (last - first or 1e-3), 0, 1)
    return turns * (1 - slowed) + turns / scaling.factor * slowed


def phases(positions: Int32[Array, "*s"], num: int, base: float, scaling=None) -> Float32[Array, "*s {num}"]:
    """Angle p * base ** (-i / num) in radians, reduced to [0, 2 pi)."""
    turns = jnp.einsum("...,f->...f", positions.astype(jnp.uint32), frequencies(num, base, scaling))
    return turns.astype(jnp.float32) * jnp.float32(2 * np.pi / 2.0**32)


def rotate(
    x: Float[Array, "B L heads K"], positions: Int32[Array, "B L"], base: float, scaling=None
) -> Float[Array, "B L heads K"]:
    """Rotary positions (RoFormer, section 3.2): channel pairs (i, i + K/2) turned by the angle of their position.

    (a, b) -> (a cos t - b sin t, a sin t + b cos t),    t = p * base ** (-2i / K)

    scaling: stretched wavelengths, with the fields of `RotaryScalingConfig`.
    """
    half = x.shape[-1] // 2
    angle = phases(positions, half, base, scaling)[:, :, None, :]
    length = jnp.float32(1.0 if scaling is None else scaling.attention_factor)
    cos, sin = (jnp.cos(angle) * length).astype(x.dtype), (jnp.sin(angle) * length).astype(x.dtype)
    a, b = x[..., :half], x[..., half:]
    return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)


def sinusoidal(positions: Int32[Array, "B L"], d_model: int, base: float) -> Float32[Array, "B L {d_model}"]:
    """[sin t, cos t] with t = p * base ** (-2i / D) (Attention Is All You Need, section 3.5)."""
    angle = phases(positions, d_model // 2, base)
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)


def document_positions(start: Int32[Array, "B"], reset: Bool[Array, "B L"]) -> Int32[Array, "B L"]:
    """Position of each token in its document, where the first token of the call stands at `start`."""
    index = jnp.arange(reset.shape[1], dtype=jnp.int32)[None, :]
    last_reset = jax.lax.cummax(jnp.where(reset, index, -1), axis=1)
    return jnp.where(last_reset >= 0, index - last_reset, start[:, None] + index)
