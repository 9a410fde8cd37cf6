"""Compiled normalisation of rows, group by group."""

import math

from numba import prange

from ..._jit import inlined, kernel


@inlined
def standardize_group(x, weight, bias, eps, y):
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
def shorten(
    x,  # IN  (R, n)
    floor,  # IN  scalar of the dtype of x
    eps,  # IN  scalar of the dtype of x
    y,  # OUT (R, n)
):
    """Divide every row by its length."""
    R, n = x.shape
    for r in prange(R):
        row, out = x[r], y[r]
        squares = row[0] * row[0]
        for i in range(1, n):
            squares += row[i] * row[i]
        length = x.dtype.type(math.sqrt(squares + eps))
        scale = x.dtype.type(1) / (length if length > floor else floor)
        for i in range(n):
            out[i] = row[i] * scale


@kernel
def standardize(
    x,  # IN  (M, C)
    weight,  # IN  (C,)
    bias,  # IN  (C,)
    n,  # IN  channels a group
    eps,  # IN  scalar of the dtype of x
    y,  # OUT (M, C)
):
    """Subtract the mean and divide by the standard deviation of each group, then scale and move."""
    M, C = x.shape
    for m in prange(M):
        for c in range(0, C, n):
            standardize_group(x[m, c : c + n], weight[c : c + n], bias[c : c + n], eps, y[m, c : c + n])


@inlined
def divide_group_by_rms(x, weight, eps, y):
    """Normalise one group, whose mean stays."""
    squares = x.dtype.type(0)
    for i in range(x.size):
        squares += x[i] * x[i]
    scale = x.dtype.type(1) / x.dtype.type(math.sqrt(squares / x.dtype.type(x.size) + eps))
    for i in range(x.size):
        y[i] = x[i] * scale * weight[i]


@kernel
def divide_by_rms(
    x,  # IN  (M, C)
    weight,  # IN  (C,) or (n,)
    n,  # IN  channels a group
    eps,  # IN  scalar of the dtype of x
    y,  # OUT (M, C)
):
    """Divide each group by the root of its mean square, then scale."""
    M, C = x.shape
    for m in prange(M):
        for c in range(0, C, n):
            own = weight[c : c + n] if weight.size == C else weight
            divide_group_by_rms(x[m, c : c + n], own, eps, y[m, c : c + n])
