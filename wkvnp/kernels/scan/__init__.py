"""Element-wise scan: every channel decays by itself and takes one number per token.

``h_t = exp(log_decay_t) h_{t-1} + g_t x_t``, where the gain ``g_t`` is 1, or what the decay w leaves free: ``1 - w_t``
makes a weighted mean, ``sqrt(1 - |w_t|^2)`` keeps the variance.

Letters: M tokens of N packed sequences, C channels.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ..._shapes import time_windows
from . import cpu

Array = npt.NDArray[Any]
Gain = Literal["one", "rest", "root"]
_GAINS = {"one": cpu.ONE, "rest": cpu.REST, "root": cpu.ROOT}


def scan(log_decay: Array, x: Array, state: Array | None, offsets: Array, gain: Gain = "one") -> tuple[Array, Array]:
    """Run the recurrence over packed sequences.

    Parameters
    ----------
    log_decay : ndarray (M or 1, C)
        Real or complex, its real part at most 0. Minus infinity forgets everything.
    x : ndarray (M, C)
        Of the dtype of `log_decay`.
    state : ndarray (N, C) or None
        Not changed; None is zeros.
    offsets : ndarray of int64 (N + 1,)
    gain : {"one", "rest", "root"}
        What multiplies x: 1, 1 - w or sqrt(1 - w^2), with w = exp(log_decay). Complex numbers take "one" only.

    Returns
    -------
    h : ndarray (M, C)
    state : ndarray (N, C)

    Notes
    -----
    All arrays are C-contiguous and of one dtype. The result has the same bits for any number of threads, any batch and
    any cut of the time axis.
    """
    pairs = x.dtype.kind == "c"
    assert gain == "one" or not pairs
    C, N, width = x.shape[1], offsets.size - 1, 2 if pairs else 1
    y = np.empty_like(x)
    final = np.zeros((N, C), x.dtype) if state is None else state.copy()
    blocks = -(-C * width // cpu.NUMBERS)
    # A complex number is two neighbours.
    g, numbers, h, out = (a.view(y.real.dtype) for a in (log_decay, x, final, y))
    scratch = np.empty((N * blocks, 2, cpu.NUMBERS), np.float64 if pairs else out.dtype)
    run = cpu.scan.sized(8 * out.size)
    for starts, stops in time_windows(offsets, 8 * C * width):
        run(starts, stops, g, numbers, pairs, _GAINS[gain], h, out, scratch)
    return y, final
