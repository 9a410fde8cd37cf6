# mypy: allow-untyped-defs
"""Dot products of blocks of quantised rows and quantised activations: whole numbers in a group, float32 between.

Both sides are codes with a scale for every 32 of them. Four codes of each of 16 stored rows are one vector: it meets
four activations in instructions that multiply pairs of bytes and add every four products to the sum in their lane. So
the sums of a group are exact. They are then added up in float32, times the scales of both sides, group after group:
results have the same bits whatever is computed beside them, and whichever instructions there are.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .._address import floats, place, small_integers, whole_numbers
from .._jit import inlined
from .._processor import has
from .._quantised import GROUP
from .dots import LANES, load, multiply_add, widened

INTEGERS = {"int8": 0, "int4": 1}
BYTES = (512, 256)
"""Bytes of a group of 16 rows, of both kinds."""
_OFFSETS = (-128, -8)
_REGISTER = 64
_I8, _I32, _I64, _F32 = (*(ir.IntType(bits) for bits in (8, 32, 64)), ir.FloatType())
_SUMS, _VECTOR = ir.VectorType(_I32, LANES), ir.VectorType(_F32, LANES)
INSTRUCTIONS = [
    *(["avx512vnni"] if has("avx512vnni", "avx512bw") else []),
    *(["avxvnni"] if has("avxvnni") else []),
    "any",
]
"""Ways to multiply bytes that this machine has, best first."""


def _everywhere(builder: Any, address: Any, kind: Any) -> Any:
    """Return a vector that has the number at an address in all lanes."""
    number = builder.load(builder.inttoptr(address, kind.element.as_pointer()), align=4)
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), number, _I32(0))
    return builder.shuffle_vector(first, first, ir.Constant(_SUMS, [0] * LANES))


def _meet(builder: Any, stored: Any, active: Any, sums: Any, instruction: str) -> Any:
    """Add the products of 64 bytes, the stored ones without a sign and the others with one, in fours to 16 sums."""
    if instruction == "any":
        stored, active = (builder.bitcast(codes, ir.VectorType(_I8, _REGISTER)) for codes in (stored, active))
        for part in range(4):
            mask = ir.Constant(_SUMS, [*range(part, _REGISTER, 4)])
            nothing = ir.Constant(stored.type, ir.Undefined)
            u, s = (builder.shuffle_vector(codes, nothing, mask) for codes in (stored, active))
            sums = builder.add(sums, builder.mul(builder.zext(u, _SUMS), builder.sext(s, _SUMS)))
        return sums
    words = [sums, stored, active]
    lanes = LANES if instruction == "avx512vnni" else LANES // 2
    vector = ir.VectorType(_I32, lanes)
    name = f"llvm.x86.avx512.vpdpbusd.{32 * lanes}"
    multiply = cgutils.get_or_insert_function(builder.module, ir.FunctionType(vector, [vector] * 3), name)
    if lanes == LANES:
        return builder.call(multiply, words)
    masks = [ir.Constant(vector, [*range(begin, begin + lanes)]) for begin in (0, lanes)]
    halves = [builder.call(multiply, [builder.shuffle_vector(w, w, mask) for w in words]) for mask in masks]
    return builder.shuffle_vector(*halves, ir.Constant(_SUMS, [*range(LANES)]))


def _stored(builder: Any, kind: str, address: Any) -> list[Any]:
    """Return the eight vectors of a group, bytes without a sign: codes plus 128, or plus 8."""
    count = 8 if kind == "int8" else 4
    loaded = [load(builder, builder.add(address, _I64(_REGISTER * n)), _I32, 4) for n in range(count)]
    if kind == "int8":
        return loaded
    halves, four = ir.Constant(_SUMS, [0x0F0F0F0F] * LANES), ir.Constant(_SUMS, [4] * LANES)
    return [builder.and_(v, halves) for v in loaded] + [builder.and_(builder.lshr(v, four), halves) for v in loaded]


@functools.cache
def integer_dots(blocks: int, rows: int, kind: str, instruction: str = INSTRUCTIONS[0]) -> Any:
    """Return the intrinsic for `blocks` times 16 stored rows and `rows` rows of activations.

    It is called with the address of the first block and the bytes from one to the next, the same of the scales and of
    the activations, the number of terms (a multiple of 32), and where the results go: its address, the bytes from one
    block to the next, and from one row to the next.
    """

    @intrinsic
    def tile(typing, w, w_step, s, s_step, x, x_step, terms, y, o_step, y_step):
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            w, w_step, s, s_step, x, x_step, terms, y, o_step, y_step = arguments
            fma, zero = multiply_add(builder), ir.Constant(_VECTOR, [0.0] * LANES)
            pairs = [(q, r) for q in range(blocks) for r in range(rows)]
            totals = {pair: cgutils.alloca_once_value(builder, zero) for pair in pairs}

            def starts(address: Any, step: Any, number: int) -> list[Any]:
                return [builder.add(address, builder.mul(step, _I64(n))) for n in range(number)]

            stored, scales, active = starts(w, w_step, blocks), starts(s, s_step, blocks), starts(x, x_step, rows)
            with cgutils.for_range(builder, builder.udiv(terms, _I64(GROUP))) as loop:
                codes, pair = builder.mul(loop.index, _I64(GROUP)), builder.mul(loop.index, _I64(8))
                for q in range(blocks):
                    at = builder.add(stored[q], builder.mul(loop.index, _I64(BYTES[INTEGERS[kind]])))
                    vectors = _stored(builder, kind, at)
                    scale = widened(builder, "bfloat16", builder.add(scales[q], codes))
                    for r in range(rows):
                        first, of_group = (
                            builder.add(active[r], offset) for offset in (codes, builder.add(terms, pair))
                        )
                        sums = _everywhere(builder, of_group, _SUMS)
                        for n, vector in enumerate(vectors):
                            four = _everywhere(builder, builder.add(first, _I64(4 * n)), _SUMS)
                            sums = _meet(builder, vector, four, sums, instruction)
                        both = builder.fmul(scale, _everywhere(builder, builder.add(of_group, _I64(4)), _VECTOR))
                        total, whole = totals[q, r], builder.sitofp(sums, _VECTOR)
                        builder.store(builder.call(fma, [whole, both, builder.load(total)]), total)
            for (q, r), total in totals.items():
                to = builder.add(y, builder.add(builder.mul(o_step, _I64(q)), builder.mul(y_step, _I64(r))))
                builder.store(builder.load(total), builder.inttoptr(to, _VECTOR.as_pointer()), align=4)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 10), generate

    return tile


def bytes_of_activations(terms: int) -> int:
    """Return the bytes of a row of quantised activations: codes, and for every group a sum and a scale."""
    return terms + terms // GROUP * 8


_ZERO, _HALF, _MOST, _TINY = np.float32(0), np.float32(0.5), np.float32(127), np.float32(1e-30)


@inlined
def quantise_rows(step, rows, private, slots):
    """Round activations to codes of 8 bits with a scale for every 32, for weights of one kind.

    In every row stand the codes; then for each group what must be added to its sums, because stored codes are met
    without their sign, and its scale. A group with a number that is none gets such a scale. Fields: x and its step, y
    and its step, terms, kind.
    """
    terms, offset = step[6], np.int32(_OFFSETS[0] if step[7] == 0 else _OFFSETS[1])
    for m in range(rows):
        x, y = place(step[2], private, slots) + m * step[3], place(step[4], private, slots) + m * step[5]
        codes, groups = small_integers(y, terms), terms // GROUP
        sums, scales = whole_numbers(y + terms, 2 * groups), floats(y + terms, 2 * groups)
        for g in range(groups):
            group = floats(x + 4 * GROUP * g, GROUP)
            largest, fault = _ZERO, _ZERO
            for i in range(GROUP):
                largest = max(largest, abs(group[i]))
                fault += group[i] * _ZERO
            scale = largest / _MOST + fault
            factor = _MOST / largest if largest > _TINY else _ZERO
            if factor == _ZERO:
                scale = fault
            total = np.int32(0)
            for i in range(GROUP):
                code = np.int8(np.int32(np.floor(group[i] * factor + _HALF)))
                codes[GROUP * g + i] = code
                total += code
            sums[2 * g], scales[2 * g + 1] = offset * total, scale
