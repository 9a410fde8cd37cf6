# mypy: allow-untyped-defs
"""Dot products of a block of quantised rows with many rows of activations in the matrix unit.

A group of a block is a tile as it is stored: the unit adds up its products with those of sixteen rows of activations,
in whole numbers. What is done with these is what `integer_dots` does, in its order, so that bits are the same.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .._jit import inlined
from .._matrix_unit import TILE, begin_tiles, call_unit, end_tiles, read_tile, store_tile
from .._quantised import BLOCK_ROWS, GROUP
from .dots import LANES, load, widened
from .integer_dots import BYTES, add_group, everywhere_at, stored_codes

ROWS = 16
"""Rows of activations that meet a block at once."""
_SUMS, _ACTIVE, _STORED = range(3)  # numbers of tiles
_begin = begin_tiles([(ROWS, 4 * BLOCK_ROWS), (ROWS, GROUP), (GROUP // 4, 4 * BLOCK_ROWS)])
_I32, _I64 = ir.IntType(32), ir.IntType(64)
_WHOLE, _VECTOR = ir.VectorType(_I32, LANES), ir.VectorType(ir.FloatType(), LANES)


def scratch_of_tiles(terms: int) -> int:
    """Return how many float32 numbers `integer_tiles` needs scratch for."""
    return (TILE + terms // GROUP * BYTES[0]) // 4


@intrinsic
def _tile(typing, w, s, x, x_step, terms, y, y_step, scratch):
    """Set y to the products of a block with 16 rows of activations."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        w, s, x, x_step, terms, y, y_step, scratch = arguments
        zero = ir.Constant(_VECTOR, [0.0] * LANES)
        totals = [cgutils.alloca_once_value(builder, zero) for _ in range(ROWS)]
        x_rows = [builder.add(x, builder.mul(x_step, _I64(r))) for r in range(ROWS)]
        with cgutils.for_range(builder, builder.udiv(terms, _I64(GROUP))) as loop:
            codes, pair = builder.mul(loop.index, _I64(GROUP)), builder.mul(loop.index, _I64(8))
            stored = builder.add(w, builder.mul(loop.index, _I64(BYTES[0])))
            read_tile(builder, _ACTIVE, builder.add(x, codes), x_step)
            read_tile(builder, _STORED, stored, _I64(4 * BLOCK_ROWS))
            call_unit(builder, "tilezero", _SUMS)
            call_unit(builder, "tdpbsud", _SUMS, _ACTIVE, _STORED)
            store_tile(builder, _SUMS, scratch, _I64(4 * BLOCK_ROWS))
            scale = widened(builder, "bfloat16", builder.add(s, codes))
            for r, total in enumerate(totals):
                of_group = builder.add(builder.add(x_rows[r], terms), pair)
                sums = load(builder, builder.add(scratch, _I64(4 * BLOCK_ROWS * r)), _I32, 64)
                sums = builder.add(sums, everywhere_at(builder, of_group, _WHOLE))
                add_group(builder, sums, scale, of_group, total)
        for r, total in enumerate(totals):
            to = builder.add(y, builder.mul(y_step, _I64(r)))
            builder.store(builder.load(total), builder.inttoptr(to, _VECTOR.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 8), generate


@intrinsic
def _spread(typing, w, groups, to):
    """Write the codes of four bits of some groups as bytes."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        w, groups, to = arguments
        with cgutils.for_range(builder, groups) as loop:
            at = builder.add(w, builder.mul(loop.index, _I64(BYTES[1])))
            place = builder.add(to, builder.mul(loop.index, _I64(BYTES[0])))
            for n, vector in enumerate(stored_codes(builder, "int4", at)):
                there = builder.inttoptr(builder.add(place, _I64(4 * BLOCK_ROWS * n)), _WHOLE.as_pointer())
                builder.store(vector, there, align=64)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 3), generate


@inlined
def integer_tiles(kind, w, s, x, x_step, terms, rows, y, y_step, scratch):
    """Set y to the products of a block with rows of activations, a multiple of 16."""
    stored = w
    if kind != 0:
        stored = scratch + TILE
        _spread(w, terms // GROUP, stored)
    _begin()
    for m in range(0, rows, ROWS):
        _tile(stored, s, x + m * x_step, x_step, terms, y + m * y_step, y_step, scratch)
    end_tiles()
