"""A program: all that a model does with one token of every sequence, in one launch.

Decoding does about ten small things in every layer, and starting threads for each would cost more than doing it. A
program is a list of phases. In each, every worker first does the private steps for itself, then the workers share the
blocks of the other steps, and they wait for one another only between phases.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .._dtypes import dtype_name
from .._jit import threads
from .._quantised import Quantised
from . import run
from .fields import BLOCKS, OPCODE, ROW_BLOCKS, Kind, Matrix, Number, Rows, Size
from .memory import Array, Home, Memory, Operand, ProgramError, Storage, padded, zeros

_LAUNCH_BYTES = 1 << 30
"""Weights that one launch reads, so that Ctrl-C waits 0.1 s at most."""


@dataclass(eq=False)
class Step:
    """One step, as it was added."""

    kind: Kind
    name: str
    blocks: int
    row_blocks: int
    values: dict[str, Any]
    sizes: dict[str, int]

    @property
    def nbytes(self) -> int:
        """Bytes of the matrices that the step reads whole."""
        matrices = (self.values.get(name) for name, field in self.kind.declared.items() if type(field) is Matrix)
        return sum(matrix.nbytes for matrix in matrices if matrix is not None)

    def __str__(self) -> str:
        fields = []
        for name, value in self.values.items():
            if isinstance(value, Operand):
                fields.append(f"{name}={value.name}")
            elif isinstance(value, np.ndarray | Quantised):
                shape = " x ".join(map(str, value.shape))
                fields.append(f"{name}: {shape} {dtype_name(value.dtype)}")
            elif isinstance(value, tuple):
                fields.append(f"{name}={value[0].name}")
            elif value is not None and not isinstance(self.kind.declared[name], Size):
                fields.append(f"{name}={value}")
        return f"{self.kind.name} {self.name}: {', '.join(fields)}"


@dataclass(eq=False)
class Phase:
    """Steps between which nobody waits: first those that are private."""

    private: list[Step] = field(default_factory=list)
    shared: list[Step] = field(default_factory=list)

    @property
    def nbytes(self) -> int:
        """Bytes of the matrices that the phase reads."""
        return sum(step.nbytes for step in self.shared)


class Program:
    """Steps in phases, and the memory that they work on.

    Parameters
    ----------
    rows : int
        The most tokens, one a sequence, that a call may have.

    Attributes
    ----------
    memory : Memory
    phases : list of Phase
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.memory = Memory(rows)
        self.phases: list[Phase] = []
        self._scratch, self._workers = 0, 0
        self._lock = threading.Lock()

    def after(self, read: set[Home], written: set[Home]) -> int:
        """Begin a phase, if a step that reads and writes these homes cannot be in the last one; return its number."""
        now = len(self.phases) - 1
        if now < 0 or any(home.written == now for home in read) or any(home.read == now for home in written):
            self.phases.append(Phase())
            self.memory.begin_phase()
            now += 1
        return now

    def add(
        self,
        kind: Kind,
        name: str = "",
        *,
        blocks: int = 0,
        row_blocks: int = 0,
        scratch: int = 0,
        phase: int = -1,
        **values: Any,
    ) -> None:
        """Add a step to the last phase, or to the one of a number.

        Parameters
        ----------
        kind : Kind
        name : str
            What its result is called.
        blocks, row_blocks : int
            Into how many blocks the workers divide it, in all and for each row.
        scratch : int
            Numbers of float32 that a block needs as scratch memory.
        **values
            For every field that is not optional.

        Raises
        ------
        ProgramError
            If a field is missing, unknown or of the wrong size, or a step would read what its own phase writes.
        """
        sizes = kind.sizes(values)
        number = phase % len(self.phases)
        step = Step(kind, name, blocks, row_blocks, values, sizes)
        for label, declared in kind.declared.items():
            value = values.get(label)
            if not isinstance(value, Operand) or value.home.storage != Storage.SHARED:
                continue
            home, writes = value.home, isinstance(declared, Rows) and declared.written
            if not writes and home.written == number:
                raise ProgramError(f"{kind.name}: {label} is {home.name}, which the same phase writes")
            if writes:
                home.first = number if home.first < 0 else home.first
                home.written = max(home.written, number)
            else:
                home.read = max(home.read, number)
        if kind.private:
            self.phases[number].private.append(step)
        else:
            if blocks < 1 and row_blocks < 1:
                raise ProgramError(f"{kind.name}: blocks must be at least 1")
            self.phases[number].shared.append(step)
        self._scratch = max(self._scratch, scratch)

    def finish(self) -> None:
        """Choose memory, make the arrays that compiled code reads, and check them; nothing can be added after this."""
        self.memory.allocate()
        steps = [step for phase in self.phases for step in (*phase.private, *phase.shared)]
        width = max(step.kind.width for step in steps)
        self.packed = np.zeros((len(steps), width), np.int64)
        self.numbers = np.zeros((len(steps), width), np.float32)
        for packed, numbers, step in zip(self.packed, self.numbers, steps, strict=True):
            packed[[OPCODE, BLOCKS, ROW_BLOCKS]] = step.kind.opcode, step.blocks, step.row_blocks
            for name, declared in step.kind.declared.items():
                at = getattr(step.kind.fields, name)
                value = step.sizes[name] if isinstance(declared, Size) else step.values.get(name)
                if isinstance(declared, Number):
                    numbers[at] = value
                else:
                    packed[at : at + declared.width] = declared.pack(value, self.memory)
        self.table = np.zeros((len(self.phases), 5), np.int64)
        begin = 0
        for row, phase in zip(self.table, self.phases, strict=True):
            shared, end = begin + len(phase.private), begin + len(phase.private) + len(phase.shared)
            blocks = sum(step.blocks for step in phase.shared), sum(step.row_blocks for step in phase.shared)
            row[:] = begin, shared, end, *blocks
            begin = end
        self.check()
        self._run = run.runner({step.kind for step in steps})
        self._terms = sum(step.sizes["O"] * step.sizes["I"] for step in steps if "units" in step.kind.declared)
        self._launches = self._cut()

    def check(self) -> None:
        """Check every field of the packed steps against the memory that it refers to.

        Raises
        ------
        ProgramError
            Names the step and the field.
        """
        for number, packed in enumerate(self.packed.tolist()):
            kind = Kind.known.get(packed[OPCODE])
            if kind is None:
                raise ProgramError(f"step {number}: has no known kind, but {packed[OPCODE]}")
            sizes = {
                name: packed[getattr(kind.fields, name)] for name, f in kind.declared.items() if isinstance(f, Size)
            }
            for name, declared in kind.declared.items():
                at = getattr(kind.fields, name)
                fault = declared.check(packed[at : at + declared.width], sizes, self.memory)
                if fault:
                    raise ProgramError(f"step {number} ({kind.name}): {name} {fault}")
        if (self.table[:, 0] > self.table[:, 1]).any() or (self.table[:, 1] > self.table[:, 2]).any():
            raise ProgramError("phases: steps must be in the order of their phases")
        for row in self.table:
            counted = self.packed[row[1] : row[2], BLOCKS : ROW_BLOCKS + 1].sum(axis=0)
            if (counted != row[3:]).any() or (counted < 0).any():
                raise ProgramError(f"phases: the steps have {counted} blocks; their phase says {row[3:]}")

    def _cut(self) -> list[tuple[int, int]]:
        """Return the phases of each launch."""
        launches, begin, total = [], 0, 0
        for number, phase in enumerate(self.phases):
            if total + phase.nbytes > _LAUNCH_BYTES and number > begin:
                launches.append((begin, number))
                begin, total = number, 0
            total += phase.nbytes
        return [*launches, (begin, len(self.phases))]

    def __str__(self) -> str:
        """Phases and steps, with names, sizes and the bytes of matrices that each phase reads."""
        lines = []
        for number, phase in enumerate(self.phases):
            lines.append(f"phase {number}: {phase.nbytes:,} bytes of matrices")
            lines += [f"  each worker: {step}" for step in phase.private]
            lines += [f"  {step}" for step in phase.shared]
        return "\n".join(lines)

    def run(self, rows: int, slots: Array) -> None:
        """Run all phases on a number of rows; `slots` holds the addresses of the slots, from number 1 on."""
        with self._lock:
            self._make_scratch(threads())
            self._counters[:] = 0
            launch = self._run.sized(self._terms)
            for first, stop in self._launches:
                launch(
                    self.packed, self.numbers, self.table, first, stop, rows, slots, self._counters, self._private,
                    self._scratch_memory,
                )  # fmt: skip

    def _make_scratch(self, workers: int) -> None:
        if self._workers != workers:
            self._workers = workers
            self._counters = np.zeros((len(self.phases), workers + 1, run.COUNTERS), np.int64)
            sizes = (self.memory.private_size, self._scratch)
            self._private, self._scratch_memory = (zeros(workers, padded(size)) for size in sizes)
