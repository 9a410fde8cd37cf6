"""Compiled loops around a scalar formula: one operand a row of (M, C), or one row (1, C) for all."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import prange

from ..._jit import Kernel, jit, kernel


@jit
def _row(operand, m):
    """Return row m, or the only one."""
    return operand[np.int64(m) if operand.shape[0] > 1 else 0]


def loop(formula: Callable[..., Any], operands: int) -> Kernel:
    """Return the loop that applies `formula` of one, two or four operands to rows."""
    f = jit(formula)

    def one(a, y):
        for m in prange(y.shape[0]):
            p, out = a[m], y[m]
            for c in range(out.size):
                out[c] = f(p[c])

    def two(a, b, y):
        for m in prange(y.shape[0]):
            p, q, out = _row(a, m), _row(b, m), y[m]
            for c in range(out.size):
                out[c] = f(p[c], q[c])

    def four(a, b, c, d, y):
        for m in prange(y.shape[0]):
            p, q, r, s, out = _row(a, m), _row(b, m), _row(c, m), _row(d, m), y[m]
            for i in range(out.size):
                out[i] = f(p[i], q[i], r[i], s[i])

    loops: dict[int, Callable[..., None]] = {1: one, 2: two, 4: four}
    return kernel(loops[operands], name=f"{formula.__module__}.{formula.__qualname__}")
