"""Compiled products of a few rows with a stored matrix, and the widening of 16-bit matrices.

A row meets a matrix as dot products or as sums of rows, by how the matrix is stored; either way one output number is
one loop in one order, so it has the same bits whatever stands in the other rows.
"""

from numba import prange

from ..._jit import jit, kernel
from ..._scalar import widen

BLOCK = 32


@jit
def _dot(w, x):
    """Return w . x for a stored row and an activation row."""
    total = x.dtype.type(0)
    for i in range(x.size):
        total += widen(w[i]) * x[i]
    return total


@kernel
def rows_by_outputs(
    x,  # IN  (M, I)
    weight,  # IN  (O, I) as stored
    y,  # OUT (M, O)
):
    """Multiply few rows by a matrix stored [out, in]: each weight row is read once."""
    M, O = y.shape
    for block in prange((O + BLOCK - 1) // BLOCK):
        for o in range(block * BLOCK, min((block + 1) * BLOCK, O)):
            w = weight[o]
            for m in range(M):
                y[m, o] = _dot(w, x[m])


@jit
def _add_rows(x, weight, y):
    """Set y (O,) to the sum of x[i] weight[i]."""
    for o in range(y.size):
        y[o] = y.dtype.type(0)
    for i in range(x.size):
        w, xi = weight[i], x[i]
        for o in range(y.size):
            y[o] += widen(w[o]) * xi


@kernel
def rows_by_inputs(
    x,  # IN  (M, I)
    weight,  # IN  (I, O) as stored
    y,  # OUT (M, O)
):
    """Multiply few rows by a matrix stored [in, out]."""
    M, O = y.shape
    for block in prange((O + BLOCK - 1) // BLOCK):
        begin, end = block * BLOCK, min((block + 1) * BLOCK, O)
        w = weight[:, begin:end]
        for m in range(M):
            _add_rows(x[m], w, y[m, begin:end])


@kernel
def widen_rows(
    weight,  # IN  (R, I) as stored
    wide,  # OUT (R, I) float32
):
    """Widen a 16-bit block."""
    for r in prange(weight.shape[0]):
        for i in range(weight.shape[1]):
            wide[r, i] = widen(weight[r, i])
