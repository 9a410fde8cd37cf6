# mypy: allow-untyped-defs
"""The recurrence of RWKV-5 and RWKV-6 for one token, with its decay before it and its norm and gate behind it.

Letters: A attention width, H heads of size N, R rank of the decay.
"""

from __future__ import annotations

from .._address import floats
from .._jit import inlined
from .._scalar import exp
from ..kernels.linear.cpu import token
from ..primitives.norm.cpu import standardize_group
from .access import address, after, before, begin_state, end_state, present, row, stride
from .fields import Kind, Matrix, Number, Rows, Size, State, Vector
from .product import FACTOR_ROWS, multiply_run, stored_bytes

GATED_LINEAR = Kind(
    "gated linear recurrence",
    r=Rows("A"), k=Rows("A"), v=Rows("A"), gate=Rows("A", optional=True), y=Rows("A", written=True),
    decay=Vector("A"), decay_low=Rows("R", optional=True), decay_up=Matrix("A R", optional=True),
    u=Vector("A"), weight=Vector("A"), bias=Vector("A"), state=State("A N"),
    A=Size(), N=Size(divides="A"), R=Size(optional=True), eps=Number(),
)  # fmt: skip
"""`decay` is the log decay; with a low-rank pair the decay is exp(-exp(decay + low up))."""
F = GATED_LINEAR.fields


def scratch_of_heads(N: int) -> int:
    """Return how many float32 numbers of scratch memory the step needs."""
    return (FACTOR_ROWS + 3 + N) * N


@GATED_LINEAR.loop
@inlined
def heads(step, number, first, stop, rows, private, slots, scratch):
    """Do some heads: those of all rows for the first head, then for the next."""
    N, kind, terms = step[F.N], step[F.decay_up + 1], step[F.decay_up + 2]
    while first < stop:
        head, m = first // rows, first % rows
        count = min(stop - first, rows - m, FACTOR_ROWS)
        if present(step, F.decay_low):
            size, low_stride = terms * stored_bytes(kind), stride(step, F.decay_low)
            low = address(step, F.decay_low, private, slots) + m * low_stride
            factor = step[F.decay_up] + head * N * size
            multiply_run(kind, factor, size, N, low, low_stride, terms, count, scratch, 4 * N)
        for n in range(count):
            _head(step, number, head, m + n, rows, private, slots, scratch + 4 * n * N, scratch + 4 * FACTOR_ROWS * N)
        first += count


@inlined
def _head(step, number, head, m, rows, private, slots, exponent, scratch):
    A, N = step[F.A], step[F.N]
    begin = head * N
    decay, u = floats(step[F.decay] + 4 * begin, N), floats(step[F.u] + 4 * begin, N)
    weight, bias = floats(step[F.weight] + 4 * begin, N), floats(step[F.bias] + 4 * begin, N)
    r, k = row(step, F.r, m, private, slots, begin, N), row(step, F.k, m, private, slots, begin, N)
    v, out = row(step, F.v, m, private, slots, begin, N), row(step, F.y, m, private, slots, begin, N)
    log_decay, signed = floats(exponent, N), floats(scratch, N)
    p, y = floats(scratch + 4 * N, N), floats(scratch + 8 * N, N)
    if present(step, F.decay_low):
        for i in range(N):
            log_decay[i] = -exp(decay[i] + log_decay[i])
    else:
        for i in range(N):
            log_decay[i] = decay[i]
    at = 4 * (m * A + begin) * N
    new = after(step, F.state, slots) + at
    state = begin_state(before(step, F.state, slots) + at, new, N * N, rows, scratch + 12 * N)
    token(r, log_decay, k, v, u, True, floats(state, (N, N)), 0, y, signed, p)
    end_state(state, new, N * N)
    standardize_group(y, weight, bias, number[F.eps], out)
    if present(step, F.gate):
        gate = row(step, F.gate, m, private, slots, begin, N)
        for i in range(N):
            out[i] *= gate[i]
