"""A small network that is trained at inference time: forward pass and updates."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from memgpt_jax.ops.attention.dense import MASKED
from memgpt_jax.shapes import Array, Float, Float32

Weights = tuple[Float32[Array, "_ _"], ...]
"""Weight matrices of the layers, first to last, each [width in, width out]."""


class Pairs(NamedTuple):
    """T training pairs (key -> value), with a step size, a momentum factor and a weight decay per token.

    rate = 0, log_inertia = 0 and log_keep = 0 change nothing.
    """

    keys: Float32[Array, "T K"]
    values: Float32[Array, "T K"]
    rate: Float32[Array, " T"]  # theta, at least 0
    log_inertia: Float32[Array, " T"]  # log eta: momentum factor
    log_keep: Float32[Array, " T"]  # log (1 - alpha): decay of the learned weights


def inner_network(weights: Weights, x: Float[Array, "*b I"]) -> Float[Array, "*b O"]:
    """M(x) = W_n^T h_{n-1},  h_i = silu(W_i^T h_{i-1}) / sqrt(width of h_i),  h_0 = x.

    With the division, an update of a given step size changes the output by about as much at any width.
    """
    for weight in weights[:-1]:
        x = jax.nn.silu(x @ weight) * jnp.asarray(weight.shape[1] ** -0.5, x.dtype)
    return x @ weights[-1]


def update_coefficients(pairs: Pairs) -> tuple[Float32[Array, " T"], Float32[Array, " T"], tuple[Array, Array, Array]]:
    """Coefficients that combine T updates S_t = eta_t S_{t-1} - theta_t u_t, D_t = (1 - alpha_t) D_{t-1} + S_t:

        D_T = keep D_0 + carried S_0 - sum_t to_learned_t u_t,      S_T = inertia S_0 - sum_t to_momentum_t u_t

    Returns (to_learned, to_momentum, (keep, carried, inertia)).
    """
    length = pairs.rate.shape[0]
    place = jnp.arange(length)
    inertia, keep = jnp.cumsum(pairs.log_inertia), jnp.cumsum(pairs.log_keep)
    later = place[None, :] >= place[:, None]  # [t, j]: S_j contains u_t times the eta in between
    share = jnp.exp(jnp.where(later, inertia[None, :] - inertia[:, None], jnp.float32(MASKED)))
    kept = jnp.exp(keep[-1] - keep)  # share of S_j in D_T
    to_learned = pairs.rate * (share @ kept)
    to_momentum = pairs.rate * share[:, -1]
    return to_learned, to_momentum, (jnp.exp(keep[-1]), jnp.exp(inertia) @ kept, jnp.exp(inertia[-1]))


def inner_update(initial: Weights, learned: Weights, momentum: Weights, pairs: Pairs) -> tuple[Weights, Weights]:
    """The learned weights D and the momentum S after T tokens; the network has the weights M = M* + D, M* = `initial`.

        S_t = eta_t S_{t-1} - s theta_t u_t,   D_t = (1 - alpha_t) D_{t-1} + S_t,   u_t = d |M_0(k_t) - v_t|^2 / d M_0

    The weights decay towards M*: M_t = M* + (1 - alpha_t) (M_{t-1} - M*) + S_t. In the paper they decay towards 0. Then
    a network with hidden layers stops learning: the gradient of a layer is proportional to the weights of the others,
    so once all are 0 they stay 0.

    All gradients u_t are taken at the weights M_0 before the first token (Behrouz et al., "Titans: Learning to
    Memorize at Test Time", 2025, section 3.2), so that they are a few matmuls. The sum of many
    tokens' gradients can overshoot and diverge, so s bounds it by the Polyak step of the loss of all T tokens
    (Loizou et al., "Stochastic Polyak Step-size for SGD", 2021, with c = 1/2):

        s = min(1, 2 F / |dF / dM_0|^2),   F = sum_t to_learned_t |M_0(k_t) - v_t|^2
    """
    to_learned, to_momentum, (keep, carried, inertia) = update_coefficients(pairs)
    weights = jax.tree.map(jnp.add, initial, learned)
    out, pull = jax.vjp(lambda weights: inner_network(weights, pairs.keys), weights)
    error = out - pairs.values
    (into_learned,), (into_momentum,) = (pull(2 * error * scale[:, None]) for scale in (to_learned, to_momentum))
    twice_loss = 2 * jnp.sum(to_learned * jnp.sum(error * error, axis=1))
    length = sum(jnp.sum(u * u) for u in into_learned)
    too_far = length > twice_loss
    bound = jnp.where(too_far, twice_loss / jnp.where(too_far, length, 1), 1)
    new_learned = jax.tree.map(lambda d, s, u: keep * d + carried * s - bound * u, learned, momentum, into_learned)
    return new_learned, jax.tree.map(lambda s, u: inertia * s - bound * u, momentum, into_momentum)
