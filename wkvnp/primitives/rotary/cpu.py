"""Compiled rotation of channel pairs."""

from numba import prange

from ..._jit import kernel


@kernel
def turn(
    x,  # IN  (M, H, D)
    cos,  # IN  (M, R/2)
    sin,  # IN  (M, R/2)
    y,  # OUT (M, H, D)
):
    """Turn the pairs (i, i + R/2) of every head and copy the channels from R on."""
    M, H, D = x.shape
    half = cos.shape[1]
    for m in prange(M):
        for h in range(H):
            for i in range(half):
                y[m, h, i] = x[m, h, i] * cos[m, i] - x[m, h, half + i] * sin[m, i]
            for i in range(half):
                y[m, h, half + i] = x[m, h, half + i] * cos[m, i] + x[m, h, i] * sin[m, i]
            for i in range(2 * half, D):
                y[m, h, i] = x[m, h, i]
