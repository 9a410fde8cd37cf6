# mypy: allow-untyped-defs
"""The middle of the time mix of RWKV-7: what stands between its large products, for one token and for many.

Letters: A attention width, H heads of size N.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numba import prange

from .._address import AHEAD, ask, floats, place
from .._dtypes import KINDS, dtype_name
from .._jit import inlined, uncounted
from .._scalar import cast, sigmoid
from .._shapes import time_windows
from ..kernels.delta.cpu import dplr_token
from ..primitives.norm.cpu import standardize_group
from . import opcodes
from .places import Array, Pair, Place, padded_rows
from .product import TOGETHER, multiply_run, stored_bytes
from .states import begin_state, end_state

if TYPE_CHECKING:
    from .program import Program

_FASTEST = -math.exp(-0.5)


def rwkv7_heads(
    program: Program,
    r: Place,
    k: Place,
    v: Place,
    hidden: Sequence[Place],
    up: Sequence[Array],
    vectors: Array,
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
    vectors : ndarray (8, A)
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
        program.vector(vectors), state[0].code, state[1].code,
        *((v_first.code, v_first.step) if v_first and not none else (0, 0)), y.code, y.step,
    ]  # fmt: skip
    program.add(opcodes.RWKV7, heads, fields, eps, scratch=(4 * TOGETHER + 10 + N) * N, each_row=True)


@inlined
def heads(step, number, first, stop, rows, private, slots, scratch):
    """Do some heads, counted row by row for the first head, then for the next."""
    N = step[3]
    size = 4 * TOGETHER * N
    while first < stop:
        head, m = first // rows, first % rows
        many = min(stop - first, rows - m, TOGETHER)
        for which in range(4 if step[30] != 0 else 3):
            _up(step, which, private, slots, head * N, N, m, many, scratch + which * size)
        for n in range(many):
            _head(step, number, head, m + n, rows, private, slots, scratch + 4 * n * N, size, scratch + 4 * size)
        first += many


@inlined
def _up(step, which, private, slots, own, N, m, many, y):
    """Set y (many, N) to what a pair of factors makes of rows from m on, for the channels of a head."""
    kind, factor, rank, hidden_step = step[18], step[19 + which], step[23 + which], step[11 + 2 * which]
    size = rank * stored_bytes(kind)
    hidden = place(step[10 + 2 * which], private, slots) + m * hidden_step
    multiply_run(kind, factor + own * size, size, N, hidden, hidden_step, rank, many, y, 4 * N)


@inlined
def _head(step, number, head, m, rows, private, slots, ups, apart, room):
    A, N, residual = step[2], step[3], step[30] != 0
    own, vectors = head * N, step[27] + 4 * head * N
    w, a, g, nu = (
        floats(ups, N),
        floats(ups + apart, N),
        floats(ups + 2 * apart, N),
        floats(ups + 3 * apart, N),
    )
    r = floats(place(step[4], private, slots) + m * step[5] + 4 * own, N)
    k = floats(place(step[6], private, slots) + m * step[7] + 4 * own, N)
    v = floats(place(step[8], private, slots) + m * step[9] + 4 * own, N)
    first = floats(place(step[30], private, slots) + m * step[31] + 4 * own, N) if residual else v
    at = 4 * (m * A + own) * N
    after = slots[step[29]] + at
    state = begin_state(slots[step[28]] + at, after, N * N, rows, room + 40 * N)
    _token(
        (r, w, k, v, a, g, nu, first),
        (
            floats(vectors, N), floats(vectors + 4 * A, N), floats(vectors + 8 * A, N), floats(vectors + 12 * A, N),
            floats(vectors + 16 * A, N), floats(vectors + 20 * A, N), floats(vectors + 24 * A, N),
            floats(vectors + 28 * A, N),
        ),
        residual, number[0], floats(state, (N, N)),
        floats(place(step[32], private, slots) + m * step[33] + 4 * own, N),
        (
            floats(room, N), floats(room + 4 * N, N), floats(room + 8 * N, N), floats(room + 12 * N, N),
            floats(room + 16 * N, N), floats(room + 20 * N, N), floats(room + 24 * N, N), floats(room + 28 * N, N),
            floats(room + 32 * N, N), floats(room + 36 * N, N),
        ),
    )  # fmt: skip
    end_state(state, after, N * N)


@inlined
def _token(inputs, vectors, residual, eps, S, out, room):
    """One token of one head, N numbers of everything: gates, recurrence, group norm, bonus, gate.

    inputs: r, k, v, what the pairs of factors made for w, a, g and the residual of v, and the first layer's v.
    """
    r, w, k, v, a, g, nu, v_first = inputs
    w0, a0, v0, k_k, k_a, r_k, weight, bias = vectors
    log_decay, rate, kappa, b, key, value, y, decay, p, s = room
    N, zero, one = out.size, out.dtype.type(0), out.dtype.type(1)
    squares, bonus = zero, zero
    # Loops over few arrays each: with many, the compiler cannot tell that none overlaps another, and computes singly.
    for i in range(N):
        log_decay[i] = cast(_FASTEST, w[i]) * sigmoid(w0[i] + w[i])
    for i in range(N):
        rate[i] = sigmoid(a0[i] + a[i])
    for i in range(N):
        kappa[i] = k[i] * k_k[i]
        squares += kappa[i] * kappa[i]
    for i in range(N):
        key[i] = k[i] * (one + (rate[i] - one) * k_a[i])
    for i in range(N):
        bonus += r[i] * key[i] * r_k[i]
    for i in range(N):
        value[i] = v[i]
    if residual:
        for i in range(N):
            value[i] += (v_first[i] - v[i]) * sigmoid(v0[i] + nu[i])
    length = out.dtype.type(math.sqrt(squares))
    scale = one / max(length, cast(1e-12, length))
    for i in range(N):
        unit = kappa[i] * scale
        kappa[i] = -unit
        b[i] = unit * rate[i]
    dplr_token(r, log_decay, key, value, kappa, b, S, 0, y, decay, p, s)
    standardize_group(y, weight, bias, eps, out)
    for i in range(N):
        out[i] = (out[i] + bonus * value[i]) * g[i]


@uncounted
def _walk(
    starts,  # IN  (B,) first token of each sequence
    stops,  # IN  (B,) one past its last
    r,  # IN  (M, A)
    w,  # IN  (M, A)
    k,  # IN  (M, A)
    v,  # IN  (M, A)
    a,  # IN  (M, A)
    g,  # IN  (M, A)
    nu,  # IN  (M, A), not read if values have no residual
    v_first,  # IN  (M, A), not read if values have no residual
    vectors,  # IN  (8, A)
    residual,  # IN  whether values have one
    eps,  # IN  scalar of the dtype of the others
    state,  # INOUT (B, H, N, N)
    y,  # OUT (M, A)
    scratch,  # (B * H, 10, N)
):
    """Walk every sequence and head."""
    B, H, N, _ = state.shape
    for item in prange(B * H):
        n, h = item // H, item % H
        i, e, room = h * N, h * N + N, scratch[item]
        own = (
            vectors[0, i:e], vectors[1, i:e], vectors[2, i:e], vectors[3, i:e], vectors[4, i:e], vectors[5, i:e],
            vectors[6, i:e], vectors[7, i:e],
        )  # fmt: skip
        rooms = (
            room[0], room[1], room[2], room[3], room[4], room[5], room[6], room[7], room[8], room[9],
        )  # fmt: skip
        for t in range(starts[n], stops[n]):
            soon = min(t + AHEAD, stops[n] - 1)
            ask((r[soon, i:e], w[soon, i:e], k[soon, i:e], v[soon, i:e], a[soon, i:e]))
            ask((g[soon, i:e], nu[soon, i:e], v_first[soon, i:e], y[soon, i:e]))
            inputs = (
                r[t, i:e], w[t, i:e], k[t, i:e], v[t, i:e], a[t, i:e], g[t, i:e], nu[t, i:e], v_first[t, i:e],
            )  # fmt: skip
            _token(inputs, own, residual, eps, state[n, h], y[t, i:e], rooms)


def rwkv7_tokens(
    r: Array,
    k: Array,
    v: Array,
    low: Sequence[Array],
    vectors: Array,
    v_first: Array | None,
    state: Array,
    offsets: Array,
    eps: float,
) -> tuple[Array, Array]:
    """Do the same for all tokens of packed sequences, of which the pairs of factors have made their part.

    Parameters
    ----------
    r, k, v : ndarray (M, A)
    low : sequence of ndarray (M, A)
        Of w, a, g and, if values have a residual, v.
    vectors : ndarray (8, A)
        As `rwkv7_heads` takes them.
    v_first : ndarray (M, A) or None
    state : ndarray (B, H, N, N)
        Not changed.
    offsets : ndarray of int64 (B + 1,)

    Returns
    -------
    y : ndarray (M, A)
    state : ndarray (B, H, N, N)
    """
    w, a, g, *nu = low
    y, final = np.empty_like(r), state.copy()
    B, H, N, _ = state.shape
    scratch = np.empty((B * H, 10, N), r.dtype)
    residual = v_first is not None and bool(nu)
    more = (nu[0], v_first) if residual else (w, w)
    work = 2 * r.shape[1] * N
    run = _walk.sized(len(r) * work)
    for starts, stops in time_windows(offsets, work):
        run(starts, stops, r, w, k, v, a, g, *more, vectors, residual, r.dtype.type(eps), final, y, scratch)
    return y, final
