"""Long arrays of a file's metadata, such as a vocabulary: an element is made when it is asked for."""

from __future__ import annotations

from abc import abstractmethod
from array import array
from collections.abc import Sequence
from typing import Any, overload

import numpy.typing as npt

from ..errors import CheckpointError
from .mapped_file import Buffer


class LongArray(Sequence[Any]):
    """A sequence of str, int, float or bool that still lies in the file; slices of it are tuples."""

    @abstractmethod
    def _element(self, index: int) -> Any: ...

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Any, ...]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return tuple(self._element(number) for number in range(*index.indices(len(self))))
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} of an array of {len(self)}")
        return self._element(index % len(self))

    def __repr__(self) -> str:
        return f"<{len(self)} elements: {', '.join(map(repr, self[:3]))}, ...>"


class LongNumbers(LongArray):
    """A long array of numbers or truth values.

    >>> import numpy as np
    >>> LongNumbers(np.arange(5000))[4999]
    4999
    """

    def __init__(self, numbers: npt.NDArray[Any]) -> None:
        self._numbers = numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def _element(self, index: int) -> Any:
        return self._numbers[index].item()


class LongTexts(LongArray):
    """A long array of strings; each is eight bytes of length and that many bytes of UTF-8.

    Parameters
    ----------
    buffer : bytes-like
    starts : array of int
        Where in the buffer each string begins.
    source : str
        What to call the array in an error.
    """

    def __init__(self, buffer: Buffer, starts: array[int], source: str) -> None:
        self._buffer = buffer
        self._starts = starts
        self._source = source

    def __len__(self) -> int:
        return len(self._starts)

    def _element(self, index: int) -> str:
        start = self._starts[index] + 8
        length = int.from_bytes(self._buffer[start - 8 : start], "little")
        try:
            return bytes(self._buffer[start : start + length]).decode()
        except UnicodeDecodeError as error:
            raise CheckpointError(f"{self._source}: element {index} is not valid UTF-8") from error
