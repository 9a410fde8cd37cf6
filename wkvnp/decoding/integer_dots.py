# mypy: allow-untyped-defs
"""Dot products of blocks of quantised rows and quantised activations: whole numbers in a group, float32 between.

Both sides are codes with a scale for every 32 of them. Four codes of each of 16 stored rows are one vector: it meets
four activations in instructions that multiply pairs of bytes and add every four products to the sum in their lane. So
the sums of a group are exact. They are then added up in float32, times the scales of both sides, group after group:
results have the same bits beside any other rows, and with any instructions.
"""

from __future__ import annotations

import functools
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .._jit import inlined
from .._processor import has
from .._quantised import GROUP
from .access import address, stride
from .dots import LANES, load, multiply_add, widened
from .fields import Choice, Kind, Rows, Size

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


def everywhere_at(builder: Any, address: Any, kind: Any) -> Any:
    """Return a vector that has the number at an address in all lanes."""
    return everywhere(builder, builder.load(builder.inttoptr(address, kind.element.as_pointer()), align=4), kind)


def everywhere(builder: Any, number: Any, kind: Any) -> Any:
    """Return a vector that has a number in all lanes."""
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


def stored_codes(builder: Any, kind: str, address: Any) -> list[Any]:
    """Return the eight vectors of a group, bytes without a sign: codes plus 128, or plus 8."""
    count = 8 if kind == "int8" else 4
    loaded = [load(builder, builder.add(address, _I64(_REGISTER * n)), _I32, 4) for n in range(count)]
    if kind == "int8":
        return loaded
    halves, four = ir.Constant(_SUMS, [0x0F0F0F0F] * LANES), ir.Constant(_SUMS, [4] * LANES)
    return [builder.and_(v, halves) for v in loaded] + [builder.and_(builder.lshr(v, four), halves) for v in loaded]


def add_group(builder: Any, sums: Any, scale: Any, of_group: Any, total: Any) -> None:
    """Add the sums of a group to totals, times the scales of both sides; that of activations is behind their sum."""
    both = builder.fmul(scale, everywhere_at(builder, builder.add(of_group, _I64(4)), _VECTOR))
    whole = builder.sitofp(sums, _VECTOR)
    builder.store(builder.call(multiply_add(builder), [whole, both, builder.load(total)]), total)


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
            zero = ir.Constant(_VECTOR, [0.0] * LANES)
            pairs = [(q, r) for q in range(blocks) for r in range(rows)]
            totals = {pair: cgutils.alloca_once_value(builder, zero) for pair in pairs}

            def starts(address: Any, step: Any, number: int) -> list[Any]:
                return [builder.add(address, builder.mul(step, _I64(n))) for n in range(number)]

            stored, scales, active = starts(w, w_step, blocks), starts(s, s_step, blocks), starts(x, x_step, rows)
            with cgutils.for_range(builder, builder.udiv(terms, _I64(GROUP))) as loop:
                codes, pair = builder.mul(loop.index, _I64(GROUP)), builder.mul(loop.index, _I64(8))
                for q in range(blocks):
                    at = builder.add(stored[q], builder.mul(loop.index, _I64(BYTES[INTEGERS[kind]])))
                    vectors = stored_codes(builder, kind, at)
                    scale = widened(builder, "bfloat16", builder.add(scales[q], codes))
                    for r in range(rows):
                        first, of_group = (
                            builder.add(active[r], offset) for offset in (codes, builder.add(terms, pair))
                        )
                        sums = [everywhere_at(builder, of_group, _SUMS), ir.Constant(_SUMS, [0] * LANES)]
                        for n, vector in enumerate(vectors):  # two sums in turn, since one waits for the last product
                            four = everywhere_at(builder, builder.add(first, _I64(4 * n)), _SUMS)
                            sums[n % 2] = _meet(builder, vector, four, sums[n % 2], instruction)
                        add_group(builder, builder.add(*sums), scale, of_group, totals[q, r])
            for (q, r), total in totals.items():
                to = builder.add(y, builder.add(builder.mul(o_step, _I64(q)), builder.mul(y_step, _I64(r))))
                builder.store(builder.load(total), builder.inttoptr(to, _VECTOR.as_pointer()), align=4)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 10), generate

    return tile


