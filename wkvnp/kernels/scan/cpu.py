"""Compiled loop of the element-wise scan: channels are independent, so lanes and workers run over them.

As elsewhere the state decays by adding ``expm1(log_decay) h``: the factor itself, near 1, keeps too few digits of a
slow decay. What it leaves free comes from the same number l: ``1 - w = -l`` and ``1 - w^2 = -l (2 + l)``.

A complex decay turns by an angle that is not small, and one rounding of it, met a thousand times, made an error of
2e-5: hence its loss and the product with it are float64, whatever the state is.
"""

import math

import numpy as np
from numba import prange

from ..._jit import inlined, uncounted
from ..._scalar import expm1

NUMBERS = 64  # of a block; even, so that no pair is torn
ONE, REST, ROOT = 0, 1, 2


@inlined
def _real_loss(log_decay, loss):
    """Write exp(log_decay) - 1."""
    for c in range(log_decay.size):
        loss[c] = expm1(log_decay[c])


@inlined
def _complex_loss(log_decay, loss):
    """Write exp(log_decay) - 1 of pairs, with sines of half the angle: exact where both parts are near 0."""
    for c in range(0, log_decay.size, 2):
        m, half = np.float64(expm1(log_decay[c])), 0.5 * np.float64(log_decay[c + 1])
        s, k = math.sin(half), math.cos(half)
        loss[c] = m - 2.0 * s * s * (1.0 + m)
        loss[c + 1] = 2.0 * s * k * (1.0 + m)


@inlined
def _real_token(loss, x, gain, h, y):
    """Move h by one token of a block of channels."""
    two = y.dtype.type(2)
    if gain == ONE:
        for c in range(y.size):
            h[c] += loss[c] * h[c] + x[c]
    elif gain == REST:
        for c in range(y.size):
            h[c] += loss[c] * h[c] - loss[c] * x[c]
    else:
        for c in range(y.size):
            h[c] += loss[c] * h[c] + math.sqrt(-loss[c] * (two + loss[c])) * x[c]
    for c in range(y.size):
        y[c] = h[c]


@inlined
def _complex_token(loss, x, h, y):
    """Move h by one token of a block of pairs."""
    for c in range(0, y.size, 2):
        re, im = h[c], h[c + 1]
        h[c] = re + (loss[c] * re - loss[c + 1] * im + x[c])
        h[c + 1] = im + (loss[c] * im + loss[c + 1] * re + x[c + 1])
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
    scratch,  # (N * blocks, NUMBERS), float64 if numbers are complex
):
    """Walk every sequence and block of channels."""
    N, C = state.shape
    blocks = (C + NUMBERS - 1) // NUMBERS
    constant = log_decay.shape[0] == 1
    for item in prange(N * blocks):
        n, i = item // blocks, item % blocks * NUMBERS
        e = min(i + NUMBERS, C)
        h, loss = state[n, i:e], scratch[item]
        for t in range(starts[n], stops[n]):
            if t == starts[n] or not constant:
                g = log_decay[0 if constant else t, i:e]
                if pairs:
                    _complex_loss(g, loss)
                else:
                    _real_loss(g, loss)
            if pairs:
                _complex_token(loss, x[t, i:e], h, y[t, i:e])
            else:
                _real_token(loss, x[t, i:e], gain, h, y[t, i:e])
