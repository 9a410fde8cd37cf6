# mypy: allow-untyped-defs
"""The middle of the time mix of RWKV-5 and RWKV-6 for one token: decay, recurrence, group norm, gate.

Letters: A attention width, H heads of size N.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .._address import floats, place
from .._dtypes import KINDS, dtype_name
from .._jit import inlined
from .._scalar import exp
from ..kernels.linear.cpu import token
from ..primitives.norm.cpu import standardize_group
from . import opcodes
from .places import Array, Pair, Place, padded_rows
from .product import TOGETHER, multiply_run, stored_bytes
from .states import begin_state, end_state

if TYPE_CHECKING:
    from .program import Program


def gated_linear_heads(
    program: Program,
    r: Place,
    k: Place,
    v: Place,
    g: Place | None,
    log_decay: Array,
    moved: tuple[Place, Array] | None,
    u: Array,
    norm: tuple[Array, Array],
    state: Pair,
    y: Place,
    heads: int,
    eps: float,
) -> None:
    """Add what is done head by head.

    Parameters
    ----------
    g : Place or None
        The gate, activated already.
    log_decay : ndarray (A,)
        Of every token; with `moved`, what an exponent has besides it: the decay is -exp(log_decay + h W).
    moved : tuple of Place and ndarray (rank, A), or None
        h, activated already, and W.
    u : ndarray (A,)
        Bonus.
    norm : pair of ndarray (A,)
        Scale and shift.
    state : pair of Place (M, H, N, N)
        Before and after.
    """
    A = r.size
    low, factor = [0, 0, 0, 0, 0], None
    if moved is not None:
        factor = padded_rows(np.ascontiguousarray(moved[1].T))
        kind = KINDS[dtype_name(factor.dtype)]
        low = [moved[0].code, moved[0].step, program.constant(factor), factor.shape[1], kind]
    places = [number for p in (r, k, v, y) for number in (p.code, p.step)]
    vectors = program.vector(np.concatenate([np.ravel(vector) for vector in (log_decay, u, *norm)]))
    gate = (g.code, g.step) if g is not None else (0, 0)
    N = A // heads
    fields = [A, N, *places, *gate, vectors, *low, state[0].code, state[1].code]
    program.add(opcodes.GATED_LINEAR, heads, fields, eps, scratch=(TOGETHER + 3 + N) * N, each_row=True)


@inlined
def heads(step, number, first, stop, rows, private, slots, scratch):
    """Do some heads, counted row by row for the first head, then for the next."""
    N = step[3]
    room = scratch + 4 * TOGETHER * N
    while first < stop:
        head, m = first // rows, first % rows
        many = min(stop - first, rows - m, TOGETHER)
        if step[17]:
            size, hidden = step[18] * stored_bytes(step[19]), place(step[15], private, slots) + m * step[16]
            factor = step[17] + head * N * size
            multiply_run(step[19], factor, size, N, hidden, step[16], step[18], many, scratch, 4 * N)
        for n in range(many):
            _head(step, number, head, m + n, rows, private, slots, scratch + 4 * n * N, room)
        first += many


@inlined
def _head(step, number, head, m, rows, private, slots, moved, room):
    A, N = step[2], step[3]
    own, vectors = head * N, step[14] + 4 * head * N
    decay, u = floats(vectors, N), floats(vectors + 4 * A, N)
    weight, bias = floats(vectors + 8 * A, N), floats(vectors + 12 * A, N)
    r = floats(place(step[4], private, slots) + m * step[5] + 4 * own, N)
    k = floats(place(step[6], private, slots) + m * step[7] + 4 * own, N)
    v = floats(place(step[8], private, slots) + m * step[9] + 4 * own, N)
    out = floats(place(step[10], private, slots) + m * step[11] + 4 * own, N)
    log_decay, fade = floats(moved, N), floats(room, N)
    p, y = floats(room + 4 * N, N), floats(room + 8 * N, N)
    if step[17]:
        for i in range(N):
            log_decay[i] = -exp(decay[i] + log_decay[i])
    else:
        for i in range(N):
            log_decay[i] = decay[i]
    at = 4 * (m * A + own) * N
    after = slots[step[21]] + at
    state = begin_state(slots[step[20]] + at, after, N * N, rows, room + 12 * N)
    token(r, log_decay, k, v, u, True, floats(state, (N, N)), 0, y, fade, p)
    end_state(state, after, N * N)
    standardize_group(y, weight, bias, number[0], out)
    if step[12]:
        gate = floats(place(step[12], private, slots) + m * step[13] + 4 * own, N)
        for i in range(N):
            out[i] *= gate[i]
