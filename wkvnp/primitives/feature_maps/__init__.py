"""Feature maps: what linear attention puts in place of an exponential of products.

Each is a function of an array whose last axis is the features, and treats every row alone: a row has the same bits
beside any other rows. Letters: d width of a row, m number of its features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from . import cpu

Array = npt.NDArray[Any]


def identity(x: Array) -> Array:
    """Return `x`; its products may be negative, so a mean over them means nothing."""
    return x


def elu_plus_one(x: Array) -> Array:
    """Return x + 1 above 0 and exp(x) below.

    Not ``expm1(x) + 1``: in float32 that is 44 % off at -17, and from about -17.4 on it is 0.

    >>> elu_plus_one(np.array([-20.0, 0.0, 1.0], np.float32))
    array([2.0611537e-09, 1.0000000e+00, 2.0000000e+00], dtype=float32)
    """
    return np.where(x > 0, x + 1, np.exp(np.minimum(x, 0)))


def relu(x: Array) -> Array:
    """Return max(x, 0). A row may become all zeros."""
    return np.maximum(x, 0)


def relu_squared(x: Array) -> Array:
    """Return max(x, 0) squared. A row may become all zeros."""
    return np.maximum(x, 0) ** 2


def softmax(x: Array) -> Array:
    """Return the softmax over the features of each row."""
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def taylor(x: Array, full: bool = False) -> Array:
    """Return features whose product is ``1 + s + s^2 / 2`` with ``s = q . k / sqrt(d)``: exp(s) to second order.

    The product of x_i and x_j is there once, m = 1 + d + d (d + 1) / 2; with `full` it is there twice, as in
    the original, m = 1 + d + d^2.

    >>> q, k = taylor(np.array([[2.0], [3.0]]))
    >>> round(float(q @ k), 12)
    25.0
    """
    d = x.shape[-1]
    x = x * d**-0.25
    one = np.ones((*x.shape[:-1], 1), x.dtype)
    if full:
        pairs = (x[..., :, None] * x[..., None, :]).reshape(*x.shape[:-1], d * d) * math.sqrt(0.5)
    else:
        i, j = np.triu_indices(d)
        pairs = x[..., i] * x[..., j] * np.where(i == j, math.sqrt(0.5), 1).astype(x.dtype)
    return np.concatenate([one, x, pairs], axis=-1)


def taylor_width(d: int) -> int:
    """Return the number of features of `taylor`."""
    return 1 + d + d * (d + 1) // 2


def dpfp(x: Array, nu: int = 1) -> Array:
    """Return the products of each of ``relu([x, -x])`` with its `nu` neighbours to the left, in a circle; m = 2 d nu.

    >>> dpfp(np.array([2.0, 3.0]))
    array([0., 6., 0., 0.])
    """
    halves = np.maximum(np.concatenate([x, -x], axis=-1), 0)
    return np.concatenate([halves * np.roll(halves, j, axis=-1) for j in range(1, nu + 1)], axis=-1)


def hedgehog(x: Array, W: npt.ArrayLike) -> Array:
    """Return ``softmax([2 W x, -2 W x])`` for learned matrices `W`, as in `project`; m = 2 d if they are square.

    >>> hedgehog(np.array([[0.0, 0.0]]), np.eye(2))
    array([[0.25, 0.25, 0.25, 0.25]])
    """
    doubled = 2 * project(x, W)
    return softmax(np.concatenate([doubled, -doubled], axis=-1))


def favor_exponents(x: Array, W: npt.ArrayLike, norm: bool = True) -> Array:
    """Return the logarithms of FAVOR+ features, ``w_j . x' - |x'|^2 / 2`` with ``x' = x d^-1/4``, as in `project`.

    Without `norm` the second term is left out; in the attention of a query it cancels.
    """
    x = x * max(x.shape[-1], 1) ** -0.25
    exponents = project(x, W)
    return exponents - (x * x).sum(axis=-1, keepdims=True) / 2 if norm else exponents


def project(x: Array, W: npt.ArrayLike) -> Array:
    """Return ``W x`` of every row: x (..., d) and W (m, d), or x (..., H, d) and a matrix for each head, W (H, m, d).

    >>> project(np.array([[1.0, 2.0]]), [[1, 0], [1, 1], [0, -1]])
    array([[ 1.,  3., -2.]])
    """
    W = np.asarray(W, x.dtype)
    if W.ndim == 3:
        return np.stack([project(x[..., h, :], matrix) for h, matrix in enumerate(W)], axis=-2)
    rows = np.ascontiguousarray(x).reshape(math.prod(x.shape[:-1]), x.shape[-1])
    y = np.empty((len(rows), len(W)), x.dtype)
    cpu.project.sized(y.size * x.shape[-1])(rows, np.ascontiguousarray(W.T), y)
    return y.reshape(*x.shape[:-1], len(W))


FEATURES: Mapping[str, Callable[[Array], Array]] = {
    "elu+1": elu_plus_one,
    "relu": relu,
    "relu^2": relu_squared,
    "softmax": softmax,
    "taylor": taylor,
    "dpfp": dpfp,
    "identity": identity,
}
"""Those that need no numbers of their own, by the names that `wkvnp.linear_attention` knows."""
