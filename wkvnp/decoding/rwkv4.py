# mypy: allow-untyped-defs
"""The WKV of RWKV-4 and its gate, for one token of every sequence. Letters: A channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .._address import doubles, floats, place
from .._jit import inlined
from ..kernels.wkv.cpu import CHANNELS, token
from . import opcodes
from .places import Array, Pair, Place

if TYPE_CHECKING:
    from .program import Program


def wkv(
    program: Program, r: Place, k: Place, v: Place, log_decay: Array, u: Array, state: Sequence[Pair], y: Place
) -> None:
    """Add r WKV(k, v), for a receptance r that is activated already.

    Parameters
    ----------
    log_decay, u : ndarray (A,)
    state : sequence of 3 pairs of Place (M, A)
        aa, bb and, in float64, pp, each before and after.
    """
    A = r.size
    places = [number for p in (r, k, v, y) for number in (p.code, p.step)]
    slots = [p.code for pair in state for p in pair]
    fields = [A, *places, program.vector(log_decay), program.vector(u), *slots]
    program.add(opcodes.RWKV4, -(-A // CHANNELS), fields)


@inlined
def blocks(step, first, stop, rows, private, slots):
    """Do some blocks of channels, for every row."""
    A = step[2]
    begin, end = first * CHANNELS, min(A, stop * CHANNELS)
    n = end - begin
    w, u = floats(step[11] + 4 * begin, n), floats(step[12] + 4 * begin, n)
    for m in range(rows):
        r = floats(place(step[3], private, slots) + m * step[4] + 4 * begin, n)
        k = floats(place(step[5], private, slots) + m * step[6] + 4 * begin, n)
        v = floats(place(step[7], private, slots) + m * step[8] + 4 * begin, n)
        y = floats(place(step[9], private, slots) + m * step[10] + 4 * begin, n)
        at = m * A + begin
        old_a, aa = floats(slots[step[13]] + 4 * at, n), floats(slots[step[14]] + 4 * at, n)
        old_b, bb = floats(slots[step[15]] + 4 * at, n), floats(slots[step[16]] + 4 * at, n)
        old_p, pp = doubles(slots[step[17]] + 8 * at, n), doubles(slots[step[18]] + 8 * at, n)
        for i in range(n):
            aa[i], bb[i], pp[i] = old_a[i], old_b[i], old_p[i]
        token(w, u, k, v, aa, bb, pp, y, k)
        for i in range(n):
            y[i] *= r[i]
