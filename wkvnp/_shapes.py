"""Axis letters: ``"B T H K"`` documents, checks and packs an array.

Every sequence kernel sees one packed time axis: `B` sequences of equal or unequal length lie behind each other in
arrays ``(M, ...)`` of ``M`` tokens, and ``offsets`` ``(B + 1,)`` says where each begins. A batch, a ragged batch and
a single sequence therefore run the same instructions and give the same bits.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ._dtypes import BFLOAT16, dtype_name, widen
from .errors import ArgumentError, ShapeError

Array = npt.NDArray[Any]
_FLOATS = ("float16", "bfloat16", "float32", "float64")
_COMPLEX = ("complex64", "complex128")


def as_floats(function: str, name: str, value: Any, may_be_complex: bool = False) -> Array:
    """Return `value` as a floating array; refuse masked, object and extended-precision ones by name.

    Complex numbers of 64 or 128 bits pass where they are welcome.
    """
    if isinstance(value, np.ma.MaskedArray):
        raise ArgumentError(f"{function}: {name} must not be a masked array; fill it first")
    array = np.asarray(value)
    if array.dtype.kind in "iub":
        array = array.astype(np.float64 if array.dtype.itemsize > 4 else np.float32)
    if dtype_name(array.dtype) not in (_FLOATS + _COMPLEX if may_be_complex else _FLOATS):
        raise ArgumentError(f"{function}: {name} must be real floating point (16, 32 or 64 bits); got {array.dtype}")
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def compute_dtype(function: str, arrays: Mapping[str, Array]) -> np.dtype[Any]:
    """Return float64 if every array is (or complex of such), float32 if none is; refuse a mixture."""
    doubles = [name for name, array in arrays.items() if array.dtype in (np.float64, np.complex128)]
    if not doubles:
        return np.dtype(np.float32)
    others = [f"{name} is {dtype_name(array.dtype)}" for name, array in arrays.items() if name not in doubles]
    if others:
        raise ArgumentError(f"{function}: {doubles[0]} is float64 but {others[0]}; give all arrays one precision")
    return np.dtype(np.float64)


def check_axes(function: str, name: str, array: Array, letters: str, sizes: dict[str, tuple[int, str]]) -> None:
    """Compare a shape with its letters; remember the first size seen for each letter and who set it.

    Examples
    --------
    >>> sizes = {}
    >>> check_axes("rwkv7", "r", np.zeros((2, 5, 3, 8)), "B T H K", sizes)
    >>> check_axes("rwkv7", "k", np.zeros((2, 5, 4, 8)), "B T H K", sizes)
    Traceback (most recent call last):
        ...
    wkvnp.errors.ShapeError: rwkv7: k must have shape (B, T, H, K) with H=3 as in r; got (2, 5, 4, 8)
    """
    axes = split_axes(letters)
    clash = ""
    if array.ndim == len(axes):
        for letter, size in zip(axes, array.shape, strict=True):
            expected, source = sizes.setdefault(letter, (size, name))
            if size != expected:
                clash = f" with {letter}={expected} as in {source}"
                break
        else:
            return
    wanted = f"({', '.join(axes)}{',' if len(axes) == 1 else ''})"
    raise ShapeError(f"{function}: {name} must have shape {wanted}{clash}; got {array.shape}")


@functools.cache
def split_axes(letters: str) -> tuple[str, ...]:
    """Return the letters of ``"B T H K"`` one by one."""
    return tuple(letters.split())


def sequence_offsets(function: str, cu_seqlens: Any, batch: int, time: int) -> npt.NDArray[np.int64]:
    """Return where each sequence begins on the packed time axis, and where the last one ends.

    Parameters
    ----------
    cu_seqlens : array_like of int, shape (N + 1,), or None
        Offsets of N sequences packed along the time axis of a batch of one; None means `batch` equal sequences.
    batch, time : int
        Sizes of the first two axes of the arrays.

    Examples
    --------
    >>> sequence_offsets("rwkv6", None, 2, 3)
    array([0, 3, 6])
    >>> sequence_offsets("rwkv6", [0, 2, 2, 5], 1, 5)
    array([0, 2, 2, 5])
    """
    if cu_seqlens is None:
        return np.arange(batch + 1, dtype=np.int64) * time
    offsets = np.asarray(cu_seqlens)
    if offsets.ndim != 1 or offsets.size < 1 or offsets.dtype.kind not in "iu":
        raise ShapeError(f"{function}: cu_seqlens must be whole numbers of shape (N+1,); got {cu_seqlens!r}")
    if batch != 1:
        raise ShapeError(f"{function}: with cu_seqlens the batch axis must be 1; got B={batch}")
    offsets = offsets.astype(np.int64)
    if offsets[0] != 0 or offsets[-1] != time or (np.diff(offsets) < 0).any():
        raise ArgumentError(f"{function}: cu_seqlens must rise from 0 to T={time}; got {offsets.tolist()}")
    return offsets


def reversed_sequences(offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the order of tokens that turns every packed sequence around; it undoes itself.

    Examples
    --------
    >>> reversed_sequences(np.array([0, 2, 2, 5]))
    array([1, 0, 4, 3, 2])
    """
    lengths = np.diff(offsets)
    return np.repeat(offsets[:-1] + offsets[1:] - 1, lengths) - np.arange(offsets[-1])


