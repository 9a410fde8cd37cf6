"""Compiled products of a few rows with a stored matrix, and the widening of 16-bit matrices.

A row meets a matrix as dot products or as sums of rows, by how the matrix is stored; either way one output number is
one loop in one order, so its bits do not depend on the other rows.
"""

from numba import prange

from ..._jit import jit, kernel
from ..._scalar import widen
from .tiles import widen_row

ROWS, COLUMNS = 8, 256


@jit
def _dot(w, x):
    """Return w . x for a stored row and an activation row."""
    total = x.dtype.type(0)
    for i in range(x.size):
        total += widen(w[i]) * x[i]
    return total


@jit
def _four_dots(weight, o, apart, x):
    """Return the dot products of four stored rows with x, which is read once."""
    zero = x.dtype.type(0)
    w0, w1, w2, w3 = weight[o], weight[o + apart], weight[o + 2 * apart], weight[o + 3 * apart]
    y0, y1, y2, y3 = zero, zero, zero, zero
    for i in range(x.size):
        xi = x[i]
        y0 += widen(w0[i]) * xi
        y1 += widen(w1[i]) * xi
        y2 += widen(w2[i]) * xi
        y3 += widen(w3[i]) * xi
    return y0, y1, y2, y3


@jit
def _block_of_outputs(x, weight, block, y):
    """Set some of the outputs of each row: those of four runs of rows of the matrix, or of what is left over.

    Four rows that lie a quarter of the matrix apart are read side by side: four streams for the prefetcher, each of
    which goes on where it was with the next row.
    """
    M, O = y.shape
    quarter = O // 4
    if block * ROWS < quarter:
        for o in range(block * ROWS, min((block + 1) * ROWS, quarter)):
            for m in range(M):
                y0, y1, y2, y3 = _four_dots(weight, o, quarter, x[m])
                y[m, o], y[m, o + quarter] = y0, y1
                y[m, o + 2 * quarter], y[m, o + 3 * quarter] = y2, y3
    else:
        for o in range(4 * quarter, O):
            for m in range(M):
                y[m, o] = _dot(weight[o], x[m])


@kernel
def rows_by_outputs(
    x,  # IN  (J, M, I), J from 1 to 4
    w0,  # IN  (O, I) as stored
    w1,  # IN  (O, I); of these three what J leaves over is not read
    w2,  # IN  (O, I)
    w3,  # IN  (O, I)
    y,  # OUT (J, M, O)
):
    """Multiply few rows by up to four matrices stored [out, in], each with rows of its own; each is read once."""
    # x[j] in every branch: x[3] would not depend on the loop, and Numba would read it before, beyond the end.
    J, _, O = y.shape
    blocks = (O // 4 + ROWS - 1) // ROWS + 1
    for item in prange(J * blocks):
        j, block = item // blocks, item % blocks
        if j == 0:
            _block_of_outputs(x[j], w0, block, y[j])
        elif j == 1:
            _block_of_outputs(x[j], w1, block, y[j])
        elif j == 2:
            _block_of_outputs(x[j], w2, block, y[j])
        else:
            _block_of_outputs(x[j], w3, block, y[j])


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


@kernel
def widen_codes(
    kind,  # IN  3 for int8, 4 for int4
    blocks,  # IN  (B, G, 8 or 4, 16) uint32
    scales,  # IN  (B, G, 16) uint16
    wide,  # OUT (R, I) float32
):
    """Multiply codes by the scales of their groups."""
    for r in prange(wide.shape[0]):
        widen_row(kind, blocks.ctypes.data, scales.ctypes.data, r, wide.shape[1], 0, wide[r])
