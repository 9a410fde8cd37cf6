# mypy: allow-untyped-defs
"""Decays of states, exact at both ends.

A slow decay, near 1, has too few digits as a factor: a thousand tokens add up its rounding. The state is changed by its
difference from 1, ``expm1(log_decay)``, instead. For a strong decay, near 0, that difference is near -1 and cancels
against the state: there the factor has all digits. Two forms hold either: `split_decay` for loops over numbers,
`signed_decay` for `_tile.sweep`, which multiplies a whole row of a state by one decay. Logarithms are at most 0.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from ._scalar import LOWEST, OPTIONS, multiply_add, reduced

_ZERO, _ONE = np.float32(0), np.float32(1)
_SLOW = -0.6931471805599453  # log(1/2)


def split_decay(log_decay: Any) -> Any:
    """Return a decay exp(log_decay) as two numbers whose sum it is: ``whole``, and ``rest``.

    A state moves by ``multiply_add(whole, S, rest * S)``. For slow decays whole is 1, for strong ones it is a smaller
    power of two, or 0. Below the smallest normal number both are 0.
    """
    zero, one = log_decay.dtype.type(0), log_decay.dtype.type(1)
    if log_decay > _SLOW:
        return one, np.expm1(log_decay)
    return zero, np.exp(log_decay) if log_decay >= np.log(np.finfo(one.dtype).tiny) else zero


def signed_decay(log_decay: Any) -> Any:
    """Return a decay exp(log_decay) as the one number that `faded` and `_tile.sweep` take.

    Its sign bit says which: set, it is the decay less 1, for slow decays; clear, it is the decay, for strong ones.
    """
    whole, rest = split_decay(log_decay)
    return -abs(rest) if whole == 1 else whole + rest


def faded(x: Any, decay: Any) -> Any:
    """Return x times a decay that `signed_decay` has made."""
    return x * decay + (x if np.signbit(decay) else x.dtype.type(0))


@intrinsic  # type: ignore[untyped-decorator]
def _negative(context: Any, x: Any) -> Any:
    """Set the sign bit, of a zero too; arithmetic with `nsz` could lose it."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.IntType(x.bitwidth)
        bits = builder.or_(builder.bitcast(arguments[0], kind), ir.Constant(kind, 1 << (x.bitwidth - 1)))
        return builder.bitcast(bits, arguments[0].type)

    return x(x), generate


def where_sign_bit(builder: Any, decay: Any, x: Any) -> Any:
    """Return x where the sign bit of `decay` is set, else 0: of numbers, or of the lanes of vectors."""
    lanes = getattr(x.type, "count", None)
    width = 64 if (x.type if lanes is None else x.type.element) == ir.DoubleType() else 32
    kind = ir.IntType(width) if lanes is None else ir.VectorType(ir.IntType(width), lanes)
    sign = ir.Constant(kind, width - 1 if lanes is None else [width - 1] * lanes)
    mask = builder.ashr(builder.bitcast(decay, kind), sign)
    return builder.bitcast(builder.and_(builder.bitcast(x, kind), mask), x.type)


@intrinsic  # type: ignore[untyped-decorator]
def _where_sign_bit(context: Any, decay: Any, x: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return where_sign_bit(builder, *arguments)

    return x(decay, x), generate


def _split_decay_32(log_decay):
    power, fraction = reduced(log_decay)
    whole = _ZERO if log_decay < LOWEST else power
    return whole, fraction * whole


def _split_decay_64(log_decay):
    if log_decay > _SLOW:
        return 1.0, math.expm1(log_decay)
    return 0.0, math.exp(log_decay)


def _signed_decay_32(log_decay):
    whole, rest = split_decay(log_decay)
    return rest + whole if whole < _ONE else _negative(rest)


def _signed_decay_64(log_decay):
    return _negative(math.expm1(log_decay)) if log_decay > _SLOW else math.exp(log_decay)


@overload(split_decay, jit_options=OPTIONS)
def _overload_split_decay(log_decay):
    return _split_decay_32 if log_decay == types.float32 else _split_decay_64


@overload(signed_decay, jit_options=OPTIONS)
def _overload_signed_decay(log_decay):
    return _signed_decay_32 if log_decay == types.float32 else _signed_decay_64


@overload(faded, jit_options=OPTIONS)
def _overload_faded(x, decay):
    return lambda x, decay: multiply_add(x, decay, _where_sign_bit(decay, x))
