"""Products with the matrices of a model, which stay in the dtype they were stored in.

Letters: M rows of activations, I inputs, O outputs, R rank.

Few rows (decoding) are bound by reading the matrix: compiled loops widen it on the fly. Many rows (a prompt) are
bound by arithmetic: loops that keep sums in registers, or in the processor's matrix unit, widen some rows of a matrix
at a time, 16-bit or quantised, and never the whole. BLAS does products in float64, and on macOS, where it has a matrix
unit that compiled loops have not.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..._dtypes import KINDS, compiled_view, widen
from ..._jit import interpreted
from ..._quantised import BLOCK_ROWS, Quantised
from ..elementwise import relu_squared, sigmoid, silu, tanh
from ..shift import Mixture
from . import cpu, many_rows
from .activation import Activation
from .product import Product

Array = npt.NDArray[Any]

__all__ = [
    "FEW_ROWS",
    "Activation",
    "Product",
    "embedding",
    "linear_map",
    "low_rank",
    "low_rank_groups",
    "multiply",
]

FEW_ROWS = 32
"""Up to here a row's result does not depend on the other rows, not even in its last bit."""

_BLOCK_ELEMENTS = 1 << 20
_ACTIVATED = {"tanh": tanh, "sigmoid": sigmoid, "silu": silu, "relu_squared": relu_squared}


def linear_map(
    x: Array | Mixture | Product,
    weight: Array | Quantised,
    activation: Activation = "linear",
    gate: Array | None = None,
    added: Array | None = None,
) -> Array:
    """Return ``added + gate f(x @ weight.T)`` (M, O) for a matrix stored [out, in]; parameters as of `Product`.

    Examples
    --------
    >>> linear_map(np.ones((1, 2), np.float32), np.array([[1, 2], [3, 4], [5, 6]], np.float16))
    array([[ 3.,  7., 11.]], dtype=float32)
    """
    return multiply([Product(x, weight, activation, gate, added)])[0]


def low_rank(x: Array | Mixture, down: Array, up: Array, activation: Activation = "linear") -> Array:
    """Return ``f(x @ down) @ up`` (M, O) for a pair of factors stored [in, rank] and [rank, out].

    Examples
    --------
    >>> x, down, up = (np.full(shape, 0.5) for shape in [(1, 4), (4, 2), (2, 3)])
    >>> low_rank(x, down, up, "tanh").round(4)
    array([[0.7616, 0.7616, 0.7616]])
    """
    return multiply([Product(Product(x, down, activation, by_inputs=True), up, by_inputs=True)])[0]


def low_rank_groups(x: Array | Mixture, down: Array, up: Array, activation: Activation = "linear") -> Array:
    """Return ``f(x @ down)``, cut into G groups of rank R, each through its own matrix of `up` (G, R, O).

    Returns
    -------
    ndarray (G, M, O)
    """
    (hidden,) = multiply([Product(x, down, activation, by_inputs=True)])
    groups = hidden.reshape(len(hidden), up.shape[0], up.shape[1])
    y = np.empty((up.shape[0], len(hidden), up.shape[2]), hidden.dtype)
    multiply([Product(groups[:, n], matrix, by_inputs=True) for n, matrix in enumerate(up)], y)
    return y


def multiply(products: Sequence[Product], results: Sequence[Array] | Array | None = None) -> list[Array]:
    """Compute products of the same number of rows, of one dtype: those of many rows in one launch.

    Parameters
    ----------
    products : sequence of J Product
    results : sequence of J ndarray (M, O), optional
        Where to write.

    Returns
    -------
    list of J ndarray (M, O)

    Examples
    --------
    >>> x, weight = np.array([[1.0, 1.0]]), np.array([[1.0, 2.0], [3.0, 4.0]])
    >>> multiply([Product(x, weight), Product(x, weight, "relu_squared", added=x, by_inputs=True)])
    [array([[3., 7.]]), array([[17., 37.]])]
    """
    rows, dtype = products[0].rows
    if results is None:
        results = [np.empty((rows, product.outputs), dtype) for product in products]
    results = list(results)
    if rows > FEW_ROWS and dtype == np.float32 and sys.platform != "darwin" and not interpreted():
        many_rows.multiply_rows(products, results)
        return results
    inputs = [_input(product.x) for product in products]
    if rows > FEW_ROWS:
        for product, x, y in zip(products, inputs, results, strict=True):
            _by_blas(x, product, y)
    else:
        _few_rows(products, inputs, results)
    for product, y in zip(products, results, strict=True):
        _finish(product, y)
    return results


