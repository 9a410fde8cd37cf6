"""Where the operands of a program stand, in rows that are whole vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .._dtypes import aligned
from .dots import LANES

Array = npt.NDArray[Any]


class Unsuitable(Exception):
    """A model has rows that are no whole vectors, or a layer that is no list of steps."""


@dataclass(frozen=True)
class Place:
    """Where rows of numbers stand: below 0 among a worker's own, below 4,096 in a slot of the call, else an address.

    Attributes
    ----------
    code : int
    size, step : int
        Numbers of a row, and bytes from one row to the next.
    """

    code: int
    size: int
    step: int

    def part(self, begin: int, size: int) -> Place:
        """Return some of the numbers of every row; a slot can only be used as a whole."""
        assert not 0 <= self.code < 4096
        return Place(self.code + (-4 if self.code < 0 else 4) * begin, size, self.step)


Pair = tuple[Place, Place]
"""A state before and after."""


def padded_rows(weight: Array) -> Array:
    """Return a matrix whose rows are whole vectors: itself, or a copy with zeros behind every row."""
    O, I = weight.shape
    if I % LANES == 0:
        return weight
    wide = np.zeros((O, padded(I)), weight.dtype)
    wide[:, :I] = weight
    return wide


def zeros(rows: int, wide: int) -> Array:
    """Return an array that begins on a cache line, so that no vector straddles two."""
    memory = aligned((rows, wide), np.float32)
    memory[:] = 0
    return memory


def padded(size: int) -> int:
    """Return the numbers of whole vectors for so many."""
    return -(-size // LANES) * LANES
