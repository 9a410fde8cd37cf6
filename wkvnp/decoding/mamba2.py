# mypy: allow-untyped-defs
"""The state space of Mamba-2 for one token, with its step size before it.

Letters: H heads of width P in G groups, N state width.
"""

from __future__ import annotations

from .._address import floats
from .._jit import inlined
from .._scalar import softplus
from ..kernels.linear.cpu import token
from .access import after, before, row
from .fields import Kind, Number, Rows, Size, State, Vector

STATE_SPACE = Kind(
    "state space",
    x=Rows("H P"), B=Rows("G N"), C=Rows("G N"), dt=Rows("H"), y=Rows("H P", written=True),
    dt_bias=Vector("H"), A=Vector("H"), D=Vector("H"), state=State("H N P"),
    H=Size(), G=Size(divides="H"), N=Size(), P=Size(), least=Number(), largest=Number(),
)  # fmt: skip
"""dt = softplus(dt + dt_bias), limited; S = exp(dt A) S + dt B x^T; y = S^T C + D x."""
F = STATE_SPACE.fields


def scratch_of_heads(N: int, P: int) -> int:
    """Return how many float32 numbers of scratch memory the step needs."""
    return P + 2 * N + 1


@STATE_SPACE.loop
@inlined
def heads(step, number, first, stop, rows, private, slots, scratch):
    """Do some heads, row by row."""
    for item in range(first, stop):
        _head(step, number, item % step[F.H], item // step[F.H], private, slots, scratch)


@inlined
def _head(step, number, head, m, private, slots, scratch):
    H, N, P = step[F.H], step[F.N], step[F.P]
    group = head * step[F.G] // H
    x, y = row(step, F.x, m, private, slots, head * P, P), row(step, F.y, m, private, slots, head * P, P)
    B, C = row(step, F.B, m, private, slots, group * N, N), row(step, F.C, m, private, slots, group * N, N)
    dt = row(step, F.dt, m, private, slots, head, 1)[0]
    dt = softplus(dt + floats(step[F.dt_bias], H)[head])
    dt = min(max(dt, number[F.least]), number[F.largest])
    v, signed, p = floats(scratch, P), floats(scratch + 4 * P, N), floats(scratch + 4 * (P + N), N)
    log_decay = floats(scratch + 4 * (P + 2 * N), 1)
    log_decay[0] = dt * floats(step[F.A], H)[head]
    for i in range(P):
        v[i] = dt * x[i]
    at = 4 * (m * H + head) * N * P
    old, new = floats(before(step, F.state, slots) + at, N * P), floats(after(step, F.state, slots) + at, N * P)
    for i in range(N * P):
        new[i] = old[i]
    token(C, log_decay, B, v, B, False, new.reshape((N, P)), 0, y, signed, p)
    D = floats(step[F.D], H)[head]
    for i in range(P):
        y[i] += D * x[i]
