# mypy: allow-untyped-defs
"""What both ways to multiply many rows have in common: reading stored numbers, sharing the work, writing results."""

from __future__ import annotations

from typing import Any

from numba import prange

from ..._address import bfloats, floats, half_floats, prefetch
from ..._gemm import transpose
from ..._jit import Kernel, inlined, kernel
from ..._quantised import BLOCK_ROWS, GROUP
from ..._scalar import widen
from .activation import activate
from .codes import widen_int4, widen_int8

BITS = (32, 16, 16, 8, 4)
"""Bits of the kinds of numbers."""
SPARE = 16
"""Numbers between rows, so that they do not compete for the same lines of a cache."""


@inlined
def widen_row(kind, weight, scales, row, stride, begin, y):
    """Set y to numbers of a stored row from `begin` on."""
    n, at = y.size, row * stride + begin
    if kind == 0:
        numbers = floats(weight + 4 * at, n)
        for i in range(n):
            y[i] = numbers[i]
    elif kind == 1:
        bits = bfloats(weight + 2 * at, n)
        for i in range(n):
            y[i] = widen(bits[i])
    elif kind == 2:
        halves = half_floats(weight + 2 * at, n)
        for i in range(n):
            y[i] = widen(halves[i])
    else:
        first, lane, to = row // BLOCK_ROWS * (stride // GROUP) + begin // GROUP, row % BLOCK_ROWS, y.ctypes.data
        factors = bfloats(scales + 2 * BLOCK_ROWS * first, n // GROUP * BLOCK_ROWS)
        for g in range(n // GROUP):
            scale = widen(factors[BLOCK_ROWS * g + lane])
            if kind == 3:
                widen_int8(weight + 4 * (8 * BLOCK_ROWS * (first + g) + lane), scale, to + 4 * GROUP * g)
            else:
                widen_int4(weight + 4 * (4 * BLOCK_ROWS * (first + g) + lane), scale, to + 4 * GROUP * g)


@inlined
def mix(x, step, before, before_step, share, share_step, rows, terms, mixed):
    """Move rows towards those at `before`."""
    for r in range(rows):
        now, then = floats(x + r * step, terms), floats(before + r * before_step, terms)
        mu, to = floats(share + r * share_step, terms), floats(mixed + 4 * r * terms, terms)
        for i in range(terms):
            to[i] = now[i] + (then[i] - now[i]) * mu[i]


@inlined
def ask_for_more(job, begin, count, k, span, part, parts):
    """Ask for a part of the stored numbers that come after these: those on the right, or of the next tiles."""
    I, outputs, kind, stride = job[1], job[2], job[5], job[6]
    ahead, above = (k + span, begin) if k + span < I else (0, begin + count)
    coming = 0 if job[7] else min(count, outputs - above)
    size, beside = min(span, I - ahead) * BITS[kind] // 8, BLOCK_ROWS if kind > 2 else 1
    for o in range(coming * part // parts, coming * (part + 1) // parts):
        row, lane = (above + o) // beside * beside, (above + o) % beside
        at = job[3] + (row * stride + ahead * beside) * BITS[kind] // 8 + lane * size
        for line in range(0, size, 64):
            prefetch(at + line)


@inlined
def finish(result, activation, gate, added, y):
    """Activate, multiply, add and write some results; gate and added are addresses, 0 for none."""
    n = result.size
    activate(result, activation)
    if gate:
        factor = floats(gate, n)
        for o in range(n):
            result[o] *= factor[o]
    if added:
        old = floats(added, n)
        for o in range(n):
            y[o] = old[o] + result[o]
    else:
        for o in range(n):
            y[o] = result[o]


@inlined
def write_rows(job, begin, count, row, rows, c, c_step, found, found_step):
    """Turn `count` results of some rows, each a column at `c`, back on their side, finish and write them."""
    transpose(c, c_step, count, rows, found, found_step)
    for r in range(rows):
        m = row + r
        gate = job[11] + m * job[12] + 4 * begin if job[11] else 0
        added = job[13] + m * job[14] + 4 * begin if job[13] else 0
        y = floats(job[9] + m * job[10] + 4 * begin, count)
        finish(floats(found + r * found_step, count), job[8], gate, added, y)


def multiplication(some_tiles: Any, outputs: int, most: int, name: str) -> Kernel:
    """Return the kernel of one way: `some_tiles` does at most `tiles` tiles of `outputs` outputs."""

    def multiply(
        jobs,  # IN  (J, 16) panels, I, O, matrix, its scales, kind, numbers from row to row, whether stored [in, out],
        #            activation; address and step of y, of a gate (or 0), of what is added (or 0); whether y is panels
        rows,  # IN  M
        stored,  # scratch (workers, what the way needs)
        sums,  # scratch (workers, outputs of the most tiles, M or more + spare)
        results,  # scratch (workers, a panel's rows, outputs of the most tiles + spare)
    ):
        """Multiply; every worker has a run of the tiles of all products, as much work as the others."""
        workers, work = stored.shape[0], 0
        for j in range(len(jobs)):
            work += (jobs[j, 2] + outputs - 1) // outputs * jobs[j, 1]
        for worker in prange(workers):
            a, c, found = stored[worker].ctypes.data, sums[worker].ctypes.data, results[worker].ctypes.data
            c_step, found_step = 4 * sums.shape[2], 4 * results.shape[2]
            low, high, before = work * worker // workers, work * (worker + 1) // workers, 0
            for j in range(len(jobs)):
                each, tiles = max(1, jobs[j, 1]), (jobs[j, 2] + outputs - 1) // outputs
                n = min(tiles, max(0, (low - before + each - 1) // each))
                stop = min(tiles, max(0, (high - before + each - 1) // each))
                while n < stop:
                    some = min(most, stop - n)
                    some_tiles(jobs[j], n * outputs, some, rows, a, c, found, c_step, found_step)
                    n += some
                before += tiles * each

    return kernel(multiply, name=name)
