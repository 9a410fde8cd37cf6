"""Changes of the named arrays of a checkpoint: valid files of tensors that no model has."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

import numpy as np

from wkvnp._dtypes import BFLOAT16

Arrays = dict[str, np.ndarray]

_DTYPES = ("float16", "float64", "int8", "uint8", "int16", "int32", "int64", "bool", "bfloat16")
_FILLS = (np.nan, np.inf, -np.inf, 0.0, -1.0, 1.0, 3e38, -3e38, 1e-40, 200.0)


def edited(arrays: Arrays, rng: random.Random) -> Arrays:
    """Return the arrays with one to four changes; there is always one left."""
    changed = dict(arrays)
    for _ in range(rng.choice((1, 1, 2, 4))):
        rng.choice(_EDITS)(changed, rng.choice(list(changed)), rng)
    return changed


def _drop(arrays: Arrays, name: str, rng: random.Random) -> None:
    if len(arrays) > 1:
        del arrays[name]


def _drop_many(arrays: Arrays, name: str, rng: random.Random) -> None:
    """Leave out a whole part: a layer, a kind of tensor."""
    part = rng.choice(name.split("."))
    for found in [found for found in arrays if part in found.split(".") and found != name]:
        del arrays[found]


def _rename(arrays: Arrays, name: str, rng: random.Random) -> None:
    number = str(rng.choice((0, 1, 2, 9, 10**6, 10**20, -1, "01", "x")))
    renamed = rng.choice(
        (
            re.sub(r"\d+", number, name, count=1),
            name + rng.choice((".scale", ".bias", "x", ".", "\0", "é", "." * 100)),
            rng.choice(("module.", "model.", "_orig_mod.", "")) + name.rpartition(".")[2],
            name.replace(".", "", 1),
        )
    )
    arrays[renamed or "x"] = arrays.pop(name)


def _copy(arrays: Arrays, name: str, rng: random.Random) -> None:
    arrays[rng.choice((rng.choice(list(arrays)), name + "2", re.sub(r"\d+", "3", name, count=1)))] = arrays[name]


def _swap(arrays: Arrays, name: str, rng: random.Random) -> None:
    other = rng.choice(list(arrays))
    arrays[name], arrays[other] = arrays[other], arrays[name]


def _reshape(arrays: Arrays, name: str, rng: random.Random) -> None:
    array = arrays[name]
    flat = array.reshape(-1)
    halves = (2, -1) if array.size % 2 == 0 and array.size else (-1,)
    arrays[name] = rng.choice(
        (
            flat,
            flat[None],
            flat[:, None],
            array.T,
            array[..., None],
            array[None],
            flat.reshape(halves),
            array.reshape(1, *array.shape, 1),
        )
    )


def _resize(arrays: Arrays, name: str, rng: random.Random) -> None:
    array = arrays[name]
    if not array.ndim:
        arrays[name] = np.zeros(rng.choice(((0,), (1,), (3,))), array.dtype)
        return
    axis = rng.randrange(array.ndim)
    size = rng.choice((0, 0, 1, array.shape[axis] - 1, array.shape[axis] + 1, 2 * array.shape[axis]))
    arrays[name] = np.take(array, np.arange(max(size, 0)) % max(array.shape[axis], 1), axis) if array.size else array


def _scalar(arrays: Arrays, name: str, rng: random.Random) -> None:
    array = arrays[name]
    arrays[name] = array.reshape(-1)[0].reshape(()) if array.size else np.zeros((), array.dtype)


def _cast(arrays: Arrays, name: str, rng: random.Random) -> None:
    arrays[name] = _as(arrays[name], rng.choice(_DTYPES))


def _cast_all(arrays: Arrays, name: str, rng: random.Random) -> None:
    dtype = rng.choice(_DTYPES)
    for each, array in list(arrays.items()):
        arrays[each] = _as(array, dtype)


def _as(array: np.ndarray, dtype: str) -> np.ndarray:
    """Return the array in another dtype: its numbers, or its bits where they fit."""
    if array.dtype == BFLOAT16 or dtype == "bfloat16":
        return np.zeros(array.shape, BFLOAT16 if dtype == "bfloat16" else dtype)
    with np.errstate(all="ignore"):
        return array.astype(dtype)


def _fill(arrays: Arrays, name: str, rng: random.Random) -> None:
    array = arrays[name]
    if array.dtype.kind not in "fi" or not array.size:
        return
    changed, value = array.copy(), rng.choice(_FILLS)
    if array.dtype.kind == "i":
        limits = np.iinfo(array.dtype)
        value = rng.choice((limits.min, limits.max, -1, 0, 1, 2, min(2**40, limits.max), 100))
    where = slice(None) if rng.random() < 0.5 else rng.randrange(array.size)
    with np.errstate(all="ignore"):
        changed.reshape(-1)[where] = value
    arrays[name] = changed


def _resize_axis(arrays: Arrays, name: str, rng: random.Random) -> None:
    """Cut an axis in all arrays that have one of this length, so that the arrays still agree."""
    array = arrays[name]
    if not array.ndim or not array.size:
        return
    length = rng.choice(array.shape)
    left = rng.choice((0, 1, length - 1, max(length // 2, 1)))
    for each, other in list(arrays.items()):
        for axis, size in enumerate(other.shape):
            if size == length:
                other = np.take(other, np.arange(left), axis)
        arrays[each] = other


Edit = Callable[[Arrays, str, random.Random], None]
_EDITS: tuple[Edit, ...] = (_drop, _drop_many, _rename, _rename, _copy, _swap, _reshape, _reshape, _resize, _resize)
_EDITS += (_scalar, _cast, _cast, _cast_all, _fill, _fill, _resize_axis)
