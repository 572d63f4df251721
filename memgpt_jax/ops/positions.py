"""Rotary and sinusoidal positions that stay exact however long the stream is.

Frequencies are fixed-point numbers: multiples of 2^-32 turns per token. The phase of position p is then p * f mod 2^32
in unsigned 32-bit integers, exact for every p, also after the position counter itself has wrapped around.
"""

import jax
import jax.numpy as jnp
import numpy as np

from memgpt_jax.shapes import Array, Bool, Float, Float32, Int32


def frequencies(num: int, base: float) -> np.ndarray:
    """base ** (-i / num) radians per token for i in range(num), as uint32 multiples of 2^-32 turns."""
    turns = base ** (-np.arange(num, dtype=np.float64) / num) / (2 * np.pi)
    return np.round(turns * 2.0**32).astype(np.uint32)


def phases(positions: Int32[Array, "*s"], num: int, base: float) -> Float32[Array, "*s num"]:
    """Angle p * base ** (-i / num) in radians, reduced to [0, 2 pi)."""
    turns = jnp.einsum("...,f->...f", positions.astype(jnp.uint32), frequencies(num, base))
    return turns.astype(jnp.float32) * jnp.float32(2 * np.pi / 2.0**32)


def rotate(x: Float[Array, "B L heads K"], positions: Int32[Array, "B L"], base: float) -> Float[Array, "B L heads K"]:
    """Rotary positions (RoFormer, section 3.2): channel pairs (i, i + K/2) turned by the angle of their position.

    (a, b) -> (a cos t - b sin t, a sin t + b cos t),    t = p * base ** (-2i / K)
    """
    half = x.shape[-1] // 2
    angle = phases(positions, half, base)[:, :, None, :]
    cos, sin = jnp.cos(angle).astype(x.dtype), jnp.sin(angle).astype(x.dtype)
    a, b = x[..., :half], x[..., half:]
    return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)


def sinusoidal(positions: Int32[Array, "B L"], d_model: int, base: float) -> Float32[Array, "B L D"]:
    """[sin t, cos t] with t = p * base ** (-2i / D) (Attention Is All You Need, section 3.5)."""
    angle = phases(positions, d_model // 2, base)
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)


def document_positions(start: Int32[Array, "B"], reset: Bool[Array, "B L"]) -> Int32[Array, "B L"]:
    """Position of each token in its document, where the first token of the call stands at `start`."""
    index = jnp.arange(reset.shape[1], dtype=jnp.int32)[None, :]
    last_reset = jax.lax.cummax(jnp.where(reset, index, -1), axis=1)
    return jnp.where(last_reset >= 0, index - last_reset, start[:, None] + index)
