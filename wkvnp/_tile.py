# mypy: allow-untyped-defs
"""Products of small matrices in registers, with one order of summation for every shape.

LLVM's vectoriser keeps the sums of a matrix product in memory; here they are explicit vectors of 64 bytes, which stay
in registers. Every output number is one chain of fused multiply-adds in the order of the summed index, which no option
of the compiler may change: a row has the same bits alone and among others. Outside compiled code every function is
its NumPy meaning.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from ._decay import where_sign_bit
from ._jit import FAST
from ._processor import has
from ._scalar import exp, vector_exp

_OPTIONS = {"fastmath": FAST, "error_model": "numpy"}
_ROWS = 4
# Vectors beside each other in four rows: 16 sums and 4 factors fill 32 registers of 64 bytes; where a vector is two
# registers of 32 bytes, and there are 16 of them, one vector is what fits.
_WIDE = 4 if has("avx512f") else 1
_SWEPT = 4 if has("avx512f") else 2  # vectors beside each other in one row of a state

CHUNK = 64
"""How many numbers `largest`, `exponentiate` and `total` take; widths that `multiply` is given are multiples of 16."""


def multiply(a, a0, a_step, b, b0, b_step, c, c0, c_step, rows, terms, width, factor, f0):
    """Set ``c[r] = factor[r] c[r] + sum_i a[r, i] b[i]``; with factor None the old c is not read.

    All arrays are flat: row r of `a` begins at ``a0 + r a_step`` and has `terms` numbers, rows of `b` and `c` have
    `width` numbers, and the factor of row r is at ``f0 + r``.
    """
    for r in range(rows):
        y = c[c0 + r * c_step : c0 + r * c_step + width]
        old = 0 if factor is None else factor[f0 + r] * y
        y[:] = 0
        for i in range(terms):
            y += a[a0 + r * a_step + i] * b[b0 + i * b_step : b0 + i * b_step + width]
        y += old


def largest(x):
    """Return the largest of 64 numbers; NaN among them may go unnoticed."""
    return np.max(x)


def total(x):
    """Return the sum of 64 numbers, added in one order."""
    return np.sum(x, dtype=x.dtype)


def exponentiate(x, reference):
    """Set 64 numbers to the exponentials of what they have above a reference."""
    x[:] = np.exp(x - reference)


def sweep(S, i, width, decay, outers, readings):
    """Pass once over the `width` values from i on of a state S (K, V): read its rows as they are, then move them.

    For every (p, y) of `readings`, ``y += p S``; then, if there are `outers`, rows of S decay (`_decay.signed_decay`),
    and the outer product of every (k, v) of them is added. Both are tuples; decay, p, k have K numbers, y, v have
    `width`, and all may have more.
    """
    K, rows = len(S), S[:, i : i + width]
    for p, y in readings:
        y[:width] += p[:K] @ rows
    if outers:
        moves = decay[:K, None] * rows
        for k, v in outers:
            moves += np.outer(k[:K], v[:width])
        rows[:] = np.where(np.signbit(decay[:K, None]), rows, 0) + moves


def _lanes(number: Any) -> int:
    return 16 if number == types.float32 else 8


class _Memory:
    """Flat arrays of one type as vectors, inside the code of one intrinsic."""

    def __init__(self, context: Any, builder: Any, array: Any, lanes: int = 0) -> None:
        self.context, self.builder, self.array = context, builder, array
        self.number = context.get_data_type(array.dtype)
        self.vector = ir.VectorType(self.number, lanes or _lanes(array.dtype))
        self.align = array.dtype.bitwidth // 8
        signature = ir.FunctionType(self.vector, [self.vector] * 3)
        letter = "f32" if array.dtype == types.float32 else "f64"
        self._fma = cgutils.get_or_insert_function(builder.module, signature, f"llvm.fma.v{self.vector.count}{letter}")

    def constant(self, number: float) -> Any:
        return ir.Constant(self.vector, [number] * self.vector.count)

    def pointer(self, value: Any, index: Any, vector: int = 0) -> Any:
        data = self.context.make_array(self.array)(self.context, self.builder, value).data
        return self.builder.gep(data, [self.builder.add(index, index.type(vector * self.vector.count))])

    def spread(self, value: Any, index: Any) -> Any:
        return self.everywhere(self.builder.load(self.pointer(value, index)))

    def everywhere(self, number: Any) -> Any:
        one = self.builder.insert_element(ir.Constant(self.vector, ir.Undefined), number, ir.IntType(32)(0))
        return self.shuffle(one, [0] * self.vector.count)

    def shuffle(self, vector: Any, order: list[int]) -> Any:
        mask = ir.Constant(ir.VectorType(ir.IntType(32), len(order)), order)
        return self.builder.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), mask)

    def _at(self, value: Any, index: Any, vector: int) -> Any:
        return self.builder.bitcast(self.pointer(value, index, vector), self.vector.as_pointer())

    def load(self, value: Any, index: Any, vector: int) -> Any:
        return self.builder.load(self._at(value, index, vector), align=self.align)

    def store(self, what: Any, value: Any, index: Any, vector: int) -> None:
        self.builder.store(what, self._at(value, index, vector), align=self.align)

    def multiply_add(self, x: Any, y: Any, z: Any) -> Any:
        return self.builder.call(self._fma, [x, y, z])


@functools.cache
def _tile(rows: int, vectors: int, scaled: bool) -> Any:
    """Return the intrinsic of `multiply` for a number of rows, and of vectors beside each other."""

    @intrinsic
    def tile(typing, a, a0, a_step, b, b0, b_step, c, c0, c_step, terms, factor, f0):
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            a, a0, a_step, b, b0, b_step, c, c0, c_step, terms, factor, f0 = arguments
            memory = _Memory(context, builder, signature.args[0])
            places = [(r, w) for r in range(rows) for w in range(vectors)]
            sums = {place: cgutils.alloca_once_value(builder, memory.constant(0)) for place in places}

            def row(begin: Any, step: Any, r: Any) -> Any:
                return builder.add(begin, builder.mul(step, r))

            with cgutils.for_range(builder, terms) as loop:
                shared = [memory.load(b, row(b0, b_step, loop.index), w) for w in range(vectors)]
                for r in range(rows):
                    x = memory.spread(a, builder.add(row(a0, a_step, a_step.type(r)), loop.index))
                    for w in range(vectors):
                        sum_ = sums[r, w]
                        builder.store(memory.multiply_add(x, shared[w], builder.load(sum_)), sum_)
            for r, w in places:
                begin, result = row(c0, c_step, c_step.type(r)), builder.load(sums[r, w])
                if scaled:
                    scale = memory.spread(factor, builder.add(f0, f0.type(r)))
                    result = memory.multiply_add(scale, memory.load(c, begin, w), result)
                memory.store(result, c, begin, w)
            return context.get_dummy_value()

        whole = types.intp
        return types.void(a, whole, whole, b, whole, whole, c, whole, whole, whole, factor, whole), generate

    return tile


@overload(multiply, jit_options=_OPTIONS)
def _overload_multiply(a, a0, a_step, b, b0, b_step, c, c0, c_step, rows, terms, width, factor, f0):
    scaled = not isinstance(factor, types.NoneType)
    lanes = _lanes(a.dtype)
    few = _WIDE if lanes == 16 else 1
    many_tile, rest_tile = _tile(_ROWS, few, scaled), _tile(_ROWS, 1, scaled)
    many_row, rest_row = _tile(1, 4, scaled), _tile(1, 1, scaled)
    many_step, row_step = few * lanes, 4 * lanes

    def run(a, a0, a_step, b, b0, b_step, c, c0, c_step, rows, terms, width, factor, f0):
        fours = rows // _ROWS * _ROWS
        for r in range(0, fours, _ROWS):
            x, y, f, w = a0 + r * a_step, c0 + r * c_step, f0 + r, 0
            while w + many_step <= width:
                many_tile(a, x, a_step, b, b0 + w, b_step, c, y + w, c_step, terms, factor, f)
                w += many_step
            while w < width:
                rest_tile(a, x, a_step, b, b0 + w, b_step, c, y + w, c_step, terms, factor, f)
                w += lanes
        for r in range(fours, rows):
            x, y, f, w = a0 + r * a_step, c0 + r * c_step, f0 + r, 0
            while w + row_step <= width:
                many_row(a, x, a_step, b, b0 + w, b_step, c, y + w, c_step, terms, factor, f)
                w += row_step
            while w < width:
                rest_row(a, x, a_step, b, b0 + w, b_step, c, y + w, c_step, terms, factor, f)
                w += lanes

    return run


def _decayed(builder: Any, decay: Any, row: Any, change: Any) -> Any:
    """Return row + change where the decay is slow, change where it is strong.

    AVX-512 masks the addition itself. Other processors add what a mask leaves of the row: 5 to 10 % faster on Zen 3
    than a multiplication of the row by 0 or 1.
    """
    if not has("avx512f") or row.type.count == 1:
        return builder.fadd(where_sign_bit(builder, decay, row), change)
    kind = ir.VectorType(ir.IntType(64 if row.type.element == ir.DoubleType() else 32), row.type.count)
    slow = builder.icmp_signed("<", builder.bitcast(decay, kind), ir.Constant(kind, [0] * row.type.count))
    return builder.select(slow, builder.fadd(row, change), change)


@functools.cache
def _sweep(vectors: int, lanes: int) -> Any:
    """Return the intrinsic of `sweep` for a number of vectors beside each other, from value c on."""

    @intrinsic
    def sweep(typing, S, i, c, decay, outers, readings):
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            kinds = dict(zip(("S", "i", "c", "decay", "outers", "readings"), signature.args, strict=True))
            S, i, c, decay, outers, readings = arguments
            rows = _Memory(context, builder, kinds["S"], lanes)
            state = context.make_array(kinds["S"])(context, builder, S)
            K, V = cgutils.unpack_tuple(builder, state.shape, 2)

            def pairs(kind: Any, value: Any) -> Any:
                for n, pair in enumerate(kind):
                    parts = [cgutils.unpack_tuple(builder, builder.extract_value(value, n), 2)]
                    yield [(_Memory(context, builder, a, lanes), part) for a, part in zip(pair, parts[0], strict=True)]

            moved, read = list(pairs(kinds["outers"], outers)), list(pairs(kinds["readings"], readings))
            places = range(vectors)
            added = [[memory.load(v, c, w) for w in places] for _, (memory, v) in moved]
            sums = [
                [cgutils.alloca_once_value(builder, memory.load(y, c, w)) for w in places] for _, (memory, y) in read
            ]
            fading = _Memory(context, builder, kinds["decay"], lanes) if moved else None
            with cgutils.for_range(builder, K) as loop:
                factors = [memory.spread(k, loop.index) for (memory, k), _ in moved]
                reads = [memory.spread(p, loop.index) for (memory, p), _ in read]
                at = builder.add(builder.add(i, c), builder.mul(V, loop.index))
                fade = fading.spread(decay, loop.index) if fading else None
                for w in places:
                    row = rows.load(S, at, w)
                    for p, sum_ in zip(reads, sums, strict=True):
                        builder.store(rows.multiply_add(p, row, builder.load(sum_[w])), sum_[w])
                    if fade is not None:
                        change = builder.fmul(fade, row)
                        for k, v in zip(factors, added, strict=True):
                            change = rows.multiply_add(k, v[w], change)
                        rows.store(_decayed(builder, fade, row, change), S, at, w)
            for (_, (memory, y)), sum_ in zip(read, sums, strict=True):
                for w in places:
                    memory.store(builder.load(sum_[w]), y, c, w)
            return context.get_dummy_value()

        return types.void(S, types.intp, types.intp, decay, outers, readings), generate

    return sweep


@overload(sweep, jit_options=_OPTIONS)
def _overload_sweep(S, i, width, decay, outers, readings):
    lanes = _lanes(S.dtype)
    many, some, each = _sweep(_SWEPT, lanes), _sweep(1, lanes), _sweep(1, 1)
    step = _SWEPT * lanes

    def run(S, i, width, decay, outers, readings):
        c = 0
        while c + step <= width:
            many(S, i, c, decay, outers, readings)
            c += step
        while c + lanes <= width:
            some(S, i, c, decay, outers, readings)
            c += lanes
        while c < width:
            each(S, i, c, decay, outers, readings)
            c += 1

    return run


def _folded(combine: Callable[[_Memory, Any, Any], Any]) -> Any:
    """Return the intrinsic that combines 64 numbers, half with half, until one is left."""

    @intrinsic
    def fold(typing, x):
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            memory = _Memory(context, builder, signature.args[0])
            lanes = memory.vector.count
            parts = [memory.load(arguments[0], ir.IntType(64)(0), w) for w in range(CHUNK // lanes)]
            while len(parts) > 1:
                half = len(parts) // 2
                parts = [combine(memory, *pair) for pair in zip(parts[:half], parts[half:], strict=True)]
            while lanes > 1:
                lanes //= 2
                order = [*range(lanes, 2 * lanes), *range(2 * lanes, memory.vector.count), *range(lanes)]
                parts = [combine(memory, parts[0], memory.shuffle(parts[0], order))]
            return builder.extract_element(parts[0], ir.IntType(32)(0))

        return x.dtype(x), generate

    return fold


def _larger(memory: _Memory, x: Any, y: Any) -> Any:
    return memory.builder.select(memory.builder.fcmp_ordered(">", x, y), x, y)


# Added as one times x plus y, because a plain addition would get leave to be reordered.
_largest = _folded(_larger)
_total = _folded(lambda memory, x, y: memory.multiply_add(x, memory.constant(1), y))


@overload(largest, jit_options=_OPTIONS)
def _overload_largest(x):
    return lambda x: _largest(x)


@overload(total, jit_options=_OPTIONS)
def _overload_total(x):
    return lambda x: _total(x)


@intrinsic
def _exponentiate(typing, x, reference):
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        memory, begin = _Memory(context, builder, signature.args[0]), ir.IntType(64)(0)
        reference = memory.everywhere(arguments[1])
        for w in range(CHUNK // memory.vector.count):
            number = builder.fsub(memory.load(arguments[0], begin, w), reference)
            memory.store(vector_exp(builder, number), arguments[0], begin, w)
        return context.get_dummy_value()

    return types.void(x, reference), generate


@overload(exponentiate, jit_options=_OPTIONS)
def _overload_exponentiate(x, reference):
    if x.dtype == types.float32:
        return lambda x, reference: _exponentiate(x, reference)

    def run(x, reference):
        for i in range(x.size):
            x[i] = exp(x[i] - reference)

    return run
