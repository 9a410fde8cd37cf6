"""Compiled loops of the gated linear recurrence.

Both readouts are one form, ``y_t = p_t S_{t-1} + d_t v_t``: before the update p = q and d = q . (u k), after it
p = q exp(log_decay) and d = q . k. So each token reads and writes the state once. Lanes run over values, which need
no horizontal sums; a value never meets another, so blocks of them are independent work. Where decays differ by value,
rows of S are cut out one by one, because a two-dimensional cut would no longer be known as contiguous.

Slow decays are applied by their difference from 1 (`signed_decay`), because a factor near 1 has too few digits: over
1,023 tokens of constant decays between 3e-4 and 20 the error fell from 1e-5 to 4e-7 of the output.
"""

from numba import prange

from ..._address import AHEAD, prefetch_arrays
from ..._decay import faded, signed_decay, split_decay
from ..._jit import inlined, jit, uncounted
from ..._scalar import exp, multiply_add
from ..._tile import sweep

VALUES = 64
EMPTY_EXPONENT = -1e38  # the running maximum of nothing: minus infinity would make its own difference NaN


def blocks_of(V: int) -> int:
    """Return how many blocks V values are; the last one may be half as wide again, so that 65 are one block."""
    return max((V + VALUES // 2) // VALUES, 1)


@inlined
def token(q, log_decay, k, v, bonus, before, S, i, y, decay, p):
    """Read one token's y (V,) from the values of S (K, ...) from i on and update them; decay, p (K,) are scratch."""
    K, V = S.shape[0], y.size
    d = y.dtype.type(0)
    if log_decay.size == K:
        for j in range(K):
            decay[j] = signed_decay(log_decay[j])
    else:
        decay[:] = signed_decay(log_decay[0])
    # A loop that adds up stores nothing: the order of its sum would depend on where the arrays are.
    if before:
        for j in range(K):
            p[j] = q[j]
        for j in range(K):
            d += q[j] * bonus[j] * k[j]
    else:
        for j in range(K):
            p[j] = faded(q[j], decay[j])
        for j in range(K):
            d += q[j] * k[j]
    for c in range(V):
        y[c] = d * v[c]
    sweep(S, i, V, decay, ((k, v),), ((p, y),))


@uncounted
def scan(
    starts,  # IN  (N,) first token of each sequence
    stops,  # IN  (N,) one past its last token
    q,  # IN  (M, H or fewer, K)
    log_decay,  # IN  (M or 1, H or fewer, K or 1)
    k,  # IN  (M, H or fewer, K)
    v,  # IN  (M, H or fewer, V)
    bonus,  # IN  (H, K), read if `before`
    before,  # IN  bool: read the state before its update
    state,  # INOUT (N, H, K, V)
    y,  # OUT (M, H, V)
    scratch,  # (N, H, blocks of values, 2, K)
):
    """Walk every sequence, head and block of values. Heads that share a row of an array are neighbours."""
    N, H, blocks = scratch.shape[:3]
    V = y.shape[2]
    for item in prange(N * H * blocks):
        n, h, b = item // (H * blocks), item // blocks % H, item % blocks
        i, e = b * VALUES, V if b == blocks - 1 else (b + 1) * VALUES
        hq, hk, hv = h * q.shape[1] // H, h * k.shape[1] // H, h * v.shape[1] // H
        hg = h * log_decay.shape[1] // H
        decay, p = scratch[n, h, b, 0], scratch[n, h, b, 1]
        for t in range(starts[n], stops[n]):
            soon = min(t + AHEAD, stops[n] - 1)
            prefetch_arrays((log_decay[soon if log_decay.shape[0] > 1 else 0, hg], q[soon, hq], k[soon, hk]))
            prefetch_arrays((v[soon, hv, i:e], y[soon, h, i:e]))
            g = log_decay[t if log_decay.shape[0] > 1 else 0, hg]
            token(q[t, hq], g, k[t, hk], v[t, hv, i:e], bonus[h], before, state[n, h], i, y[t, h, i:e], decay, p)


@jit
def _token_of_fading_values(q, log_decay, k, v, S, i, y, whole, rest):
    """As `token`, read after the update, with a decay for every value; whole and rest (V,) are scratch."""
    V = y.size
    for c in range(V):
        whole[c], rest[c] = split_decay(log_decay[c])
        y[c] = y.dtype.type(0)
    for j in range(S.shape[0]):
        row, kj, qj = S[j, i : i + V], k[j], q[j]
        for c in range(V):
            s = multiply_add(whole[c], row[c], rest[c] * row[c] + kj * v[c])
            row[c] = s
            y[c] += qj * s


@uncounted
def scan_fading_values(
    starts,  # IN  (N,) first token of each sequence
    stops,  # IN  (N,) one past its last token
    q,  # IN  (M, H, K)
    log_decay,  # IN  (M, H, V)
    k,  # IN  (M, H, K)
    v,  # IN  (M, H, V)
    state,  # INOUT (N, H, K, V)
    y,  # OUT (M, H, V)
    scratch,  # (2, N, H, V)
):
    """Walk every sequence, head and block of values."""
    _, N, H, V = scratch.shape
    blocks = (V + VALUES - 1) // VALUES
    for item in prange(N * H * blocks):
        n, h, i = item // (H * blocks), item // blocks % H, item % blocks * VALUES
        e = min(i + VALUES, V)
        whole, rest = scratch[0, n, h, i:e], scratch[1, n, h, i:e]
        for t in range(starts[n], stops[n]):
            g = log_decay[t, h, i:e]
            _token_of_fading_values(q[t, h], g, k[t, h], v[t, h, i:e], state[n, h], i, y[t, h, i:e], whole, rest)


@uncounted
def scan_maximum(
    starts,  # IN  (N,) first token of each sequence
    stops,  # IN  (N,) one past its last token
    log_input,  # IN  (M, H)
    log_decay,  # IN  (M, H)
    top,  # INOUT (N, H) float64, largest exponent so far
    decay,  # OUT (M, H, 1) log decay of what is kept, as scaled by exp(-top)
    weight,  # OUT (M, H) factor of the token, as scaled by exp(-top)
    unit,  # OUT (M, H) what 1 has become, as scaled by exp(-top)
):
    """Walk every sequence and head; exponents are float64, because their differences are what counts."""
    N, H = top.shape
    number = weight.dtype.type
    for item in prange(N * H):
        n, h = item // H, item % H
        for t in range(starts[n], stops[n]):
            kept, here = top[n, h] + log_decay[t, h], log_input[t, h]
            highest = max(kept, here, EMPTY_EXPONENT)
            decay[t, h, 0] = number(min(kept - highest, 0.0))
            weight[t, h] = number(exp(here - highest))
            unit[t, h] = number(exp(-highest))
            top[n, h] = highest
