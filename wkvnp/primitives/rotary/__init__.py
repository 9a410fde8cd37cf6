"""Rotary position embedding: pairs of channels are turned by an angle that grows with the position.

Channel i is paired with channel i + R/2 of the first R. Letters: M rows, H heads, D width of a head, R rotated width.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from . import cpu

Array = npt.NDArray[Any]


def rotate(x: Array, cos: Array, sin: Array) -> Array:
    """Turn the first R channels of every head of `x` (M, H, D) by angles whose cos and sin are (M, R/2).

    Examples
    --------
    >>> x = np.array([[[1.0, 2.0, 3.0]]])
    >>> rotate(x, np.array([[0.0]]), np.array([[1.0]]))
    array([[[-2.,  1.,  3.]]])
    """
    x = np.ascontiguousarray(x)
    y = np.empty_like(x)
    cpu.turn.sized(2 * x.size)(x, cos, sin, y)
    return y
