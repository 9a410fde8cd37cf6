# mypy: allow-untyped-defs
"""Dot products of stored rows with rows of activations, several of each at once, in one order of summation.

A vector of 16 stored numbers is widened in registers and met with that of every row of activations. Each product is
two chains of fused multiply-adds, which take the vectors in turn, are added up at the end, and then their 16 lanes:
its bits do not depend on what is computed beside it. All places are addresses.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .._processor import has
from .._scalar import widen_half

LANES = 16
"""Numbers of a vector; rows have a multiple of it."""
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
# Stored rows and rows of activations that meet at once: 4 x 3 pairs of sums and 7 factors fill 32 registers of 64
# bytes; where a vector is two registers of 32 bytes, and there are 16 of them, one pair of sums and its factors do.
WIDE = has("avx512f")
_CHAINS = 2
_I16, _I32, _I64 = ir.IntType(16), ir.IntType(32), ir.IntType(64)
_F32 = ir.FloatType()
_VECTOR = ir.VectorType(_F32, LANES)


def load(builder: Any, address: Any, number: Any, align: int) -> Any:
    """Return 16 numbers of a type."""
    return builder.load(builder.inttoptr(address, ir.VectorType(number, LANES).as_pointer()), align=align)


def widened(builder: Any, kind: str, address: Any) -> Any:
    """Return 16 stored numbers as float32."""
    if kind == "float32":
        return load(builder, address, _F32, 4)
    if kind == "float16":
        return widen_half(builder, load(builder, address, _I16, 2))
    wide = ir.VectorType(_I32, LANES)
    bits = builder.zext(load(builder, address, _I16, 2), wide)
    return builder.bitcast(builder.shl(bits, ir.Constant(wide, [16] * LANES)), _VECTOR)


def _widened_pairs(builder: Any, address: Any) -> list[Any]:
    """Return the 16 even and the 16 odd ones of 32 bfloat16 numbers: two cheap operations on one load."""
    wide = ir.VectorType(_I32, LANES)
    both = load(builder, address, _I32, 2)
    even, odd = (
        builder.shl(both, ir.Constant(wide, [16] * LANES)),
        builder.and_(both, ir.Constant(wide, [-65536] * LANES)),
    )
    return [builder.bitcast(even, _VECTOR), builder.bitcast(odd, _VECTOR)]


def even_and_odd(builder: Any, first: Any, second: Any) -> list[Any]:
    """Return the even and the odd ones of 32 numbers in two vectors."""
    masks = ([*range(begin, 2 * LANES, 2)] for begin in (0, 1))
    return [builder.shuffle_vector(first, second, ir.Constant(ir.VectorType(_I32, LANES), mask)) for mask in masks]


def multiply_add(builder: Any) -> Any:
    """Return the function that multiplies and adds vectors with one rounding, under all options of the compiler."""
    return cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(_VECTOR, [_VECTOR] * 3), f"llvm.fma.v{LANES}f32"
    )


def _halves_sum(builder: Any, first: Any, second: Any, lanes: int) -> Any:
    """Add half and half of every `2 lanes` lanes of two vectors; the second's results follow those of the first.

    As fused multiply-adds, because plain additions might be reordered.
    """
    low = [n for n in range(2 * LANES) if n // lanes % 2 == 0]
    masks = (ir.Constant(ir.VectorType(_I32, LANES), [n + more for n in low]) for more in (0, lanes))
    a, b = (builder.shuffle_vector(first, second, mask) for mask in masks)
    return builder.call(multiply_add(builder), [a, ir.Constant(_VECTOR, [1.0] * LANES), b])


def lanes_sums(builder: Any, vectors: list[Any]) -> Any:
    """Add the lanes of some vectors up, half and half, and return the results in the first lanes of one vector.

    Vectors are as many as a power of two. What is added to what does not depend on how many there are.
    """
    lanes = LANES
    while lanes > 1:
        lanes //= 2
        first, second = (vectors[::2], vectors[1::2]) if len(vectors) > 1 else (vectors, vectors)
        vectors = [_halves_sum(builder, a, b, lanes) for a, b in zip(first, second, strict=True)]
    return vectors[0]


def store_sums(builder: Any, sums: dict[tuple[int, int, int], Any], y: Any, o_step: Any, y_step: Any) -> None:
    """Add up the chains (output, row, chain) and their lanes, and store each result in its place."""
    fma, one = multiply_add(builder), ir.Constant(_VECTOR, [1.0] * LANES)
    outputs, rows = ({key[n] for key in sums} for n in (0, 1))
    for r in sorted(rows):
        chains = [[builder.load(sums[o, r, c]) for c in range(_CHAINS)] for o in sorted(outputs)]
        found = lanes_sums(builder, [builder.call(fma, [first, one, second]) for first, second in chains])
        for o in sorted(outputs):
            to = builder.add(y, builder.add(builder.mul(o_step, _I64(o)), builder.mul(y_step, _I64(r))))
            result = builder.extract_element(found, _I32(o))
            builder.store(result, builder.inttoptr(to, _F32.as_pointer()), align=4)


@functools.cache
def dots(outputs: int, rows: int, kind: str) -> Any:
    """Return the intrinsic for `outputs` stored rows and `rows` rows of activations.

    It is called with the address of the first stored row and the bytes from one to the next, the same of the
    activations, the number of terms (a multiple of 16), and where the results go: its address, the bytes from one
    output to the next, and from one row to the next.
    """

    @intrinsic
    def tile(typing, w, w_step, x, x_step, terms, y, o_step, y_step):
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            w, w_step, x, x_step, terms, y, o_step, y_step = arguments
            fma, zero = multiply_add(builder), ir.Constant(_VECTOR, [0.0] * LANES)
            pairs = [(o, r) for o in range(outputs) for r in range(rows)]
            sums = {(*pair, c): cgutils.alloca_once_value(builder, zero) for pair in pairs for c in range(_CHAINS)}
            w_rows = [builder.add(w, builder.mul(w_step, _I64(o))) for o in range(outputs)]
            x_rows = [builder.add(x, builder.mul(x_step, _I64(r))) for r in range(rows)]

            def add(first: Any, chains: int) -> None:
                at = [builder.add(first, _I64(c * LANES)) for c in range(chains)]
                stored, active = builder.mul(first, _I64(BYTES[kind])), [builder.mul(a, _I64(4)) for a in at]
                factors = [[load(builder, builder.add(row, a), _F32, 4) for a in active] for row in x_rows]
                together = kind == "bfloat16" and chains == 2
                if together:
                    factors = [even_and_odd(builder, *pair) for pair in factors]
                for o, row in enumerate(w_rows):
                    place = builder.add(row, stored)
                    if together:
                        numbers = _widened_pairs(builder, place)
                    else:
                        next_one = [builder.add(place, _I64(c * LANES * BYTES[kind])) for c in range(chains)]
                        numbers = [widened(builder, kind, one) for one in next_one]
                    for r, c in itertools.product(range(rows), range(chains)):
                        total = builder.load(sums[o, r, c])
                        builder.store(builder.call(fma, [numbers[c], factors[r][c], total]), sums[o, r, c])

            begin = _I64(0)
            for chains in (_CHAINS, 1):
                step = chains * LANES
                count = builder.udiv(builder.sub(terms, begin), _I64(step))
                with cgutils.for_range(builder, count) as loop:
                    add(builder.add(begin, builder.mul(loop.index, _I64(step))), chains)
                begin = builder.add(begin, builder.mul(count, _I64(step)))
            store_sums(builder, sums, y, o_step, y_step)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 8), generate

    return tile
