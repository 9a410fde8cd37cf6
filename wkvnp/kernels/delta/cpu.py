"""Compiled loops of the delta-rule recurrences.

``y_t = (q exp(log_decay)) S_{t-1} + (q . b) s_t + (q . k) v_t`` needs the old state only, so one pass over S reads
both s_t = a_t S_{t-1} and y_t, and a second one writes. The delta rule is the case b = -beta k: its two writes are
one outer product. Lanes run over values.
"""

import numpy as np
from numba import prange

from ..._jit import jit, kernel
from ..._scalar import exp

VALUES = 64


@jit
def _read(S, a, p, s, y):
    """Set s (V,) to a S and y (V,) to p S."""
    K, V = S.shape
    zero = y.dtype.type(0)
    for i in range(V):
        s[i] = zero
        y[i] = zero
    for j in range(K):
        row, aj, pj = S[j], a[j], p[j]
        for i in range(V):
            s[i] += aj * row[i]
            y[i] += pj * row[i]


@jit
def _dplr_token(q, log_decay, k, v, a, b, S, y, w, p, s):
    """One token of the diagonal-plus-low-rank form; w, p (K,) and s (V,) are scratch."""
    K, V = S.shape
    decays = log_decay.size
    qb, qk = y.dtype.type(0), y.dtype.type(0)
    for j in range(K):
        w[j] = exp(log_decay[j if decays > 1 else 0])
        p[j] = q[j] * w[j]
    for j in range(K):
        qb += q[j] * b[j]
        qk += q[j] * k[j]
    _read(S, a, p, s, y)
    for i in range(V):
        y[i] += qb * s[i] + qk * v[i]
    for j in range(K):
        row, wj, bj, kj = S[j], w[j], b[j], k[j]
        for i in range(V):
            row[i] = wj * row[i] + bj * s[i] + kj * v[i]


@kernel
def scan_dplr(
    starts,  # IN  (N,) first token of each sequence
    stops,  # IN  (N,) one past its last token
    q,  # IN  (M, H, K)
    log_decay,  # IN  (M or 1, H, K or 1)
    k,  # IN  (M, H, K)
    v,  # IN  (M, H, V)
    a,  # IN  (M, H, K)
    b,  # IN  (M, H, K)
    state,  # INOUT (N, H, K, V)
    y,  # OUT (M, H, V)
):
    """Walk every sequence, head and block of values."""
    N, H, K, V = state.shape
    blocks = (V + VALUES - 1) // VALUES
    for item in prange(N * H * blocks):
        n, h, i = item // (H * blocks), item // blocks % H, item % blocks * VALUES
        e = min(i + VALUES, V)
        S = state[n, h, :, i:e]
        w, p, s = np.empty(K, y.dtype), np.empty(K, y.dtype), np.empty(e - i, y.dtype)
        for t in range(starts[n], stops[n]):
            g = log_decay[t if log_decay.shape[0] > 1 else 0, h]
            _dplr_token(q[t, h], g, k[t, h], v[t, h, i:e], a[t, h], b[t, h], S, y[t, h, i:e], w, p, s)


@jit
def _delta_token(q, log_decay, k, v, beta, S, y, w, p, c, s):
    """One token of the delta rule; w, p, c (K,) and s (V,) are scratch."""
    K, V = S.shape
    decays = log_decay.size
    qk = y.dtype.type(0)
    for j in range(K):
        w[j] = exp(log_decay[j if decays > 1 else 0])
        p[j] = q[j] * w[j]
        c[j] = k[j] * w[j]
    for j in range(K):
        qk += q[j] * k[j]
    _read(S, c, p, s, y)
    for i in range(V):
        s[i] = beta * (v[i] - s[i])
        y[i] += qk * s[i]
    for j in range(K):
        row, wj, kj = S[j], w[j], k[j]
        for i in range(V):
            row[i] = wj * row[i] + kj * s[i]


@kernel
def scan_delta_rule(
    starts,  # IN  (N,) first token of each sequence
    stops,  # IN  (N,) one past its last token
    q,  # IN  (M, H, K)
    log_decay,  # IN  (M or 1, H, K or 1)
    k,  # IN  (M, H, K)
    v,  # IN  (M, H, V)
    beta,  # IN  (M, H)
    state,  # INOUT (N, H, K, V)
    y,  # OUT (M, H, V)
):
    """Walk every sequence, head and block of values."""
    N, H, K, V = state.shape
    blocks = (V + VALUES - 1) // VALUES
    for item in prange(N * H * blocks):
        n, h, i = item // (H * blocks), item // blocks % H, item % blocks * VALUES
        e = min(i + VALUES, V)
        S = state[n, h, :, i:e]
        w, p, c, s = np.empty(K, y.dtype), np.empty(K, y.dtype), np.empty(K, y.dtype), np.empty(e - i, y.dtype)
        for t in range(starts[n], stops[n]):
            g = log_decay[t if log_decay.shape[0] > 1 else 0, h]
            _delta_token(q[t, h], g, k[t, h], v[t, h, i:e], beta[t, h], S, y[t, h, i:e], w, p, c, s)
