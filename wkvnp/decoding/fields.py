"""Kinds of steps: each is declared once, beside the compiled code that runs it, with named and typed fields.

A step is a row of int64. Compiled code reads a field by its position, as ``step[NORM.C]`` with ``NORM = norm.fields``,
which is a constant to the compiler. A declaration says with letters how many numbers each field refers to, so that
packing can refuse a field that is missing, unknown or of the wrong size.
"""

from __future__ import annotations

import math
import re
import zlib
from collections import namedtuple
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._dtypes import KINDS, dtype_name
from .._quantised import QUANTISED, Quantised
from .memory import Array, Memory, Operand, ProgramError, Storage, padded_rows

OPCODE, BLOCKS, ROW_BLOCKS, _HEADER = range(4)
"""Positions that every step has: its kind, its blocks, and its blocks for each row."""

Sizes = dict[str, int]


@dataclass(frozen=True)
class Field:
    """One argument of a step. `dims` are letters, or numbers, whose product is the count of its numbers."""

    dims: str = ""
    optional: bool = False

    width = 1
    """Numbers of int64."""

    def shape(self, value: Any) -> tuple[int, ...]:
        """Return the axes of a value; a row of an operand has one."""
        return tuple(np.shape(value))

    def pack(self, value: Any, memory: Memory) -> list[int]:
        """Return the numbers that stand for a value."""
        raise NotImplementedError

    def check(self, packed: list[int], sizes: Sizes, memory: Memory) -> str | None:
        """Return what is wrong with packed numbers, or None."""
        return None

    def count(self, sizes: Sizes) -> int:
        """Return how many numbers the field refers to."""
        return math.prod(_axis(token, sizes) for token in self.dims.split())


@dataclass(frozen=True)
class Rows(Field):
    """Numbers of every row: storage, base, offset in bytes, bytes from row to row."""

    written: bool = False
    kept: bool = False  # written, and read before that
    itemsize: int = 4

    width = 4

    def shape(self, value: Operand) -> tuple[int, ...]:
        """Return the numbers of a row."""
        return (value.size,)

    def pack(self, value: Operand | None, memory: Memory) -> list[int]:
        """Return the numbers of an operand, or zeros for none."""
        return [0] * 4 if value is None else memory.locate(value, self.itemsize)

    def check(self, packed: list[int], sizes: Sizes, memory: Memory) -> str | None:
        """Return why an operand does not lie in its storage, or None."""
        if packed[0] == Storage.NONE:
            return None if self.optional and not any(packed) else "is missing"
        return memory.fault(packed, self.itemsize * self.count(sizes))


@dataclass(frozen=True)
class Vector(Field):
    """A constant array of float32: its address, or 0."""

    def pack(self, value: Array | None, memory: Memory) -> list[int]:
        """Return the address."""
        return [0 if value is None else memory.vector(value)]

    def check(self, packed: list[int], sizes: Sizes, memory: Memory) -> str | None:
        """Return why there is no array of this size, or None."""
        if packed[0] == 0 and self.optional:
            return None
        return memory.fault_of_array(packed[0], 4 * self.count(sizes))


@dataclass(frozen=True)
class Matrix(Field):
    """A stored matrix (O, I): its address, kind of number, terms of a row with padding, address of scales or 0."""

    width = 4

    def shape(self, value: Array | Quantised) -> tuple[int, ...]:
        """Return outputs and inputs."""
        return (int(value.shape[0]), int(value.shape[1]))

    def pack(self, value: Array | Quantised | None, memory: Memory) -> list[int]:
        """Return the numbers of a matrix, or zeros for none."""
        if value is None:
            return [0] * 4
        if isinstance(value, Quantised):
            scales = memory.keep(value.block_scales)
            return [memory.keep(value.blocks), QUANTISED.index(value.dtype), value.shape[1], scales]
        stored = padded_rows(value)
        return [memory.keep(stored), KINDS[dtype_name(stored.dtype)], stored.shape[1], 0]

    def check(self, packed: list[int], sizes: Sizes, memory: Memory) -> str | None:
        """Return why there is no matrix of this size, or None."""
        address, kind, terms, scales = packed
        if address == 0 and self.optional:
            return None
        outputs, inputs = (_axis(token, sizes) for token in self.dims.split())
        if scales:
            return memory.fault_of_array(scales) or memory.fault_of_array(address)
        if kind not in KINDS.values():
            return f"has numbers of kind {kind}; there are {sorted(KINDS.values())}"
        if not inputs <= terms < inputs + 64:
            return f"must have {inputs} terms a row, and padding; has {terms}"
        return memory.fault_of_array(address, outputs * terms * (4 if kind == 0 else 2))


