"""WKV of RWKV-4: an exponentially weighted mean of values, with a bonus for the current token.

``y_t = (n_{t-1} + e^{u + k_t} v_t) / (d_{t-1} + e^{u + k_t})`` with ``n_t = e^{log_decay} n_{t-1} + e^{k_t} v_t`` and
``d_t = e^{log_decay} d_{t-1} + e^{k_t}``. The state is (aa, bb, pp) with ``n = aa e^{pp}`` and ``d = bb e^{pp}``,
where pp is the largest exponent met so far, so that nothing overflows; pp is always float64.

Letters: M tokens of N packed sequences, C channels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..._shapes import time_windows
from . import cpu

Array = npt.NDArray[Any]
EMPTY_EXPONENT = -1e38
"""pp before the first token: minus infinity would make its own difference NaN."""


def wkv(
    log_decay: Array, u: Array, k: Array, v: Array, state: tuple[Array, Array, Array] | None, offsets: Array
) -> tuple[Array, tuple[Array, Array, Array]]:
    """Run the recurrence over packed sequences.

    Parameters
    ----------
    log_decay, u : ndarray (C,)
        Log of the decay per token, at most 0, and the log bonus of the current token.
    k, v : ndarray (M, C)
    state : tuple (aa, bb, pp), each (N, C), or None
        Not changed; pp may be of any floating dtype.
    offsets : ndarray of int64 (N + 1,)

    Returns
    -------
    y : ndarray (M, C)
    state : tuple (aa, bb, pp), each (N, C)
    """
    N, C = offsets.size - 1, k.shape[1]
    y = np.empty_like(v)
    if state is None:
        aa, bb, pp = np.zeros((N, C), v.dtype), np.zeros((N, C), v.dtype), np.full((N, C), EMPTY_EXPONENT)
    else:
        aa, bb, pp = state[0].copy(), state[1].copy(), state[2].astype(np.float64)
    scratch = np.empty((N, C), v.dtype)
    run = cpu.scan.sized(16 * k.size)
    for starts, stops in time_windows(offsets, 16 * C):
        run(starts, stops, log_decay, u, k, v, aa, bb, pp, y, scratch)
    return y, (aa, bb, pp)
