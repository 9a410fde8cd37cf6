"""Compiled loop of the element-wise scan: channels are independent, so lanes and workers run over them.

As elsewhere a decay w is the sum of two numbers (`split_decay`), because a factor near 1 keeps too few digits of a slow
one. What it leaves free, 1 - w, is ``-rest`` where the decay is slow.

A complex decay turns by an angle that is not small. One rounding of it to float32, repeated a thousand times, made an
error of 2e-5: hence its parts and the products with them are float64 for every dtype of the state.
"""

import math

import numpy as np
from numba import prange

from ..._decay import split_decay
from ..._jit import inlined, uncounted
from ..._scalar import multiply_add

NUMBERS = 64  # of a block; even, so that no pair is torn
ONE, REST, ROOT = 0, 1, 2


@inlined
def _split(log_decay, whole, rest):
    """Write the two parts of a real decay."""
    for c in range(log_decay.size):
        whole[c], rest[c] = split_decay(log_decay[c])


@inlined
def _split_complex(log_decay, whole, rest):
    """Write the two parts of pairs, with sines of half the angle: exact where the decay is slow and turns slowly."""
    for c in range(0, log_decay.size, 2):
        w, r = split_decay(log_decay[c])
        half, size = 0.5 * np.float64(log_decay[c + 1]), np.float64(w) + np.float64(r)
        s, k = math.sin(half), math.cos(half)
        whole[c] = w
        rest[c], rest[c + 1] = r - 2.0 * s * s * size, 2.0 * s * k * size


@inlined
def _freed(one, whole, rest):
    """Return 1 - (whole + rest) with all digits of a slow decay; the compiler may rearrange a difference of three."""
    return -rest if whole == one else one - (whole + rest)


@inlined
def _real_token(whole, rest, x, gain, h, y):
    """Move h by one token of a block of channels."""
    one = y.dtype.type(1)
    if gain == ONE:
        for c in range(y.size):
            h[c] = multiply_add(whole[c], h[c], rest[c] * h[c] + x[c])
    elif gain == REST:
        for c in range(y.size):
            h[c] = multiply_add(whole[c], h[c], rest[c] * h[c] + _freed(one, whole[c], rest[c]) * x[c])
    else:
        for c in range(y.size):
            free = math.sqrt(_freed(one, whole[c], rest[c]) * (one + (whole[c] + rest[c])))
            h[c] = multiply_add(whole[c], h[c], rest[c] * h[c] + free * x[c])
    for c in range(y.size):
        y[c] = h[c]


@inlined
def _complex_token(whole, rest, x, h, y):
    """Move h by one token of a block of pairs."""
    for c in range(0, y.size, 2):
        re, im = np.float64(h[c]), np.float64(h[c + 1])
        h[c] = multiply_add(whole[c], re, rest[c] * re - rest[c + 1] * im + x[c])
        h[c + 1] = multiply_add(whole[c], im, rest[c] * im + rest[c + 1] * re + x[c + 1])
        y[c], y[c + 1] = h[c], h[c + 1]


@uncounted
def scan(
    starts,  # IN  (N,) first token of each sequence
    stops,  # IN  (N,) one past its last token
    log_decay,  # IN  (M or 1, C or 2C)
    x,  # IN  (M, C or 2C)
    pairs,  # IN  bool: numbers are complex
    gain,  # IN  int: ONE, REST or ROOT
    state,  # INOUT (N, C or 2C)
    y,  # OUT (M, C or 2C)
    scratch,  # (N * blocks, 2, NUMBERS), float64 if numbers are complex
):
    """Walk every sequence and block of channels."""
    N, C = state.shape
    blocks = (C + NUMBERS - 1) // NUMBERS
    constant = log_decay.shape[0] == 1
    for item in prange(N * blocks):
        n, i = item // blocks, item % blocks * NUMBERS
        e = min(i + NUMBERS, C)
        h, whole, rest = state[n, i:e], scratch[item, 0], scratch[item, 1]
        for t in range(starts[n], stops[n]):
            if t == starts[n] or not constant:
                g = log_decay[0 if constant else t, i:e]
                if pairs:
                    _split_complex(g, whole, rest)
                else:
                    _split(g, whole, rest)
            if pairs:
                _complex_token(whole, rest, x[t, i:e], h, y[t, i:e])
            else:
                _real_token(whole, rest, x[t, i:e], gain, h, y[t, i:e])
