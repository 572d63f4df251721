"""Choosing the next token: pure functions on logits [..., V] that compose."""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int


def keep_top_k(logits: Float[Array, "... V"], k: int) -> Float[Array, "... V"]:
    """Rule out (-inf) all but the k highest logits; ties with the k-th stay in. k above V keeps all."""
    kth = jax.lax.top_k(logits, min(k, logits.shape[-1]))[0][..., -1:]
    return jnp.where(logits >= kth, logits, -jnp.inf)


def keep_top_p(logits: Float[Array, "... V"], p: float) -> Float[Array, "... V"]:
    """Rule out (-inf) all but the nucleus: the fewest most probable tokens whose probabilities reach p.

    The most probable token always stays. Holtzman et al. 2020, "The curious case of neural text degeneration".
    """
    descending = jnp.flip(jnp.sort(logits, axis=-1), axis=-1)
    probabilities = jax.nn.softmax(descending, axis=-1)
    before = jnp.cumsum(probabilities, axis=-1) - probabilities  # mass of the strictly more probable tokens
    inside = (before < p).at[..., 0].set(True)
    threshold = jnp.min(jnp.where(inside, descending, jnp.inf), axis=-1, keepdims=True)
    return jnp.where(logits >= threshold, logits, -jnp.inf)


def sample(
    key: Array,
    logits: Float[Array, "... V"],
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Int[Array, "..."]:
    """Draw token ids (int32) from softmax(logits / temperature), limited to top-k and then to the top-p nucleus.

    Temperature 0 takes the highest logit. Raises `ValueError` for values out of range.
    """
    check_sampling(temperature, top_k, top_p)
    logits = logits.astype(jnp.float32)
    if temperature == 0.0:
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)
    logits = logits / temperature
    if top_k is not None:
        logits = keep_top_k(logits, top_k)
    if top_p is not None:
        logits = keep_top_p(logits, top_p)
    return jax.random.categorical(key, logits, axis=-1).astype(jnp.int32)


def check_sampling(temperature: float, top_k: int | None, top_p: float | None) -> None:
    """Raise `ValueError` unless temperature >= 0, top_k >= 1 and 0 < top_p <= 1 (or None)."""
    if temperature < 0:
        raise ValueError(f"temperature must be at least 0 (0: the most probable token), got {temperature}")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k must be at least 1, got {top_k}")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p must be above 0 and at most 1, got {top_p}")
