"""Reads along triples again: one question, one triple at a time, float64."""

import math

import numpy as np


def walk(logits, back, triples, num_entities):
    """Probabilities [C] and weights [n, E] of a question, for logits [n, R], back [n] and triples [E, 3]."""
    p, reads = [1.0] + [0.0] * (num_entities - 1), []
    for of_relations, to_topic in zip(np.asarray(logits, float), np.asarray(back, float), strict=True):
        masses = [
            p[h] * math.exp(of_relations[r] + (to_topic if t == 0 else 0)) if r >= 0 else 0.0 for h, r, t in triples
        ]
        total = sum(masses)
        weights = [mass / total if total else 0.0 for mass in masses]
        p = [sum(w for w, (_, _, t) in zip(weights, triples, strict=True) if t == e) for e in range(num_entities)]
        reads.append(weights)
    return np.array(p), np.array(reads)
