# mypy: allow-untyped-defs
"""The recurrence of RWKV-7 for one token, with what is done head by head around it.

That is: the second factors of the low-rank pairs, gates, recurrence, group norm, bonus, gate. Letters: A attention
width, H heads of size N, Rw, Ra, Rg, Rv ranks.
"""

from __future__ import annotations

from .._address import floats
from .._jit import inlined
from ..fused.rwkv7 import SCRATCH_ROWS, token
from .access import address, after, before, begin_state, end_state, present, row, stride
from .fields import Kind, Matrix, Number, Rows, Size, State, Vector
from .product import FACTOR_ROWS, multiply_run, stored_bytes

RWKV7 = Kind(
    "rwkv7 recurrence",
    r=Rows("A"), k=Rows("A"), v=Rows("A"), v_first=Rows("A", optional=True), y=Rows("A", written=True),
    w_low=Rows("Rw"), a_low=Rows("Ra"), g_low=Rows("Rg"), v_low=Rows("Rv", optional=True),
    w_up=Matrix("A Rw"), a_up=Matrix("A Ra"), g_up=Matrix("A Rg"), v_up=Matrix("A Rv", optional=True),
    w0=Vector("A"), a0=Vector("A"), v0=Vector("A"), k_k=Vector("A"), k_a=Vector("A"), r_k=Vector("A"),
    weight=Vector("A"), bias=Vector("A"), state=State("A N"),
    A=Size(), N=Size(divides="A"), Rw=Size(), Ra=Size(), Rg=Size(), Rv=Size(optional=True), eps=Number(),
)  # fmt: skip
F = RWKV7.fields


def scratch_of_heads(N: int) -> int:
    """Return how many float32 numbers of scratch memory the step needs."""
    return (4 * FACTOR_ROWS + SCRATCH_ROWS + N) * N


@RWKV7.loop
@inlined
def heads(step, number, first, stop, rows, private, slots, scratch):
    """Do some heads: those of all rows for the first head, then for the next."""
    N = step[F.N]
    size = 4 * FACTOR_ROWS * N
    while first < stop:
        head, m = first // rows, first % rows
        count = min(stop - first, rows - m, FACTOR_ROWS)
        _up(step, F.w_low, F.w_up, private, slots, head * N, N, m, count, scratch)
        _up(step, F.a_low, F.a_up, private, slots, head * N, N, m, count, scratch + size)
        _up(step, F.g_low, F.g_up, private, slots, head * N, N, m, count, scratch + 2 * size)
        if present(step, F.v_first):
            _up(step, F.v_low, F.v_up, private, slots, head * N, N, m, count, scratch + 3 * size)
        for n in range(count):
            _head(step, number, head, m + n, rows, private, slots, scratch + 4 * n * N, size, scratch + 4 * size)
        first += count


@inlined
def _up(step, low, up, private, slots, begin, N, m, count, y):
    """Multiply `count` rows from m on by the second factor of a pair, for the channels of a head."""
    kind, terms = step[up + 1], step[up + 2]
    size, low_stride = terms * stored_bytes(kind), stride(step, low)
    x = address(step, low, private, slots) + m * low_stride
    multiply_run(kind, step[up] + begin * size, size, N, x, low_stride, terms, count, y, 4 * N)


@inlined
def _head(step, number, head, m, rows, private, slots, products, apart, scratch):
    A, N, residual = step[F.A], step[F.N], present(step, F.v_first)
    begin = head * N
    w, a = floats(products, N), floats(products + apart, N)
    g, nu = floats(products + 2 * apart, N), floats(products + 3 * apart, N)
    r, k = row(step, F.r, m, private, slots, begin, N), row(step, F.k, m, private, slots, begin, N)
    v, y = row(step, F.v, m, private, slots, begin, N), row(step, F.y, m, private, slots, begin, N)
    v_first = row(step, F.v_first, m, private, slots, begin, N) if residual else v
    at = 4 * (m * A + begin) * N
    new = after(step, F.state, slots) + at
    state = begin_state(before(step, F.state, slots) + at, new, N * N, rows, scratch + 4 * SCRATCH_ROWS * N)
    token(
        (r, w, k, v, a, g, nu, v_first),
        (
            floats(step[F.w0] + 4 * begin, N), floats(step[F.a0] + 4 * begin, N), floats(step[F.v0] + 4 * begin, N),
            floats(step[F.k_k] + 4 * begin, N), floats(step[F.k_a] + 4 * begin, N), floats(step[F.r_k] + 4 * begin, N),
            floats(step[F.weight] + 4 * begin, N), floats(step[F.bias] + 4 * begin, N),
        ),
        residual, number[F.eps], floats(state, (N, N)), y,
        (
            floats(scratch, N), floats(scratch + 4 * N, N), floats(scratch + 8 * N, N), floats(scratch + 12 * N, N),
            floats(scratch + 16 * N, N), floats(scratch + 20 * N, N), floats(scratch + 24 * N, N),
            floats(scratch + 28 * N, N), floats(scratch + 32 * N, N), floats(scratch + 36 * N, N),
        ),
    )  # fmt: skip
    end_state(state, new, N * N)
