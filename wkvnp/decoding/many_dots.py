# mypy: allow-untyped-defs
"""Dot products of eight stored rows of 16-bit numbers with many rows of activations, with the same bits as in `dots`.

Stored numbers are widened once, into the nearest cache. Three rows of activations at once meet eight widened ones, so
that 24 sums fill the registers; the two chains of every product are therefore followed one after the other. Long rows
are cut, so that what meets stays in the cache, and sums wait in memory for the next piece.
"""

from __future__ import annotations

import functools
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .._jit import inlined
from .ahead import prefetch_rows, share_of
from .dots import BYTES, LANES, even_and_odd, lanes_sums, load, multiply_add, widened

EIGHT, ROWS = 8, 3
PIECE = 1024
"""Terms that meet at once."""
_CHAINS = 2
_APART = 4 * (PIECE + LANES)
"""Bytes from one widened row to the next: not a power of two, at which lines push one another out of the cache."""
_SUMS = EIGHT * ROWS * _CHAINS * 4 * LANES
_I32, _I64, _F32 = ir.IntType(32), ir.IntType(64), ir.FloatType()
_VECTOR = ir.VectorType(_F32, LANES)


def scratch_of_dots(rows: int) -> int:
    """Return how many float32 numbers `many_dots` needs scratch for."""
    return (EIGHT * _APART + -(-rows // ROWS) * _SUMS) // 4


@intrinsic
def _tile(typing, w, x, x_step, terms, sums, begins):
    """Add the products of eight widened rows to the sums (row of activations, stored row, chain, lane).

    What was there is forgotten if it `begins`. Terms are a multiple of 32.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        w, x, x_step, terms, sums, begins = arguments
        fma, zero = multiply_add(builder), ir.Constant(_VECTOR, [0.0] * LANES)
        w_rows = [builder.add(w, _I64(_APART * o)) for o in range(EIGHT)]
        x_rows = [builder.add(x, builder.mul(x_step, _I64(r))) for r in range(ROWS)]
        count = builder.udiv(terms, _I64(_CHAINS * LANES))
        new = builder.icmp_signed("!=", begins, _I64(0))
        totals = {(r, o): cgutils.alloca_once(builder, _VECTOR) for r in range(ROWS) for o in range(EIGHT)}
        for chain in range(_CHAINS):
            places = {
                (r, o): builder.add(sums, _I64(((r * EIGHT + o) * _CHAINS + chain) * 4 * LANES)) for r, o in totals
            }
            for key, total in totals.items():
                builder.store(builder.select(new, zero, load(builder, places[key], _F32, 64)), total)
            with cgutils.for_range(builder, count) as loop:
                at = builder.add(builder.mul(loop.index, _I64(_CHAINS * LANES * 4)), _I64(chain * LANES * 4))
                factors = [load(builder, builder.add(row, at), _F32, 4) for row in x_rows]
                for o, row in enumerate(w_rows):
                    number = load(builder, builder.add(row, at), _F32, 4)
                    for r, factor in enumerate(factors):
                        total = totals[r, o]
                        builder.store(builder.call(fma, [number, factor, builder.load(total)]), total)
            for key, total in totals.items():
                to = builder.inttoptr(places[key], _VECTOR.as_pointer())
                builder.store(builder.load(total), to, align=64)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 6), generate


@intrinsic
def _finish(typing, sums, paired, y, o_step, y_step):
    """Add up the chains and lanes of three rows of activations and store the results, two by two.

    `paired`: the even numbers of 32 are one chain and the odd ones the other.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        sums, paired, y, o_step, y_step = arguments
        fma, one = multiply_add(builder), ir.Constant(_VECTOR, [1.0] * LANES)
        turned = builder.icmp_signed("!=", paired, _I64(0))
        with cgutils.for_range(builder, _I64(ROWS)) as loop:
            row = builder.add(sums, builder.mul(loop.index, _I64(EIGHT * _CHAINS * 4 * LANES)))
            vectors = []
            for o in range(EIGHT):
                at = builder.add(row, _I64(o * _CHAINS * 4 * LANES))
                first, second = load(builder, at, _F32, 64), load(builder, builder.add(at, _I64(4 * LANES)), _F32, 64)
                even, odd = even_and_odd(builder, first, second)
                first, second = builder.select(turned, even, first), builder.select(turned, odd, second)
                vectors.append(builder.call(fma, [first, one, second]))
            found = lanes_sums(builder, vectors)
            place = builder.add(y, builder.mul(y_step, loop.index))
            two = ir.VectorType(_F32, 2)
            for q in range(4):
                mask = ir.Constant(ir.VectorType(_I32, 2), [2 * q, 2 * q + 1])
                to = builder.inttoptr(builder.add(place, builder.mul(o_step, _I64(q))), two.as_pointer())
                builder.store(builder.shuffle_vector(found, found, mask), to, align=4)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 5), generate


@functools.cache
def _widen(kind: str) -> Any:
    """Return the intrinsic that widens stored numbers, a multiple of 16, from one address to another."""

    @intrinsic
    def widen(typing, w, terms, y):
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            w, terms, y = arguments
            with cgutils.for_range(builder, builder.udiv(terms, _I64(LANES))) as loop:
                at = builder.add(w, builder.mul(loop.index, _I64(LANES * BYTES[kind])))
                to = builder.add(y, builder.mul(loop.index, _I64(LANES * 4)))
                number = widened(builder, kind, at)
                builder.store(number, builder.inttoptr(to, _VECTOR.as_pointer()), align=64)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 3), generate

    return widen


_widen_bfloat16, _widen_float16 = _widen("bfloat16"), _widen("float16")


@inlined
def many_dots(kind, w, w_step, x, x_step, terms, rows, y, o_step, y_step, scratch):
    """Set y to the products of two stored rows at each of four places, and prefetch those behind them.

    Numbers are bfloat16 (1) or float16 (2), terms a multiple of 32, rows of activations three or more.
    """
    tiles, begin, size = -(-rows // ROWS), 0, 2 * terms
    sums, ahead = scratch + EIGHT * _APART, 2 * size
    share = share_of(ahead, tiles * -(-terms // PIECE))
    while begin < terms:
        n = min(PIECE, terms - begin)
        for o in range(EIGHT):
            stored, wide = w + o // 2 * w_step + o % 2 * size + 2 * begin, scratch + o * _APART
            if kind == 1:
                _widen_bfloat16(stored, n, wide)
            else:
                _widen_float16(stored, n, wide)
        for t in range(tiles):
            m = min(ROWS * t, rows - ROWS)
            here = sums + t * _SUMS if n < terms else sums
            prefetch_rows(w, w_step, ahead, ahead + share)
            ahead += share
            _tile(scratch, x + m * x_step + 4 * begin, x_step, n, here, 1 if begin == 0 else 0)
            if begin + n == terms:
                _finish(here, 1 if kind == 1 else 0, y + m * y_step, o_step, y_step)
        begin += n
