"""Addressing of memory slots: by content, by location, by usage and by the order of writing.

Pure functions on float32 arrays with the batch axis first: M slots of width W, and H heads that address in parallel. A
weighting is a vector of M numbers that are at least 0 and sum to at most 1. Values and gradients are finite
everywhere, including at memories, keys and weightings of zeros.

Sources: NTM is "Neural Turing Machines" (Graves, Wayne, Danihelka, 2014); DNC is "Hybrid computing using a neural
network with dynamic external memory" (Graves et al., 2016), Methods.
"""

import jax
import jax.numpy as jnp

from memgpt_jax.config.checks import check
from memgpt_jax.shapes import Array, Float32

EPSILON = 1e-6


def content_weights(
    memory: Float32[Array, "B M W"], key: Float32[Array, "B H W"], strength: Float32[Array, "B H"]
) -> Float32[Array, "B H M"]:
    """c_i = softmax_i(strength cos(key, M_i)).

    cos(u, v) = u . v / sqrt((u . u + 1e-6) (v . v + 1e-6)), so that an empty slot has similarity 0.
    NTM, section 3.3.1; DNC, "Content-based addressing".
    """
    inverse_norm = jax.lax.rsqrt(jnp.sum(memory * memory, axis=-1) + EPSILON)
    scale = strength * jax.lax.rsqrt(jnp.sum(key * key, axis=-1) + EPSILON)
    similarity = jnp.einsum("bhw,bmw->bhm", key * scale[..., None], memory)
    return jax.nn.softmax(similarity * inverse_norm[:, None, :], axis=-1)


def interpolate_weights(
    new: Float32[Array, "B H M"], old: Float32[Array, "B H M"], gate: Float32[Array, "B H"]
) -> Float32[Array, "B H M"]:
    """g new + (1 - g) old. NTM, equation 7."""
    return old + gate[..., None] * (new - old)


def shift_weights(weights: Float32[Array, "B H M"], distance: Float32[Array, "B H offsets"]) -> Float32[Array, "B H M"]:
    """Circular convolution w'_i = sum_o s_o w_(i-o mod M), for o from -r to r, in this order in `distance`.

    NTM, equation 8.

    Raises:
        ValueError: the number of offsets, 2 r + 1, is even.
    """
    offsets = distance.shape[-1]
    check(offsets % 2 == 1, f"distance must have an odd number of offsets, from -r to r, got {offsets}")
    reach = offsets // 2
    moved = [jnp.roll(weights, offset, axis=-1) for offset in range(-reach, reach + 1)]
    return sum(distance[..., i, None] * moved[i] for i in range(1, len(moved))) + distance[..., 0, None] * moved[0]


def sharpen_weights(weights: Float32[Array, "B H M"], power: Float32[Array, "B H"]) -> Float32[Array, "B H M"]:
    """w_i^p / sum_j w_j^p, with a power p of at least 1. NTM, equation 9."""
    return jax.nn.softmax(power[..., None] * jnp.log(weights + 1e-12), axis=-1)


def erase_and_add(
    memory: Float32[Array, "B M W"],
    weights: Float32[Array, "B H M"],
    erase: Float32[Array, "B H W"],
    add: Float32[Array, "B H W"],
) -> Float32[Array, "B M W"]:
    """M_i prod_h (1 - w_hi e_h) + sum_h w_hi a_h: all heads erase, then all add. NTM, equations 3 and 4."""
    kept = 1.0 - weights[:, 0, :, None] * erase[:, 0, None, :]
    for head in range(1, weights.shape[1]):
        kept = kept * (1.0 - weights[:, head, :, None] * erase[:, head, None, :])
    return memory * kept + jnp.einsum("bhm,bhw->bmw", weights, add)


def free_usage(
    usage: Float32[Array, "B M"], read_weights: Float32[Array, "B H M"], free_gates: Float32[Array, "B H"]
) -> Float32[Array, "B M"]:
    """u_i prod_h (1 - f_h w_hi): a slot that was just read becomes free if the free gate f is open.

    DNC, "Dynamic memory allocation" (retention).
    """
    return usage * jnp.prod(1.0 - free_gates[..., None] * read_weights, axis=1)


def update_usage(usage: Float32[Array, "B M"], weights: Float32[Array, "B M"]) -> Float32[Array, "B M"]:
    """u_i + w_i - u_i w_i: a written slot becomes used. DNC, "Dynamic memory allocation"."""
    return usage + weights - usage * weights


def allocation_weights(usage: Float32[Array, "B M"]) -> Float32[Array, "B M"]:
    """a_i = (1 - u_i) prod_j u_j over the slots j with less usage than i (of equal ones, the earlier).

    The product is taken over comparisons of all pairs, which equals the product along the sorted list without a sort.
    Usage is kept at least 1e-6, so that the gradient of the product's logarithm is finite. Comparisons round it to
    2^-12: blank slots have equal usage, and rounding errors must not decide which is written. DNC, equation 1.
    """
    usage = EPSILON + (1.0 - EPSILON) * usage
    rank, place = jnp.round(usage * 2.0**12), jnp.arange(usage.shape[1])
    mine, other = rank[:, :, None], rank[:, None, :]
    before = (other < mine) | ((other == mine) & (place[None, None, :] < place[None, :, None]))
    return (1.0 - usage) * jnp.exp(jnp.sum(jnp.where(before, jnp.log(usage)[:, None, :], 0.0), axis=-1))


def link_writes(
    link: Float32[Array, "B M M"], precedence: Float32[Array, "B M"], weights: Float32[Array, "B M"]
) -> tuple[Float32[Array, "B M M"], Float32[Array, "B M"]]:
    """Temporal links and precedence after a write with weighting w.

        L_ij <- (1 - w_i - w_j) L_ij + w_i p_j,  L_ii = 0          i was written directly after j
        p    <- (1 - sum_i w_i) p + w                              the slot that was written last

    DNC, "Temporal memory linkage".
    """
    mine, other = weights[:, :, None], weights[:, None, :]
    different = 1.0 - jnp.eye(weights.shape[1], dtype=jnp.float32)[None]
    link = ((1.0 - mine - other) * link + mine * precedence[:, None, :]) * different
    return link, (1.0 - jnp.sum(weights, axis=1, keepdims=True)) * precedence + weights


def follow_links(
    link: Float32[Array, "B M M"], weights: Float32[Array, "B H M"]
) -> tuple[Float32[Array, "B H M"], Float32[Array, "B H M"]]:
    """Forward and backward weightings L w and L^T w: the slots written after and before the weighted ones.

    DNC, "Temporal memory linkage".
    """
    return jnp.einsum("bij,bhj->bhi", link, weights), jnp.einsum("bij,bhi->bhj", link, weights)


def read_slots(memory: Float32[Array, "B M W"], weights: Float32[Array, "B H M"]) -> Float32[Array, "B H W"]:
    """r_h = sum_i w_hi M_i. NTM, equation 2."""
    return jnp.einsum("bhm,bmw->bhw", weights, memory)


def address_entropy(weights: Float32[Array, "B H M"]) -> Float32[Array, ""]:
    """Mean of -sum_i w_i log w_i, in nats: 0 if one slot is addressed, log M if all have equal weights."""
    return jnp.mean(jnp.sum(jax.scipy.special.entr(weights), axis=-1))