def _input(x: Array | Mixture | Product) -> Array:
    """Return what is to be multiplied as an array."""
    if isinstance(x, Product):
        return multiply([x])[0]
    return x.computed() if isinstance(x, Mixture) else x


def _finish(product: Product, y: Array) -> None:
    """Do to the result of a product what remains to be done."""
    if product.activation != "linear":
        y[:] = _ACTIVATED[product.activation](y)
    if product.gate is not None:
        y *= product.gate
    if product.added is not None:
        y += product.added


def _few_rows(products: Sequence[Product], inputs: Sequence[Array], results: Sequence[Array]) -> None:
    """Multiply few rows; matrices of one shape and dtype, up to four, share a launch."""
    together: dict[Any, list[tuple[int, Array]]] = {}
    for n, (product, x, y) in enumerate(zip(products, inputs, results, strict=True)):
        weight = product.weight
        if isinstance(weight, Quantised):
            _by_blocks(x, weight, y)
        elif product.by_inputs:
            run = cpu.rows_by_inputs.sized(y.size * len(weight))
            run(np.ascontiguousarray(x), compiled_view(weight), y)
        else:
            together.setdefault((weight.shape, weight.dtype), []).append((n, compiled_view(weight)))
    for members in together.values():
        for begin in range(0, len(members), 4):
            some, stored = map(list, zip(*members[begin : begin + 4], strict=True))
            x = np.stack([inputs[n] for n in some])
            y = np.empty((len(some), *results[some[0]].shape), x.dtype)
            cpu.rows_by_outputs.sized(y.size * x.shape[2])(x, *(stored + stored[:1] * 3)[:4], y)
            for n, result in zip(some, y, strict=True):
                results[n][:] = result


def _by_blas(x: Array, product: Product, y: Array) -> None:
    if product.by_inputs:
        np.matmul(x, _wide(product.weight, x.dtype), out=y)
    else:
        _by_blocks(x, product.weight, y)


def _by_blocks(x: Array, weight: Array | Quantised, y: Array) -> None:
    """Set y to ``x @ weight.T``, some rows of the matrix at a time: none is widened whole, and Ctrl-C waits 0.1 s."""
    M, inputs = x.shape
    step = many_rows.LONGEST // max(1, M * inputs) or 1
    if isinstance(weight, Quantised) or weight.dtype != x.dtype:
        step = min(step, _BLOCK_ELEMENTS // inputs or 1)
    if isinstance(weight, Quantised):
        step = -(-step // BLOCK_ROWS) * BLOCK_ROWS
    for begin in range(0, weight.shape[0], step):
        block, result = _wide(weight[begin : begin + step], x.dtype), y[:, begin : begin + step]
        if M <= FEW_ROWS:
            result[:] = linear_map(x, block)
        else:
            np.matmul(x, block.T, out=result)


def embedding(table: Array, tokens: Array) -> Array:
    """Return the rows of `table` (O, I) that `tokens` (M,) name, as float32 (float64 if the table is)."""
    return widen(compiled_view(table)[tokens].view(table.dtype))


def _wide(weight: Array | Quantised, dtype: np.dtype[Any]) -> Array:
    """Return a block of a matrix in the dtype of the activations."""
    if isinstance(weight, Quantised):
        if interpreted():
            return weight.widened().astype(dtype)
        wide = np.empty(weight.shape, np.float32)
        cpu.widen_codes.sized(wide.size)(KINDS[weight.dtype], weight.blocks, compiled_view(weight.block_scales), wide)
        return wide.astype(dtype, copy=False)
    if weight.dtype == dtype:
        return weight
    wide = np.empty(weight.shape, dtype)
    cpu.widen_rows(compiled_view(weight), wide)
    return wide
