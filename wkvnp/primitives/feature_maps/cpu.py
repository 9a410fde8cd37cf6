"""Compiled product of many rows with a small matrix, in which a row's bits do not depend on the other rows.

BLAS sums a row in another order when there are others, so a text cut in two would not give the same bits.
"""

from numba import prange

from ..._jit import jit, kernel


@jit
def _combine(x, weight, y):
    """Set y (m,) to the sum of x[i] weight[i], four rows at a time so that y is passed over less often."""
    zero = y.dtype.type(0)
    whole = x.size // 4 * 4
    for j in range(y.size):
        y[j] = zero
    for i in range(0, whole, 4):
        w0, w1, w2, w3 = weight[i], weight[i + 1], weight[i + 2], weight[i + 3]
        x0, x1, x2, x3 = x[i], x[i + 1], x[i + 2], x[i + 3]
        for j in range(y.size):
            y[j] += (x0 * w0[j] + x1 * w1[j]) + (x2 * w2[j] + x3 * w3[j])
    for i in range(whole, x.size):
        row, xi = weight[i], x[i]
        for j in range(y.size):
            y[j] += xi * row[j]


@kernel
def project(
    x,  # IN  (R, d)
    weight,  # IN  (d, m)
    y,  # OUT (R, m)
):
    """Multiply every row by the matrix."""
    for r in prange(x.shape[0]):
        _combine(x[r], weight, y[r])
