"""Compiled loops around a scalar formula: one operand a row of (M, C), or one row (1, C) for all."""

from collections.abc import Callable
from typing import Any

from numba import prange

from ..._jit import Kernel, jit, kernel


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
            p, q, out = a[m if a.shape[0] > 1 else 0], b[m if b.shape[0] > 1 else 0], y[m]
            for c in range(out.size):
                out[c] = f(p[c], q[c])

    def four(a, b, c, d, y):
        for m in prange(y.shape[0]):
            p, q, out = a[m if a.shape[0] > 1 else 0], b[m if b.shape[0] > 1 else 0], y[m]
            r, s = c[m if c.shape[0] > 1 else 0], d[m if d.shape[0] > 1 else 0]
            for i in range(out.size):
                out[i] = f(p[i], q[i], r[i], s[i])

    return kernel({1: one, 2: two, 4: four}[operands], name=f"{formula.__module__}.{formula.__qualname__}")
