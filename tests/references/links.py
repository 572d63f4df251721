"""The scores of links again: one head, one relation, one tail, float64 and complex numbers."""

import cmath
import math

from tests.references.ops import f64


def link_score(scorer, u, w, e):
    """The score of the tail e for the head u and the relation w, vectors [D]."""
    u, w, e = (f64(vector).tolist() for vector in (u, w, e))
    half = len(u) // 2
    if scorer == "transe":
        return -math.sqrt(sum((a + b - c) ** 2 for a, b, c in zip(u, w, e, strict=True)))
    if scorer == "distmult":
        return sum(a * b * c for a, b, c in zip(u, w, e, strict=True)) / math.sqrt(len(u))
    heads, tails = ([complex(x[j], x[half + j]) for j in range(half)] for x in (u, e))
    if scorer == "complex":
        relations = [complex(w[j], w[half + j]) for j in range(half)]
        products = (a * b * c.conjugate() for a, b, c in zip(heads, relations, tails, strict=True))
        return sum(products).real / math.sqrt(len(u))
    turned = [a * cmath.exp(1j * w[j]) for j, a in enumerate(heads)]
    return -math.sqrt(sum(abs(a - c) ** 2 for a, c in zip(turned, tails, strict=True)))
