"""Scores of the links of a knowledge graph: how well a tail entity fits a head entity and a relation.

With vectors of width D, u of the head entity, w of the relation and e of the tail entity:

    transe    -|u + w - e|                  Bordes et al., "Translating Embeddings" (2013), with the L2 norm
    distmult  sum_i u_i w_i e_i             Yang et al., "Embedding Entities and Relations" (2015)
    complex   Re sum_j u_j w_j conj(e_j)    Trouillon et al., "Complex Embeddings" (2016)
    rotate    -|u exp(i a) - e|             Sun et al., "RotatE" (2019)

|.| is the Euclidean norm. In `complex` and `rotate` a vector is D / 2 complex numbers: the first half of its elements
are the real parts, the second half the imaginary parts. The angles a are the first half of w; its second half is not
used. Each score compares a query vector q(u, w) with e by a product or by their distance, so that all entities are
scored by one matrix product.
"""

from typing import Literal

import jax.numpy as jnp

from memgpt_jax.shapes import Array, Float32

Scorer = Literal["transe", "distmult", "complex", "rotate"]
SMALL = 1e-9
"""Least squared distance, at which the gradient of the distance is still finite."""


def link_query(scorer: Scorer, u: Float32[Array, "B L D"], w: Float32[Array, "B L D"]) -> Float32[Array, "B L D"]:
    """q: u + w, u * w, or the complex products u_j w_j and u_j exp(i a_j)."""
    if scorer == "transe":
        return u + w
    if scorer == "distmult":
        return u * w
    (u_re, u_im), (w_re, w_im) = jnp.split(u, 2, axis=-1), jnp.split(w, 2, axis=-1)
    if scorer == "rotate":
        w_re, w_im = jnp.cos(w_re), jnp.sin(w_re)
    return jnp.concatenate([u_re * w_re - u_im * w_im, u_re * w_im + u_im * w_re], axis=-1)


def link_scores(
    scorer: Scorer, u: Float32[Array, "B L D"], w: Float32[Array, "B L D"], entities: Float32[Array, "C D"]
) -> Float32[Array, "B L C"]:
    """The score of each of C entities as the tail, for each head entity u and relation w.

    Products are divided by sqrt(D), as in attention, so that vectors of unit RMS have scores of order 1.
    """
    q = link_query(scorer, u, w)
    products = q @ entities.T
    if scorer in ("distmult", "complex"):
        return products * q.shape[-1] ** -0.5
    squares = jnp.sum(q * q, axis=-1, keepdims=True) + jnp.sum(entities * entities, axis=-1)[None, None]
    return -jnp.sqrt(jnp.maximum(squares - 2 * products, SMALL))
