# mypy: allow-untyped-defs
"""The WKV of RWKV-4 times the receptance, for one token of every sequence. Letters: A channels."""

from __future__ import annotations

from .._address import doubles, floats
from .._jit import inlined
from ..kernels.wkv.cpu import CHANNELS, token
from .access import after, before, row
from .fields import Kind, Rows, Size, State, Vector

WKV = Kind(
    "wkv",
    r=Rows("A"), k=Rows("A"), v=Rows("A"), y=Rows("A", written=True), log_decay=Vector("A"), u=Vector("A"),
    numerator=State("A"), denominator=State("A"), exponent=State("A", itemsize=8), A=Size(),
)  # fmt: skip
F = WKV.fields


def blocks_of_channels(A: int) -> int:
    """Return into how many blocks the channels are divided."""
    return -(-A // CHANNELS)


@WKV.loop
@inlined
def blocks(step, number, first, stop, rows, private, slots, scratch):
    """Set y to r WKV(k, v) for some blocks of channels, of every row; r is activated already."""
    A = step[F.A]
    begin, end = first * CHANNELS, min(A, stop * CHANNELS)
    n = end - begin
    log_decay, u = floats(step[F.log_decay] + 4 * begin, n), floats(step[F.u] + 4 * begin, n)
    for m in range(rows):
        r, k = row(step, F.r, m, private, slots, begin, n), row(step, F.k, m, private, slots, begin, n)
        v, y = row(step, F.v, m, private, slots, begin, n), row(step, F.y, m, private, slots, begin, n)
        at = m * A + begin
        old_a, a = (
            floats(before(step, F.numerator, slots) + 4 * at, n),
            floats(after(step, F.numerator, slots) + 4 * at, n),
        )
        old_b, b = (
            floats(before(step, F.denominator, slots) + 4 * at, n),
            floats(after(step, F.denominator, slots) + 4 * at, n),
        )
        old_p, p = (
            doubles(before(step, F.exponent, slots) + 8 * at, n),
            doubles(after(step, F.exponent, slots) + 8 * at, n),
        )
        for i in range(n):
            a[i], b[i], p[i] = old_a[i], old_b[i], old_p[i]
        token(log_decay, u, k, v, a, b, p, y, k)
        for i in range(n):
            y[i] *= r[i]
