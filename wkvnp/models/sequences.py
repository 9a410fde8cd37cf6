"""Tokens as they come <-> packed tokens: one sequence, a batch, or a list of sequences of unequal length.

Letters: M packed tokens of B sequences, T time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ArgumentError, ShapeError

Array = npt.NDArray[Any]
Tokens = npt.ArrayLike | Sequence[npt.ArrayLike]

CHUNK = 1024
"""Tokens that go through the layers at once: enough for fast products, little enough for the cache and for Ctrl-C."""


_ONE = np.arange(2)
"""Offsets of one sequence of one token."""


@dataclass(frozen=True)
class Restore:
    """How packed rows go back into the shape that the tokens had."""

    shape: tuple[int, ...] | None  # None: unequal sequences
    offsets: Array

    @property
    def single(self) -> bool:
        """Whether the tokens were one sequence without a batch axis."""
        return self.shape is not None and len(self.shape) == 1

    def __call__(self, rows: Array) -> Array | list[Array]:
        """Return rows (M, ...) as one sequence, as a batch, or as a list of sequences."""
        if self.shape is not None:
            return rows.reshape(*self.shape, rows.shape[-1])
        return np.split(rows, self.offsets[1:-1])


def pack(tokens: Tokens, vocab_size: int) -> tuple[Array, Array, Restore]:
    """Lay the sequences behind each other: packed tokens (M,), offsets (B + 1,), and the way back."""
    if type(tokens) is list and len(tokens) == 1 and type(tokens[0]) is int and 0 <= tokens[0] < vocab_size:
        return np.array(tokens), _ONE, Restore((1,), _ONE)  # as below, without what only longer texts need
    if isinstance(tokens, (list, tuple)) and len(tokens) and not isinstance(tokens[0], (int, np.integer)):
        sequences = [_check(part, vocab_size) for part in tokens]
        if any(part.ndim != 1 for part in sequences):
            raise ShapeError("model: tokens must be one sequence, or a list of sequences; got a mixture")
        equal = len({part.size for part in sequences}) == 1
        offsets = np.cumsum([0] + [part.size for part in sequences])
        shape = (len(sequences), sequences[0].size) if equal else None
        return np.concatenate(sequences), offsets, Restore(shape, offsets)
    array = _check(tokens, vocab_size)
    if array.ndim not in (1, 2):
        raise ShapeError(f"model: tokens must have shape (T,) or (B, T), or be a list of sequences; got {array.shape}")
    batch, time = (1, array.size) if array.ndim == 1 else array.shape
    offsets = np.arange(batch + 1) * time
    return array.reshape(-1), offsets, Restore(array.shape, offsets)


def _check(tokens: Any, vocab_size: int) -> Array:
    try:
        array = np.asarray(tokens)
    except ValueError as error:
        raise ShapeError(f"model: tokens must be one sequence, or a list of sequences; {error}") from None
    if array.size == 0:
        array = array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise ArgumentError(f"model: tokens must be whole numbers; got {array.dtype}")
    if array.size and (array.min() < 0 or array.max() >= vocab_size):
        wrong = array[(array < 0) | (array >= vocab_size)][0]
        raise ArgumentError(f"model: tokens must be in [0, {vocab_size}), the vocabulary of the model; got {wrong}")
    return array.astype(np.int64, copy=False)


def windows(offsets: Array) -> list[tuple[Any, Array]]:
    """Cut packed sequences into pieces of about CHUNK tokens: which rows, and their offsets within the piece."""
    starts, stops = offsets[:-1], offsets[1:]
    longest = int((stops - starts).max(initial=0))
    if offsets[-1] <= CHUNK:
        return [(slice(None), offsets)] if longest else []
    step = max(1, CHUNK // (offsets.size - 1))
    pieces = []
    for begin in range(0, longest, step):
        first, last = np.minimum(starts + begin, stops), np.minimum(starts + begin + step, stops)
        rows = np.concatenate([np.arange(a, b) for a, b in zip(first, last, strict=True)])
        pieces.append((rows, np.concatenate([[0], np.cumsum(last - first)])))
    return pieces
