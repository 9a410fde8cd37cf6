# mypy: allow-untyped-defs
"""Compiled products of many rows with stored matrices, which are widened a few rows at a time.

Activations stand in panels: `WIDTH` rows side by side, so that one stored number meets a row of a panel. A worker
widens some rows of a matrix, `TERMS` of their numbers at a time, and leads them past all panels. A result is one chain
of multiply-adds, whichever rows and matrices are multiplied with it, and by however many threads.

Letters: J products, M rows, I inputs, O outputs, P panels.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import prange

from ..._address import aligned, bfloats, bytes_of, floats, half_floats, prefetch, small_integers
from ..._dtypes import KINDS, dtype_name
from ..._gemm import LANES, OUTPUTS, VECTORS, WIDTH, tile, transpose
from ..._jit import inlined, kernel, threads
from ..._quantised import GROUP, Quantised
from ..._scalar import widen
from ..shift import Mixture
from .activation import ACTIVATIONS, activate
from .product import Product

Array = npt.NDArray[Any]

TERMS = 128
"""Terms of a panel that are added up in turn: the 16 KiB of a panel stay in the nearest cache."""
SPAN = 384
"""Terms that are widened at once, for all panels: they stay in the second cache."""
TILES = 16
"""Tiles of outputs that meet a panel while it is there."""
BLOCK = 512
"""Rows that are multiplied at once; the panels of a thousand inputs then stay in the second cache."""
LONGEST = 4_000_000_000
"""Multiply-adds of one launch at most, so that Ctrl-C waits 0.1 s."""
_SPARE = 16  # numbers between rows, so that they do not compete for the same lines of a cache
_BITS = (32, 16, 16, 8, 4)  # of the kinds of numbers
_STEP = 4 * (SPAN + _SPARE)
_multiply = tile(OUTPUTS, VECTORS, _STEP)


@inlined
def _widen_row(kind, weight, scales, row, stride, begin, y):
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
        groups = n // GROUP
        factors = bfloats(scales + 2 * (at // GROUP), groups)
        for g in range(groups):
            scale = widen(factors[g])
            if kind == 3:
                codes = small_integers(weight + at + GROUP * g, GROUP)
                for i in range(GROUP):
                    y[GROUP * g + i] = np.float32(codes[i]) * scale
            else:
                pairs = bytes_of(weight + (at + GROUP * g) // 2, GROUP // 2)
                for i in range(GROUP // 2):
                    both = np.int32(pairs[i])
                    y[GROUP * g + i] = np.float32((both & 15) - 8) * scale
                    y[GROUP * g + GROUP // 2 + i] = np.float32((both >> 4) - 8) * scale


@inlined
def _pack_panel(x, step, before, before_step, share, share_step, rows, terms, mixed, panel):
    """Turn up to WIDTH rows into a panel, each moved towards the one at `before` if there is one; the rest is zeros."""
    if before:
        for r in range(rows):
            now, then = floats(x + r * step, terms), floats(before + r * before_step, terms)
            mu, to = floats(share + r * share_step, terms), floats(mixed + 4 * r * terms, terms)
            for i in range(terms):
                to[i] = now[i] + (then[i] - now[i]) * mu[i]
        transpose(mixed, 4 * terms, rows, terms, panel, 4 * WIDTH)
    else:
        transpose(x, step, rows, terms, panel, 4 * WIDTH)
    if rows < WIDTH:
        for i in range(terms):
            rest = floats(panel + 4 * (i * WIDTH + rows), WIDTH - rows)
            for r in range(rest.size):
                rest[r] = np.float32(0)


@kernel
def pack(
    operands,  # IN  (J, 8) address and step of x, of what it is mixed with and of the shares; I; address of panels
    rows,  # IN  M
    scratch,  # scratch (workers, WIDTH, longest I)
):
    """Turn rows into panels (P, I, WIDTH)."""
    J, P, workers = len(operands), (rows + WIDTH - 1) // WIDTH, scratch.shape[0]
    for worker in prange(workers):
        mixed = scratch[worker].ctypes.data
        for item in range(J * P * worker // workers, J * P * (worker + 1) // workers):
            o, first = operands[item // P], item % P * WIDTH
            before = o[2] + first * o[3] if o[2] else 0
            x, share, to = o[0] + first * o[1], o[4] + first * o[5], o[7] + 4 * first * o[6]
            _pack_panel(x, o[1], before, o[3], share, o[5], min(WIDTH, rows - first), o[6], mixed, to)


@inlined
def _finish(result, activation, gate, added, y):
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
                    _widen_row(job[5], job[3], 0, k + i + r, stride, begin, row)
                transpose(found, found_step, some_rows, count, a + 4 * i, _STEP)
        else:
            for o in range(count):
                _widen_row(job[5], job[3], job[4], begin + o, stride, k, floats(a + o * _STEP, terms))
        # While these numbers are multiplied, the next ones come nearer: those on the right, or of the next tiles.
        ahead, above = (k + SPAN, begin) if k + SPAN < I else (0, begin + count)
        coming = 0 if job[7] else min(count, outputs - above)
        size = min(SPAN, I - ahead) * _BITS[job[5]] // 8
        for p in range(P):
            for o in range(coming * p // P, coming * (p + 1) // P):
                at = job[3] + ((above + o) * stride + ahead) * _BITS[job[5]] // 8
                for line in range(0, size, 64):
                    prefetch(at + line)
            for i in range(0, terms, TERMS):
                b, many = panels + 4 * WIDTH * (p * I + k + i), min(TERMS, terms - i)
                for n in range(0, some * OUTPUTS, OUTPUTS):
                    _multiply(a + n * _STEP + 4 * i, b, many, c + n * c_step + 4 * WIDTH * p, c_step, k + i)
    for p in range(P):
        if job[15]:
            for o in range(count):
                row, to = floats(c + o * c_step + 4 * WIDTH * p, WIDTH), job[9] + 4 * WIDTH * (p * outputs + begin + o)
                _finish(row, job[8], 0, 0, floats(to, WIDTH))
            continue
        transpose(c + 4 * WIDTH * p, c_step, count, WIDTH, found, found_step)
        for r in range(min(WIDTH, rows - p * WIDTH)):
            m = p * WIDTH + r
            gate = job[11] + m * job[12] + 4 * begin if job[11] else 0
            added = job[13] + m * job[14] + 4 * begin if job[13] else 0
            y = floats(job[9] + m * job[10] + 4 * begin, count)
            _finish(floats(found + r * found_step, count), job[8], gate, added, y)


@kernel
def multiply(
    jobs,  # IN  (J, 16) panels, I, O, matrix, its scales, kind, numbers from row to row, whether stored [in, out],
    #            activation; address and step of y, of a gate (or 0) and of what is added (or 0); whether y is panels
    rows,  # IN  M
    stored,  # scratch (workers, TILES * OUTPUTS, SPAN + spare)
    sums,  # scratch (workers, TILES * OUTPUTS, M or more + spare)
    results,  # scratch (workers, WIDTH, TILES * OUTPUTS + spare)
):
    """Multiply; every worker has a run of the tiles of all products, as much work as the others."""
    workers, work = stored.shape[0], 0
    for j in range(len(jobs)):
        work += (jobs[j, 2] + OUTPUTS - 1) // OUTPUTS * jobs[j, 1]
    for worker in prange(workers):
        a, c, found = stored[worker].ctypes.data, sums[worker].ctypes.data, results[worker].ctypes.data
        c_step, found_step = 4 * sums.shape[2], 4 * results.shape[2]
        low, high, before = work * worker // workers, work * (worker + 1) // workers, 0
        for j in range(len(jobs)):
            each, tiles = max(1, jobs[j, 1]), (jobs[j, 2] + OUTPUTS - 1) // OUTPUTS
            n = min(tiles, max(0, (low - before + each - 1) // each))
            stop = min(tiles, max(0, (high - before + each - 1) // each))
            while n < stop:
                some = min(TILES, stop - n)
                _some_tiles(jobs[j], n * OUTPUTS, some, rows, a, c, found, c_step, found_step)
                n += some
            before += tiles * each


class _Room(threading.local):
    """Memory for panels and sums, kept from product to product, because fresh memory costs more than filling it."""

    most = 1 << 24  # numbers that are kept

    def __init__(self) -> None:
        self._memory = aligned((0,), np.float32)

    def take(self, *shapes: tuple[int, ...]) -> list[Array]:
        """Return arrays that are ours until the next call."""
        sizes = [math.prod(shape) for shape in shapes]
        begins = [0, *itertools.accumulate(-(-size // LANES) * LANES for size in sizes)]
        memory = self._memory
        if memory.size < begins[-1]:
            memory = aligned((begins[-1],), np.float32)
            if memory.size <= self.most:
                self._memory = memory
        return [memory[n : n + m].reshape(shape) for n, m, shape in zip(begins, sizes, shapes, strict=False)]


_room = _Room()


def multiply_rows(products: Sequence[Product], results: Sequence[Array]) -> None:
    """Compute products of the same number of float32 rows, each into an array (M, O) of its own.

    Products of products are computed in two launches; what is between them never leaves its panels.
    """
    rows, workers, kept = results[0].shape[0], threads(), list[Array]()
    if rows == 0:
        return
    block = -(-rows // (-(-rows // BLOCK) * WIDTH)) * WIDTH
    inner = [product.x for product in products if isinstance(product.x, Product)]
    inputs = [product.x for product in (*inner, *products) if not isinstance(product.x, Product)]
    operands = [_operand(x, kept) for x in inputs]
    begins, size = dict[Any, int](), 0  # where the panels of an operand or of an inner product begin
    for key, length in [(o, o[-1]) for o in operands] + [(id(product), product.outputs) for product in inner]:
        if key not in begins:
            begins[key], size = size, size + 4 * block * length
    panels, mixed, *sums = _room.take(
        (size // 4,),
        (workers, WIDTH, max(operand[-1] for operand in operands)),
        (workers, TILES * OUTPUTS, SPAN + _SPARE),
        (workers, TILES * OUTPUTS, block + _SPARE),
        (workers, WIDTH, TILES * OUTPUTS + _SPARE),
    )
    first = panels.ctypes.data
    packing = np.array([(*operand, first + begins[operand]) for operand in dict.fromkeys(operands)])
    of = {id(x): first + begins[operand] for x, operand in zip(inputs, operands, strict=True)}
    of |= {id(product): first + begins[id(product)] for product in inner}
    launches = list[Array]()
    stages: list[list[tuple[Product, Array | int]]] = [[(product, of[id(product)]) for product in inner]]
    stages.append(list(zip(products, results, strict=True)))
    for stage in stages:
        jobs = [job for product, y in stage for job in _jobs(product, y, of[id(product.x)], block, kept)]
        launches += [np.array(some) for some in _short_enough(jobs, block)]
    for begin in range(0, rows, block):
        count = min(block, rows - begin)
        pack.sized(size // 4)(packing, count, mixed)
        for table in launches:
            multiply.sized(count * int(table[:, 1] @ table[:, 2]))(table, count, *sums)
            table[:, 9:15:2] += block * table[:, 10:15:2]
        packing[:, :6:2] += block * packing[:, 1:6:2]


def _short_enough(jobs: Sequence[tuple[int, ...]], rows: int) -> Iterator[list[tuple[int, ...]]]:
    """Cut jobs into launches that leave Ctrl-C time."""
    launch, work = list[tuple[int, ...]](), 0
    for job in jobs:
        more = rows * job[1] * job[2]
        if launch and work + more > LONGEST:
            yield launch
            launch, work = [], 0
        launch.append(job)
        work += more
    if launch:
        yield launch


def _operand(x: Array | Mixture, kept: list[Array]) -> tuple[int, ...]:
    """Return what `pack` is told of some rows, but for their panels."""
    if isinstance(x, Mixture):
        return *_place(x.x, kept), *_place(x.previous, kept), *_place(x.share, kept), x.x.shape[1]
    return *_place(x, kept), 0, 0, 0, 0, x.shape[1]


def _place(x: Array | None, kept: list[Array]) -> tuple[int, int]:
    """Return the address of some rows and the bytes from one to the next, 0 for a single one that is that of all."""
    if x is None:
        return 0, 0
    if x.strides[1] != x.itemsize:
        x = np.ascontiguousarray(x)
        kept.append(x)
    return x.ctypes.data, x.strides[0] if len(x) > 1 else 0


def _jobs(product: Product, y: Array | int, panels: int, block: int, kept: list[Array]) -> Iterator[tuple[int, ...]]:
    """Yield what `multiply` is told of a product: one job, or some where it would take too long.

    The result is an array, or panels at an address.
    """
    weight, by_inputs = product.weight, product.by_inputs
    stored, scales = (weight.codes, weight.scales) if isinstance(weight, Quantised) else (weight, None)
    stored = np.ascontiguousarray(stored)
    kept.append(stored)
    inputs, outputs = weight.shape if by_inputs else weight.shape[::-1]
    assert inputs == (product.x.outputs if isinstance(product.x, Product) else product.x.shape[1])
    kind, step = KINDS[dtype_name(weight.dtype)], max(1, LONGEST // max(1, block * inputs))
    as_panels = isinstance(y, int)
    to = [(y, 0)] if isinstance(y, int) else [_place(y, kept)]
    to += [_place(rows, kept) for rows in (product.gate, product.added)]
    for begin in range(0, outputs, outputs if as_panels else step):
        moved = begin if by_inputs else begin * inputs
        yield (
            panels, inputs, outputs if as_panels else min(step, outputs - begin),
            stored.ctypes.data + moved * _BITS[kind] // 8,
            0 if scales is None else scales.ctypes.data + moved // GROUP * 2,
            kind, weight.shape[1], by_inputs, ACTIVATIONS.index(product.activation),
            *(n for address, step in to for n in (address + 4 * begin if address else 0, step)), as_panels,
        )  # fmt: skip
