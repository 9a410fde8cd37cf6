"""Compiled products of many rows with stored matrices, which are widened a few rows at a time.

This is what both ways to do it are told: `matrix_tiles` where the processor has a matrix unit, else `vector_tiles`.

Letters: J products, M rows, I inputs, O outputs.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from ... import _matrix_unit
from ..._dtypes import KINDS, aligned, dtype_name
from ..._gemm import LANES
from ..._jit import threads
from ..._quantised import BLOCK_ROWS, GROUP, Quantised
from ..shift import Mixture
from . import matrix_tiles, vector_tiles
from .activation import ACTIVATIONS
from .product import Product
from .tiles import BITS, SPARE

Array = npt.NDArray[Any]

BLOCK = 512
"""Rows that are multiplied at once; the panels of a thousand inputs then stay in the second cache."""
LONGEST = 4_000_000_000
"""Multiply-adds of one launch at most, so that Ctrl-C waits 0.1 s."""


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


def _way() -> ModuleType:
    """Return the way to multiply on this processor."""
    return matrix_tiles if _matrix_unit.available() else vector_tiles


def multiply_rows(products: Sequence[Product], results: Sequence[Array]) -> None:
    """Compute products of the same number of float32 rows, each into an array (M, O) of its own.

    Products of products are computed in two launches; what is between them never leaves its panels.
    """
    rows, workers, kept, way = results[0].shape[0], threads(), list[Array](), _way()
    if rows == 0:
        return
    block = -(-rows // (-(-rows // BLOCK) * way.WIDTH)) * way.WIDTH
    inner = [product.x for product in products if isinstance(product.x, Product)]
    inputs = [product.x for product in (*inner, *products) if not isinstance(product.x, Product)]
    operands = [_operand(x, kept) for x in inputs]
    begins, size = dict[Any, int](), 0  # where the panels of an operand or of an inner product begin
    for key, length in [(o, o[-1]) for o in operands] + [(id(product), product.outputs) for product in inner]:
        if key not in begins:
            begins[key], size = size, size + block // way.WIDTH * way.panel_size(length)
    panels, mixed, *sums = _room.take(
        (size // 4,),
        (workers, way.packing_size(max(operand[-1] for operand in operands))),
        (workers, way.STORED),
        (workers, way.TILES * way.OUTPUTS, block + SPARE),
        (workers, way.WIDTH, way.TILES * way.OUTPUTS + SPARE),
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
        way.pack.sized(size // 4)(packing, count, mixed)
        for table in launches:
            way.multiply.sized(count * int(table[:, 1] @ table[:, 2]))(table, count, *sums)
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
    stored, scales = (weight.blocks, weight.block_scales) if isinstance(weight, Quantised) else (weight, None)
    stored = np.ascontiguousarray(stored)
    kept.append(stored)
    inputs, outputs = weight.shape if by_inputs else weight.shape[::-1]
    assert inputs == (product.x.outputs if isinstance(product.x, Product) else product.x.shape[1])
    kind, step = KINDS[dtype_name(weight.dtype)], max(1, LONGEST // max(1, block * inputs))
    if scales is not None:
        step = -(-step // BLOCK_ROWS) * BLOCK_ROWS
    as_panels = isinstance(y, int)
    to = [(y, 0)] if isinstance(y, int) else [_place(y, kept)]
    to += [_place(rows, kept) for rows in (product.gate, product.added)]
    for begin in range(0, outputs, outputs if as_panels else step):
        moved = begin if by_inputs else begin * inputs
        yield (
            panels, inputs, outputs if as_panels else min(step, outputs - begin),
            stored.ctypes.data + moved * BITS[kind] // 8,
            0 if scales is None else scales.ctypes.data + moved // GROUP * 2,
            kind, weight.shape[1], by_inputs, ACTIVATIONS.index(product.activation),
            *(n for address, step in to for n in (address + 4 * begin if address else 0, step)), as_panels,
        )  # fmt: skip
