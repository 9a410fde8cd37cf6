# mypy: allow-untyped-defs
"""Memory by its address, and counters that threads share, for compiled loops.

The caller must keep the memory alive. Nothing here but `prefetch_arrays` has a meaning outside compiled code.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import carray, types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from ._jit import inlined
from ._processor import MACHINE


def _pointer_to(number: Any) -> Any:
    """Return the intrinsic that makes a typed pointer of an address."""

    @intrinsic
    def pointer(typing, address):
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.inttoptr(arguments[0], context.get_value_type(types.CPointer(number)))

        return types.CPointer(number)(types.int64), generate

    return pointer


_uint16, _int16 = (_pointer_to(number) for number in (types.uint16, types.int16))
_float32, _float64, _int64 = (_pointer_to(number) for number in (types.float32, types.float64, types.int64))
_uint8 = _pointer_to(types.uint8)


@inlined
def floats(address, shape):
    """Return the float32 numbers at an address as an array of a shape."""
    return carray(_float32(address), shape)


@inlined
def bfloats(address, shape):
    """Return the bfloat16 numbers at an address as an array of a shape, as compiled code knows them."""
    return carray(_uint16(address), shape)


@inlined
def half_floats(address, shape):
    """Return the float16 numbers at an address as an array of a shape, as compiled code knows them."""
    return carray(_int16(address), shape)


@inlined
def doubles(address, shape):
    """Return the float64 numbers at an address as an array of a shape."""
    return carray(_float64(address), shape)


@inlined
def integers(address, shape):
    """Return the int64 numbers at an address as an array of a shape."""
    return carray(_int64(address), shape)


@inlined
def bytes_of(address, shape):
    """Return the uint8 numbers at an address as an array of a shape."""
    return carray(_uint8(address), shape)


@inlined
def place(code, private, slots):
    """Return the address that an operand means: below 0 a place of the worker's own, below 4,096 a slot of the call."""
    if code < 0:
        return private - (code + 1)
    return slots[code] if code < 4096 else code


@intrinsic
def fetch_add(typing, array, index, number):
    """Add to a counter, at once for all threads; return what it was before."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.atomic_rmw("add", builder.gep(data, [arguments[1]]), arguments[2], "acq_rel")

    return types.int64(array, types.intp, types.int64), generate


@intrinsic
def fetch(typing, array, index):
    """Return a counter, and see all that other threads did before they changed it."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.load_atomic(builder.gep(data, [arguments[1]]), "acquire", 8)

    return types.int64(array, types.intp), generate


def _emit_prefetch(builder: Any, address: Any, near: bool) -> None:
    byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
    kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
    call = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
    builder.call(call, [builder.inttoptr(address, byte), number(0), number(3 if near else 2), number(1)])


@intrinsic
def prefetch(typing, address):
    """Prefetch a cache line that will be read soon, into the second cache."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _emit_prefetch(builder, arguments[0], near=False)
        return context.get_dummy_value()

    return types.void(types.int64), generate


@intrinsic
def write_past_caches(typing, x, y, count):
    """Copy float32 numbers, a multiple of 16, to where nobody reads soon, on a multiple of 64 bytes.

    Memory is then not read before it is written. Other threads see the numbers after an operation on a counter.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x, y, count = arguments
        number, vector = ir.IntType(64), ir.VectorType(ir.FloatType(), 16)
        past = builder.module.add_metadata([ir.IntType(32)(1)])
        with cgutils.for_range(builder, builder.udiv(count, number(16))) as loop:
            offset = builder.mul(loop.index, number(64))
            source, target = (builder.inttoptr(builder.add(a, offset), vector.as_pointer()) for a in (x, y))
            builder.store(builder.load(source, align=4), target, align=64).set_metadata("nontemporal", past)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 3), generate


@intrinsic
def pause(typing):
    """Tell the processor that this thread waits for another."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if MACHINE == "x86_64":
            hint = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(ir.VoidType(), []), "llvm.x86.sse2.pause"
            )
            builder.call(hint, [])
        return context.get_dummy_value()

    return types.void(), generate


AHEAD = 3
"""Tokens between prefetching a row and reading it: as long as memory takes, a few hundred nanoseconds."""


def prefetch_arrays(rows: Any) -> None:
    """Prefetch some rows, a tuple of arrays, that will be read or written soon.

    Rows of one head are as far apart as all heads are wide, which hardware prefetchers do not predict.
    """


@intrinsic
def _prefetch_arrays(typing, rows):
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        long, line = ir.IntType(64), 64
        for n, kind in enumerate(signature.args[0]):
            array = context.make_array(kind)(context, builder, builder.extract_value(arguments[0], n))
            size = builder.mul(array.nitems, array.itemsize)
            first = builder.ptrtoint(array.data, long)
            count = builder.udiv(builder.add(size, long(line - 1)), long(line))
            with cgutils.for_range(builder, count) as loop:
                _emit_prefetch(builder, builder.add(first, builder.mul(loop.index, long(line))), near=True)
        return context.get_dummy_value()

    return types.void(rows), generate


@overload(prefetch_arrays)
def _overload_prefetch(rows):
    return lambda rows: _prefetch_arrays(rows)
