# mypy: allow-untyped-defs
"""Products of many rows in vector registers, a stored number times a row of a panel.

Activations are in panels: `WIDTH` rows side by side. A worker widens some rows of a matrix, `TERMS` of their numbers
at a time, and leads them past all panels. A result is one chain of multiply-adds, whichever rows and matrices are
multiplied with it, and by however many threads.

Letters: J products, M rows, I inputs, P panels.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from ..._address import floats
from ..._gemm import LANES, OUTPUTS, VECTORS, WIDTH, tile, transpose
from ..._jit import inlined, kernel
from .tiles import SPARE, ask_for_more, finish, mix, multiplication, widen_row, write_rows

TERMS = 128
"""Terms of a panel that are added up in turn: the 16 KiB of a panel stay in the nearest cache."""
SPAN = 384
"""Terms that are widened at once, for all panels: they stay in the second cache."""
TILES = 16
"""Tiles of outputs that meet a panel while it is there."""
STORED = TILES * OUTPUTS * (SPAN + SPARE)
"""Numbers that a worker keeps of a matrix."""
_STEP = 4 * (SPAN + SPARE)
_multiply = tile(OUTPUTS, VECTORS, _STEP)


def panel_size(inputs: int) -> int:
    """Return the bytes of a panel."""
    return 4 * WIDTH * inputs


def packing_size(inputs: int) -> int:
    """Return the numbers that a worker keeps of the rows of a panel."""
    return WIDTH * inputs


@kernel
def pack(
    operands,  # IN  (J, 8) address and step of x, of what it is mixed with and of the shares; I; address of panels
    rows,  # IN  M
    scratch,  # scratch (workers, packing_size of the longest I)
):
    """Turn rows into panels (P, I, WIDTH), each moved towards what it is mixed with; the rest is zeros."""
    J, P, workers = len(operands), (rows + WIDTH - 1) // WIDTH, scratch.shape[0]
    for worker in prange(workers):
        mixed = scratch[worker].ctypes.data
        for item in range(J * P * worker // workers, J * P * (worker + 1) // workers):
            o, first = operands[item // P], item % P * WIDTH
            some, terms, x, step = min(WIDTH, rows - first), o[6], o[0] + first * o[1], o[1]
            if o[2]:
                mix(x, step, o[2] + first * o[3], o[3], o[4] + first * o[5], o[5], some, terms, mixed)
                x, step = mixed, 4 * terms
            panel = o[7] + 4 * first * terms
            transpose(x, step, some, terms, panel, 4 * WIDTH)
            if some < WIDTH:
                for i in range(terms):
                    rest = floats(panel + 4 * (i * WIDTH + some), WIDTH - some)
                    for r in range(rest.size):
                        rest[r] = np.float32(0)


@inlined
def _some_tiles(job, begin, some, rows, a, c, found, c_step, found_step):
    """Compute the outputs of some tiles of one product."""
    panels, I, outputs, stride = job[0], job[1], job[2], job[6]
    count, P = min(some * OUTPUTS, outputs - begin), (rows + WIDTH - 1) // WIDTH
    for k in range(0, I, SPAN):
        terms = min(SPAN, I - k)
        if job[7]:
            for i in range(0, terms, LANES):
                some_rows = min(LANES, terms - i)
                for r in range(some_rows):
                    row = floats(found + r * found_step, count)
                    widen_row(job[5], job[3], 0, k + i + r, stride, begin, row)
                transpose(found, found_step, some_rows, count, a + 4 * i, _STEP)
        else:
            for o in range(count):
                widen_row(job[5], job[3], job[4], begin + o, stride, k, floats(a + o * _STEP, terms))
        for p in range(P):
            ask_for_more(job, begin, count, k, SPAN, p, P)
            for i in range(0, terms, TERMS):
                b, many = panels + 4 * WIDTH * (p * I + k + i), min(TERMS, terms - i)
                for n in range(0, some * OUTPUTS, OUTPUTS):
                    _multiply(a + n * _STEP + 4 * i, b, many, c + n * c_step + 4 * WIDTH * p, c_step, k + i)
    for p in range(P):
        if job[15]:
            for o in range(count):
                row, to = floats(c + o * c_step + 4 * WIDTH * p, WIDTH), job[9] + 4 * WIDTH * (p * outputs + begin + o)
                finish(row, job[8], 0, 0, floats(to, WIDTH))
        else:
            some_rows = min(WIDTH, rows - p * WIDTH)
            write_rows(job, begin, count, p * WIDTH, some_rows, c + 4 * WIDTH * p, c_step, found, found_step)


multiply = multiplication(_some_tiles, OUTPUTS, TILES, "vectors")
"""Multiply panels with stored matrices."""
