"""Reads along the triples of a knowledge graph: which entities are reached from a topic by n relations."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from memgpt_jax.shapes import Array, Bool, Float32, Int32

SMALL = 1e-9
"""Least probability of an entity that was reached, at which the gradient of its logarithm is still finite."""


class Walk(NamedTuple):
    """What n reads of E triples find."""

    entities: Float32[Array, "B L C"]
    """p_n: the probability of each entity after the last read; all 0 if no triple leads on."""
    reads: Float32[Array, "B n E L"]
    """a: the weight of each triple in each read."""


def walk(
    logits: Float32[Array, "B L n R"], back: Float32[Array, "B L n"], triples: Int32[Array, "B E 3"], num_entities: int
) -> Walk:
    """n reads of triples (h_j, r_j, t_j), each by a softmax over those whose head the read before has reached:

        p_0(e) = [e = 0]
        a_tj   = softmax_j(log p_t-1(h_j) + logits_t(r_j) + back_t [t_j = 0])
        p_t(e) = sum_j a_tj [t_j = e]

    This is the read of a key-value memory: the key of an entry is its relation, its value the one-hot vector of its
    tail, and the probability of its head the gate whose logarithm is added to the logit. Cohen et al., "Scalable Neural
    Methods for Reasoning With a Symbolic Knowledge Base" (2020), section 2.3, has the same walk with products.

    Args:
        logits: of R relations, for each of n reads, at each token.
        back: what is added for triples that lead back to the topic, in each read: films that share a director with a
            film are not the film itself.
        triples: numbers of head, relation and tail; entity 0 is the topic. A relation of -1: there is no triple.
        num_entities: C; heads and tails are below it.
    """

    def row(logits: Array, back: Array, triples: Array) -> Walk:
        head, relation, tail = triples.T
        present = relation >= 0
        head, relation, tail = (jnp.maximum(numbers, 0) for numbers in (head, relation, tail))
        p = jnp.zeros((num_entities, logits.shape[0]), jnp.float32).at[0].set(1.0)
        reads = []
        for number in range(logits.shape[1]):
            before = p[head]
            reached = present[:, None] & (before > 0)
            score = jnp.log(jnp.maximum(before, SMALL)) + logits[:, number].T[relation]
            score = score + jnp.where((tail == 0)[:, None], back[:, number][None], 0.0)
            weights = _softmax(score, reached)
            p = jax.ops.segment_sum(weights, tail, num_entities)
            reads.append(weights)
        return Walk(p.T, jnp.stack(reads))

    return jax.vmap(row)(logits, back, triples)


def _softmax(score: Float32[Array, "E L"], present: Bool[Array, "E L"]) -> Float32[Array, "E L"]:
    """The softmax over the present entries of each column; 0 where there is none."""
    top = jax.lax.stop_gradient(jnp.max(jnp.where(present, score, -jnp.inf), axis=0, initial=-jnp.inf))
    shifted = jnp.where(present, score - jnp.where(jnp.isneginf(top), 0.0, top)[None], 0.0)
    exponents = jnp.where(present, jnp.exp(shifted), 0.0)
    total = jnp.sum(exponents, axis=0)
    return exponents / jnp.where(total > 0, total, 1.0)[None]