def bytes_of_activations(terms: int) -> int:
    """Return the bytes of a row of quantised activations: codes, and for every group a sum and a scale."""
    return terms + terms // GROUP * 8


_HALF, _MOST, _TINY = 0.5, 127.0, 1e-30


@intrinsic
def _quantise_group(typing, x, codes, pair, offset):
    """Round 32 numbers to codes; store `offset` times their sum, and the scale."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x, codes, pair, offset = arguments
        halves = [load(builder, builder.add(x, _I64(4 * LANES * n)), _F32, 4) for n in (0, 1)]

        def reduced(operation: str, vector: Any) -> Any:
            name, kind = f"llvm.vector.reduce.{operation}.v{LANES}i32", ir.FunctionType(_I32, [_SUMS])
            return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [vector])

        # As bits, sizes are in the order of the numbers, and what is infinite or none is above all others.
        no_sign = ir.Constant(_SUMS, [0x7FFFFFFF] * LANES)
        sizes = [builder.and_(builder.bitcast(half, _SUMS), no_sign) for half in halves]
        sizes = builder.select(builder.icmp_unsigned(">", *sizes), *sizes)
        largest = builder.bitcast(reduced("umax", sizes), _F32)
        fault, usual = builder.fmul(largest, _F32(0)), builder.fcmp_ordered(">", largest, _F32(_TINY))
        factor = builder.select(usual, builder.fdiv(_F32(_MOST), largest), _F32(0))
        some = builder.fcmp_ordered(">", factor, _F32(0))
        scale = builder.select(some, builder.fdiv(largest, _F32(_MOST)), fault)
        factors, half = everywhere(builder, factor, _VECTOR), ir.Constant(_VECTOR, [_HALF] * LANES)
        floor = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(_VECTOR, [_VECTOR]), f"llvm.floor.v{LANES}f32"
        )
        rounded = [builder.call(floor, [builder.fadd(builder.fmul(number, factors), half)]) for number in halves]
        whole = [builder.fptosi(numbers, _SUMS) for numbers in rounded]
        for n, numbers in enumerate(whole):
            small = builder.trunc(numbers, ir.VectorType(_I8, LANES))
            place = builder.inttoptr(builder.add(codes, _I64(LANES * n)), small.type.as_pointer())
            builder.store(small, place, align=4)
        total = builder.mul(builder.trunc(offset, _I32), reduced("add", builder.add(*whole)))
        builder.store(total, builder.inttoptr(pair, _I32.as_pointer()), align=4)
        builder.store(scale, builder.inttoptr(builder.add(pair, _I64(4)), _F32.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), generate


QUANTISE = Kind(
    "quantise",
    private=True,
    x=Rows("I"),
    y=Rows("A", written=True),
    codes=Choice(names=tuple(INTEGERS)),
    I=Size(),
    A=Size(),
)
F = QUANTISE.fields


@QUANTISE.loop
@inlined
def quantise_rows(step, number, first, stop, rows, private, slots, scratch):
    """Round activations to codes of 8 bits with a scale for every 32, for weights of one kind.

    A row of y holds the codes; then, for each group, what is added to its sums because stored codes are multiplied
    without their sign, and its scale. A group with a NaN or an infinite number has such a scale.
    """
    terms, offset = step[F.I], _OFFSETS[0] if step[F.codes] == 0 else _OFFSETS[1]
    for m in range(rows):
        x = address(step, F.x, private, slots) + m * stride(step, F.x)
        y = address(step, F.y, private, slots) + m * stride(step, F.y)
        for g in range(terms // GROUP):
            _quantise_group(x + 4 * GROUP * g, y + GROUP * g, y + terms + 8 * g, offset)
