# mypy: allow-untyped-defs, allow-untyped-calls
"""What becomes of the scores of a block of keys: compiled functions that `cpu` calls."""

import numpy as np

from ..._jit import jit
from ..._scalar import exp, expm1
from ..._tile import exponentiate, largest, total
from .mask import KEYS

ROWS = 64
"""Rows of a tile."""


@jit
def adjust(s, p, j0, cap, slope, gate, gates):
    """Cap the scores of a block of keys, lower them by distance, and by what was forgotten in between."""
    number = s.dtype.type
    if cap > 0:
        two, most = number(2), number(40)
        for j in range(s.size):
            x = two * s[j] / cap
            e = expm1(most if x > most else x)  # tanh(x / 2) = e / (e + 2), exact to the last digits near 0
            s[j] = cap * (e / (e + two))
    if slope != 0:
        for j in range(s.size):
            s[j] -= slope * number(abs(p - (j0 + j)))
    if gates.size:
        for j in range(s.size):
            s[j] += number(gate - gates[j])


@jit
def weigh(scores, rows, top, mass, factor, highest):
    """Turn scores into weights; note each row's new maximum and sum, and the factor of what was summed before.

    What is one number a row is computed for all `ROWS`, used or not: in whole vectors, so always with the same bits.
    """
    zero = scores.dtype.type(0)
    for r in range(rows):
        highest[r] = max(top[r], largest(scores[r * KEYS : (r + 1) * KEYS]))
    for r in range(ROWS):
        factor[r] = exp(top[r] - (zero if highest[r] == -np.inf else highest[r]))
        mass[r] *= factor[r]
        top[r] = highest[r]
    for r in range(rows):
        s, reference = scores[r * KEYS : (r + 1) * KEYS], zero if highest[r] == -np.inf else highest[r]
        exponentiate(s, reference)
        mass[r] += total(s)
