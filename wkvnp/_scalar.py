# mypy: allow-untyped-defs
"""Scalar functions for compiled loops: exponentials that vectorise, and 16-bit floats that Numba does not know.

Numba calls the C library for ``exp``, which LLVM cannot turn into vector code; the float32 versions here are plain
arithmetic, so a loop that uses them runs 16 lanes wide. float64 keeps the C library: it is the witness, not the
fast path. Outside compiled code every function is its NumPy meaning.

Accuracy in float32, over the whole range: ``exp``, ``expm1`` and ``sigmoid`` within 3 units in the last place,
``tanh`` within 3e-7 absolute, ``softplus`` within 6 units; NaN stays NaN, ``exp`` and ``softplus`` are 0 below -87.3,
and ``exp`` stops growing at 88.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from ._jit import FAST, jit
from ._processor import HALVES

OPTIONS = {"fastmath": FAST, "error_model": "numpy"}
_INT32 = ir.IntType(32)
_ZERO, _ONE, _TWO = np.float32(0), np.float32(1), np.float32(2)
_LOG2E = np.float32(1.4426950408889634)
# Added to a number below 2**22, it leaves no bits behind the point, and the lowest bits are those of n + 127.
_ROUND = np.float32(1.5 * 2**23 + 127)
_LN2_HIGH, _LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
LOWEST, _HIGHEST = np.float32(-87.3), np.float32(88.0)
# Minimax polynomial of (exp(r) - 1 - r) / r**2 on [-ln2/2, ln2/2] (Cephes `expf`).
_P0, _P1, _P2 = np.float32(1.9875691500e-4), np.float32(1.3981999507e-3), np.float32(8.3334519073e-3)
_P3, _P4, _P5 = np.float32(4.1665795894e-2), np.float32(1.6666665459e-1), np.float32(5.0000001201e-1)
# Chebyshev interpolation of atanh(s) / s as a polynomial in s**2 on [0, 1/9]; off by 4e-9 at most.
_L0, _L1, _L2 = np.float32(1.4078889157e-1), np.float32(1.3982578878e-1), np.float32(2.0012297615e-1)
_L3, _L4 = np.float32(3.3333160821e-1), np.float32(1.0)


def exp(x: Any) -> Any:
    """Return e to the power x."""
    return np.exp(x)


def expm1(x: Any) -> Any:
    """Return exp(x) - 1, exact to the last digits where x is near 0."""
    return np.expm1(x)


def multiply_add(x: Any, y: Any, z: Any) -> Any:
    """Return x y + z, in compiled code rounded once and never rearranged."""
    return x * y + z


def sigmoid(x: Any) -> Any:
    """Return 1 / (1 + exp(-x))."""
    return x.dtype.type(1) / (x.dtype.type(1) + np.exp(-x))


def tanh(x: Any) -> Any:
    """Return the hyperbolic tangent."""
    return np.tanh(x)


def relu(x: Any) -> Any:
    """Return max(x, 0)."""
    return np.maximum(x, 0)


def softplus(x: Any) -> Any:
    """Return log(1 + exp(x))."""
    return np.logaddexp(x.dtype.type(0), x)


def cast(value: float, x: Any) -> Any:
    """Return a constant in the dtype of x; a bare Python number would turn float32 loops into float64."""
    return x.dtype.type(value)


def widen(x: Any) -> Any:
    """Return a stored weight as a number to compute with: uint16 holds bfloat16, int16 holds float16."""
    if isinstance(x, np.uint16):
        return np.array(np.uint32(x) << np.uint32(16), np.uint32).view(np.float32)[()]
    if isinstance(x, np.int16):
        return np.float32(np.array(x).view(np.float16)[()])
    return x


@intrinsic  # type: ignore[untyped-decorator]
def _power_of_two(context: Any, rounded: Any) -> Any:
    """Return 2**n for n + _ROUND: the lowest bits are the exponent of the result."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        bits = builder.bitcast(arguments[0], _INT32)
        return builder.bitcast(builder.shl(bits, ir.Constant(_INT32, 23)), ir.FloatType())

    return types.float32(types.float32), generate


@intrinsic  # type: ignore[untyped-decorator]
def _from_bfloat16(context: Any, bits: Any) -> Any:
    """Convert the 16 bits of a bfloat16, which are the upper half of a float32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word = builder.shl(builder.zext(arguments[0], _INT32), ir.Constant(_INT32, 16))
        return builder.bitcast(word, ir.FloatType())

    return types.float32(bits), generate


def widen_half(builder: Any, bits: Any) -> Any:
    """Convert the 16 bits of one float16, or of the lanes of a vector."""

    def of(number: Any, value: Any = None) -> Any:
        lanes = getattr(bits.type, "count", None)
        kind = number if lanes is None else ir.VectorType(number, lanes)
        return kind if value is None else ir.Constant(kind, value if lanes is None else [value] * lanes)

    if HALVES:
        return builder.fpext(builder.bitcast(bits, of(ir.HalfType())), of(ir.FloatType()))
    word = builder.zext(bits, of(_INT32))
    number = builder.shl(builder.and_(word, of(_INT32, 0x7FFF)), of(_INT32, 13))  # 2**112 times too small
    scaled = builder.fmul(builder.bitcast(number, of(ir.FloatType())), of(ir.FloatType(), 2.0**112))
    endless = builder.icmp_unsigned("==", builder.and_(word, of(_INT32, 0x7C00)), of(_INT32, 0x7C00))
    finite, other = builder.bitcast(scaled, of(_INT32)), builder.or_(number, of(_INT32, 0x7F800000))
    sign = builder.shl(builder.and_(word, of(_INT32, 0x8000)), of(_INT32, 16))
    return builder.bitcast(builder.or_(builder.select(endless, other, finite), sign), of(ir.FloatType()))


@intrinsic  # type: ignore[untyped-decorator]
def _from_half(context: Any, bits: Any) -> Any:
    """Convert the 16 bits of a float16; one instruction a vector where the CPU has it."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return widen_half(builder, arguments[0])

    return types.float32(bits), generate