@dataclass(frozen=True)
class Table(Matrix):
    """A stored matrix of which only some rows are read."""


@dataclass(frozen=True)
class State(Field):
    """An array of a state: the slots that hold it before and after."""

    itemsize: int = 4

    width = 2

    def shape(self, value: tuple[Operand, Operand]) -> tuple[int, ...]:
        """Return the numbers of one sequence."""
        return (value[0].size,)

    def pack(self, value: tuple[Operand, Operand], memory: Memory) -> list[int]:
        """Return the numbers of the slots."""
        return [memory.locate(operand, self.itemsize)[1] for operand in value]

    def check(self, packed: list[int], sizes: Sizes, memory: Memory) -> str | None:
        """Return why the slots do not hold such a state, or None."""
        wanted = self.count(sizes)
        faults = (memory.fault_of_slot(slot, wanted) for slot in packed)
        return next((fault for fault in faults if fault), None)


@dataclass(frozen=True)
class Slot(Field):
    """An array of a call whose size is not fixed: its slot."""

    def shape(self, value: Operand) -> tuple[int, ...]:
        """Return no axes: the size is not fixed."""
        return ()

    def pack(self, value: Operand, memory: Memory) -> list[int]:
        """Return the number of the slot."""
        return [memory.locate(value, 4)[1]]

    def check(self, packed: list[int], sizes: Sizes, memory: Memory) -> str | None:
        """Return why there is no such slot, or None."""
        return memory.fault_of_slot(packed[0], 0)


@dataclass(frozen=True)
class Size(Field):
    """A whole number of at least 1, or 0 if it is optional; where `divides` names another, a divisor of it."""

    divides: str = ""

    def pack(self, value: int, memory: Memory) -> list[int]:
        """Return the number."""
        return [int(value)]

    def check(self, packed: list[int], sizes: Sizes, memory: Memory) -> str | None:
        """Return why this is no such number, or None."""
        if packed[0] < (0 if self.optional else 1):
            return f"must be at least 1; is {packed[0]}"
        if self.divides and sizes[self.divides] % packed[0]:
            return f"must divide {self.divides} = {sizes[self.divides]}; is {packed[0]}"
        return None


@dataclass(frozen=True)
class Choice(Field):
    """One of a few names, as its number."""

    names: tuple[str, ...] = ()

    def pack(self, value: str, memory: Memory) -> list[int]:
        """Return the number of a name."""
        if value not in self.names:
            raise ProgramError(f"must be one of {', '.join(self.names)}; got {value!r}")
        return [self.names.index(value)]

    def check(self, packed: list[int], sizes: Sizes, memory: Memory) -> str | None:
        """Return why this is no number of a name, or None."""
        return None if 0 <= packed[0] < len(self.names) else f"must be below {len(self.names)}; is {packed[0]}"


@dataclass(frozen=True)
class Number(Field):
    """A float32, kept beside the int64 at the same position."""

    def pack(self, value: float, memory: Memory) -> list[int]:
        """Return 0: the number is kept elsewhere."""
        return [0]


