"""The memory of a program: which arrays its steps read and write, and how a step says where they are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from .._dtypes import aligned, compiled_view, widen
from .dots import LANES

Array = npt.NDArray[Any]


class Unsuitable(Exception):
    """A model cannot be decoded as a program; the message says why."""


class ProgramError(Exception):
    """A program was put together wrongly; the message names the step and the field."""


class Storage:
    """Kinds of memory that an operand can be in."""

    NONE, PRIVATE, SHARED, SLOT = range(4)


@dataclass(eq=False)
class Home:
    """Where rows of numbers are kept.

    Attributes
    ----------
    storage : int
        PRIVATE: memory of each worker, for one phase. SHARED: a buffer of the program. SLOT: an array of the call.
    name : str
    size : int
        Numbers of a row.
    base : int
        The address of a buffer, once the program is finished; the number of a slot; 0 for private memory.
    offset : int
        Bytes from the base to the first row.
    stride : int
        Bytes from row to row.
    first, written, read : int
        The first and the last phase that write a buffer, and the last that reads it; -1 for none.
    """

    storage: int
    name: str
    size: int
    base: int = 0
    offset: int = 0
    stride: int = 0
    first: int = -1
    written: int = -1
    read: int = -1


@dataclass(frozen=True)
class Operand:
    """Some of the numbers of every row of a home."""

    home: Home
    begin: int
    size: int
    label: str = field(default="", compare=False)

    def part(self, begin: int, size: int, label: str = "") -> Operand:
        """Return some of the numbers of every row, under a name of their own."""
        if not 0 <= begin <= begin + size <= self.size:
            raise ProgramError(
                f"{self.home.name}: has {self.size} numbers; {begin} to {begin + size} are not all there"
            )
        return Operand(self.home, self.begin + begin, size, label)

    @property
    def name(self) -> str:
        """Its own, or that of its home and which part of it."""
        if self.label or self.size == self.home.size:
            return self.label or self.home.name
        return f"{self.home.name}[{self.begin}:{self.begin + self.size}]"


Pair = tuple[Operand, Operand]
"""An array of a state before and after a token."""


class Memory:
    """Arrays that a program keeps, or that its calls give it.

    Parameters
    ----------
    rows : int
        The most rows that a call may have.
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.private_size = 0
        self.slots: list[Home | None] = [None]
        self.buffers: list[Home] = []
        self._kept: dict[int, dict[int, Array]] = {}  # by address and bytes
        self._located: set[tuple[int, ...]] = set()  # storage, base, offset, stride and bytes of every operand
        self._used = 0

    # Making operands.

    def private(self, name: str, size: int) -> Operand:
        """Return memory of each worker, for one phase."""
        if size % LANES:
            raise Unsuitable(f"{name} has {size} numbers; a whole number of vectors of {LANES} is needed")
        home = Home(Storage.PRIVATE, name, size, offset=4 * self._used, stride=4 * size)
        self._used += size * self.rows
        self.private_size = max(self.private_size, self._used)
        return Operand(home, 0, size)

    def begin_phase(self) -> None:
        """Let private memory be used again."""
        self._used = 0

    def buffer(self, name: str, size: int) -> Operand:
        """Return a buffer that all workers share; its memory is chosen when the program is finished."""
        home = Home(Storage.SHARED, name, size)
        self.buffers.append(home)
        return Operand(home, 0, size)

    def slot(self, name: str, size: int, itemsize: int = 4) -> Operand:
        """Return an array (rows, size) of the call."""
        home = Home(Storage.SLOT, name, size, base=len(self.slots), stride=itemsize * size)
        self.slots.append(home)
        return Operand(home, 0, size)

    def keep(self, array: Array) -> int:
        """Keep an array that does not change; return its address."""
        array = compiled_view(np.ascontiguousarray(array))
        address = int(array.ctypes.data)
        self._kept.setdefault(address, {})[array.nbytes] = array
        return address

    def vector(self, array: Array) -> int:
        """Keep an array as float32; return its address."""
        return self.keep(np.ascontiguousarray(widen(array), np.float32))

    # Finishing and checking.

    def allocate(self) -> None:
        """Give every buffer its memory; buffers of one size share it, where no phase uses both."""
        free: dict[int, list[tuple[int, int]]] = {}
        for home in sorted(self.buffers, key=lambda home: home.first):
            stride = 4 * padded(home.size)
            usable = free.setdefault(home.size, [])
            found = next((each for each in usable if each[0] < home.first), None)
            if found is None:
                # One row more: a part may be read to the end of its last vector.
                address = self.keep(zeros(self.rows + 1, padded(home.size)))
            else:
                usable.remove(found)
                address = found[1]
            usable.append((max(home.written, home.read), address))
            home.base, home.stride = address, stride

    def locate(self, operand: Operand, itemsize: int) -> list[int]:
        """Return storage, base, offset and bytes from row to row of an operand."""
        home = operand.home
        found = [home.storage, home.base, home.offset + itemsize * operand.begin, home.stride]
        self._located.add((*found, itemsize * operand.size))
        return found

    def fault(self, packed: list[int], row_bytes: int) -> str | None:
        """Return why no operand of this program has such rows in this place, or None."""
        if (*packed, row_bytes) in self._located:
            return None
        sizes = sorted(size for *place, size in self._located if place == packed)
        if sizes:
            return f"must have {row_bytes} bytes a row; has {', '.join(map(str, sizes))}"
        storage, base, offset, stride = packed
        return f"is where the program has no operand: storage {storage}, base {base}, offset {offset}, stride {stride}"

    def fault_of_array(self, address: int, nbytes: int | None = None) -> str | None:
        """Return why there is no array of a size at an address, or None."""
        sizes = self._kept.get(address)
        if sizes is None:
            return "is at an address where the program has no array"
        return None if nbytes is None or nbytes in sizes else f"must have {nbytes} bytes; has {max(sizes)}"

    def fault_of_slot(self, number: int, size: int) -> str | None:
        """Return why a slot does not hold `size` numbers a row, or None; size 0 is any."""
        home = self.slots[number] if 0 < number < len(self.slots) else None
        if home is None:
            return f"is in slot {number}; there are 1 to {len(self.slots) - 1}"
        return None if size in (0, home.size) else f"must have {size} numbers; {home.name} has {home.size}"


def padded_rows(weight: Array) -> Array:
    """Return a matrix whose rows are whole vectors: itself, or a copy with zeros behind every row."""
    O, I = weight.shape
    if I % LANES == 0:
        return weight
    wide = np.zeros((O, padded(I)), weight.dtype)
    wide[:, :I] = weight
    return wide


def zeros(rows: int, wide: int) -> Array:
    """Return an array that begins on a cache line, so that no vector crosses from one line to the next."""
    memory = aligned((rows, wide), np.float32)
    memory[:] = 0
    return memory


def padded(size: int) -> int:
    """Return the smallest whole number of vectors that holds `size` numbers, in numbers."""
    return -(-size // LANES) * LANES
