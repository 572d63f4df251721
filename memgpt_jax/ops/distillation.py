"""Divergences of a student's distributions from those of its teachers, and the distance of their hidden states."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from memgpt_jax.shapes import Array, Float, Float32, Int32


class Likeliest(NamedTuple):
    """A distribution over V outcomes by its K likeliest ones."""

    ids: Int32[Array, "... K"]
    log_probs: Float32[Array, "... K_and_1"]  # the last is that of all other outcomes together


def mean_log_probs(logits: Sequence[Float32[Array, "... V"]], temperature: float) -> Float32[Array, "... V"]:
    """log of the mean of softmax(z / T) over the given logits z."""
    first, *others = [jax.nn.log_softmax(part / temperature) for part in logits]
    for other in others:
        first = jnp.logaddexp(first, other)
    return first - jnp.log(jnp.float32(len(logits))) if others else first


def divergence(
    log_probs: Float32[Array, "... V"], logits: Float32[Array, "... V"], temperature: float
) -> Float32[Array, "..."]:
    """KL(p || softmax(logits / T)) in nats, p = exp(log_probs)."""
    return _divergence(log_probs, jax.nn.log_softmax(logits / temperature))


def _divergence(log_p: Array, log_q: Array) -> Array:
    finite = jnp.maximum(log_p, jnp.finfo(jnp.float32).min)  # log 0 times p = 0 counts 0
    return optax.losses.kl_divergence_with_log_targets(log_q, finite)


def likeliest(log_probs: Float32[Array, "... V"], k: int) -> Likeliest:
    """The k likeliest of V outcomes; of equal ones, the first."""
    top, ids = jax.lax.top_k(log_probs, k)
    return Likeliest(ids, jnp.concatenate([top, _others(log_probs, ids)], axis=-1))


def _others(log_probs: Array, ids: Array) -> Array:
    """log of the probability of all outcomes but `ids`, [..., 1]."""
    rest = jnp.put_along_axis(log_probs, ids, -jnp.inf, axis=-1, inplace=False)
    return jax.nn.logsumexp(rest, axis=-1, keepdims=True)


def likeliest_divergence(p: Likeliest, logits: Float32[Array, "... V"], temperature: float) -> Float32[Array, "..."]:
    """KL(p || softmax(logits / T)) in nats, with all but the k likeliest outcomes of p as one: at most `divergence`."""
    log_q = jax.nn.log_softmax(logits / temperature)
    top = jnp.take_along_axis(log_q, p.ids, axis=-1)
    if p.ids.shape[-1] == logits.shape[-1]:  # no others
        return _divergence(p.log_probs[..., :-1], top)
    return _divergence(p.log_probs, jnp.concatenate([top, _others(log_q, p.ids)], axis=-1))


def binary_divergence(
    log_p: Float32[Array, "..."], log_q: Float32[Array, "..."], temperature: float
) -> Float32[Array, "..."]:
    """KL(p^(1/T) || q^(1/T)) in nats, of two outcomes: one of probability p^(1/T), and all others."""
    tiny = jnp.finfo(jnp.float32).tiny  # ln p = 0 would have an infinite ln(1 - p)
    log_p, log_q = (jnp.minimum(part / temperature, -tiny) for part in (log_p, log_q))
    rest_p, rest_q = (jnp.log(-jnp.expm1(part)) for part in (log_p, log_q))
    return jnp.exp(log_p) * (log_p - log_q) + jnp.exp(rest_p) * (rest_p - rest_q)


def span_sums(values: Float32[Array, "B L"], sizes: Int32[Array, "B L"]) -> Float32[Array, "B L"]:
    """The sum of the values of each span, at its last place; 0 at other places.

    Each span is summed by itself: a difference of sums of the whole row would lose small values.

    Args:
        values: one for each place.
        sizes: number of the places of the span that ends at a place, 0: none does. Of a span that begins before the
            row, the places in the row count.
    """
    length, ends = values.shape[1], sizes > 0
    place = jnp.broadcast_to(jnp.arange(length, dtype=jnp.int32), sizes.shape)
    end = jax.lax.cummin(jnp.where(ends, place, length), axis=1, reverse=True)  # of the span around a place
    size = jnp.take_along_axis(jnp.pad(sizes, ((0, 0), (0, 1))), end, axis=1)
    inside = jnp.where(place > end - size, values, 0)
    sums = jax.vmap(lambda row, span: jax.ops.segment_sum(row, span, length + 1))(inside, end)
    return jnp.where(ends, sums[:, :-1], 0)


def projection_errors(
    hidden: Float[Array, "B L D"], wanted: Float[Array, "B L E"], weights: Float32[Array, "B L"]
) -> Float32[Array, "B L"]:
    """mean_e (h P - y)_e^2 of each token, with the projection P [D, E] that minimises the sum times weights.

    P = (sum w h h^T + ridge)^-1 sum w h y^T. As P is the minimum, the sum has no gradient through P.
    """
    h, y = hidden.astype(jnp.float32), jax.lax.stop_gradient(wanted.astype(jnp.float32))
    fixed = jax.lax.stop_gradient(h)
    gram = jnp.einsum("bl,bld,ble->de", weights, fixed, fixed)
    ridge = 1e-5 * jnp.trace(gram) / len(gram) + 1e-9
    cross = jnp.einsum("bl,bld,ble->de", weights, fixed, y)
    projection = jax.scipy.linalg.solve(gram + ridge * jnp.eye(len(gram)), cross, assume_a="pos")
    return jnp.mean(jnp.square(jnp.einsum("bld,de->ble", h, projection) - y), axis=-1)


def relation_divergence(
    ours: Float[Array, "B L H K"], theirs: Float[Array, "B L I J"], document: Int32[Array, "B L"], heads: int
) -> Float32[Array, "B L"]:
    """KL(p_i || q_i) of each token i in nats, the mean over the relation heads: how tokens relate to each other.

    Of each relation head, p_i = softmax_j(y_i . y_j / sqrt(n)) over the tokens j <= i of the same document, y the
    teacher's vectors of n dimensions, and q_i the same of the student's. Wang et al., "MiniLMv2: Multi-Head
    Self-Attention Relation Distillation for Compressing Pretrained Transformers" (2021).

    Args:
        ours: queries, keys or values of the student.
        theirs: those of the teacher, with any number and size of heads; they get no gradient.
        document: the number of each token's document; padding is on the right.
        heads: relation heads, which divide H K and I J.
    """
    related = (document[:, :, None] == document[:, None, :]) & jnp.tri(document.shape[1], dtype=bool)[None]

    def log_probs(vectors: Array) -> Array:
        vectors = vectors.astype(jnp.float32).reshape(*document.shape, heads, -1)
        logits = jnp.einsum("bihn,bjhn->bhij", vectors, vectors) * vectors.shape[-1] ** -0.5
        return jax.nn.log_softmax(jnp.where(related[:, None], logits, jnp.finfo(jnp.float32).min))

    return jnp.mean(_divergence(log_probs(jax.lax.stop_gradient(theirs)), log_probs(ours)), axis=1)