def _axis(token: str, sizes: Sizes) -> int:
    """Return the size that a letter, a number, or ``W-1`` means."""
    letter, _, less = token.partition("-")
    return (int(letter) if letter.isdigit() else sizes[letter]) - int(less or 0)


class Kind:
    """A kind of step.

    Parameters
    ----------
    name : str
    private : bool
        Whether every worker does the whole step for itself.
    **fields : Field
        In the order in which they are packed.

    Attributes
    ----------
    opcode : int
        The same in every process.
    fields : namedtuple of int
        The position of every field.
    width : int
        Numbers of int64 of a step.
    run : compiled function
        ``run(step, number, first, stop, rows, private, slots, scratch)`` does the blocks from `first` to `stop`.
    """

    known: dict[int, Kind] = {}  # noqa: RUF012
    """All kinds, by opcode."""

    run: Any

    def __init__(self, name: str, *, private: bool = False, **fields: Field) -> None:
        self.name, self.private, self.declared = name, private, fields
        self.opcode = zlib.crc32(name.encode())
        position, positions = _HEADER, []
        for field in fields.values():
            positions.append(position)
            position += field.width
        make: Callable[..., Any] = namedtuple
        self.fields: Any = make(re.sub(r"\W", "_", name), list(fields))(*positions)
        self.width = position
        letters = {t.partition("-")[0] for field in fields.values() for t in field.dims.split() if not t.isdigit()}
        assert all(type(fields.get(letter)) is Size for letter in letters), f"{name}: a letter has no Size field"
        assert self.opcode not in Kind.known, f"two kinds of steps are called {name}"
        Kind.known[self.opcode] = self

    def __repr__(self) -> str:
        return f"<step {self.name}>"

    def loop(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Take a compiled function as what runs such steps."""
        self.run = function
        return function

    def sizes(self, values: Mapping[str, Any]) -> Sizes:
        """Return the size of every letter, from the sizes given and from the arrays.

        Raises
        ------
        ProgramError
            If a field is missing, unknown, or of another size than the others say.
        """
        if odd := values.keys() - self.declared.keys():
            raise ProgramError(f"{self.name}: has no field {', '.join(sorted(odd))}; has {', '.join(self.declared)}")
        sizes = {
            name: int(values[name]) for name, field in self.declared.items() if type(field) is Size and name in values
        }
        present = {name: field for name, field in self.declared.items() if values.get(name) is not None and field.dims}
        for _ in range(2):  # a letter of a product of two may be known only after the second
            for name, field in present.items():
                self._infer(name, field.dims.split(), field.shape(values[name]), sizes)
        for name, field in self.declared.items():
            if type(field) is Size and field.optional:
                sizes.setdefault(name, 0)
            missing = name not in sizes if type(field) is Size else values.get(name) is None and not field.optional
            if missing:
                raise ProgramError(f"{self.name}: {name} is missing")
        for name, field in present.items():
            if (found := math.prod(field.shape(values[name]))) != (wanted := field.count(sizes)):
                raise ProgramError(f"{self.name}: {name} must have {field.dims} = {wanted} numbers; has {found}")
        return sizes

    def _infer(self, name: str, dims: list[str], shape: tuple[int, ...], sizes: Sizes) -> None:
        if len(dims) != len(shape):
            dims, shape, known = [t for t in dims if _unknown(t, sizes)], (math.prod(shape),), dims
            rest = math.prod(_axis(token, sizes) for token in known if not _unknown(token, sizes))
            if len(dims) != 1:
                return
            if rest == 0 or shape[0] % rest:
                raise ProgramError(f"{self.name}: {name} must have a multiple of {rest} numbers; has {shape[0]}")
            shape = (shape[0] // rest,)
        for token, size in zip(dims, shape, strict=True):
            letter, _, less = token.partition("-")
            if not letter.isdigit():
                sizes.setdefault(letter, size + int(less or 0))


def _unknown(token: str, sizes: Sizes) -> bool:
    letter = token.partition("-")[0]
    return not letter.isdigit() and letter not in sizes
