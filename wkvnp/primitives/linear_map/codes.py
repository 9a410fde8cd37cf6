# mypy: allow-untyped-defs
"""Groups of codes as numbers, out of blocks in which 16 outputs lie side by side."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ..._quantised import BLOCK_ROWS, GROUP

_I8, _I32, _I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)


def _widening(words: int) -> Any:
    """Return the intrinsic for groups of a number of four-byte words, which are a block's width apart."""

    @intrinsic
    def widen(typing, codes, scale, y):
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            codes, scale, y = arguments
            together, kind = ir.VectorType(_I32, words), ir.VectorType(_I32, GROUP)
            numbers, mask = ir.VectorType(ir.FloatType(), GROUP), ir.Constant(kind, [0] * GROUP)
            found = ir.Constant(together, ir.Undefined)
            for n in range(words):
                at = builder.inttoptr(builder.add(codes, _I64(4 * BLOCK_ROWS * n)), _I32.as_pointer())
                found = builder.insert_element(found, builder.load(at, align=4), _I32(n))
            count = 4 * words
            found = builder.bitcast(found, ir.VectorType(_I8, count))
            if count == GROUP:
                whole, offset = builder.zext(found, kind), 128
            else:  # the lower halves of the bytes, then the upper ones
                fours = [ir.Constant(found.type, [number] * count) for number in (15, 4)]
                halves = builder.and_(found, fours[0]), builder.lshr(found, fours[1])
                order = ir.Constant(kind, [*range(GROUP)])
                whole, offset = builder.zext(builder.shuffle_vector(*halves, order), kind), 8
            wide = builder.sitofp(builder.sub(whole, ir.Constant(kind, [offset] * GROUP)), numbers)
            one = builder.insert_element(ir.Constant(numbers, ir.Undefined), scale, _I32(0))
            result = builder.fmul(wide, builder.shuffle_vector(one, one, mask))
            builder.store(result, builder.inttoptr(y, numbers.as_pointer()), align=4)
            return context.get_dummy_value()

        return types.void(types.int64, types.float32, types.int64), generate

    return widen


widen_int8, widen_int4 = _widening(8), _widening(4)
