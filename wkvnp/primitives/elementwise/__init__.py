"""``@elementwise``: one scalar formula becomes a function on arrays.

The formula is written once, with the functions of `wkvnp._scalar`, and reads like the paper. Letters: M rows, C
channels.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ... import _scalar as scalar
from . import cpu

Array = npt.NDArray[Any]


def elementwise(formula: Callable[..., Any]) -> Callable[..., Array]:
    """Turn a formula of scalars into a function of arrays (M, C) and vectors (C,), all of one dtype.

    Examples
    --------
    >>> @elementwise
    ... def gated(x, gate):
    ...     return x * scalar.sigmoid(gate)
    >>> gated(np.array([[2.0, 4.0]]), np.array([0.0, 0.0]))
    array([[1., 2.]])
    """
    operands = len(inspect.signature(formula).parameters)

    @functools.cache
    def compiled() -> Any:
        return cpu.loop(formula, operands)

    @functools.wraps(formula)
    def apply(*arrays: Array) -> Array:
        rows = [np.ascontiguousarray(array if array.ndim == 2 else array[None]) for array in arrays]
        y = np.empty((max(map(len, rows)), rows[0].shape[1]), rows[0].dtype)
        compiled().sized(4 * y.size)(*rows, y)
        return y if max(array.ndim for array in arrays) == 2 else y[0]

    return apply


@elementwise
def tanh(x: Any) -> Any:
    """Return the hyperbolic tangent."""
    return scalar.tanh(x)


@elementwise
def sigmoid(x: Any) -> Any:
    """Return 1 / (1 + exp(-x))."""
    return scalar.sigmoid(x)


@elementwise
def silu(x: Any) -> Any:
    """Return x sigmoid(x)."""
    return x * scalar.sigmoid(x)


@elementwise
def relu_squared(x: Any) -> Any:
    """Return max(x, 0) squared."""
    return scalar.relu(x) * scalar.relu(x)
