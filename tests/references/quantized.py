"""Products with 8-bit weights again, in NumPy, float64 and plain loops."""

import numpy as np


def hadamard(x):
    """H x of one vector: blocks of 64, 16, 4 or 1 numbers; H[i, j] = (-1) ** (common ones of i and j) / sqrt(block)."""
    size = next(size for size in (64, 16, 4, 1) if len(x) % size == 0)
    signs = [[(-1) ** (i & j).bit_count() for j in range(size)] for i in range(size)]
    return np.concatenate([np.array(signs) @ block / size**0.5 for block in x.astype(np.float64).reshape(-1, size)])


def rounded(x):
    """(integers, scale) of one vector."""
    scale = np.abs(x).max() / 127
    return (np.zeros(len(x), int), 0.0) if scale == 0 else (np.rint(x / scale).astype(int), scale)


def product(x, weights):
    """(y [R, N], its bound of errors) for vectors x [R, K] and a matrix W [N, K]."""
    y, bound = np.zeros((len(x), len(weights))), np.zeros((len(x), len(weights)))
    for r, vector in enumerate(x):
        a, t = rounded(hadamard(vector))
        for n, row in enumerate(weights):
            q, s = rounded(hadamard(row))
            y[r, n] = s * t * sum(int(i) * int(j) for i, j in zip(a, q, strict=True))
            bound[r, n] = (
                s / 2 * np.abs(hadamard(vector)).sum() + t / 2 * np.abs(hadamard(row)).sum() + len(a) * s * t / 4
            )
    return y, bound
