"""Compiled loop of the WKV of RWKV-4: channels are independent, so lanes and workers run over them.

The exponents are float64 even beside float32 sums: a float32 near 60 keeps six digits of a decay, and over 1,023 tokens
of slow decays that made an error of 2e-5 of the output.
"""

from numba import prange

from ..._address import AHEAD, prefetch_arrays
from ..._jit import inlined, uncounted
from ..._scalar import exp

CHANNELS = 64


@inlined
def token(log_decay, u, k, v, aa, bb, pp, y, gap):
    """One token of a block of channels; gap is scratch, and may be k.

    Of each pair of exponentials the larger is exactly 1: compute the other. A loop without float64 is twice as wide.
    """
    number = y.dtype.type
    one = number(1)
    for c in range(y.size):
        y[c] = number(pp[c] - k[c] - u[c])
    for c in range(y.size):
        e = exp(-abs(y[c]))
        old, new = (one, e) if y[c] > 0 else (e, one)
        y[c] = (old * aa[c] + new * v[c]) / (old * bb[c] + new)
    for c in range(y.size):
        decayed, here = pp[c] + log_decay[c], k[c]
        gap[c] = number(decayed - here)
        pp[c] = max(decayed, here)
    for c in range(y.size):
        e = exp(-abs(gap[c]))
        old, new = (one, e) if gap[c] > 0 else (e, one)
        aa[c] = old * aa[c] + new * v[c]
        bb[c] = old * bb[c] + new


@uncounted
def scan(
    starts,  # IN  (N,) first token of each sequence
    stops,  # IN  (N,) one past its last token
    log_decay,  # IN  (C,)
    u,  # IN  (C,)
    k,  # IN  (M, C)
    v,  # IN  (M, C)
    aa,  # INOUT (N, C) numerator / exp(pp)
    bb,  # INOUT (N, C) denominator / exp(pp)
    pp,  # INOUT (N, C) float64, largest exponent so far
    y,  # OUT (M, C)
    scratch,  # (N, C)
):
    """Walk every sequence and block of channels."""
    N, C = aa.shape
    blocks = (C + CHANNELS - 1) // CHANNELS
    for item in prange(N * blocks):
        n, i = item // blocks, item % blocks * CHANNELS
        e = min(i + CHANNELS, C)
        w, first = log_decay[i:e], u[i:e]
        a, b, p, gap = aa[n, i:e], bb[n, i:e], pp[n, i:e], scratch[n, i:e]
        for t in range(starts[n], stops[n]):
            soon = min(t + AHEAD, stops[n] - 1)
            prefetch_arrays((k[soon, i:e], v[soon, i:e], y[soon, i:e]))
            token(w, first, k[t, i:e], v[t, i:e], a, b, p, y[t, i:e], gap)
