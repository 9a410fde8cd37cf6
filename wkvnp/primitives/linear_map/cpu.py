"""Compiled products of a few rows with a stored matrix, and the widening of 16-bit matrices.

A row meets a matrix as dot products or as sums of rows, by how the matrix is stored; either way one output number is
one loop in one order, so it has the same bits whatever stands in the other rows.
"""

from numba import prange

from ..._jit import jit, kernel
from ..._scalar import widen

ROWS, COLUMNS = 32, 256


@jit
def _dot(w, x):
    """Return w . x for a stored row and an activation row."""
    total = x.dtype.type(0)
    for i in range(x.size):
        total += widen(w[i]) * x[i]
    return total


@jit
def _four_dots(weight, o, x):
    """Return the dot products of four stored rows with x: four streams from memory, and x is read once."""
    zero = x.dtype.type(0)
    w0, w1, w2, w3 = weight[o], weight[o + 1], weight[o + 2], weight[o + 3]
    y0, y1, y2, y3 = zero, zero, zero, zero
    for i in range(x.size):
        xi = x[i]
        y0 += widen(w0[i]) * xi
        y1 += widen(w1[i]) * xi
        y2 += widen(w2[i]) * xi
        y3 += widen(w3[i]) * xi
    return y0, y1, y2, y3


@kernel
def rows_by_outputs(
    x,  # IN  (M, I)
    weight,  # IN  (O, I) as stored
    y,  # OUT (M, O)
):
    """Multiply few rows by a matrix stored [out, in]: each weight row is read once."""
    M, O = y.shape
    for block in prange((O + ROWS - 1) // ROWS):
        begin, end = block * ROWS, min((block + 1) * ROWS, O)
        whole = begin + (end - begin) // 4 * 4
        for o in range(begin, whole, 4):
            for m in range(M):
                y[m, o], y[m, o + 1], y[m, o + 2], y[m, o + 3] = _four_dots(weight, o, x[m])
        for o in range(whole, end):
            for m in range(M):
                y[m, o] = _dot(weight[o], x[m])


@jit
def _add_rows(x, weight, begin, y):
    """Set y (O,) to the sum of x[i] weight[i, begin:], four rows at a time so that y is passed over less often."""
    zero = y.dtype.type(0)
    whole = x.size // 4 * 4
    for o in range(y.size):
        y[o] = zero
    for i in range(0, whole, 4):
        end = begin + y.size
        w0, w1 = weight[i, begin:end], weight[i + 1, begin:end]
        w2, w3 = weight[i + 2, begin:end], weight[i + 3, begin:end]
        x0, x1, x2, x3 = x[i], x[i + 1], x[i + 2], x[i + 3]
        for o in range(y.size):
            y[o] += (widen(w0[o]) * x0 + widen(w1[o]) * x1) + (widen(w2[o]) * x2 + widen(w3[o]) * x3)
    for i in range(whole, x.size):
        w0, x0 = weight[i, begin : begin + y.size], x[i]
        for o in range(y.size):
            y[o] += widen(w0[o]) * x0


@kernel
def rows_by_inputs(
    x,  # IN  (M, I)
    weight,  # IN  (I, O) as stored
    y,  # OUT (M, O)
):
    """Multiply few rows by a matrix stored [in, out]."""
    M, O = y.shape
    for block in prange((O + COLUMNS - 1) // COLUMNS):
        begin, end = block * COLUMNS, min((block + 1) * COLUMNS, O)
        for m in range(M):
            _add_rows(x[m], weight, begin, y[m, begin:end])


@kernel
def widen_rows(
    weight,  # IN  (R, I) as stored
    wide,  # OUT (R, I) float32
):
    """Widen a 16-bit block."""
    for r in prange(weight.shape[0]):
        for i in range(weight.shape[1]):
            wide[r, i] = widen(weight[r, i])
