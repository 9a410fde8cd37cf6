# mypy: allow-untyped-defs
"""The selective state space of Mamba-1 for one token, with its step size before it and its gate behind it.

Letters: E inner channels, N state width, R rank of the step size.
"""

from __future__ import annotations

from .._address import floats
from .._jit import inlined
from .._scalar import softplus
from ..kernels.selective.cpu import CHANNELS, gate, real_row
from .access import address, after, before, row, stride
from .fields import Kind, Matrix, Rows, Size, State, Vector
from .product import FACTOR_ROWS, multiply_run, stored_bytes

SELECTIVE = Kind(
    "selective state space",
    x=Rows("E"), z=Rows("E"), dt_low=Rows("R"), B=Rows("N"), C=Rows("N"), y=Rows("E", written=True),
    dt_up=Matrix("E R"), dt_bias=Vector("E"), A=Vector("N E"), D=Vector("E"), state=State("N E"),
    E=Size(), N=Size(), R=Size(),
)  # fmt: skip
"""dt = softplus(dt_low dt_up + dt_bias); h = exp(dt A) h + dt B x; y = (C h + D x) silu(z)."""
F = SELECTIVE.fields


def blocks_of_channels(E: int) -> int:
    """Return into how many blocks the channels are divided."""
    return -(-E // CHANNELS)


SCRATCH = CHANNELS * (FACTOR_ROWS + 1)
"""Numbers of scratch memory that the step needs."""


@SELECTIVE.loop
@inlined
def blocks(step, number, first, stop, rows, private, slots, scratch):
    """Do some blocks of channels, for every row."""
    E, kind, terms, low_stride = step[F.E], step[F.dt_up + 1], step[F.dt_up + 2], stride(step, F.dt_low)
    size, low = terms * stored_bytes(kind), address(step, F.dt_low, private, slots)
    for block in range(first, stop):
        i = block * CHANNELS
        n = min(CHANNELS, E - i)
        for m in range(0, rows, FACTOR_ROWS):
            count, factor = min(FACTOR_ROWS, rows - m), step[F.dt_up] + i * size
            multiply_run(kind, factor, size, n, low + m * low_stride, low_stride, terms, count, scratch, 4 * CHANNELS)
            for j in range(count):
                dt, u = scratch + 4 * j * CHANNELS, scratch + 4 * FACTOR_ROWS * CHANNELS
                _block(step, i, n, m + j, private, slots, dt, u)


@inlined
def _block(step, i, n, m, private, slots, dt, u):
    E, N = step[F.E], step[F.N]
    x, z = row(step, F.x, m, private, slots, i, n), row(step, F.z, m, private, slots, i, n)
    B, C = row(step, F.B, m, private, slots, 0, N), row(step, F.C, m, private, slots, 0, N)
    y = row(step, F.y, m, private, slots, i, n)
    bias, D = floats(step[F.dt_bias] + 4 * i, n), floats(step[F.D] + 4 * i, n)
    dt, u = floats(dt, n), floats(u, n)
    for c in range(n):
        dt[c] = softplus(dt[c] + bias[c])
    for c in range(n):
        u[c] = dt[c] * x[c]
        y[c] = D[c] * x[c]
    for j in range(N):
        at = 4 * ((m * N + j) * E + i)
        a = floats(step[F.A] + 4 * (j * E + i), n)
        old, h = floats(before(step, F.state, slots) + at, n), floats(after(step, F.state, slots) + at, n)
        for c in range(n):
            h[c] = old[c]
        real_row(u, dt, a, B[j], C[j], h, y)
    gate(z, y)
