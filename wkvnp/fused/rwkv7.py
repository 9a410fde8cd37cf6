# mypy: allow-untyped-defs
"""The recurrence of RWKV-7 with its gates, group norm and bonus, head by head: for one token, and over sequences.

Letters: M tokens of B packed sequences, A attention width, H heads of size N.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import prange

from .._address import AHEAD, prefetch_arrays
from .._jit import inlined, uncounted
from .._scalar import cast, sigmoid
from .._shapes import time_windows
from ..kernels.delta.cpu import dplr_token
from ..primitives.norm.cpu import standardize_group

Array = npt.NDArray[Any]
VECTORS = ("w0", "a0", "v0", "k_k", "k_a", "r_k", "weight", "bias")
"""Constants of every channel: those of the paper, then scale and shift of the group norm."""
SCRATCH_ROWS = 10
"""Rows of N numbers that `token` needs."""
_FASTEST = -math.exp(-0.5)


@inlined
def token(inputs, vectors, residual, eps, S, out, scratch):
    """One token of one head, N numbers of everything: gates, recurrence, group norm, bonus, gate.

    inputs: r, k, v, what the pairs of factors made for w, a, g and the residual of v, and the first layer's v.
    """
    r, w, k, v, a, g, nu, v_first = inputs
    w0, a0, v0, k_k, k_a, r_k, weight, bias = vectors
    log_decay, rate, kappa, b, key, value, y, decay, p, s = scratch
    N, zero, one = out.size, out.dtype.type(0), out.dtype.type(1)
    squares, bonus = zero, zero
    # Loops over few arrays each: with many, the compiler cannot tell that none overlaps another, and computes singly.
    # A loop that adds up stores nothing: the order of its sum would depend on where the arrays are.
    for i in range(N):
        log_decay[i] = cast(_FASTEST, w[i]) * sigmoid(w0[i] + w[i])
    for i in range(N):
        rate[i] = sigmoid(a0[i] + a[i])
    for i in range(N):
        kappa[i] = k[i] * k_k[i]
    for i in range(N):
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
    scratch,  # (B * H, SCRATCH_ROWS, N)
):
    """Walk every sequence and head."""
    B, H, N, _ = state.shape
    for item in prange(B * H):
        n, h = item // H, item % H
        i, e, rows = h * N, h * N + N, scratch[item]
        constants = (
            vectors[0, i:e], vectors[1, i:e], vectors[2, i:e], vectors[3, i:e], vectors[4, i:e], vectors[5, i:e],
            vectors[6, i:e], vectors[7, i:e],
        )  # fmt: skip
        parts = (
            rows[0], rows[1], rows[2], rows[3], rows[4], rows[5], rows[6], rows[7], rows[8], rows[9],
        )  # fmt: skip
        for t in range(starts[n], stops[n]):
            soon = min(t + AHEAD, stops[n] - 1)
            prefetch_arrays((r[soon, i:e], w[soon, i:e], k[soon, i:e], v[soon, i:e], a[soon, i:e]))
            prefetch_arrays((g[soon, i:e], nu[soon, i:e], v_first[soon, i:e], y[soon, i:e]))
            inputs = (
                r[t, i:e], w[t, i:e], k[t, i:e], v[t, i:e], a[t, i:e], g[t, i:e], nu[t, i:e], v_first[t, i:e],
            )  # fmt: skip
            token(inputs, constants, residual, eps, state[n, h], y[t, i:e], parts)


def rwkv7(
    r: Array,
    w: Array,
    k: Array,
    v: Array,
    a: Array,
    g: Array,
    nu: Array | None,
    v_first: Array | None,
    vectors: Array,
    state: Array,
    offsets: Array,
    eps: float,
) -> tuple[Array, Array]:
    """Run all tokens of packed sequences.

    Parameters
    ----------
    r, k, v, w, a, g : ndarray (M, A)
        Before their activations, but that of g.
    nu, v_first : ndarray (M, A) or None
        The residual of the values before its activation, and the values of the first layer.
    vectors : ndarray (8, A)
        `VECTORS`, in this order.
    state : ndarray (B, H, N, N)
        Not changed.
    offsets : ndarray of int64 (B + 1,)

    Returns
    -------
    y : ndarray (M, A)
    state : ndarray (B, H, N, N)
    """
    y, final = np.empty_like(r), state.copy()
    B, H, N, _ = state.shape
    scratch = np.empty((B * H, SCRATCH_ROWS, N), r.dtype)
    residual = v_first is not None and nu is not None
    more = (nu, v_first) if residual else (w, w)
    work = 2 * r.shape[1] * N
    run = _walk.sized(len(r) * work)
    for starts, stops in time_windows(offsets, work):
        run(starts, stops, r, w, k, v, a, g, *more, vectors, residual, r.dtype.type(eps), final, y, scratch)
    return y, final
