# mypy: allow-untyped-defs
"""The matrix unit of x86-64 processors (AMX), and numbers as sums of the bfloat16 numbers that it multiplies.

A float32 number is the sum of three bfloat16 numbers, its parts: the nearest one, the nearest one to the rest, and the
rest of that. Products of parts are exact in float32, and those of a number's small parts with the other's small parts
are too small to count; so a product of float32 matrices is six of bfloat16 matrices, and still faster than sixteen
numbers at a time. The unit takes parts below 1e-38 for zero, and what is infinite gives NaN, because it has no rest.

Parts of numbers are in tiles of 16 rows of 64 bytes: of the first matrix 32 terms in a row; of the second matrix, and
of nothing else, 16 columns in a row, each with two terms that follow one another. All places are addresses.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ._processor import has

TERMS = 32
"""Terms in a tile."""
TILE = 1024
"""Bytes of a tile."""
PARTS = 3
"""Parts of a float32 number."""
_MEETINGS = {
    1: 3,
    2: 5,
    3: 6,
}  # of the pairs below, those computed, by the number of parts of the first number
_PAIRS = [(0, 2), (0, 1), (0, 0), (1, 0), (1, 1), (2, 0)]  # parts that meet: small ones first, a change at a time
_ASK, _TILE_DATA, _ARCH_PRCTL = 0x1023, 18, 158  # Linux: a process asks once whether it may keep tiles
_I8, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_BYTE, _NOTHING = _I8.as_pointer(), ir.VoidType()
_LANES = 16
_FLOATS, _BITS = ir.VectorType(ir.FloatType(), _LANES), ir.VectorType(_I32, _LANES)
_SHORT = ir.VectorType(_I16, 2 * _LANES)


@functools.cache
def available() -> bool:
    """Say whether this process may use the unit. Linux gives it to those who ask."""
    if sys.platform != "linux" or not has("amx-tile", "amx-bf16", "amx-int8", "avx512bf16", "avx512bw"):
        return False
    return bool(ctypes.CDLL(None).syscall(_ARCH_PRCTL, _ASK, _TILE_DATA) == 0)


def call_unit(builder: Any, name: str, *arguments: Any) -> None:
    """Call one of its instructions by LLVM's name; an int is the number of a tile."""
    given = [_I8(argument) if isinstance(argument, int) else argument for argument in arguments]
    kind = ir.FunctionType(_NOTHING, [argument.type for argument in given])
    builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.x86.{name}"), given)


def read_tile(builder: Any, number: int, place: Any, step: Any) -> None:
    """Read a tile whose rows are `step` bytes apart."""
    call_unit(builder, "tileloadd64", number, builder.inttoptr(place, _BYTE), step)


def store_tile(builder: Any, number: int, place: Any, step: Any) -> None:
    """Store a tile."""
    call_unit(builder, "tilestored64", number, builder.inttoptr(place, _BYTE), step)


def _plus(builder: Any, place: Any, count: int) -> Any:
    return builder.add(place, _I64(count))


def begin_tiles(shapes: Sequence[tuple[int, int]] = ((16, 64),) * 8) -> Any:
    """Return the intrinsic that makes the unit ready, until `end_tiles`, for tiles of given rows and bytes."""

    @intrinsic
    def begin(typing):
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            setting = bytearray(64)
            setting[0] = 1
            for number, (rows, width) in enumerate(shapes):
                setting[16 + 2 * number], setting[48 + number] = width, rows
            kept = cgutils.alloca_once_value(builder, ir.Constant(ir.ArrayType(_I8, 64), setting))
            call_unit(builder, "ldtilecfg", builder.bitcast(kept, _BYTE))
            return context.get_dummy_value()

        return types.void(), generate

    return begin


