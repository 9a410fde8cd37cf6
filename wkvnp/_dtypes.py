"""The dtypes that numbers are stored in, and the one that NumPy lacks.

``BFLOAT16`` is a structured dtype of two bytes: arrays of it can be sliced, reshaped, copied and saved like any other,
while arithmetic and conversions fail. With a single field of 16 bits, ``astype`` would convert the bits as an integer.
NumPy copies structured numbers slowly, so large copies go through `compiled_view`. Compiled code sees bfloat16 as
``uint16`` and float16 as ``int16``, because Numba has neither type on the CPU.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import ArgumentError

BFLOAT16 = np.dtype([("bfloat16_low", "u1"), ("bfloat16_high", "u1")])
FLOAT_DTYPES: dict[str, np.dtype[Any]] = {
    "float64": np.dtype("<f8"),
    "float32": np.dtype("<f4"),
    "float16": np.dtype("<f2"),
    "bfloat16": BFLOAT16,
}

KINDS = {name: number for number, name in enumerate(("float32", "bfloat16", "float16", "int8", "int4"))}
"""The numbers by which compiled loops know the dtype at an address."""


def dtype_name(dtype: npt.DTypeLike) -> str:
    """Return the name of a dtype, ``"bfloat16"`` included, and ``"int4"``, which is always told by its name.

    >>> dtype_name(BFLOAT16), dtype_name("f4")
    ('bfloat16', 'float32')
    """
    if isinstance(dtype, str) and dtype in ("bfloat16", "int4"):
        return dtype
    return _name_of(np.dtype(dtype))


@functools.cache  # NumPy makes the name anew each time, which every token would feel
def _name_of(dtype: np.dtype[Any]) -> str:
    return "bfloat16" if dtype == BFLOAT16 or dtype.name == "bfloat16" else dtype.name


def float_dtype(name: npt.DTypeLike) -> np.dtype[Any]:
    """Return the storage dtype for a name or dtype; raise ArgumentError if it is not a floating dtype we store."""
    try:
        return FLOAT_DTYPES[name if isinstance(name, str) else dtype_name(name)]
    except (KeyError, TypeError):
        raise ArgumentError(f"dtype must be one of {', '.join(FLOAT_DTYPES)}; got {name!r}") from None


def narrow(array: npt.NDArray[Any], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Convert an array of any floating dtype to `dtype`, rounding to nearest even.

    >>> narrow(np.array([1.0, 1.00390625, 3.14159274], np.float32), BFLOAT16).view(np.uint16)
    array([16256, 16256, 16457], dtype=uint16)
    """
    dtype = float_dtype(dtype)
    if dtype_name(array.dtype) == dtype_name(dtype):
        return array if array.dtype == dtype else array.view(np.uint16).view(BFLOAT16)
    wide = widen(array)
    if dtype != BFLOAT16:
        with np.errstate(over="ignore"):
            return wide.astype(dtype)
    bits = np.ascontiguousarray(wide, np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    nan = np.isnan(bits.view(np.float32))
    if nan.any():
        rounded[nan] = (bits[nan] >> np.uint32(16)) | np.uint32(0x40)
    return rounded.astype(np.uint16).view(BFLOAT16)


def widen(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a float32 array of the same values (float64 stays float64).

    >>> widen(np.array([16256, 16457], np.uint16).view(BFLOAT16))
    array([1.      , 3.140625], dtype=float32)
    """
    if dtype_name(array.dtype) == "bfloat16":
        bits = array.view(np.uint16).astype(np.uint32)
        return (bits << np.uint32(16)).view(np.float32)
    if array.dtype == np.float64:
        return array
    return array.astype(np.float32, copy=False)


def compiled_view(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the array under the dtype that compiled code knows it by: bfloat16 as uint16, float16 as int16."""
    name = dtype_name(array.dtype)
    if name == "bfloat16":
        return array.view(np.uint16)
    return array.view(np.int16) if name == "float16" else array


def aligned(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return uninitialised memory that begins on a cache line, so that no vector straddles two."""
    dtype = np.dtype(dtype)
    memory = np.empty(math.prod(shape) + 64 // dtype.itemsize, dtype)
    begin = -memory.ctypes.data % 64 // dtype.itemsize
    return memory[begin : begin + math.prod(shape)].reshape(shape)
