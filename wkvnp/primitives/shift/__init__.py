"""Token shift: every token meets the one before it, and the last one is carried to the next call.

Letters: M tokens of N packed sequences, C channels, J mixtures.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from . import cpu

Array = npt.NDArray[Any]


def shift(x: Array, carried: Array, offsets: Array) -> tuple[Array, Array]:
    """Return the previous token of every token, and what to carry.

    Parameters
    ----------
    x : ndarray (M, C)
    carried : ndarray (N, C)
        The token before each sequence; not changed.
    offsets : ndarray of int64 (N + 1,)

    Returns
    -------
    previous : ndarray (M, C)
    carried : ndarray (N, C)
        The last token of each sequence; of an empty one what was carried into it.

    Examples
    --------
    >>> x = np.array([[1.0], [2.0], [3.0]])
    >>> previous, carried = shift(x, np.array([[0.0], [9.0]]), np.array([0, 2, 3]))
    >>> previous.ravel(), carried.ravel()
    (array([0., 1., 9.]), array([2., 3.]))
    """
    starts, stops = offsets[:-1], offsets[1:]
    if len(x) == len(carried) and (len(x) == 1 or (stops - starts == 1).all()):  # one token each, as in decoding
        return carried.astype(x.dtype), x.copy()
    previous, last = np.empty_like(x), carried.astype(x.dtype)
    previous[1:] = x[:-1]
    filled = stops > starts
    previous[starts[filled]] = last[filled]
    last[filled] = x[stops[filled] - 1]
    return previous, last


def mix(x: Array, previous: Array, share: Array) -> Array:
    """Return ``x + (previous - x) * share`` for each of J shares.

    Parameters
    ----------
    x, previous : ndarray (M, C)
    share : ndarray (J, M, C) or (J, 1, C)
        How much of the previous token: 0 keeps the current one.

    Returns
    -------
    ndarray (J, M, C)

    Examples
    --------
    >>> mix(np.array([[1.0]]), np.array([[5.0]]), np.array([[[0.25]], [[1.0]]])).ravel()
    array([2., 5.])
    """
    y = np.empty((share.shape[0], *x.shape), x.dtype)
    cpu.mix.sized(4 * y.size)(np.ascontiguousarray(x), previous, np.ascontiguousarray(share), y)
    return y


class Mixture(NamedTuple):
    """``x + (previous - x) * share``, which is computed where it is needed.

    Attributes
    ----------
    x, previous : ndarray (M, C)
    share : ndarray (M, C) or (1, C)
    """

    x: Array
    previous: Array
    share: Array

    @property
    def shape(self) -> tuple[int, ...]:
        """(M, C)."""
        return self.x.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """That of x."""
        return self.x.dtype

    def computed(self) -> Array:
        """Return it as an array."""
        y: Array = mix(self.x, self.previous, self.share[None])[0]
        return y


def mixtures(x: Array, previous: Array, share: Array) -> list[Mixture]:
    """Return the J mixtures of `mix`, not yet computed."""
    return [Mixture(x, previous, part) for part in share]
