"""Linear-chain conditional random fields: tags whose probability depends on the tag before.

    ln p(y | x) = start[y_1] + sum_t e_t[y_t] + sum_t T[y_t-1, y_t] + end[y_n] - ln Z

with emissions e, and Z the sum over all sequences of tags (Lafferty et al., 2001). With T, start and end 0, this is a
softmax for each word.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import logsumexp

from memgpt_jax.ops.loss import Scores
from memgpt_jax.shapes import Flags, Float32, Int


class Chain(NamedTuple):
    """The parameters of a linear chain over C tags, in nats."""

    transitions: Any
    """T [C, C], from the tag of the row to that of the column."""
    start: Any
    """[C], of the first tag."""
    end: Any
    """[C], of the last tag."""


def chain_scores(
    emissions: Float32[jax.Array, "B L C"], targets: Int[jax.Array, "B L"], chain: Chain, reset: Flags
) -> Scores:
    """The loss of each tag, -ln p(y_t | y_1 ... y_t-1, x) in nats, whose sum over a document is -ln p(y | x).

    Args:
        emissions: at every token.
        targets: tags; -1 for tokens without a tag, which the chain skips.
        chain: the parameters.
        reset: True for the first token of a document. A row begins with a document and ends with one.

    Returns:
        The losses, 0 without a tag and NaN for a tag beyond C - 1; and whether the tag has the highest marginal
        probability p(y_t | x).
    """
    transitions, start, end = (jnp.asarray(array, jnp.float32) for array in chain)
    zeros = jnp.zeros_like(emissions[:, 0])
    start, end = start[None] + zeros, end[None] + zeros  # [B, C]

    def forward(carry: tuple[jax.Array, jax.Array], token: tuple[jax.Array, ...]) -> tuple[Any, Any]:
        alpha, previous = carry
        emission, tag, begins = token
        previous = jnp.where(begins, -1, previous)
        is_first, has_tag = (previous < 0)[:, None], (tag >= 0)[:, None]
        after = jnp.where(is_first, start, logsumexp(alpha[:, :, None] + transitions[None], axis=1))
        after_tag = jnp.where(is_first, start, jnp.take(transitions, previous, axis=0, mode="clip"))
        alpha = jnp.where(has_tag, after + emission, alpha)
        return (alpha, jnp.where(tag >= 0, tag, previous)), (alpha, after_tag)

    def backward(beta: jax.Array, token: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        emission, tag, begins = token
        before = logsumexp(transitions[None] + (emission + beta)[:, None], axis=2)
        earlier = jnp.where((tag >= 0)[:, None], before, beta)
        return jnp.where(begins[:, None], end, earlier), beta

    tokens = tuple(jnp.swapaxes(array, 0, 1) for array in (emissions, targets, reset))
    carry = (zeros, jnp.full_like(targets[:, 0], -1))
    _, (alpha, after_tag) = jax.lax.scan(forward, carry, tokens)
    _, beta = jax.lax.scan(backward, end, tokens, reverse=True)
    alpha, after_tag, beta = (jnp.swapaxes(array, 0, 1) for array in (alpha, after_tag, beta))
    log_p = jax.nn.log_softmax(after_tag + emissions + beta)
    losses = -jnp.take_along_axis(log_p, jnp.maximum(targets, 0)[..., None], axis=-1, mode="fill")[..., 0]
    marginal = alpha + beta
    right = (jnp.argmax(marginal, axis=-1) == targets) & jnp.isfinite(marginal).all(axis=-1)
    return Scores(jnp.where(targets >= 0, losses, 0.0), right)


def viterbi(emissions: np.ndarray, chain: Chain) -> np.ndarray:
    """The most probable tags [n] of a document with emissions [n, C], on the host."""
    best, back = np.zeros(emissions.shape[1]), []
    for number, emission in enumerate(emissions):
        if number:
            paths = best[:, None] + chain.transitions
            back.append(paths.argmax(axis=0))
            best = paths.max(axis=0) + emission
        else:
            best = chain.start + emission
    tags = [int(np.argmax(best + chain.end))] if len(emissions) else []
    for places in reversed(back):
        tags.append(int(places[tags[-1]]))
    return np.array(tags[::-1], np.int64)


def marginals(emissions: np.ndarray, chain: Chain) -> np.ndarray:
    """The probability of each tag of each word of a document, p(y_t | x), [n, C], by forward-backward on the host."""
    if not len(emissions):
        return np.zeros(emissions.shape)
    alpha, beta = _alphas(emissions, chain), [np.asarray(chain.end, np.float64)]
    for emission in emissions[:0:-1]:
        beta.append(np.logaddexp.reduce(chain.transitions + (emission + beta[-1])[None], axis=1))
    log_p = alpha + np.stack(beta[::-1])
    return np.exp(log_p - np.logaddexp.reduce(log_p, axis=1, keepdims=True))


def path_loss(emissions: np.ndarray, tags: np.ndarray, chain: Chain) -> float:
    """-ln p(y | x) of the tags [n] of a document with n >= 1 words, in nats, on the host."""
    path = emissions[np.arange(len(tags)), tags].sum(dtype=np.float64) + chain.start[tags[0]] + chain.end[tags[-1]]
    path += np.sum(chain.transitions[tags[:-1], tags[1:]], dtype=np.float64)
    return float(np.logaddexp.reduce(_alphas(emissions, chain)[-1] + chain.end) - path)


def _alphas(emissions: np.ndarray, chain: Chain) -> np.ndarray:
    """ln of the sum over all beginnings that end with a tag at a word, [n, C] float64."""
    found = [np.asarray(chain.start + emissions[0], np.float64)]
    for emission in emissions[1:]:
        found.append(np.logaddexp.reduce(found[-1][:, None] + chain.transitions, axis=0) + emission)
    return np.stack(found)
