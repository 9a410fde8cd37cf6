# mypy: allow-untyped-defs
"""The inner loops of a product of large matrices: a tile of the result in registers, and blocks turned on their side.

Every number of a tile is one chain of fused multiply-adds in the order of the summed index, which no option of the
compiler may change: it has the same bits at every place of a product. All operands are addresses.
"""

from __future__ import annotations

import functools
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ._address import floats
from ._jit import inlined
from ._processor import has

LANES = 16
"""Numbers of a vector."""
# Rows of the one matrix and vectors of the other: 28 sums, 2 vectors and a number in all lanes fill 32 registers of
# 64 bytes; where a vector is two registers of 32 bytes, and there are 16 of them, 6 sums and what they need do.
OUTPUTS, VECTORS = (14, 2) if has("avx512f") else (6, 1)
WIDTH = LANES * VECTORS
"""Numbers of a row of a tile."""
_I32, _I64, _F32 = ir.IntType(32), ir.IntType(64), ir.FloatType()
_VECTOR = ir.VectorType(_F32, LANES)


def _load(builder: Any, address: Any, kind: Any) -> Any:
    return builder.load(builder.inttoptr(address, kind.as_pointer()), align=4)


def _store(builder: Any, what: Any, address: Any) -> None:
    builder.store(what, builder.inttoptr(address, what.type.as_pointer()), align=4)


def _steps(builder: Any, begin: Any, step: Any, count: int) -> list[Any]:
    return [builder.add(begin, builder.mul(step, _I64(n))) for n in range(count)]


@functools.cache
def tile(outputs: int, vectors: int, a_step: int) -> Any:
    """Return the intrinsic that sets ``c[o] = c[o] + sum_k a[o, k] b[k]`` for rows b[k] and c[o] of some vectors.

    Rows of `a` are `a_step` bytes apart: a number that the compiler knows, so that finding them costs no instruction.
    It is called with the address of `a`, the address of `b`, whose rows follow one another, the number of terms, the
    address of `c` and the bytes from row to row, and 0 if c is to begin as zeros.
    """

    @intrinsic
    def multiply(typing, a, b, terms, c, c_step, keep):
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            a, b, terms, c, c_step, keep = arguments
            signature = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
            fma = cgutils.get_or_insert_function(builder.module, signature, f"llvm.fma.v{LANES}f32")
            rows = _steps(builder, a, _I64(a_step), outputs)
            places = [_steps(builder, place, _I64(4 * LANES), vectors) for place in _steps(builder, c, c_step, outputs)]
            sums = [[cgutils.alloca_once(builder, _VECTOR) for _ in row] for row in places]
            both = [pair for row in zip(places, sums, strict=True) for pair in zip(*row, strict=True)]
            with builder.if_else(builder.icmp_signed("!=", keep, _I64(0))) as (old, new):
                with old:
                    for place, total in both:
                        builder.store(_load(builder, place, _VECTOR), total)
                with new:
                    for _, total in both:
                        builder.store(ir.Constant(_VECTOR, [0.0] * LANES), total)
            everywhere = ir.Constant(ir.VectorType(_I32, LANES), [0] * LANES)
            nothing = ir.Constant(_VECTOR, ir.Undefined)
            with cgutils.for_range(builder, terms) as loop:
                factors = [
                    _load(builder, at, _VECTOR)
                    for at in _steps(
                        builder,
                        builder.add(b, builder.mul(loop.index, _I64(4 * LANES * vectors))),
                        _I64(4 * LANES),
                        vectors,
                    )
                ]
                for row, totals in zip(rows, sums, strict=True):
                    number = _load(builder, builder.add(row, builder.mul(loop.index, _I64(4))), _F32)
                    first = builder.insert_element(nothing, number, _I32(0))
                    spread = builder.shuffle_vector(first, nothing, everywhere)
                    for factor, total in zip(factors, totals, strict=True):
                        builder.store(builder.call(fma, [spread, factor, builder.load(total)]), total)
            for place, total in both:
                _store(builder, builder.load(total), place)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 6), generate

    return multiply


@intrinsic
def transpose_block(typing, x, x_step, y, y_step):
    """Write 16 rows of 16 numbers as columns, in four rounds that shuffle the first half of the rows into the other."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x, x_step, y, y_step = arguments
        rows = [_load(builder, place, _VECTOR) for place in _steps(builder, x, x_step, LANES)]
        half = LANES // 2
        orders = [[n for i in range(begin, begin + half) for n in (i, LANES + i)] for begin in (0, half)]
        masks = [ir.Constant(ir.VectorType(_I32, LANES), order) for order in orders]
        for _ in range(4):
            rows = [builder.shuffle_vector(rows[r], rows[r + half], mask) for r in range(half) for mask in masks]
        for row, place in zip(rows, _steps(builder, y, y_step, LANES), strict=True):
            _store(builder, row, place)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), generate


@inlined
def transpose(x, x_step, rows, columns, y, y_step):
    """Write `rows` rows of `columns` numbers as columns; steps are in bytes, from row to row."""
    whole_rows, whole_columns = rows // LANES * LANES, columns // LANES * LANES
    for r in range(0, whole_rows, LANES):
        for c in range(0, whole_columns, LANES):
            transpose_block(x + r * x_step + 4 * c, x_step, y + c * y_step + 4 * r, y_step)
    for r in range(rows):
        row = floats(x + r * x_step, columns)
        for c in range(whole_columns if r < whole_rows else 0, columns):
            floats(y + c * y_step + 4 * r, 1)[0] = row[c]
