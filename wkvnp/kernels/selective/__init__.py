"""Diagonal state-space models: every channel keeps N numbers, each with a rate of its own.

``h_t[c, n] = exp(dt_t[c] A[c, n]) h_{t-1}[c, n] + dt_t[c] B_t[n] x_t[c]`` and ``y_t[c] = sum_n C_t[n] h_t[c, n] + D[c]
x_t[c]``, times ``silu(z_t[c])`` (`selective`); or the same with decay, drive and readout that never change
(`time_invariant`). A complex number stands for itself and its conjugate, so a sum of complex numbers is twice its real
part.

Letters: M tokens of Q packed sequences, C channels, N state width, G groups of channels, P planes: the real and the
imaginary part, or the real one alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..._shapes import time_windows
from . import cpu

Array = npt.NDArray[Any]


def selective(
    x: Array,
    dt: Array,
    A: Array,
    B: Array,
    C: Array,
    D: Array | None,
    z: Array | None,
    state: Array | None,
    offsets: Array,
) -> tuple[Array, Array]:
    """Run the recurrence over packed sequences; nothing of size M x C x N is ever made.

    Parameters
    ----------
    x, dt : ndarray (M, C)
    A : ndarray (C, N), real or complex
        Its real part is at most 0.
    B, C : ndarray (M, G, N), of the dtype of A
        G divides C: channel c reads group c // (C // G).
    D : ndarray (C,) or None
    z : ndarray (M, C) or None
    state : ndarray (Q, C, N), of the dtype of A, or None
        Not changed; None is zeros.
    offsets : ndarray of int64 (Q + 1,)

    Returns
    -------
    y : ndarray (M, C)
    state : ndarray (Q, C, N)

    Notes
    -----
    All arrays are C-contiguous and of one precision. The result has the same bits for any number of threads, any batch
    and any cut of the time axis.
    """
    y = np.empty_like(x)
    h = _rows_of(state, A, offsets.size - 1)
    rates, drive, read = _planes(A.T), _planes(B), _planes(C)
    skip = np.zeros(x.shape[1], x.dtype) if D is None else D
    gate = np.empty((0, x.shape[1]), x.dtype) if z is None else z
    scratch = np.empty((offsets.size - 1, x.shape[1]), x.dtype)
    steps = 8 * A.size * len(rates)
    run = cpu.selective.sized(len(x) * steps)
    for starts, stops in time_windows(offsets, steps):
        run(starts, stops, x, dt, rates, drive, read, skip, gate, h, y, scratch)
    return y, _joined(h, A.dtype)


def time_invariant(
    x: Array,
    decay: Array,
    less_one: Array,
    drive: Array,
    read: Array,
    D: Array | None,
    state: Array | None,
    offsets: Array,
) -> tuple[Array, Array]:
    """Run ``h_t = decay h_{t-1} + drive x_t`` and ``y_t = sum_n read h_t + D x_t`` over packed sequences.

    Parameters
    ----------
    x : ndarray (M, C)
    decay, less_one, drive, read : ndarray (C, N), all real or all complex
        `less_one` is the decay less 1, which has the digits that a slow decay has not. Both may be more precise than
        the others.
    D : ndarray (C,) or None
    state : ndarray (Q, C, N), of the dtype of `read`, or None
        Not changed; None is zeros.
    offsets : ndarray of int64 (Q + 1,)

    Returns
    -------
    y : ndarray (M, C)
    state : ndarray (Q, C, N)
    """
    y = np.empty_like(x)
    h = _rows_of(state, read, offsets.size - 1)
    skip = np.zeros(x.shape[1], x.dtype) if D is None else D
    slow = np.abs(less_one) < 0.5
    some = np.where(np.abs(decay) < np.finfo(read.dtype).tiny, 0, decay)
    whole, rest = slow.T.astype(np.float64, order="C"), _planes(np.where(slow, less_one, some).T).astype(np.float64)
    steps = 2 * decay.size * len(h)
    run = cpu.time_invariant.sized(len(x) * steps)
    for starts, stops in time_windows(offsets, steps):
        run(starts, stops, x, whole, rest, _planes(drive.T), _planes(read.T), skip, h, y)
    return y, _joined(h, read.dtype)


def _planes(array: Array) -> Array:
    """Return the real and, if there is one, the imaginary part behind each other: (P, ...)."""
    return np.ascontiguousarray(np.stack([array.real, array.imag]) if array.dtype.kind == "c" else array[None])


def _rows_of(state: Array | None, like: Array, sequences: int) -> Array:
    """Return a fresh state (P, Q, N, C), in which lanes can run over channels."""
    whole = np.zeros((sequences, *like.shape), like.dtype) if state is None else state
    return _planes(whole.swapaxes(1, 2)).copy()


def _joined(planes: Array, dtype: np.dtype[Any]) -> Array:
    """Return (P, Q, N, C) as the state (Q, C, N) that it is."""
    whole = np.empty(planes.shape[1:], dtype)
    whole.real = planes[0]
    if len(planes) > 1:
        whole.imag = planes[1]
    return np.ascontiguousarray(whole.swapaxes(1, 2))