def contiguous(array: Array, dtype: np.dtype[Any]) -> Array:
    """Return a C-contiguous, native, aligned array of `dtype`, copying only if it must."""
    if array.dtype == dtype and array.flags.c_contiguous and array.flags.aligned:
        return array
    wide = widen(array) if array.dtype in (np.float16, BFLOAT16) or dtype_name(array.dtype) == "bfloat16" else array
    return np.require(wide, dtype, ("C", "A"))


_LONGEST_LAUNCH = 500_000_000
"""Elementary steps of a launch, about 0.1 s of one core: Ctrl-C waits no longer than that."""


def time_windows(
    offsets: npt.NDArray[np.int64], work_per_token: int
) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Cut packed sequences into launches that are short enough to be interrupted between.

    Kernels carry their state in place, so cutting changes no bit of the result.

    Parameters
    ----------
    offsets : ndarray of int64, shape (N + 1,)
    work_per_token : int
        Multiply-adds that one token costs.

    Returns
    -------
    list of (starts, stops)
        Each a pair of int64 arrays of shape (N,); at least one pair.

    Examples
    --------
    >>> starts, stops = time_windows(np.array([0, 2, 5]), 64)[0]
    >>> starts, stops
    (array([0, 2]), array([2, 5]))
    """
    starts, stops = offsets[:-1], offsets[1:]
    tokens = int(offsets[-1])
    if tokens * work_per_token <= _LONGEST_LAUNCH:
        return [(starts, stops)]
    longest = int((stops - starts).max())
    step = max(1, longest * _LONGEST_LAUNCH // (tokens * work_per_token))
    return [
        (np.minimum(starts + begin, stops), np.minimum(starts + begin + step, stops))
        for begin in range(0, longest, step)
    ]


def work_windows(costs: Array, least: int) -> list[tuple[int, int]]:
    """Cut a list of independent pieces of work into launches that are short enough to be interrupted between.

    Parameters
    ----------
    costs : ndarray of int64, shape (J,)
        Elementary steps of each piece.
    least : int
        Pieces of a launch at least, so that no worker is idle.

    Returns
    -------
    list of (first, stop)

    Examples
    --------
    >>> work_windows(np.array([300_000_000, 100_000_000, 200_000_000, 900_000_000, 5]), 1)
    [(0, 2), (2, 3), (3, 4), (4, 5)]
    """
    ends = np.cumsum(costs)
    windows = []
    first = 0
    while first < ends.size:
        before = int(ends[first - 1]) if first else 0
        stop = int(np.searchsorted(ends, before + _LONGEST_LAUNCH, side="right"))
        stop = min(max(stop, first + least), ends.size)
        windows.append((first, stop))
        first = stop
    return windows
