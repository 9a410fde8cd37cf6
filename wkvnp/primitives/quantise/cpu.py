"""The compiled search for scales."""

import numpy as np
from numba import prange

from ..._jit import kernel

_ZERO, _ONE, _HALF = np.float32(0), np.float32(1), np.float32(0.5)
_LOW, _HIGH = np.float32(-8), np.float32(7)
GROUPS = 1024


@kernel
def least_error(
    groups,  # IN  (G, 32) float32 weights
    choices,  # IN  (G, N) float32 scales
    chosen,  # OUT (G,) which of them gives codes from -8 to 7 with the least squared error; the first, if several do
):
    """Find the best scale for each group."""
    G, N = choices.shape
    for block in prange((G + GROUPS - 1) // GROUPS):
        for g in range(block * GROUPS, min(G, (block + 1) * GROUPS)):
            row, least = groups[g], np.float32(np.inf)
            chosen[g] = 0
            for n in range(N):
                scale = choices[g, n]
                factor, error = _ONE / scale if scale != _ZERO else _ZERO, _ZERO
                for i in range(row.size):
                    code = np.floor(row[i] * factor + _HALF)
                    code = _LOW if code < _LOW else code
                    code = _HIGH if code > _HIGH else code
                    difference = row[i] - code * scale
                    error += difference * difference
                if error < least:
                    least = error
                    chosen[g] = n
