"""A program: all that a model does with one token of every sequence, in one launch.

Decoding does a hundred small things a layer stack long, and starting threads for each would cost more than doing it.
A program is a list of phases: in each the workers first prepare what all of them need, each for itself, then share
blocks of the rest, and they wait for one another only between phases.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np

from .._dtypes import KINDS, compiled_view, dtype_name, widen
from .._jit import threads
from .._quantised import BESIDE, Quantised
from ..primitives.linear_map.activation import ACTIVATIONS
from . import opcodes, run
from .dots import LANES
from .integer_dots import INTEGERS, bytes_of_activations
from .integer_tiles import room as room_for_tiles
from .many_dots import room as room_for_dots
from .places import Array, Pair, Place, Unsuitable, padded, padded_rows, zeros
from .product import ADD, ADD_GATED, CHUNK, STORE

_FIELDS = 40
_BLOCK_BYTES = 1 << 16
_LAUNCH_BYTES = 1 << 30
"""Weights of one launch, so that Ctrl-C waits 0.1 s at most."""


class Program:
    """Steps, in the order in which they were added, and the arrays that they work on.

    Parameters
    ----------
    rows : int
        The most tokens, one a sequence, that a call may have.

    Attributes
    ----------
    slots : int
        The number of the next slot.
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self._steps: list[list[int]] = []
        self._numbers: list[float] = []
        self._phases: list[list[int]] = []
        self._bytes: list[int] = []
        self._kept: list[Array] = []
        self._own, self._used, self.slots, self._terms = 0, 0, 1, 0
        self._scratch = 4 * CHUNK * rows + room_for_dots(rows)
        self._shared: dict[tuple[str, int], Place] = {}
        self._quantised: dict[tuple[Place, str], Place] = {}
        self._workers = 0
        self._lock = threading.Lock()

    # Where things stand.

    def own(self, size: int) -> Place:
        """Return a place that every worker has for itself; what is in it is lost at the end of the phase."""
        return self.owns(1, size)[0]

    def owns(self, count: int, size: int) -> list[Place]:
        """Return several places of one size."""
        if size % LANES:
            raise Unsuitable
        begin = self._used
        self._used += count * size * self.rows
        self._own = max(self._own, self._used)
        return [Place(-1 - 4 * (begin + j * size * self.rows), size, 4 * size) for j in range(count)]

    def shared(self, name: str, size: int) -> Place:
        """Return a place that all workers share, one of a name and size; what stands behind a row's numbers is 0."""
        if (name, size) not in self._shared:
            wide = padded(size)
            self._shared[name, size] = Place(self.constant(zeros(self.rows, wide)), size, 4 * wide)
        return self._shared[name, size]

    def slot(self, size: int) -> Place:
        """Return a place in an array (M, size) that every call gives."""
        self.slots += 1
        return Place(self.slots - 1, size, 4 * size)

    def constant(self, array: Array) -> int:
        """Return the address of an array that does not change, and keep it."""
        array = compiled_view(np.ascontiguousarray(array))
        self._kept.append(array)
        return int(array.ctypes.data)

    def vector(self, array: Array) -> int:
        """Return the address of numbers as float32."""
        return self.constant(np.ascontiguousarray(widen(array), np.float32))

    # What is done.

    def phase(self) -> None:
        """Begin the next phase: all that was added before is finished before anything that is added now."""
        self._phases.append([len(self._steps)] * 3 + [0, 0])
        self._bytes.append(0)
        self._used = 0
        self._quantised.clear()

    def add(
        self,
        opcode: int,
        blocks: int,
        fields: Sequence[int],
        number: float = 0,
        *,
        each_row: bool = False,
        own: bool = False,
        scratch: int = 0,
    ) -> None:
        """Add a step of so many blocks, in all or for each row, or one that every worker does for itself.

        `scratch` counts the numbers that a block needs room for.
        """
        phase = self._phases[-1]
        at = phase[1] if own else phase[2]  # what every worker prepares stands before what they share
        self._steps.insert(at, [opcode, -blocks if each_row else blocks, *fields])
        self._numbers.insert(at, number)
        self._scratch = max(self._scratch, scratch)
        phase[2] += 1
        if own:
            phase[1] += 1
        else:
            phase[4 if each_row else 3] += blocks

    def embed(self, tokens: Place, table: Array, norm: tuple[Array, Array, float] | None, x: Place) -> None:
        """Set x to the rows of a table (V, C) that tokens (M,), int64, name; then to their layer norm."""
        scale, shift, eps = 0, 0, 0.0
        if norm is not None:
            scale, shift, eps = self.vector(norm[0]), self.vector(norm[1]), norm[2]
        fields = [
            tokens.code,
            KINDS[dtype_name(table.dtype)],
            self.constant(table),
            x.code,
            x.step,
            x.size,
            scale,
            shift,
        ]
        self.add(opcodes.EMBED, 1, fields, number=eps)

    def norm(
        self, x: Place, weight: Array, bias: Array | None, eps: float, *, groups: int = 1, y: Place | None = None
    ) -> Place:
        """Normalise every group of a row; without a bias the mean stays. Return where the result stands."""
        y = self.own(x.size) if y is None else y
        weights = self.vector(weight), 0 if bias is None else self.vector(bias)
        self.add(opcodes.NORM, 1, [x.code, x.step, y.code, y.step, *weights, x.size, x.size // groups], eps, own=True)
        return y

    def mix(self, z: Place, previous: Place, share: Array, moved: Sequence[Place] = ()) -> list[Place]:
        """Move z towards the previous token, by every row of share (J, C) and what is added to it; return J places."""
        J, C = share.shape
        y = self.owns(J, C)
        more = [moved[0].code, moved[0].step, _apart(moved)] if moved else [0, 0, 0]
        fields = [z.code, z.step, previous.code, self.vector(share), *more, y[0].code, y[0].step, _apart(y), J, C]
        self.add(opcodes.MIX, 1, fields, own=True)
        return y

    def copy(self, x: Place, y: Place) -> None:
        """Copy rows."""
        self.add(opcodes.COPY, 1, [x.code, x.step, y.code, y.step, x.size])

    def gate(self, x: Place, gate: Place) -> Place:
        """Return x silu(gate)."""
        y = self.own(x.size)
        fields = [x.code, x.step, gate.code, gate.step, y.code, y.step, x.size]
        self.add(opcodes.GATE, 1, fields, own=True)
        return y

    def convolve(self, x: Place, window: Place, weight: Array, bias: Array | None) -> Place:
        """Return silu(bias + the sum of weight (W, C) times the tokens in the window (M, W - 1, C) and x)."""
        (W, C), y = weight.shape, self.own(x.size)
        constants = self.vector(weight), self.vector(np.zeros(C, np.float32) if bias is None else bias)
        self.add(opcodes.CONVOLVE, 1, [x.code, x.step, window.code, *constants, y.code, y.step, W, C], own=True)
        return y

    def push(self, x: Place, window: Pair) -> None:
        """Move the tokens of a window (M, W - 1, C) on by one: the oldest falls out, x comes in."""
        self.add(opcodes.PUSH, 1, [x.code, x.step, window[0].code, window[1].code, window[0].size // x.size, x.size])

    def product(
        self,
        x: Place,
        weight: Array | Quantised,
        y: Place,
        *,
        activation: str = "linear",
        bias: Array | None = None,
        add: bool = False,
        gate: Place | None = None,
    ) -> None:
        """Set y to f(x W^T + bias) for W (O, I), or add that to it, or `gate` times it."""
        if isinstance(weight, Quantised):
            x, kind, opcode = self._quantise(x, weight.dtype), INTEGERS[weight.dtype], opcodes.INTEGER_PRODUCT
            stored, scales, unit, I = weight.blocks, self.constant(weight.block_scales), BESIDE, weight.shape[1]
        else:
            stored, scales, unit, opcode = padded_rows(weight), 0, 1, opcodes.PRODUCT
            kind, I = KINDS[dtype_name(stored.dtype)], stored.shape[1]
        O, units = weight.shape[0], -(-weight.shape[0] // unit)
        each, quarter = max(1, _BLOCK_BYTES // (4 * (stored.nbytes // units))), O // (4 * unit)
        mode = ADD_GATED if gate is not None else ADD if add else STORE
        gated = [0, 0] if gate is None else [gate.code, gate.step]
        fields = [
            kind, self.constant(stored), x.code, x.step, I, O, each, y.code, y.step,
            0 if bias is None else self.vector(bias), ACTIVATIONS.index(activation), mode, *gated, scales,
        ]  # fmt: skip
        self._bytes[-1] += weight.nbytes
        self._terms += weight.size
        room = 4 * CHUNK * self.rows + room_for_tiles(I) if opcode == opcodes.INTEGER_PRODUCT else 0
        self.add(opcode, max(1, -(-quarter // each)), fields, scratch=room)

    def _quantise(self, x: Place, dtype: str) -> Place:
        """Return where activations stand as codes and scales, for weights of a dtype; they are made once a phase."""
        if (x, dtype) not in self._quantised:
            size = bytes_of_activations(x.size) // 4
            y = self._quantised[x, dtype] = self.own(padded(size))
            fields = [x.code, x.step, y.code, y.step, x.size, INTEGERS[dtype]]
            self.add(opcodes.QUANTISE, 1, fields, own=True)
        return self._quantised[x, dtype]

    # How it runs.

    def finish(self) -> None:
        """Make the arrays that compiled code reads; nothing can be added after this."""
        steps = np.zeros((len(self._steps), _FIELDS), np.int64)
        for i, step in enumerate(self._steps):
            steps[i, : len(step)] = step
        numbers = np.array(self._numbers, np.float32)[:, None]
        self._ready = (steps, numbers, np.array(self._phases, np.int64))
        self._run = run.runner({step[0] for step in self._steps})
        self._launches, begin, total = [], 0, 0
        for p, size in enumerate(self._bytes):
            if total + size > _LAUNCH_BYTES and p > begin:
                self._launches.append((begin, p))
                begin, total = p, 0
            total += size
        self._launches.append((begin, len(self._bytes)))

    def run(self, rows: int, slots: Array) -> None:
        """Run all phases on so many rows; `slots` holds the addresses of the slots, from number 1 on."""
        with self._lock:
            self._make_room(threads())
            self._counters[:] = 0
            launch = self._run.sized(self._terms)
            for first, stop in self._launches:
                launch(*self._ready, first, stop, rows, slots, self._counters, self._places, self._room)

    def _make_room(self, workers: int) -> None:
        if self._workers != workers:
            self._workers = workers
            self._counters = np.zeros((len(self._bytes), workers + 1, run.COUNTERS), np.int64)
            self._places, self._room = (zeros(workers, padded(numbers)) for numbers in (self._own, self._scratch))


def _apart(places: Sequence[Place]) -> int:
    """Return the bytes from one of several places to the next."""
    return abs(places[1].code - places[0].code) if len(places) > 1 else 0
