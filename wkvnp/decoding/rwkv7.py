# mypy: allow-untyped-defs
"""The middle of the time mix of RWKV-7 for one token: what stands between its large products.

Letters: A attention width, H heads of size N.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .._dtypes import dtype_name
from .._jit import inlined
from .._scalar import sigmoid
from ..kernels.delta.cpu import dplr_token
from ..primitives.norm.cpu import standardize_group
from . import opcodes
from .address import floats, place
from .dots import KINDS
from .places import Array, Pair, Place, padded_rows
from .product import multiply_run, stored_bytes

if TYPE_CHECKING:
    from .program import Program

_FASTEST = np.float32(-math.exp(-0.5))


def rwkv7_heads(
    program: Program,
    r: Place,
    k: Place,
    v: Place,
    hidden: Sequence[Place],
    up: Sequence[Array],
    vectors: Sequence[Array],
    state: Pair,
    v_first: Place | None,
    y: Place,
    heads: int,
    eps: float,
) -> None:
    """Add what is done head by head: second low-rank factors, gates, recurrence, group norm, bonus, gate.

    Parameters
    ----------
    hidden, up : sequence
        Of w, a, g and, if values have a residual, v: the activated products with the first factors, and the second
        factors (rank, A).
    vectors : sequence of 8 ndarray (A,)
        w0, a0, v0, k_k, k_a, r_k, scale and shift of the norm.
    state : pair of Place (M, H, N, N)
        Before and after.
    v_first : Place or None
        Values of the first layer.
    """
    A = r.size
    N = A // heads
    factors = [padded_rows(np.ascontiguousarray(factor.T)) for factor in up]
    none = [0] * (4 - len(up))
    (kind,) = {KINDS[dtype_name(factor.dtype)] for factor in factors}
    low = [number for place in hidden for number in (place.code, place.step)]
    fields = [
        A, N, r.code, r.step, k.code, k.step, v.code, v.step, *low, *none, *none, kind,
        *map(program.constant, factors), *none, *(factor.shape[1] for factor in factors), *none,
        program.vector(np.concatenate([np.ravel(vector) for vector in vectors])), state[0].code, state[1].code,
        *((v_first.code, v_first.step) if v_first and not none else (0, 0)), y.code, y.step,
    ]  # fmt: skip
    program.add(opcodes.RWKV7, heads, fields, eps, scratch=10 * N, each_row=True)


@inlined
def heads(step, number, first, stop, private, slots, scratch):
    """Do some heads, row by row."""
    count = step[2] // step[3]
    for item in range(first, stop):
        _head(step, number, item % count, item // count, private, slots, scratch)


@inlined
def _up(step, which, private, slots, own, N, m, y):
    """Set y (N,) to what a pair of factors makes of row m, for the channels of a head."""
    kind, factor, rank = step[18], step[19 + which], step[23 + which]
    size = rank * stored_bytes(kind)
    hidden = place(step[10 + 2 * which], private, slots) + m * step[11 + 2 * which]
    multiply_run(kind, factor + own * size, size, N, hidden, 0, rank, 1, y, 0)


@inlined
def _head(step, number, head, m, private, slots, scratch):
    A, N = step[2], step[3]
    own, zero, one, vectors = head * N, np.float32(0), np.float32(1), step[27] + 4 * head * N
    w0, a0, v0 = floats(vectors, N), floats(vectors + 4 * A, N), floats(vectors + 8 * A, N)
    k_k, k_a, r_k = floats(vectors + 12 * A, N), floats(vectors + 16 * A, N), floats(vectors + 20 * A, N)
    weight, bias = floats(vectors + 24 * A, N), floats(vectors + 28 * A, N)
    w, a, g, nu = (
        floats(scratch, N),
        floats(scratch + 4 * N, N),
        floats(scratch + 8 * N, N),
        floats(scratch + 12 * N, N),
    )
    kappa, b = floats(scratch + 16 * N, N), floats(scratch + 20 * N, N)
    key, value = floats(scratch + 24 * N, N), floats(scratch + 28 * N, N)
    r = floats(place(step[4], private, slots) + m * step[5] + 4 * own, N)
    k = floats(place(step[6], private, slots) + m * step[7] + 4 * own, N)
    v = floats(place(step[8], private, slots) + m * step[9] + 4 * own, N)
    for which in range(3):
        _up(step, which, private, slots, own, N, m, scratch + 4 * which * N)
    squares, bonus = zero, zero
    for i in range(N):
        w[i] = _FASTEST * sigmoid(w0[i] + w[i])
        a[i] = sigmoid(a0[i] + a[i])
        kappa[i] = k[i] * k_k[i]
        squares += kappa[i] * kappa[i]
        key[i] = k[i] * (one + (a[i] - one) * k_a[i])
        bonus += r[i] * key[i] * r_k[i]
    for i in range(N):
        value[i] = v[i]
    if step[30]:
        v_first = floats(place(step[30], private, slots) + m * step[31] + 4 * own, N)
        _up(step, 3, private, slots, own, N, m, scratch + 12 * N)
        for i in range(N):
            value[i] += (v_first[i] - v[i]) * sigmoid(v0[i] + nu[i])
    length = np.float32(math.sqrt(squares))
    scale = one / (length if length > np.float32(1e-12) else np.float32(1e-12))
    for i in range(N):
        unit = kappa[i] * scale
        kappa[i] = -unit
        b[i] = unit * a[i]
    at = 4 * (m * A + own) * N
    before = floats(slots[step[28]] + at, N * N)
    after = floats(slots[step[29]] + at, N * N)
    for i in range(N * N):
        after[i] = before[i]
    y, p, s, loss = nu, a, floats(scratch + 32 * N, N), floats(scratch + 36 * N, N)
    dplr_token(r, w, key, value, kappa, b, after.reshape((N, N)), 0, y, loss, p, s)
    out = floats(place(step[32], private, slots) + m * step[33] + 4 * own, N)
    standardize_group(y, weight, bias, number[0], out)
    for i in range(N):
        out[i] = (out[i] + bonus * value[i]) * g[i]
