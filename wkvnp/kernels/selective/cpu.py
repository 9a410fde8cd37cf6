"""Compiled loops of diagonal state-space models.

Lanes run over channels, which never meet: the sum over N needs no horizontal additions, and the exponentials, most of
the work of `selective`, run as wide as a vector is. Only a block of channels is touched at a time, so its state stays
in the nearest cache. As elsewhere a decay is the sum of two numbers (`split_decay`).

A complex decay turns by an angle that is not small, and one rounding of it would be met at every token: that much is
float64, for every dtype of the state.
"""

import math

import numpy as np
from numba import prange

from ..._address import AHEAD, prefetch_arrays
from ..._decay import split_decay
from ..._jit import inlined, jit, uncounted
from ..._scalar import multiply_add, sigmoid

CHANNELS = 64


@inlined
def real_row(u, dt, a, b, r, h, y):
    """Move one row of the state, read it into y; u is dt x, the same for all rows."""
    for c in range(y.size):
        whole, rest = split_decay(dt[c] * a[c])
        h[c] = multiply_add(whole, h[c], rest * h[c] + u[c] * b)
        y[c] += r * h[c]


@jit
def _complex_row(u, dt, ar, ai, br, bi, rr, ri, hr, hi, y):
    """Move one row of a complex state, with sines of half the angle; read it and its conjugate into y."""
    two = y.dtype.type(2)
    for c in range(y.size):
        whole, rest = split_decay(dt[c] * ar[c])
        half, size = 0.5 * np.float64(dt[c]) * np.float64(ai[c]), np.float64(whole) + np.float64(rest)
        s, k = math.sin(half), math.cos(half)
        lr, li = rest - 2.0 * s * s * size, 2.0 * s * k * size
        re, im, w = np.float64(hr[c]), np.float64(hi[c]), np.float64(whole)
        hr[c] = multiply_add(w, re, lr * re - li * im + br * u[c])
        hi[c] = multiply_add(w, im, lr * im + li * re + bi * u[c])
        y[c] += two * (rr * hr[c] - ri * hi[c])


@jit
def _fixed_row(x, whole, rest, drive, read, h, y):
    """Move one row of the state, read it into y."""
    for c in range(y.size):
        s = np.float64(h[c])
        h[c] = multiply_add(whole[c], s, rest[c] * s + drive[c] * x[c])
        y[c] += read[c] * h[c]


@jit
def _fixed_complex_row(x, whole, lr, li, br, bi, rr, ri, hr, hi, y):
    """Move one row of a complex state; read it and its conjugate into y."""
    two = y.dtype.type(2)
    for c in range(y.size):
        re, im = np.float64(hr[c]), np.float64(hi[c])
        hr[c] = multiply_add(whole[c], re, lr[c] * re - li[c] * im + br[c] * x[c])
        hi[c] = multiply_add(whole[c], im, lr[c] * im + li[c] * re + bi[c] * x[c])
        y[c] += two * (rr[c] * hr[c] - ri[c] * hi[c])


@inlined
def gate(z, y):
    """Multiply y by silu(z)."""
    for c in range(y.size):
        y[c] *= z[c] * sigmoid(z[c])


@uncounted
def selective(
    starts,  # IN  (Q,) first token of each sequence
    stops,  # IN  (Q,) one past its last token
    x,  # IN  (M, C)
    dt,  # IN  (M, C)
    A,  # IN  (P, N, C)
    B,  # IN  (P, M, G, N)
    R,  # IN  (P, M, G, N) the readout C
    D,  # IN  (C,)
    z,  # IN  (M, C), or (0, C): no gate
    h,  # INOUT (P, Q, N, C)
    y,  # OUT (M, C)
    scratch,  # (Q, C)
):
    """Walk every sequence and block of channels, which never crosses groups."""
    P, Q, N, C = h.shape
    G = B.shape[2]
    width = C // max(G, 1)
    blocks = (width + CHANNELS - 1) // CHANNELS
    for item in prange(Q * G * blocks):
        q, g = item // (G * blocks), item // blocks % G
        i = g * width + item % blocks * CHANNELS
        e = min(i + CHANNELS, (g + 1) * width)
        for t in range(starts[q], stops[q]):
            soon = min(t + AHEAD, stops[q] - 1)
            prefetch_arrays((x[soon, i:e], dt[soon, i:e], y[soon, i:e]))
            u, dtt, yt, b, r = scratch[q, i:e], dt[t, i:e], y[t, i:e], B[0, t, g], R[0, t, g]
            for c in range(e - i):
                u[c] = dtt[c] * x[t, i + c]
                yt[c] = D[i + c] * x[t, i + c]
            for n in range(N):
                a, s = A[0, n, i:e], h[0, q, n, i:e]
                if P == 1:
                    real_row(u, dtt, a, b[n], r[n], s, yt)
                else:
                    ai, bi, ri, si = A[1, n, i:e], B[1, t, g, n], R[1, t, g, n], h[1, q, n, i:e]
                    _complex_row(u, dtt, a, ai, b[n], bi, r[n], ri, s, si, yt)
            if z.shape[0] > 0:
                gate(z[t, i:e], yt)


@uncounted
def time_invariant(
    starts,  # IN  (Q,) first token of each sequence
    stops,  # IN  (Q,) one past its last token
    x,  # IN  (M, C)
    whole,  # IN  (N, C) float64, 0 or 1
    rest,  # IN  (P, N, C) float64, the decay less `whole`
    drive,  # IN  (P, N, C)
    read,  # IN  (P, N, C)
    D,  # IN  (C,)
    h,  # INOUT (P, Q, N, C)
    y,  # OUT (M, C)
):
    """Walk every sequence and block of channels."""
    P, Q, N, C = h.shape
    blocks = (C + CHANNELS - 1) // CHANNELS
    for item in prange(Q * blocks):
        q, i = item // blocks, item % blocks * CHANNELS
        e = min(i + CHANNELS, C)
        for t in range(starts[q], stops[q]):
            soon = min(t + AHEAD, stops[q] - 1)
            prefetch_arrays((x[soon, i:e], y[soon, i:e]))
            xt, yt = x[t, i:e], y[t, i:e]
            for c in range(e - i):
                yt[c] = D[i + c] * xt[c]
            for n in range(N):
                w, l, b, r, s = whole[n, i:e], rest[0, n, i:e], drive[0, n, i:e], read[0, n, i:e], h[0, q, n, i:e]
                if P == 1:
                    _fixed_row(xt, w, l, b, r, s, yt)
                else:
                    li, bi, ri, si = rest[1, n, i:e], drive[1, n, i:e], read[1, n, i:e], h[1, q, n, i:e]
                    _fixed_complex_row(xt, w, l, li, b, bi, r, ri, s, si, yt)