@intrinsic
def end_tiles(typing):
    """Give the unit back, so that nobody keeps its tiles when threads take turns."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        call_unit(builder, "tilerelease")
        return context.get_dummy_value()

    return types.void(), generate


@functools.cache
def multiply_parts(parts: int) -> Any:
    """Return the intrinsic that sets ``c = c + a b`` for c of 32 x 32 float32 numbers.

    It is called with the addresses of a and of b, the number of tiles along their terms, the address of c and the bytes
    from row to row, and 0 if c is to begin as zeros. For every 32 terms, `a` has two tiles of 16 rows for each of so
    many parts, b two of 16 columns for each of three.
    """

    @intrinsic
    def multiply(typing, a, b, count, c, c_step, keep):
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            a, b, count, c, c_step, keep = arguments
            below = builder.add(c, builder.mul(c_step, _I64(16)))
            sums = [_plus(builder, half, 64 * n) for half in (c, below) for n in (0, 1)]
            with builder.if_else(builder.icmp_signed("!=", keep, _I64(0))) as (old, new):
                with old:
                    for number, place in enumerate(sums):
                        read_tile(builder, number, place, c_step)
                with new:
                    for number in range(4):
                        call_unit(builder, "tilezero", number)
            with cgutils.for_range(builder, count) as loop:
                first = builder.add(a, builder.mul(loop.index, _I64(2 * TILE * parts)))
                second = builder.add(b, builder.mul(loop.index, _I64(2 * TILE * PARTS)))
                held: tuple[int | None, int | None] = None, None
                for pair in _PAIRS[: _MEETINGS[parts]]:
                    for place, tile, part, before in zip((first, second), (4, 6), pair, held, strict=True):
                        for half in (0, 1) if part != before else ():
                            at = _plus(builder, place, (2 * part + half) * TILE)
                            read_tile(builder, tile + half, at, _I64(64))
                    held = pair
                    for number in range(4):
                        call_unit(builder, "tdpbf16ps", number, 4 + number // 2, 6 + number % 2)
            for number, place in enumerate(sums):
                store_tile(builder, number, place, c_step)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 6), generate

    return multiply


class _BFloat(ir.Type):  # type: ignore[misc]
    """The bfloat16 of LLVM, which llvmlite does not name."""

    def __str__(self) -> str:
        return "bfloat"


_NEAREST = ir.FunctionType(ir.VectorType(_BFloat(), 2 * _LANES), [_FLOATS, _FLOATS])


def _parts(builder: Any, x: Any, y: Any, count: int) -> list[Any]:
    """Return `count` parts of 16 numbers, and of 16 more, as vectors of 32 numbers of 16 bits."""
    nearest = cgutils.get_or_insert_function(builder.module, _NEAREST, "llvm.x86.avx512bf16.cvtne2ps2bf16.512")
    found = [builder.bitcast(builder.call(nearest, [y, x]), _SHORT)]
    while len(found) < count:
        x, y = _rest(builder, x, found[-1], range(_LANES)), _rest(builder, y, found[-1], range(_LANES, 2 * _LANES))
        found.append(builder.bitcast(builder.call(nearest, [y, x]), _SHORT))
    return found


def _rest(builder: Any, numbers: Any, parts: Any, places: Iterable[int]) -> Any:
    """Return 16 numbers less their parts."""
    wide = builder.shl(builder.zext(_chosen(builder, parts, places), _BITS), ir.Constant(_BITS, [16] * _LANES))
    return builder.fsub(numbers, builder.bitcast(wide, _FLOATS))


def _chosen(builder: Any, vector: Any, places: Iterable[int]) -> Any:
    order = list(places)
    return builder.shuffle_vector(vector, vector, ir.Constant(ir.VectorType(_I32, len(order)), order))


def _vector(builder: Any, place: Any) -> Any:
    return builder.load(builder.inttoptr(place, _FLOATS.as_pointer()), align=4)


@functools.cache
def write_parts(parts: int) -> Any:
    """Return the intrinsic that writes the parts of 32 float32 numbers as rows of several tiles.

    It is called with the address of the numbers, the address of the first row, and the bytes from part to part.
    """

    @intrinsic
    def write(typing, x, to, step):
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            x, to, step = arguments
            left, right = (_vector(builder, _plus(builder, x, 64 * n)) for n in (0, 1))
            for part in _parts(builder, left, right, parts):
                builder.store(part, builder.inttoptr(to, _SHORT.as_pointer()), align=2)
                to = builder.add(to, step)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 3), generate

    return write


@intrinsic
def write_paired_parts(typing, x, y, to, step):
    """Write the parts of 16 terms x and of the terms y that follow them, of 16 columns, as rows of three tiles."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x, y, to, step = arguments
        pairs = [n for lane in range(_LANES) for n in (lane, _LANES + lane)]
        for part in _parts(builder, _vector(builder, x), _vector(builder, y), PARTS):
            builder.store(_chosen(builder, part, pairs), builder.inttoptr(to, _SHORT.as_pointer()), align=2)
            to = builder.add(to, step)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), generate
