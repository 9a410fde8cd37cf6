"""Products with the matrices of a model, which stay in the dtype they were stored in.

Letters: M rows of activations, I inputs, O outputs, R rank.

Few rows (decoding) are bound by reading the matrix: compiled loops widen it on the fly. Many rows (a prompt) are
bound by arithmetic: BLAS does the product, and a 16-bit matrix is widened block by block, never as a whole.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ..._dtypes import compiled_view, widen

Array = npt.NDArray[Any]

FEW_ROWS = 32
"""Up to here a row's result does not depend on the other rows, not even in its last bit."""

_BLOCK_ELEMENTS = 1 << 20
_LONGEST_PRODUCT = 4_000_000_000
"""Multiply-adds of one BLAS call, so that Ctrl-C waits 0.1 s at most."""


def linear_map(x: Array, weight: Array) -> Array:
    """Return ``x @ weight.T`` for a matrix stored [out, in].

    Parameters
    ----------
    x : ndarray (M, I), float32 or float64
    weight : ndarray (O, I), float32, float64, float16 or bfloat16

    Returns
    -------
    ndarray (M, O), dtype of x

    Examples
    --------
    >>> linear_map(np.ones((1, 2), np.float32), np.array([[1, 2], [3, 4], [5, 6]], np.float16))
    array([[ 3.,  7., 11.]], dtype=float32)
    """
    from . import cpu

    y = np.empty((x.shape[0], weight.shape[0]), x.dtype)
    if x.shape[0] <= FEW_ROWS:
        _launch(cpu.rows_by_outputs, np.ascontiguousarray(x), compiled_view(weight), y)
        return y
    step = _LONGEST_PRODUCT // (x.shape[0] * x.shape[1]) or 1
    if weight.dtype != x.dtype:
        step = min(step, _BLOCK_ELEMENTS // weight.shape[1] or 1)
    for begin in range(0, weight.shape[0], step):
        block = _wide(weight[begin : begin + step], x.dtype)
        np.matmul(x, block.T, out=y[:, begin : begin + step])
    return y


def low_rank(x: Array, down: Array, up: Array, activation: Callable[[Array], Array] | None = None) -> Array:
    """Return ``activation(x @ down) @ up`` for a pair of factors stored [in, rank] and [rank, out].

    Examples
    --------
    >>> x, down, up = (np.full(shape, 0.5, np.float32) for shape in [(1, 4), (4, 2), (2, 3)])
    >>> low_rank(x, down, up, np.tanh)
    array([[0.7615942, 0.7615942, 0.7615942]], dtype=float32)
    """
    hidden = _by_inputs(x, down)
    return _by_inputs(hidden if activation is None else activation(hidden), up)


def low_rank_groups(x: Array, down: Array, up: Array, activation: Callable[[Array], Array]) -> Array:
    """Return ``activation(x @ down)``, cut into G groups of rank R, each through its own matrix of `up` (G, R, O).

    Returns
    -------
    ndarray (G, M, O)
    """
    hidden = activation(_by_inputs(x, down)).reshape(len(x), up.shape[0], up.shape[1])
    return np.stack([_by_inputs(hidden[:, group], matrix) for group, matrix in enumerate(up)])


def embedding(table: Array, tokens: Array) -> Array:
    """Return the rows of `table` (O, I) that `tokens` (M,) name, as float32 (float64 if the table is)."""
    return widen(table[tokens])


def _by_inputs(x: Array, weight: Array) -> Array:
    """Return ``x @ weight`` for a matrix stored [in, out]."""
    from . import cpu

    if x.shape[0] > FEW_ROWS:
        product: Array = np.matmul(x, _wide(weight, x.dtype))
        return product
    y = np.empty((x.shape[0], weight.shape[1]), x.dtype)
    _launch(cpu.rows_by_inputs, np.ascontiguousarray(x), compiled_view(weight), y)
    return y


def _wide(weight: Array, dtype: np.dtype[Any]) -> Array:
    """Return a block of a matrix in the dtype of the activations."""
    from . import cpu

    if weight.dtype == dtype:
        return weight
    wide = np.empty(weight.shape, dtype)
    cpu.widen_rows(compiled_view(weight), wide)
    return wide


def _launch(kernel: Any, x: Array, weight: Array, y: Array) -> None:
    """Share large products between threads; a small one is over before another thread has woken."""
    if weight.size * x.shape[0] < 1 << 17:
        kernel.serial(x, weight, y)
    else:
        kernel(x, weight, y)
