"""Rounding a matrix to codes of 8 or 4 bits with a scale for every 32 weights of a row.

Letters: O outputs, I inputs, a multiple of 32; G groups in all.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..._dtypes import BFLOAT16, narrow, widen
from ..._quantised import GROUP, LARGEST, Quantised, packed
from . import cpu

Array = npt.NDArray[Any]

_PIECE = 1 << 20
"""Weights rounded at a time."""
# Where the weight of the largest size falls among the codes: beyond 8, it is cut off for the good of the others.
_PEAKS = np.arange(6, 10.5, 0.25, dtype=np.float32)


def quantise(weight: Array, dtype: str) -> Quantised:
    """Return a matrix with every weight rounded to the nearest that its group can have.

    The scale of a group of int8 lets its largest weight be 127. That of a group of int4, which may be negative, is the
    one of 36 under which the squared error is least, then moved to where it is least for the codes so found.

    Parameters
    ----------
    weight : ndarray (O, I)
        Any floating dtype; I is a multiple of 32.
    dtype : {"int8", "int4"}

    Returns
    -------
    Quantised

    Raises
    ------
    ValueError
        If a weight is infinite, no number, or so large that its scale might be.

    Examples
    --------
    >>> weight = np.linspace(-1, 1, 64, dtype=np.float32)[None]
    >>> [round(float(abs(quantise(weight, dtype).widened() - weight).max()), 3) for dtype in ("int8", "int4")]
    [0.004, 0.058]
    """
    O, I = weight.shape
    assert I % GROUP == 0
    codes = np.empty((O, I) if dtype == "int8" else (O, I // 2), np.int8 if dtype == "int8" else np.uint8)
    scales = np.empty((O, I // GROUP), BFLOAT16)
    rows = max(1, _PIECE // I)
    for begin in range(0, O, rows):
        piece = np.ascontiguousarray(widen(weight[begin : begin + rows]), np.float32)
        groups = piece.reshape(-1, GROUP)
        largest = np.abs(groups).max(axis=1)
        if not (largest <= LARGEST).all():
            raise ValueError("weights must be finite, and at most 2**120 in size")
        scale, whole = (_nearest if dtype == "int8" else _searched)(groups, largest)
        whole = whole.reshape(piece.shape)
        codes[begin : begin + rows] = whole if dtype == "int8" else packed(whole)
        scales[begin : begin + rows] = scale.reshape(len(piece), -1)
    return Quantised(codes, scales)


def _nearest(groups: Array, largest: Array) -> tuple[Array, Array]:
    """Return the scales (G,) and the codes (G, 32) of int8."""
    scales = narrow(largest / np.float32(127), BFLOAT16)
    return scales, _rounded(groups, widen(scales), 127, 127)


def _searched(groups: Array, largest: Array) -> tuple[Array, Array]:
    """Return the scales (G,) and the codes (G, 32) of int4."""
    choices = np.concatenate([largest[:, None] / _PEAKS, largest[:, None] / -_PEAKS], axis=1)
    choices = widen(narrow(choices, BFLOAT16))
    chosen, moved = (np.empty(len(groups), np.int64) for _ in range(2))
    run = cpu.least_error.sized(groups.size * choices.shape[1])
    run(groups, choices, chosen)
    scales = choices[np.arange(len(groups)), chosen]
    codes = _rounded(groups, scales, 8, 7).astype(np.float32)
    squares = (codes * codes).sum(axis=1)
    best = np.divide((codes * groups).sum(axis=1), squares, out=scales.copy(), where=squares > 0)
    choices = np.stack([scales, widen(narrow(best, BFLOAT16))], axis=1)
    run(groups, choices, moved)
    scales = choices[np.arange(len(groups)), moved]
    return narrow(scales, BFLOAT16), _rounded(groups, scales, 8, 7)


def _rounded(groups: Array, scales: Array, below: int, above: int) -> Array:
    """Return the codes (G, 32) that come nearest."""
    divisors = np.where(scales == 0, np.float32(1), scales)[:, None]
    codes = np.rint(groups / divisors)
    codes[scales == 0] = 0
    return np.clip(codes, -below, above).astype(np.int8)
