"""Compiled mixing of every token with the one before it."""

import numpy as np
from numba import prange

from ..._jit import kernel


@kernel
def mix(
    x,  # IN  (M, C)
    previous,  # IN  (M, C)
    share,  # IN  (J, M or 1, C)
    y,  # OUT (J, M, C)
):
    """Move x towards the previous token by each of J shares."""
    J, M, C = y.shape
    for m in prange(M):
        now, before = x[m], previous[m]
        shared = np.int64(m) if share.shape[1] > 1 else 0
        for j in range(J):
            mu, out = share[j, shared], y[j, m]
            for c in range(C):
                out[c] = now[c] + (before[c] - now[c]) * mu[c]
