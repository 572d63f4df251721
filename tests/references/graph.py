"""Message passing again: one graph, one edge at a time, float64."""

import math

import numpy as np


def messages(x, edges, num_kinds, group):
    """[N, R, D] of the nodes [N, D] of one graph, edges (source, kind, target) and groups [N]."""
    total, count = np.zeros((len(x), num_kinds, x.shape[1])), np.zeros((len(x), num_kinds))
    for source, kind, target in edges:
        if not (0 <= source < len(x) and 0 <= target < len(x) and 0 <= kind < num_kinds):
            continue
        if group[source] == group[target] != -1:
            total[target, kind] += x[source]
            count[target, kind] += 1
    return total / np.maximum(count, 1)[..., None]


def gelu(x):
    return x * 0.5 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def network(x, edges, num_kinds, group, rounds):
    """The nodes after rounds with (scale of the norm, kernel, bias) each."""
    x = np.asarray(x, np.float64)
    for scale, kernel, bias in rounds:
        n = x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + 1e-6) * scale
        joined = np.concatenate([n, messages(n, edges, num_kinds, group).reshape(len(x), -1)], axis=-1)
        x = x + gelu(joined @ np.asarray(kernel, np.float64) + bias)
    return x
