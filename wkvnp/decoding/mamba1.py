# mypy: allow-untyped-defs
"""The middle of a layer of Mamba-1 for one token: step, selective state space, gate.

Letters: E inner channels, N state width, R rank of the step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._address import floats, place
from .._dtypes import KINDS, dtype_name
from .._jit import inlined
from .._scalar import softplus
from ..kernels.selective.cpu import CHANNELS, gate, real_row
from . import opcodes
from .places import Array, Pair, Place, padded_rows
from .product import TOGETHER, multiply_run, stored_bytes

if TYPE_CHECKING:
    from .program import Program


def selective_blocks(
    program: Program,
    x: Place,
    z: Place,
    low: Place,
    B: Place,
    C: Place,
    dt: tuple[Array, Array],
    A: Array,
    D: Array,
    state: Pair,
    y: Place,
) -> None:
    """Add what is done channel by channel: y = (C h + D x) silu(z).

    Parameters
    ----------
    x, z, y : Place (M, E)
    low : Place (M, R)
        What the step is made of.
    B, C : Place (M, N)
    dt : tuple of ndarray (E, R) and (E,)
        Matrix and bias of the step.
    A : ndarray (E, N)
    D : ndarray (E,)
    state : pair of Place (M, N, E)
        Before and after.
    """
    E, N = A.shape
    factor = padded_rows(dt[0])
    places = [number for p in (x, z, low, B, C, y) for number in (p.code, p.step)]
    fields = [
        E, N, *places, KINDS[dtype_name(factor.dtype)], program.constant(factor), factor.shape[1],
        program.vector(dt[1]), program.vector(A.T), program.vector(D), state[0].code, state[1].code,
    ]  # fmt: skip
    program.add(opcodes.MAMBA1, -(-E // CHANNELS), fields, scratch=CHANNELS * (TOGETHER + 1))


@inlined
def blocks(step, first, stop, rows, private, slots, scratch):
    """Do some blocks of channels, for every row."""
    E, kind, terms, low_step = step[2], step[16], step[18], step[9]
    size = terms * stored_bytes(kind)
    for block in range(first, stop):
        i = block * CHANNELS
        n = min(CHANNELS, E - i)
        for m in range(0, rows, TOGETHER):
            low, many = place(step[8], private, slots) + m * low_step, min(TOGETHER, rows - m)
            multiply_run(kind, step[17] + i * size, size, n, low, low_step, terms, many, scratch, 4 * CHANNELS)
            for j in range(many):
                moved, room = scratch + 4 * j * CHANNELS, scratch + 4 * TOGETHER * CHANNELS
                _block(step, i, n, m + j, private, slots, moved, room)


@inlined
def _block(step, i, n, m, private, slots, moved, room):
    E, N = step[2], step[3]
    x = floats(place(step[4], private, slots) + m * step[5] + 4 * i, n)
    z = floats(place(step[6], private, slots) + m * step[7] + 4 * i, n)
    B = floats(place(step[10], private, slots) + m * step[11], N)
    C = floats(place(step[12], private, slots) + m * step[13], N)
    y = floats(place(step[14], private, slots) + m * step[15] + 4 * i, n)
    bias, D, dt, u = floats(step[19] + 4 * i, n), floats(step[21] + 4 * i, n), floats(moved, n), floats(room, n)
    for c in range(n):
        dt[c] = softplus(dt[c] + bias[c])
    for c in range(n):
        u[c] = dt[c] * x[c]
        y[c] = D[c] * x[c]
    for j in range(N):
        at = 4 * ((m * N + j) * E + i)
        a, before, h = (
            floats(step[20] + 4 * (j * E + i), n),
            floats(slots[step[22]] + at, n),
            floats(slots[step[23]] + at, n),
        )
        for c in range(n):
            h[c] = before[c]
        real_row(u, dt, a, B[j], C[j], h, y)
    gate(z, y)
