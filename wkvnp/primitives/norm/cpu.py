"""Compiled normalisations: a row of M, a group of G, n numbers each."""

import math

from numba import prange

from ..._jit import jit, kernel


@jit
def _standardize(x, weight, bias, eps, y):
    """Normalise one group. Mean first, then the squares about it: one pass would lose digits."""
    n = x.dtype.type(x.size)
    total = x.dtype.type(0)
    for i in range(x.size):
        total += x[i]
    mean = total / n
    squares = x.dtype.type(0)
    for i in range(x.size):
        squares += (x[i] - mean) * (x[i] - mean)
    scale = x.dtype.type(1) / x.dtype.type(math.sqrt(squares / n + eps))
    for i in range(x.size):
        y[i] = (x[i] - mean) * scale * weight[i] + bias[i]


@kernel
def standardize(
    x,  # IN  (M, G, n)
    weight,  # IN  (G, n)
    bias,  # IN  (G, n)
    eps,  # IN  scalar of the dtype of x
    y,  # OUT (M, G, n)
):
    """Subtract the mean and divide by the standard deviation of each group, then scale and move."""
    M, G, _ = x.shape
    for m in prange(M):
        for g in range(G):
            _standardize(x[m, g], weight[g], bias[g], eps, y[m, g])
