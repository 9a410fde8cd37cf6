"""Steps as they are recorded: values that are not computed yet, and the phases that they need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from ..decoding import Operand, Pair, Program
from ..decoding.fields import Kind
from ..decoding.memory import Home, Storage
from ..decoding.rows import COPY

Array = npt.NDArray[Any]


@dataclass(eq=False)
class Private:
    """A private step that is added to each phase in which its result is read.

    With `kept`, later phases read a copy that the first one makes.
    """

    reads: list[Any]
    add: Callable[..., Operand]
    kept: bool = False
    phase: int = -1
    result: Operand | None = None
    copied: Operand | None = None


@dataclass(frozen=True)
class Part:
    """Some of the numbers of every row of a value."""

    of: Any
    begin: int
    size: int
    label: str = ""


@dataclass(frozen=True)
class Factored:
    """A low-rank product whose second factor is multiplied where it is read."""

    low: Operand
    up: Array


class Recorder:
    """Adds steps to a program, in the phases that follow from who reads what.

    Parameters
    ----------
    program : Program
    cells : dict of str to pair of Operand
        The arrays of the layer's state before and after, by their dotted names.
    prefix : str
        Before the names of all values.
    """

    scope = ""

    def __init__(self, program: Program, cells: dict[str, Pair], prefix: str = "") -> None:
        self.program, self.cells, self.prefix = program, cells, prefix

    def label(self, name: str) -> str:
        """Return the full name of a value."""
        return f"{self.prefix}{self.scope}{'.' if self.scope else ''}{name}"

    def buffer(self, name: str, size: int) -> Operand:
        """Return rows that all workers share."""
        return self.program.memory.buffer(self.label(name), size)

    def private(self, name: str, size: int) -> Operand:
        """Return rows that every worker has for itself, in one phase."""
        return self.program.memory.private(self.label(name), size)

    def add_step(self, kind: Kind, name: str, **values: Any) -> None:
        """Add a shared step, to the last phase in which its inputs are ready, with the private steps before it."""
        written: set[Home] = set()
        read: set[Home] = set()
        for label, value in values.items():
            declared = kind.declared.get(label)
            if isinstance(value, Operand) and getattr(declared, "written", False):
                written.add(value.home)
                if values.get("mode", "store") != "store":
                    read.add(value.home)
            elif isinstance(value, (Operand, Part)):
                read |= self._homes(value)
        self.program.after(read, written)
        found: dict[str, Any] = {
            label: self._operand(value) if isinstance(value, Part) else value for label, value in values.items()
        }
        self.program.add(kind, self.label(name), **found)

    def _homes(self, value: Any) -> set[Home]:
        """Return the buffers that a value needs in a new phase."""
        while isinstance(value, Part):
            value = value.of
        if isinstance(value, Operand):
            return {value.home} if value.home.storage == Storage.SHARED else set()
        if value.kept and value.result is not None:
            return set()
        return set().union(*(self._homes(each) for each in value.reads))

    def _operand(self, value: Any) -> Operand:
        """Return where a value is in the last phase; add the private steps that make it, if they are not there."""
        if isinstance(value, Operand):
            return value
        if isinstance(value, Part):
            return self._operand(value.of).part(value.begin, value.size, value.label)
        return self._made(value)

    def _made(self, value: Private) -> Operand:
        """Return the result of a private step in the last phase."""
        now = len(self.program.phases) - 1
        if value.result is not None and value.phase == now:
            return value.result
        if value.result is not None and value.kept:
            if value.copied is None:
                value.copied = self.program.memory.buffer(value.result.name, value.result.size)
                self.program.add(COPY, value.result.name, x=value.result, y=value.copied, blocks=1, phase=value.phase)
            return value.copied
        inputs = [self._operand(each) for each in value.reads]
        value.result, value.phase = value.add(*inputs), now
        return value.result
