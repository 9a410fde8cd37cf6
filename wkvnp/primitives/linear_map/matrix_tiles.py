# mypy: allow-untyped-defs
"""Products of many rows in the matrix unit of the processor, as those of the parts of their numbers.

As in `vector_tiles`, activations are in panels of `WIDTH` rows, here three parts of each number, and a worker leads
some rows of a matrix past all panels: one part of a bfloat16 number, three of float32, two of what has less than 17
bits. A result is the same chain of sums, whichever rows and matrices are multiplied with it, and by however many
threads.

Letters: J products, M rows, I inputs, P panels.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from ..._address import bfloats, floats
from ..._gemm import LANES, transpose, transpose_block
from ..._jit import inlined, kernel
from ..._matrix_unit import (
    PARTS,
    TERMS,
    TILE,
    begin_tiles,
    end_tiles,
    multiply_parts,
    write_paired_parts,
    write_parts,
)
from .tiles import ask_for_more, finish, mix, multiplication, widen_row, write_rows

OUTPUTS = WIDTH = 2 * LANES
RUN = 4
"""Tiles along the terms that are added up in turn: the 24 KiB of a panel stay in the nearest cache."""
SPAN = 256
"""Terms whose parts are written at once, for all panels: they stay in the second cache."""
TILES = 8
"""Times `OUTPUTS` that meet a panel while it is there."""
_COLUMN = 2 * TILE * PARTS  # bytes of a panel for `TERMS` terms
_ROOM = 4 * max(SPAN, TILES * OUTPUTS * TERMS)  # bytes before the parts, for numbers that are widened
STORED = (_ROOM + TILES * OUTPUTS * SPAN * 2 * PARTS) // 4
"""Numbers that a worker keeps of a matrix."""
_PARTS_OF = (3, 1, 2, 2, 2)  # the kinds of numbers
_begin_tiles = begin_tiles()
_one, _two, _three = (multiply_parts(parts) for parts in (1, 2, 3))
_write_one, _write_two, _write_three = (write_parts(parts) for parts in (1, 2, 3))


def panel_size(inputs: int) -> int:
    """Return the bytes of a panel."""
    return _COLUMN * -(-inputs // TERMS)


def packing_size(inputs: int) -> int:
    """Return the numbers that a worker keeps of the rows of a panel."""
    return WIDTH * inputs + PARTS * TILE // 4 + TERMS


@inlined
def _tail(x, terms, to):
    """Copy fewer than `TERMS` numbers, and zeros after them."""
    numbers, tail = floats(x, terms), floats(to, TERMS)
    for i in range(TERMS):
        tail[i] = numbers[i] if i < terms else np.float32(0)


@kernel
def pack(
    operands,  # IN  (J, 8) address and step of x, of what it is mixed with and of the shares; I; address of panels
    rows,  # IN  M
    scratch,  # scratch (workers, packing_size of the longest I)
):
    """Turn rows, moved towards what they are mixed with, into panels of tiles (P, I / TERMS, PARTS, 2)."""
    J, P, workers = len(operands), (rows + WIDTH - 1) // WIDTH, scratch.shape[0]
    for worker in prange(workers):
        words = scratch[worker].ctypes.data
        rest, mixed = words + PARTS * TILE, words + PARTS * TILE + 4 * TERMS
        for item in range(J * P * worker // workers, J * P * (worker + 1) // workers):
            o, first = operands[item // P], item % P * WIDTH
            some, terms, x, step = min(WIDTH, rows - first), o[6], o[0] + first * o[1], o[1]
            if o[2]:
                mix(x, step, o[2] + first * o[3], o[3], o[4] + first * o[5], o[5], some, terms, mixed)
                x, step = mixed, 4 * terms
            panel = o[7] + item % P * _COLUMN * ((terms + TERMS - 1) // TERMS)
            for half in range(2):
                begin = min(some, half * LANES)
                here = min(LANES, some - begin)
                if here < LANES:
                    nothing = floats(words, PARTS * TILE // 4)
                    for i in range(nothing.size):
                        nothing[i] = np.float32(0)
                for i in range(0, terms, TERMS):
                    for r in range(here):
                        at = x + (begin + r) * step + 4 * i
                        if i + TERMS > terms:
                            _tail(at, terms - i, rest)
                            at = rest
                        _write_three(at, words + 64 * r, TILE)
                    for part in range(PARTS):
                        to = panel + i // TERMS * _COLUMN + (2 * part + half) * TILE
                        transpose_block(words + part * TILE, 64, to, 64)


@inlined
def _write(parts, x, to):
    """Write the parts of some numbers into a row of their tiles."""
    if parts == 3:
        _write_three(x, to, 2 * TILE)
    elif parts == 2:
        _write_two(x, to, 2 * TILE)
    else:
        _write_one(x, to, 2 * TILE)


@inlined
def _place(a, o, column, columns, parts):
    """Return where the parts of the numbers of an output are: for every 32 outputs and 32 terms, two tiles of each."""
    return a + ((o // OUTPUTS * columns + column) * parts * 2 + o // LANES % 2) * TILE + o % LANES * 64


@inlined
def _store(job, begin, count, k, terms, room, a, found, found_step):
    """Write the parts of some numbers of a matrix into tiles."""
    kind, stride = job[5], job[6]
    parts, columns = _PARTS_OF[kind], (terms + TERMS - 1) // TERMS
    if job[7]:
        for i in range(0, terms, TERMS):
            wide = floats(room, TERMS * count)
            for n in range(wide.size):
                wide[n] = np.float32(0)
            for half in range(0, min(TERMS, terms - i), LANES):
                rows = min(LANES, terms - i - half)
                for r in range(rows):
                    widen_row(kind, job[3], 0, k + i + half + r, stride, begin, floats(found + r * found_step, count))
                transpose(found, found_step, rows, count, room + 4 * half, 4 * TERMS)
            for o in range(count):
                to = _place(a, o, i // TERMS, columns, parts)
                _write(parts, room + 4 * TERMS * o, to)
        return
    for o in range(count):
        at = (begin + o) * stride + k
        x = job[3] + 4 * at
        if kind > 1 or terms % TERMS != 0:
            wide = floats(room, terms)
            widen_row(kind, job[3], job[4], begin + o, stride, k, wide)
            if terms % TERMS != 0:
                _tail(room + 4 * (columns - 1) * TERMS, terms % TERMS, room + 4 * (columns - 1) * TERMS)
            x = room
        for i in range(columns):
            to = _place(a, o, i, columns, parts)
            if kind == 1 and x != room:
                numbers, row = bfloats(job[3] + 2 * (at + TERMS * i), TERMS), bfloats(to, TERMS)
                for n in range(TERMS):
                    row[n] = numbers[n]
            else:
                _write(parts, x + 4 * TERMS * i, to)


@inlined
def _write_panels(job, begin, count, p, c, c_step):
    """Finish results, and write them as the panels of another product."""
    columns = (job[2] + TERMS - 1) // TERMS
    for o in range(count):
        row = floats(c + o * c_step, WIDTH)
        finish(row, job[8], 0, 0, row)
    for o in range(count, (count + TERMS - 1) // TERMS * TERMS):
        row = floats(c + o * c_step, WIDTH)
        for r in range(WIDTH):
            row[r] = np.float32(0)
    for o in range(0, (count + TERMS - 1) // TERMS * TERMS, 2):
        to = job[9] + (p * columns + (begin + o) // TERMS) * _COLUMN + o % TERMS // 2 * 64
        x = c + o * c_step
        for half in range(2):
            write_paired_parts(x + 64 * half, x + c_step + 64 * half, to + half * TILE, 2 * TILE)


@inlined
def _some_tiles(job, begin, some, rows, a, c, found, c_step, found_step):
    """Compute the outputs of some tiles of one product."""
    panels, I, parts = job[0], job[1], _PARTS_OF[job[5]]
    count, P = min(some * OUTPUTS, job[2] - begin), (rows + WIDTH - 1) // WIDTH
    room, a, length = a, a + _ROOM, _COLUMN * ((I + TERMS - 1) // TERMS)
    _begin_tiles()
    for k in range(0, I, SPAN):
        terms = min(SPAN, I - k)
        columns = (terms + TERMS - 1) // TERMS
        _store(job, begin, count, k, terms, room, a, found, found_step)
        for p in range(P):
            ask_for_more(job, begin, count, k, SPAN, p, P)
            for i in range(0, columns, RUN):
                b, many = panels + p * length + (k // TERMS + i) * _COLUMN, min(RUN, columns - i)
                for n in range(some):
                    first = a + (n * columns + i) * parts * 2 * TILE
                    to = c + n * OUTPUTS * c_step + 4 * WIDTH * p
                    if parts == 3:
                        _three(first, b, many, to, c_step, k + i)
                    elif parts == 2:
                        _two(first, b, many, to, c_step, k + i)
                    else:
                        _one(first, b, many, to, c_step, k + i)
    end_tiles()
    for p in range(P):
        if job[15]:
            _write_panels(job, begin, count, p, c + 4 * WIDTH * p, c_step)
        else:
            some_rows = min(WIDTH, rows - p * WIDTH)
            write_rows(job, begin, count, p * WIDTH, some_rows, c + 4 * WIDTH * p, c_step, found, found_step)


multiply = multiplication(_some_tiles, OUTPUTS, TILES, "matrix unit")
"""Multiply panels with stored matrices."""
