"""Compiled loops of diagonal state-space models.

Lanes run over channels, which never meet: the sum over N needs no horizontal additions, and the exponentials, most of
the work of `selective`, run as wide as a vector is. Only a block of channels is touched at a time, so its state stays
in the nearest cache. As elsewhere the state decays by adding ``expm1(dt A) h``.

A complex decay turns by an angle that is not small, and one rounding of it would be met at every token: that much is
float64, whatever the state is.
"""

import math

import numpy as np
from numba import prange

from ..._address import AHEAD, ask
from ..._jit import inlined, jit, uncounted
from ..._scalar import expm1, sigmoid

CHANNELS = 64


@inlined
def real_row(x, dt, a, b, r, h, y):
    """Move one row of the state, read it into y."""
    for c in range(y.size):
        h[c] += expm1(dt[c] * a[c]) * h[c] + dt[c] * x[c] * b
        y[c] += r * h[c]


@jit
def _complex_row(x, dt, ar, ai, br, bi, rr, ri, hr, hi, y):
    """Move one row of a complex state, with sines of half the angle; read it and its conjugate into y."""
    two = y.dtype.type(2)
    for c in range(y.size):
        m, half = np.float64(expm1(dt[c] * ar[c])), 0.5 * np.float64(dt[c]) * np.float64(ai[c])
        s, k = math.sin(half), math.cos(half)
        lr, li = m - 2.0 * s * s * (1.0 + m), 2.0 * s * k * (1.0 + m)
        re, im, u = hr[c], hi[c], dt[c] * x[c]
        hr[c] = re + (lr * re - li * im + br * u)
        hi[c] = im + (lr * im + li * re + bi * u)
        y[c] += two * (rr * hr[c] - ri * hi[c])


@jit
def _fixed_row(x, loss, drive, read, h, y):
    """Move one row of the state, read it into y."""
    for c in range(y.size):
        h[c] += loss[c] * h[c] + drive[c] * x[c]
        y[c] += read[c] * h[c]


@jit
def _fixed_complex_row(x, lr, li, br, bi, rr, ri, hr, hi, y):
    """Move one row of a complex state; read it and its conjugate into y."""
    two = y.dtype.type(2)
    for c in range(y.size):
        re, im = hr[c], hi[c]
        hr[c] = re + (lr[c] * re - li[c] * im + br[c] * x[c])
        hi[c] = im + (lr[c] * im + li[c] * re + bi[c] * x[c])
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
            ask((x[soon, i:e], dt[soon, i:e], y[soon, i:e]))
            xt, dtt, yt, b, r = x[t, i:e], dt[t, i:e], y[t, i:e], B[0, t, g], R[0, t, g]
            for c in range(e - i):
                yt[c] = D[i + c] * xt[c]
            for n in range(N):
                a, s = A[0, n, i:e], h[0, q, n, i:e]
                if P == 1:
                    real_row(xt, dtt, a, b[n], r[n], s, yt)
                else:
                    ai, bi, ri, si = A[1, n, i:e], B[1, t, g, n], R[1, t, g, n], h[1, q, n, i:e]
                    _complex_row(xt, dtt, a, ai, b[n], bi, r[n], ri, s, si, yt)
            if z.shape[0] > 0:
                gate(z[t, i:e], yt)


@uncounted
def time_invariant(
    starts,  # IN  (Q,) first token of each sequence
    stops,  # IN  (Q,) one past its last token
    x,  # IN  (M, C)
    loss,  # IN  (P, N, C) float64, the decay less 1
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
            ask((x[soon, i:e], y[soon, i:e]))
            xt, yt = x[t, i:e], y[t, i:e]
            for c in range(e - i):
                yt[c] = D[i + c] * xt[c]
            for n in range(N):
                l, b, r, s = loss[0, n, i:e], drive[0, n, i:e], read[0, n, i:e], h[0, q, n, i:e]
                if P == 1:
                    _fixed_row(xt, l, b, r, s, yt)
                else:
                    li, bi, ri, si = loss[1, n, i:e], drive[1, n, i:e], read[1, n, i:e], h[1, q, n, i:e]
                    _fixed_complex_row(xt, l, li, b, bi, r, ri, s, si, yt)
