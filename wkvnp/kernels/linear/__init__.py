"""Gated linear recurrence: a matrix state that decays and takes one outer product per token.

``S_t = diag(exp(log_decay_t)) S_{t-1} + k_t v_t^T``, read either after the update, ``y_t = S_t^T q_t``, or before it
with a bonus for the current token, ``y_t = (S_{t-1} + diag(bonus) k_t v_t^T)^T q_t``. Two variants: a decay for every
value instead of every key, and tokens weighted by exponentials that are scaled by the largest so far.

Letters: M tokens of N packed sequences, H heads, K key width, V value width.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..._shapes import time_windows
from . import cpu
from .cpu import EMPTY_EXPONENT

Array = npt.NDArray[Any]

__all__ = ["EMPTY_EXPONENT", "exponential", "fading_values", "linear"]


def linear(
    q: Array, log_decay: Array, k: Array, v: Array, bonus: Array | None, state: Array | None, offsets: Array
) -> tuple[Array, Array]:
    """Run the recurrence over packed sequences.

    Parameters
    ----------
    q, k : ndarray (M, H or fewer, K)
    log_decay : ndarray (M or 1, H or fewer, K or 1), at most 0
    v : ndarray (M, H or fewer, V)
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
    All arrays are C-contiguous and of one dtype, float32 or float64. H is the largest number of heads of `q`,
    `log_decay`, `k` and `v`; where an array has G, head h takes its number h // (H // G). The result has the same
    bits for any number of threads, any batch and any cut of the time axis.
    """
    (M, _, K), V, N = k.shape, v.shape[2], offsets.size - 1
    H = max(array.shape[1] for array in (q, log_decay, k, v))
    y = np.empty((M, H, V), v.dtype)
    final = np.zeros((N, H, K, V), v.dtype) if state is None else state.copy()
    before = bonus is not None
    scratch = np.empty((N, H, cpu.blocks_of(V), 2, K), v.dtype)
    weight = bonus if bonus is not None else np.empty((H, 0), v.dtype)
    run = cpu.scan.sized(M * H * K * V)
    for starts, stops in time_windows(offsets, H * K * V):
        run(starts, stops, q, log_decay, k, v, weight, before, final, y, scratch)
    return y, final


def fading_values(
    q: Array, log_decay: Array, k: Array, v: Array, state: Array | None, offsets: Array
) -> tuple[Array, Array]:
    """Run ``S_t = S_{t-1} diag(exp(log_decay_t)) + k_t v_t^T`` and ``y_t = S_t^T q_t`` over packed sequences.

    Parameters
    ----------
    q, k : ndarray (M, H, K)
    log_decay, v : ndarray (M, H, V)
        The decay at most 0.
    state : ndarray (N, H, K, V) or None
        Not changed; None is zeros.
    offsets : ndarray of int64 (N + 1,)

    Returns
    -------
    y : ndarray (M, H, V)
    state : ndarray (N, H, K, V)
    """
    (M, H, K), V, N = k.shape, v.shape[2], offsets.size - 1
    y = np.empty_like(v)
    final = np.zeros((N, H, K, V), v.dtype) if state is None else state.copy()
    scratch = np.empty((2, N, H, V), v.dtype)
    run = cpu.scan_fading_values.sized(M * H * K * V)
    for starts, stops in time_windows(offsets, H * K * V):
        run(starts, stops, q, log_decay, k, v, final, y, scratch)
    return y, final


def exponential(
    q: Array,
    k: Array,
    v: Array,
    log_input: Array,
    log_decay: Array,
    state: tuple[Array, Array, Array] | None,
    offsets: Array,
) -> tuple[Array, tuple[Array, Array, Array]]:
    """Run the recurrence with tokens weighted by ``exp(log_input)``, and divide by the weights that were read.

    ``S_t = e^{log_decay_t} S_{t-1} + e^{log_input_t} k_t v_t^T``, ``z_t`` the same with 1 in place of ``v_t``, and
    ``y_t = S_t^T q_t / max(|z_t . q_t|, 1)``. The state is (C, n, m) with ``S = e^m C`` and ``z = e^m n``, where m is
    the largest exponent so far, so that nothing overflows.

    Parameters
    ----------
    q, k : ndarray (M, H, K)
    v : ndarray (M, H, V)
    log_input, log_decay : ndarray (M, H)
        The decay at most 0.
    state : tuple (C, n, m) of ndarray (N, H, K, V), (N, H, K) and (N, H), or None
        Not changed; m may be of any floating dtype.
    offsets : ndarray of int64 (N + 1,)

    Returns
    -------
    y : ndarray (M, H, V)
    state : tuple (C, n, m)
        m is float64.
    """
    (M, H, _), N = k.shape, offsets.size - 1
    top = np.full((N, H), EMPTY_EXPONENT) if state is None else state[2].astype(np.float64)
    decay, weight, unit = np.empty((M, H, 1), v.dtype), np.empty((M, H), v.dtype), np.empty((M, H), v.dtype)
    run = cpu.scan_maximum.sized(64 * M * H)
    for starts, stops in time_windows(offsets, 64 * H):
        run(starts, stops, log_input, log_decay, top, decay, weight, unit)
    S = None if state is None else np.concatenate([state[0], state[1][..., None]], axis=-1)
    ones = np.concatenate([v, np.ones((M, H, 1), v.dtype)], axis=-1)
    read, S = linear(q, decay, k * weight[:, :, None], ones, None, S, offsets)
    # Beyond exp(-88) the unit is 0, and a query that reads nothing must still give 0, not 0 / 0.
    divisor = np.maximum(np.maximum(np.abs(read[..., -1:]), unit[:, :, None]), np.finfo(v.dtype).tiny)
    return read[..., :-1] / divisor, (S[..., :-1].copy(), S[..., -1].copy(), top)