@intrinsic  # type: ignore[untyped-decorator]
def _multiply_add(context: Any, x: Any, y: Any, z: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fma(*arguments)

    return x(x, x, x), generate


@jit
def reduced(x):
    """Return 2**n and exp(r) - 1 with x = n ln2 + r, for x from LOWEST to _HIGHEST; below, the values of LOWEST."""
    clamped = LOWEST if x < LOWEST else x
    rounded = _multiply_add(clamped, _LOG2E, _ROUND)
    n = rounded - _ROUND
    # As plain products the two parts of ln2 would be added up first: an error of 3e-7 at -87.
    r = _multiply_add(n, -_LN2_LOW, _multiply_add(n, -_LN2_HIGH, clamped))
    # Three terms side by side: a chain of five waits for each, and processors hold too few iterations to hide that.
    q = r * r
    p = ((_P0 * r + _P1) * q + (_P2 * r + _P3)) * q + (_P4 * r + _P5)
    return _power_of_two(rounded), p * q + r


def _exp32(x):
    power, fraction = reduced(_HIGHEST if x > _HIGHEST else x)
    return _ZERO if x < LOWEST else fraction * power + power


def _expm1_32(x):
    power, fraction = reduced(_HIGHEST if x > _HIGHEST else x)
    return fraction * power + (power - _ONE)


def vector_exp(builder: Any, x: Any) -> Any:
    """Return `exp` of the lanes of a float32 vector, which the compiler may hold in wider registers than a loop's."""
    whole = ir.VectorType(_INT32, x.type.count)

    def call(name: str, *numbers: Any) -> Any:
        kind = ir.FunctionType(x.type, [x.type] * len(numbers))
        name = f"llvm.{name}.v{x.type.count}f32"
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), numbers)

    def all_lanes(number: np.float32) -> Any:
        return ir.Constant(x.type, [float(number)] * x.type.count)

    low, high = all_lanes(LOWEST), all_lanes(_HIGHEST)
    tiny = builder.fcmp_ordered("<", x, low)
    clamped = builder.select(tiny, low, x)
    clamped = builder.select(builder.fcmp_ordered(">", clamped, high), high, clamped)
    rounded = call("fma", clamped, all_lanes(_LOG2E), all_lanes(_ROUND))
    n = builder.fsub(rounded, all_lanes(_ROUND))
    r = call("fma", n, all_lanes(-_LN2_LOW), call("fma", n, all_lanes(-_LN2_HIGH), clamped))
    q = builder.fmul(r, r)
    pairs = [call("fma", all_lanes(a), r, all_lanes(b)) for a, b in ((_P0, _P1), (_P2, _P3), (_P4, _P5))]
    p = call("fma", call("fma", pairs[0], q, pairs[1]), q, pairs[2])
    shift = ir.Constant(whole, [23] * x.type.count)
    power = builder.bitcast(builder.shl(builder.bitcast(rounded, whole), shift), x.type)
    value = call("fma", call("fma", p, q, r), power, power)
    return builder.select(tiny, all_lanes(_ZERO), value)


@overload(exp, jit_options=OPTIONS)
def _overload_exp(x):
    return _exp32 if x == types.float32 else lambda x: math.exp(x)


@overload(expm1, jit_options=OPTIONS)
def _overload_expm1(x):
    return _expm1_32 if x == types.float32 else lambda x: math.expm1(x)


@overload(multiply_add, jit_options=OPTIONS)
def _overload_multiply_add(x, y, z):
    return lambda x, y, z: _multiply_add(x, y, z)


@overload(sigmoid, jit_options=OPTIONS)
def _overload_sigmoid(x):
    if x == types.float32:
        return lambda x: _ONE / (_ONE + exp(-x))
    return lambda x: 1.0 / (1.0 + math.exp(-x))


@overload(tanh, jit_options=OPTIONS)
def _overload_tanh(x):
    if x == types.float32:
        return lambda x: _ONE - _TWO / (_ONE + exp(_TWO * x))
    return lambda x: math.tanh(x)


@overload(relu, jit_options=OPTIONS)
def _overload_relu(x):
    if x == types.float32:
        return lambda x: _ZERO if x < _ZERO else x
    return lambda x: 0.0 if x < 0.0 else x


def _softplus_32(x):
    # log(1 + u) = 2 atanh(u / (2 + u)), which keeps the digits of a small u = exp(-|x|).
    u = exp(-abs(x))
    s = u / (_TWO + u)
    t = s * s
    logarithm = _TWO * s * ((((_L0 * t + _L1) * t + _L2) * t + _L3) * t + _L4)
    return (_ZERO if x < _ZERO else x) + logarithm


@overload(softplus, jit_options=OPTIONS)
def _overload_softplus(x):
    if x == types.float32:
        return _softplus_32
    return lambda x: (0.0 if x < 0.0 else x) + math.log1p(math.exp(-abs(x)))


@overload(cast, jit_options=OPTIONS)
def _overload_cast(value, x):
    if x == types.float32:
        return lambda value, x: np.float32(value)
    return lambda value, x: np.float64(value)


@overload(widen, jit_options=OPTIONS)
def _overload_widen(x):
    if x == types.uint16:
        return lambda x: _from_bfloat16(x)
    if x == types.int16:
        return lambda x: _from_half(x)
    return lambda x: x
