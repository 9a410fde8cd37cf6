"""Gated linear recurrence: a matrix state that decays and takes one outer product per token.

``S_t = diag(exp(log_decay_t)) S_{t-1} + k_t v_t^T``, read either after the update, ``y_t = S_t^T q_t``, or before it
with a bonus for the current token, ``y_t = (S_{t-1} + diag(bonus) k_t v_t^T)^T q_t``.

Letters: M tokens of N packed sequences, H heads, K key width, V value width.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..._shapes import time_windows
from . import cpu

Array = npt.NDArray[Any]


def linear(
    q: Array, log_decay: Array, k: Array, v: Array, bonus: Array | None, state: Array | None, offsets: Array
) -> tuple[Array, Array]:
    """Run the recurrence over packed sequences.

    Parameters
    ----------
    q, k : ndarray (M, H, K)
    log_decay : ndarray (M or 1, H, K or 1), at most 0
    v : ndarray (M, H, V)
    bonus : ndarray (H, K) or None
        Given: read before the update, with this weight on the current token. None: read after it.
    state : ndarray (N, H, K, V) or None
        Not changed; None is zeros.
    offsets : ndarray of int64 (N + 1,)

    Returns
    -------
    y : ndarray (M, H, V)
    state : ndarray (N, H, K, V)

    Notes
    -----
    All arrays are C-contiguous and of one dtype, float32 or float64. The result has the same bits for any number of
    threads, any batch and any cut of the time axis.
    """
    (M, H, K), V, N = k.shape, v.shape[2], offsets.size - 1
    y = np.empty((M, H, V), v.dtype)
    final = np.zeros((N, H, K, V), v.dtype) if state is None else state.copy()
    before = bonus is not None
    scratch = np.empty((N * H * -(-V // cpu.VALUES), 2, K), v.dtype)
    weight = bonus if bonus is not None else np.empty((H, 0), v.dtype)
    run = cpu.scan.sized(M * H * K * V)
    for starts, stops in time_windows(offsets, H * K * V):
        run(starts, stops, q, log_decay, k, v, weight, before, final, y, scratch)
    return y, final
