"""Products with the matrices of a model, which stay in the dtype they were stored in.

Letters: M rows of activations, I inputs, O outputs, R rank.

Few rows (decoding) are bound by reading the matrix: compiled loops widen it on the fly. Many rows (a prompt) are
bound by arithmetic: BLAS does the product, and a 16-bit matrix is widened block by block, never as a whole. So is a
quantised one, for any number of rows: with activations that are not rounded, its products are exact but for float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ... import _scalar as scalar
from ..._dtypes import compiled_view, widen
from ..._quantised import Quantised
from . import cpu

Array = npt.NDArray[Any]
Activation = Literal["tanh", "sigmoid"] | None
_ACTIVATIONS: tuple[Activation, ...] = (None, "tanh", "sigmoid")

FEW_ROWS = 32
"""Up to here a row's result does not depend on the other rows, not even in its last bit."""

_BLOCK_ELEMENTS = 1 << 20
_LONGEST_PRODUCT = 4_000_000_000
"""Multiply-adds of one BLAS call, so that Ctrl-C waits 0.1 s at most."""


def linear_map(x: Array, weight: Array | Quantised) -> Array:
    """Return ``x @ weight.T`` for a matrix stored [out, in].

    Parameters
    ----------
    x : ndarray (M, I), float32 or float64
    weight : ndarray (O, I), float32, float64, float16 or bfloat16; or Quantised

    Returns
    -------
    ndarray (M, O), dtype of x

    Examples
    --------
    >>> linear_map(np.ones((1, 2), np.float32), np.array([[1, 2], [3, 4], [5, 6]], np.float16))
    array([[ 3.,  7., 11.]], dtype=float32)
    """
    y: Array = linear_maps(x[None], (weight,))[0]
    return y


def linear_maps(x: Array, weights: Sequence[Array | Quantised]) -> Array:
    """Return ``x[j] @ weights[j].T`` for up to four matrices of one shape and dtype: in one launch if rows are few.

    Parameters
    ----------
    x : ndarray (J, M, I), float32 or float64
    weights : sequence of J ndarray (O, I), or of Quantised

    Returns
    -------
    ndarray (J, M, O), dtype of x

    Examples
    --------
    >>> weight = np.array([[1.0, 2.0], [3.0, 4.0]])
    >>> linear_maps(np.array([[[1.0, 1.0]], [[0.0, 1.0]]]), (weight, -weight))[:, 0]
    array([[ 3.,  7.],
           [-2., -4.]])
    """
    J, M, inputs = x.shape
    outputs = weights[0].shape[0]
    y = np.empty((J, M, outputs), x.dtype)
    floats = [weight for weight in weights if not isinstance(weight, Quantised)]
    if M <= FEW_ROWS and floats:
        stored = [compiled_view(weight) for weight in floats]
        run = cpu.rows_by_outputs.sized(y.size * inputs)
        run(np.ascontiguousarray(x), *(stored + stored[:1] * 3)[:4], y)
        return y
    step = _LONGEST_PRODUCT // (M * inputs) or 1
    if not floats or floats[0].dtype != x.dtype:
        step = min(step, _BLOCK_ELEMENTS // inputs or 1)
    for j, weight in enumerate(weights):
        for begin in range(0, outputs, step):
            block, result = _wide(weight[begin : begin + step], x.dtype), y[j, :, begin : begin + step]
            if M <= FEW_ROWS:
                result[:] = linear_map(x[j], block)
            else:
                np.matmul(x[j], block.T, out=result)
    return y


def low_rank(x: Array, down: Array, up: Array, activation: Activation = None) -> Array:
    """Return ``f(x @ down) @ up`` for a pair of factors stored [in, rank] and [rank, out].

    Parameters
    ----------
    x : ndarray (M, I), float32 or float64
    down : ndarray (I, R)
    up : ndarray (R, O)
    activation : {None, "tanh", "sigmoid"}
        What f is.

    Returns
    -------
    ndarray (M, O), dtype of x

    Examples
    --------
    >>> x, down, up = (np.full(shape, 0.5) for shape in [(1, 4), (4, 2), (2, 3)])
    >>> low_rank(x, down, up, "tanh").round(4)
    array([[0.7616, 0.7616, 0.7616]])
    """
    y: Array = low_ranks(x[None], ((down, up, activation),))[0]
    return y


def low_ranks(x: Array, pairs: Sequence[tuple[Array, Array, Activation]]) -> Array:
    """Return `low_rank` of ``x[j]`` and ``pairs[j]``, for up to four pairs: in one launch if rows are few.

    Parameters
    ----------
    x : ndarray (J, M, I), float32 or float64
    pairs : sequence of J (down, up, activation)

    Returns
    -------
    ndarray (J, M, O), dtype of x
    """
    J, M, _ = x.shape
    y = np.empty((J, M, pairs[0][1].shape[1]), x.dtype)
    if M > FEW_ROWS:
        for j, (down, up, activation) in enumerate(pairs):
            y[j] = _activate(x[j] @ _wide(down, x.dtype), activation) @ _wide(up, x.dtype)
        return y
    factors = [compiled_view(factor) for pair in pairs for factor in pair[:2]]
    kinds = np.array([_ACTIVATIONS.index(pair[2]) for pair in pairs])
    hidden = np.empty((J, M, max(pair[0].shape[1] for pair in pairs)), x.dtype)
    run = cpu.low_ranks.sized(hidden.size * x.shape[2])
    run(np.ascontiguousarray(x), *(factors + factors[:2] * 3)[:8], kinds, hidden, y)
    return y


def low_rank_groups(x: Array, down: Array, up: Array, activation: Activation = None) -> Array:
    """Return ``f(x @ down)``, cut into G groups of rank R, each through its own matrix of `up` (G, R, O).

    Returns
    -------
    ndarray (G, M, O)
    """
    hidden = _activate(_by_inputs(x, down), activation).reshape(len(x), up.shape[0], up.shape[1])
    return np.stack([_by_inputs(hidden[:, group], matrix) for group, matrix in enumerate(up)])


def _activate(x: Array, activation: Activation) -> Array:
    if activation is None:
        return x
    with np.errstate(over="ignore"):  # exp(-x) may be infinite, and 1 / (1 + inf) is what is meant
        result: Array = scalar.tanh(x) if activation == "tanh" else scalar.sigmoid(x)
    return result


def embedding(table: Array, tokens: Array) -> Array:
    """Return the rows of `table` (O, I) that `tokens` (M,) name, as float32 (float64 if the table is)."""
    return widen(table[tokens])


def _by_inputs(x: Array, weight: Array) -> Array:
    """Return ``x @ weight`` for a matrix stored [in, out]."""
    if x.shape[0] > FEW_ROWS:
        product: Array = np.matmul(x, _wide(weight, x.dtype))
        return product
    y = np.empty((x.shape[0], weight.shape[1]), x.dtype)
    run = cpu.rows_by_inputs.sized(y.size * len(weight))
    run(np.ascontiguousarray(x), compiled_view(weight), y)
    return y


def _wide(weight: Array | Quantised, dtype: np.dtype[Any]) -> Array:
    """Return a block of a matrix in the dtype of the activations."""
    if isinstance(weight, Quantised):
        wide = np.empty(weight.shape, dtype)
        widen_codes = cpu.widen_int8 if weight.dtype == "int8" else cpu.widen_int4
        widen_codes.sized(wide.size)(weight.codes, compiled_view(weight.scales), wide)
        return wide
    if weight.dtype == dtype:
        return weight
    wide = np.empty(weight.shape, dtype)
    cpu.widen_rows(compiled_view(weight), wide)
    return wide
