"""Normalisations. Statistics are over the last axis or over groups of it; variances divide by n."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from . import cpu

Array = npt.NDArray[Any]


def layer_norm(x: Array, weight: Array, bias: Array, eps: float = 1e-5) -> Array:
    """Return ``(x - mean) / sqrt(var + eps) * weight + bias`` over the last axis of `x` (M, C).

    Examples
    --------
    >>> x = np.array([[1, 2, 4, -3]], np.float32)
    >>> layer_norm(x, np.ones(4, np.float32), np.zeros(4, np.float32)).round(4)
    array([[ 0.    ,  0.3922,  1.1767, -1.5689]], dtype=float32)
    """
    return group_norm(x, weight, bias, 1, eps)


def group_norm(x: Array, weight: Array, bias: Array, groups: int, eps: float) -> Array:
    """Return `x` (M, C) with each of `groups` runs of consecutive channels normalised by itself.

    Examples
    --------
    >>> x = np.array([[1, 2, 4, -3]], np.float32)
    >>> group_norm(x, np.ones(4, np.float32), np.zeros(4, np.float32), 2, 64e-5).round(4)
    array([[-0.9987,  0.9987,  1.    , -1.    ]], dtype=float32)
    """
    x = np.ascontiguousarray(x)
    y = np.empty_like(x)
    cpu.standardize.sized(4 * x.size)(x, weight, bias, x.shape[1] // groups, x.dtype.type(eps), y)
    return y


def rms_norm(x: Array, weight: Array, eps: float, groups: int = 1) -> Array:
    """Return ``x / sqrt(mean(x^2) + eps) * weight`` for each of `groups` runs of channels of `x` (M, C).

    `weight` is (C,), or (C / groups,) and the same for every group.

    Examples
    --------
    >>> rms_norm(np.array([[3.0, 4.0]]), np.ones(2), 0.0).round(4)
    array([[0.8485, 1.1314]])
    """
    x = np.ascontiguousarray(x)
    y = np.empty_like(x)
    cpu.divide_by_rms.sized(4 * x.size)(x, weight, x.shape[1] // groups, x.dtype.type(eps), y)
    return y


def l2_normalize(x: Array, floor: float = 1e-12, eps: float = 0) -> Array:
    """Return ``x / max(sqrt(|x|^2 + eps), floor)`` over the last axis: some models give a `floor`, others an `eps`.

    Examples
    --------
    >>> l2_normalize(np.array([[3.0, 4.0], [0.0, 0.0]]))
    array([[0.6, 0.8],
           [0. , 0. ]])
    """
    x = np.ascontiguousarray(x)
    y = np.empty_like(x)
    rows = -1, max(x.shape[-1], 1)
    number = x.dtype.type
    cpu.shorten.sized(4 * x.size)(x.reshape(rows), number(floor), number(eps), y.reshape(rows))
    return y
