"""Compiled loops of the delta-rule recurrences.

``y_t = (q exp(log_decay)) S_{t-1} + (q . b) s_t + (q . k) v_t`` needs the old state only, so one pass over S reads
both s_t = a_t S_{t-1} and y_t, and a second one writes. The delta rule is the case b = -beta k: its two writes are
one outer product. Lanes run over values, and both passes keep s, y and v in registers, which made these loops up to
twice as fast. Slow decays are applied by their difference from 1 (`signed_decay`), because a factor near 1 has too few
digits.
"""

from numba import prange

from ..._address import AHEAD, prefetch_arrays
from ..._decay import faded, signed_decay
from ..._jit import inlined, jit, uncounted
from ..._tile import sweep

VALUES = 64


@inlined
def _read(S, i, a, p, s, y):
    """Set s (V,) to a S and y (V,) to p S, for the values of S from i on."""
    V, zero = y.size, y.dtype.type(0)
    for c in range(V):
        s[c] = zero
        y[c] = zero
    sweep(S, i, V, a, (), ((a, s), (p, y)))


@inlined
def dplr_token(q, log_decay, k, v, a, b, S, i, y, decay, p, s):
    """One token of the diagonal-plus-low-rank form, for the values from i on; decay, p (K,) and s (V,) are scratch."""
    K, V = S.shape[0], y.size
    single = log_decay.size == 1
    qb, qk = y.dtype.type(0), y.dtype.type(0)
    for j in range(K):
        decay[j] = signed_decay(log_decay[0 if single else j])
        p[j] = faded(q[j], decay[j])
    for j in range(K):
        qb += q[j] * b[j]
        qk += q[j] * k[j]
    _read(S, i, a, p, s, y)
    for c in range(V):
        y[c] += qb * s[c] + qk * v[c]
    sweep(S, i, V, decay, ((b, s), (k, v)), ())


@uncounted
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
    scratch,  # (N * H * blocks of values, 3, max(K, VALUES))
):
    """Walk every sequence, head and block of values."""
    N, H, _, V = state.shape
    blocks = (V + VALUES - 1) // VALUES
    for item in prange(N * H * blocks):
        n, h, i = item // (H * blocks), item // blocks % H, item % blocks * VALUES
        e = min(i + VALUES, V)
        decay, p, s = scratch[item, 0], scratch[item, 1], scratch[item, 2]
        for t in range(starts[n], stops[n]):
            soon = min(t + AHEAD, stops[n] - 1)
            prefetch_arrays(
                (log_decay[soon if log_decay.shape[0] > 1 else 0, h], q[soon, h], k[soon, h], v[soon, h, i:e])
            )
            prefetch_arrays((a[soon, h], b[soon, h], y[soon, h, i:e]))
            g = log_decay[t if log_decay.shape[0] > 1 else 0, h]
            dplr_token(q[t, h], g, k[t, h], v[t, h, i:e], a[t, h], b[t, h], state[n, h], i, y[t, h, i:e], decay, p, s)


@jit
def _delta_token(q, log_decay, k, v, beta, S, i, y, decay, p, a, s):
    """One token of the delta rule, for the values from i on; decay, p, a (K,) and s (V,) are scratch."""
    K, V = S.shape[0], y.size
    single = log_decay.size == 1
    qk = y.dtype.type(0)
    for j in range(K):
        decay[j] = signed_decay(log_decay[0 if single else j])
        p[j] = faded(q[j], decay[j])
        a[j] = faded(k[j], decay[j])
    for j in range(K):
        qk += q[j] * k[j]
    _read(S, i, a, p, s, y)
    for c in range(V):
        s[c] = beta * (v[c] - s[c])
        y[c] += qk * s[c]
    sweep(S, i, V, decay, ((k, s),), ())


@uncounted
def scan_delta_rule(
    starts,  # IN  (N,) first token of each sequence
    stops,  # IN  (N,) one past its last token
    q,  # IN  (M, G, K)
    log_decay,  # IN  (M or 1, H, K or 1)
    k,  # IN  (M, G, K)
    v,  # IN  (M, H, V)
    beta,  # IN  (M, H)
    state,  # INOUT (N, H, K, V)
    y,  # OUT (M, H, V)
    scratch,  # (N * H * blocks of values, 4, max(K, VALUES))
):
    """Walk every sequence, head and block of values; H / G heads of values share a query and a key."""
    N, H, _, V = state.shape
    shared = H // max(1, k.shape[1])
    blocks = (V + VALUES - 1) // VALUES
    for item in prange(N * H * blocks):
        n, h, i = item // (H * blocks), item // blocks % H, item % blocks * VALUES
        e = min(i + VALUES, V)
        decay, p, a, s = scratch[item, 0], scratch[item, 1], scratch[item, 2], scratch[item, 3]
        for t in range(starts[n], stops[n]):
            soon = min(t + AHEAD, stops[n] - 1)
            prefetch_arrays(
                (log_decay[soon if log_decay.shape[0] > 1 else 0, h], q[soon, h // shared], k[soon, h // shared])
            )
            prefetch_arrays((v[soon, h, i:e], y[soon, h, i:e]))
            g = log_decay[t if log_decay.shape[0] > 1 else 0, h]
            qt, kt = q[t, h // shared], k[t, h // shared]
            _delta_token(qt, g, kt, v[t, h, i:e], beta[t, h], state[n, h], i, y[t, h, i:e], decay, p, a, s)
