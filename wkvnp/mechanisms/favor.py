"""The random features of FAVOR+ by themselves: their directions, their values, and how far off they are.

Choromanski et al. 2021, "Rethinking Attention with Performers" (arXiv:2009.14794), lemmas 1 and 2 and section 2.3.
Letters: K key width, M features.
"""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from .._arguments import generator_of
from .._shapes import as_floats, compute_dtype, contiguous
from ..errors import ArgumentError, ShapeError
from ..primitives.feature_maps import favor_exponents

__all__ = ["favor_features", "favor_matrix", "favor_relative_std"]
Array = npt.NDArray[Any]
Kind = Literal["orthogonal", "iid", "hyperbolic", "regularised"]


def favor_matrix(
    m: int, d: int, rng: np.random.Generator | int, *, kind: Kind = "orthogonal", dtype: npt.DTypeLike = np.float64
) -> Array:
    """Draw the directions of FAVOR+ features: M rows of the standard normal distribution in K dimensions.

    Parameters
    ----------
    m, d : int
        Number of features M and width of keys K.
    rng : numpy.random.Generator or int
        Where randomness comes from; a number is a seed.
    kind : {"orthogonal", "iid", "hyperbolic", "regularised"}
        How rows depend on each other. "orthogonal": every K of them are at right angles, each with a length of its own,
        which lowers the variance. "iid": not at all. "hyperbolic": orthogonal ones and their negatives; m must be even.
        "regularised": orthogonal, all of length sqrt(d): lower variance yet, but estimates are too small on average.
    dtype : dtype, default float64
        That of the queries and keys it is for.

    Returns
    -------
    W : ndarray, shape (M, K)

    Raises
    ------
    ArgumentError
        If an argument does not fit.

    Notes
    -----
    The Q of a QR decomposition of a normal matrix is uniform only when the diagonal of R is made positive. The
    published implementations leave the signs as LAPACK happens to return them, which makes their estimates wrong on
    average.

    References
    ----------
    Choromanski et al. 2021, section 2.3; Mezzadri 2007, "How to generate random matrices from the classical compact
    groups" (arXiv:math-ph/0609050), section 5, for the signs.

    Examples
    --------
    >>> W = favor_matrix(4, 2, 0)
    >>> W.shape, bool(abs(W[0] @ W[1]) < 1e-12)
    ((4, 2), True)
    """
    if kind not in get_args(Kind):
        raise ArgumentError(f"favor_matrix: kind must be one of {', '.join(map(repr, get_args(Kind)))}; got {kind!r}")
    if m < 1 or d < 1 or (kind == "hyperbolic" and m % 2):
        raise ArgumentError(f"favor_matrix: m and d must be positive, and m even if hyperbolic; got m={m}, d={d}")
    rng = generator_of("favor_matrix", rng, optional=False)
    if kind == "iid":
        return rng.standard_normal((m, d)).astype(dtype)
    rows = m // 2 if kind == "hyperbolic" else m
    q, r = np.linalg.qr(rng.standard_normal((-(-rows // d), d, d)))
    q = q * np.where(np.diagonal(r, axis1=1, axis2=2) < 0, -1, 1)[:, None, :]
    W = np.swapaxes(q, 1, 2).reshape(-1, d)[:rows]
    W = W * (math.sqrt(d) if kind == "regularised" else np.sqrt(rng.chisquare(d, (rows, 1))))
    return (np.concatenate([W, -W]) if kind == "hyperbolic" else W).astype(dtype)


def favor_features(x: npt.ArrayLike, W: npt.ArrayLike) -> Array:
    """Return the positive random features of queries or keys.

    ``phi(x)_j = M^-1/2 exp(w_j . x' - |x'|^2 / 2)`` with ``x' = x K^-1/4``; over random `W` the mean of
    ``phi(q) . phi(k)`` is ``exp(q . k / sqrt(K))`` exactly.

    Parameters
    ----------
    x : array_like, shape (..., K)
        Queries or keys, not scaled.
    W : array_like, shape (M, K)
        Directions, from `favor_matrix`.

    Returns
    -------
    phi : ndarray, shape (..., M)
        float32, or float64 if `x` and `W` are. Not scaled, so large `x` may overflow; `performer` does not.

    Examples
    --------
    >>> x, y = favor_features([[0.5], [1.0]], [[1.0], [-1.0]])
    >>> print(round(float(x @ y), 6))
    1.259154
    """
    given = {"x": as_floats("favor_features", "x", x), "W": as_floats("favor_features", "W", W)}
    dtype = compute_dtype("favor_features", given)
    wide, directions = (contiguous(array, dtype) for array in given.values())
    if directions.ndim != 2 or wide.shape[-1:] != directions.shape[1:]:
        wanted = f"(..., K) and (M, K); got {wide.shape} and {directions.shape}"
        raise ShapeError(f"favor_features: x and W must have shape {wanted}")
    return np.asarray(np.exp(favor_exponents(wide, directions)) * max(len(directions), 1) ** -0.5)


def favor_relative_std(q: npt.ArrayLike, k: npt.ArrayLike, m: int) -> Array:
    """Return how far an estimate with `m` independent features is off.

    ``sqrt((exp(|q' + k'|^2) - 1) / m)`` with ``x' = x K^-1/4``: its standard deviation over ``exp(q . k / sqrt(K))``.

    Parameters
    ----------
    q, k : array_like, shape (..., K)
        Query and key, not scaled; their other axes must broadcast.
    m : int
        Number of features.

    Returns
    -------
    std : ndarray, shape (...)
        float64. Infinite where it is over 1e154.

    Examples
    --------
    Of 64 numbers with unit variance, an estimate is off by 27 times itself; of a quarter of the size, by 7 %:

    >>> import numpy as np
    >>> q, k = np.random.default_rng(0).standard_normal((2, 64))
    >>> for size in (1, 0.25):
    ...     print(f"{float(favor_relative_std(size * q, size * k, 256)):.2g}")
    27
    0.066
    """
    q, k = (
        contiguous(as_floats("favor_relative_std", name, x), np.dtype(np.float64)) for name, x in (("q", q), ("k", k))
    )
    total = (q + k) * max(q.shape[-1], 1) ** -0.25
    with np.errstate(over="ignore"):
        return np.asarray(np.sqrt(np.expm1((total * total).sum(axis=-1)) / m))
