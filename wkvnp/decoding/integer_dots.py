# mypy: allow-untyped-defs
"""Dot products of quantised rows with rows of quantised activations: whole numbers in a group, float32 between groups.

Both sides are codes with a scale for every 32 of them. 64 stored bytes are one vector: it meets its activations in
instructions that multiply pairs of bytes and add every four products, so that 16 sums come out, which are exact. They
are then added up in float32, times the scales of their groups, in two chains and in one order, as in `dots`: results
have the same bits whatever is computed beside them, and whichever instructions there are.

64 bytes of int8 are two groups, with eight of the sums each. Of int4 they are four: the first halves of the groups in
the lower halves of the bytes, so that both halves go into the same four sums of a group. Activations lie in that order
(`quantise_rows`). What is left over at the end of a row are single groups.
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
from .dots import LANES, multiply_add, store_sums

INTEGERS = {"int8": 0, "int4": 1}
_CHAINS, _BYTES = 2, 64
_I8, _I16, _I32, _I64, _F32 = (*(ir.IntType(bits) for bits in (8, 16, 32, 64)), ir.FloatType())
_SUMS = ir.VectorType(_I32, LANES)
INSTRUCTIONS = [
    *(["avx512vnni"] if has("avx512vnni", "avx512bw") else []),
    *(["avxvnni"] if has("avxvnni") else []),
    "any",
]
"""Ways to multiply bytes that this machine has, best first."""


def _load(builder: Any, address: Any, number: Any, lanes: int) -> Any:
    """Load numbers that may stand anywhere into the first lanes of a vector of 64 bytes, with zeros behind them."""
    loaded = builder.load(builder.inttoptr(address, ir.VectorType(number, lanes).as_pointer()), align=1)
    whole = _BYTES if number == _I8 else LANES
    if lanes == whole:
        return loaded
    mask = ir.Constant(ir.VectorType(_I32, whole), [*range(lanes), *[lanes] * (whole - lanes)])
    return builder.shuffle_vector(loaded, ir.Constant(loaded.type, None), mask)


def _meet(builder: Any, stored: Any, active: Any, sums: Any, instruction: str) -> Any:
    """Add the products of 64 bytes, the stored ones without a sign and the others with one, in fours to 16 sums."""
    if instruction == "any":
        for part in range(4):
            mask = ir.Constant(_SUMS, [*range(part, _BYTES, 4)])
            nothing = ir.Constant(stored.type, ir.Undefined)
            u, s = (builder.shuffle_vector(codes, nothing, mask) for codes in (stored, active))
            sums = builder.add(sums, builder.mul(builder.zext(u, _SUMS), builder.sext(s, _SUMS)))
        return sums
    words = [sums, builder.bitcast(stored, _SUMS), builder.bitcast(active, _SUMS)]
    lanes = LANES if instruction == "avx512vnni" else LANES // 2
    vector = ir.VectorType(_I32, lanes)
    name = f"llvm.x86.avx512.vpdpbusd.{32 * lanes}"
    multiply = cgutils.get_or_insert_function(builder.module, ir.FunctionType(vector, [vector] * 3), name)
    if lanes == LANES:
        return builder.call(multiply, words)
    masks = [ir.Constant(vector, [*range(begin, begin + lanes)]) for begin in (0, lanes)]
    halves = [builder.call(multiply, [builder.shuffle_vector(w, w, mask) for w in words]) for mask in masks]
    return builder.shuffle_vector(*halves, ir.Constant(_SUMS, [*range(LANES)]))


def _scales(builder: Any, address: Any, groups: int) -> Any:
    """Return the bfloat16 scales of a vector's groups, two or four, as float32: each for all sums of its group."""
    bits = ir.IntType(16 * groups)
    copies = ir.VectorType(bits, _BYTES // (2 * groups))
    word = builder.load(builder.inttoptr(address, bits.as_pointer()), align=1)
    first = builder.insert_element(ir.Constant(copies, ir.Undefined), word, _I32(0))
    none = ir.Constant(ir.VectorType(_I32, copies.count), [0] * copies.count)
    repeated = builder.bitcast(builder.shuffle_vector(first, first, none), ir.VectorType(_I8, _BYTES))
    # Every 16 bytes of the register hold a copy; none leaves them on its way to the upper half of its lanes.
    starts = [16 * (lane // 4) + 2 * (lane * groups // LANES) for lane in range(LANES)]
    order = ir.Constant(ir.VectorType(_I32, _BYTES), [n for at in starts for n in (_BYTES, _BYTES, at, at + 1)])
    spread = builder.shuffle_vector(repeated, ir.Constant(repeated.type, None), order)
    return builder.bitcast(spread, ir.VectorType(_F32, LANES))


def _scale(builder: Any, address: Any) -> Any:
    """Return the scale of one group in all lanes."""
    bits = builder.load(builder.inttoptr(address, _I16.as_pointer()), align=1)
    word = builder.shl(builder.zext(bits, _I32), _I32(16))
    first = builder.insert_element(ir.Constant(_SUMS, ir.Undefined), word, _I32(0))
    return builder.bitcast(
        builder.shuffle_vector(first, first, ir.Constant(_SUMS, [0] * LANES)), ir.VectorType(_F32, LANES)
    )


def _unsigned(builder: Any, codes: Any, kind: str) -> list[Any]:
    """Return bytes without a sign: codes plus 128, or the lower and the upper codes plus 8."""

    def all_lanes(number: int) -> Any:
        return ir.Constant(codes.type, [number] * codes.type.count)

    if kind == "int8":
        return [builder.xor(codes, all_lanes(128))]
    return [builder.and_(codes, all_lanes(15)), builder.lshr(codes, all_lanes(4))]


class _Row:
    """Where the parts of a row of activations begin."""

    def __init__(self, builder: Any, address: Any, terms: Any, kind: str) -> None:
        size = terms if kind == "int8" else builder.udiv(terms, _I64(2))
        self.codes, self.sums = address, builder.add(address, terms)
        self.scales = builder.add(self.sums, size)


@functools.cache
def integer_dots(outputs: int, rows: int, kind: str, instruction: str = INSTRUCTIONS[0]) -> Any:
    """Return the intrinsic for `outputs` stored rows and `rows` rows of activations.

    It is called with the address of the first stored row and the bytes from one to the next, the same of the scales
    and of the activations, the number of terms (a multiple of 32), and where the results go: its address, the bytes
    from one output to the next, and from one row to the next.
    """
    groups = 2 if kind == "int8" else 4

    @intrinsic
    def tile(typing, w, w_step, s, s_step, x, x_step, terms, y, o_step, y_step):
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            w, w_step, s, s_step, x, x_step, terms, y, o_step, y_step = arguments
            fma, vector = multiply_add(builder), ir.VectorType(_F32, LANES)
            zero = ir.Constant(vector, [0.0] * LANES)
            pairs = [(o, r) for o in range(outputs) for r in range(rows)]
            totals = {(*pair, c): cgutils.alloca_once_value(builder, zero) for pair in pairs for c in range(_CHAINS)}

            def rows_of(address: Any, step: Any, number: int) -> list[Any]:
                return [builder.add(address, builder.mul(step, _I64(n))) for n in range(number)]

            stored, scales = rows_of(w, w_step, outputs), rows_of(s, s_step, outputs)
            active = [_Row(builder, address, terms, kind) for address in rows_of(x, x_step, rows)]

            def add(group: Any, many: int, chain: int) -> None:
                """Add so many groups, one or all of a vector, to the sums of a chain."""
                lanes, parts = many * LANES // groups, groups // 2
                apart = _BYTES if many == groups else GROUP // parts  # of the parts of the activations' codes
                inside = builder.mul(group, _I64(4 * LANES // groups))  # of sums and their scales
                codes = builder.mul(group, _I64(GROUP))
                met = []
                for row in active:
                    begins = [builder.add(row.codes, builder.add(codes, _I64(p * apart))) for p in range(parts)]
                    met.append((
                        [_load(builder, begin, _I8, many * GROUP // parts) for begin in begins],
                        _load(builder, builder.add(row.sums, inside), _I32, lanes),
                        _load(builder, builder.add(row.scales, inside), _F32, lanes),
                    ))  # fmt: skip
                for o in range(outputs):
                    begin = builder.add(stored[o], builder.mul(group, _I64(GROUP // parts)))
                    found = _unsigned(builder, _load(builder, begin, _I8, many * GROUP // parts), kind)
                    at = builder.add(scales[o], builder.mul(group, _I64(2)))
                    scale = _scale(builder, at) if many == 1 else _scales(builder, at, groups)
                    for r, (factors, sums, active_scale) in enumerate(met):
                        for part, factor in zip(found, factors, strict=True):
                            sums = _meet(builder, part, factor, sums, instruction)
                        both = builder.fmul(scale, active_scale)
                        total = totals[o, r, chain]
                        whole = builder.sitofp(sums, vector)
                        builder.store(builder.call(fma, [whole, both, builder.load(total)]), total)

            begin, end = _I64(0), builder.udiv(terms, _I64(GROUP))
            for vectors, many in ((_CHAINS, groups), (1, groups), (1, 1)):
                count = builder.udiv(builder.sub(end, begin), _I64(vectors * many))
                with cgutils.for_range(builder, count) as loop:
                    here = builder.add(begin, builder.mul(loop.index, _I64(vectors * many)))
                    for chain in range(vectors):
                        add(builder.add(here, _I64(chain * many)), many, chain)
                begin = builder.add(begin, builder.mul(count, _I64(vectors * many)))
            store_sums(builder, totals, y, o_step, y_step)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 10), generate

    return tile


def bytes_of_activations(terms: int, kind: str) -> int:
    """Return the bytes of a row of quantised activations: codes, and for every sum a number and a scale."""
    return terms + 2 * (terms if kind == "int8" else terms // 2)


_ZERO, _HALF, _MOST, _TINY = np.float32(0), np.float32(0.5), np.float32(127), np.float32(1e-30)


@inlined
def quantise_rows(step, rows, private, slots):
    """Round activations to codes of 8 bits with a scale for every 32, for weights of one kind.

    In every row stand the codes; then for each of the sums that a vector of weights gives what must be added to it,
    because stored codes are met without their sign; and then for each of them the scale. A group with a number that is
    none gets such a scale. Fields: x and its step, y and its step, terms, kind.
    """
    terms, kind = step[6], step[7]
    each, offset = (8, np.int32(-128)) if kind == 0 else (4, np.int32(-8))
    whole = terms // 128 * 4 if kind == 1 else 0
    for m in range(rows):
        x, y = place(step[2], private, slots) + m * step[3], place(step[4], private, slots) + m * step[5]
        size = terms // GROUP * each
        codes, sums = small_integers(y, terms), whole_numbers(y + terms, size)
        scales = floats(y + terms + 4 * size, size)
        for g in range(terms // GROUP):
            group = floats(x + 4 * GROUP * g, GROUP)
            largest, fault = _ZERO, _ZERO
            for i in range(GROUP):
                largest = max(largest, abs(group[i]))
                fault += group[i] * _ZERO
            scale = largest / _MOST + fault
            factor = _MOST / largest if largest > _TINY else _ZERO
            if factor == _ZERO:
                scale = fault
            # int4: in whole vectors the second halves of four groups stand behind the first halves of all four.
            first = GROUP * (g - g % 4) + 16 * (g % 4) if g < whole else GROUP * g
            apart = 64 if g < whole else 16
            for i in range(16):
                codes[first + i] = np.int8(np.int32(np.floor(group[i] * factor + _HALF)))
                codes[first + apart + i] = np.int8(np.int32(np.floor(group[16 + i] * factor + _HALF)))
            for j in range(each):
                total = np.int32(0)
                for i in range(4):
                    if kind == 0:
                        total += codes[GROUP * g + 4 * j + i]
                    else:
                        total += np.int32(codes[first + 4 * j + i]) + np.int32(codes[first + apart + 4 * j + i])
                sums[each * g + j] = offset * total
                scales[each * g + j] = scale
