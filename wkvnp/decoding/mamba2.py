# mypy: allow-untyped-defs
"""The middle of a layer of Mamba-2 for one token: step and recurrence.

Letters: H heads of width P in G groups, N state width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .._address import floats, place
from .._jit import inlined
from .._scalar import softplus
from ..kernels.linear.cpu import token
from . import opcodes
from .places import Array, Pair, Place

if TYPE_CHECKING:
    from .program import Program


def state_space_heads(
    program: Program,
    x: Place,
    B: Place,
    C: Place,
    dt: Place,
    vectors: tuple[Array, Array, Array],
    limits: tuple[float, float],
    state: Pair,
    y: Place,
    groups: int,
) -> None:
    """Add what is done head by head: S = exp(dt A) S + dt B x^T and y = S^T C + D x.

    Parameters
    ----------
    x, y : Place (M, H P)
    B, C : Place (M, G N)
    dt : Place (M, H)
        Before its bias and softplus.
    vectors : tuple of ndarray (H,)
        Bias of the step, A, D.
    limits : tuple of float
        Where steps are cut off.
    state : pair of Place (M, H, N, P)
        Before and after.
    """
    H = dt.size
    N, P = B.size // groups, x.size // H
    places = [number for p in (x, B, C, dt, y) for number in (p.code, p.step)]
    constants = program.vector(np.concatenate([*vectors, np.array(limits, np.float32)]))
    fields = [H, N, P, groups, *places, constants, state[0].code, state[1].code]
    program.add(opcodes.MAMBA2, H, fields, scratch=P + 2 * N + 1, each_row=True)


@inlined
def heads(step, first, stop, private, slots, scratch):
    """Do some heads, row by row."""
    for item in range(first, stop):
        _head(step, item % step[2], item // step[2], private, slots, scratch)


@inlined
def _head(step, head, m, private, slots, scratch):
    H, N, P, groups = step[2], step[3], step[4], step[5]
    g = head * groups // H
    x = floats(place(step[6], private, slots) + m * step[7] + 4 * head * P, P)
    B = floats(place(step[8], private, slots) + m * step[9] + 4 * g * N, N)
    C = floats(place(step[10], private, slots) + m * step[11] + 4 * g * N, N)
    dt = floats(place(step[12], private, slots) + m * step[13], H)[head]
    y = floats(place(step[14], private, slots) + m * step[15] + 4 * head * P, P)
    constants = floats(step[16], 3 * H + 2)
    dt = softplus(dt + constants[head])
    dt = min(max(dt, constants[3 * H]), constants[3 * H + 1])
    v, fade, p = floats(scratch, P), floats(scratch + 4 * P, N), floats(scratch + 4 * (P + N), N)
    decay = floats(scratch + 4 * (P + 2 * N), 1)
    decay[0] = dt * constants[H + head]
    for i in range(P):
        v[i] = dt * x[i]
    at = 4 * (m * H + head) * N * P
    before, after = floats(slots[step[17]] + at, N * P), floats(slots[step[18]] + at, N * P)
    for i in range(N * P):
        after[i] = before[i]
    token(C, decay, B, v, B, False, after.reshape((N, P)), 0, y, fade, p)
    D = constants[2 * H + head]
    for i in range(P):
        y[i] += D * x[i]
