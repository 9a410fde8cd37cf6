"""The float64 meaning of diagonal state-space models: one sequence, one token at a time."""

import numpy as np


def selective(x, dt, A, B, C, D=None, z=None, state=None):
    """Return y (T, C) and the state (C, N) after one sequence.

    x, dt, z (T, C); A (C, N); B, C (T, G, N); D (C,); state (C, N). Complex numbers stand for conjugate pairs.
    """
    (T, channels), N = x.shape, A.shape[1]
    wide = np.complex128 if np.iscomplexobj(A) else np.float64
    h = np.zeros((channels, N), wide) if state is None else np.array(state, wide)
    A, B, C = wide(A), wide(B), wide(C)
    x, dt = np.float64(x), np.float64(dt)
    y = np.zeros((T, channels))
    for t in range(T):
        for c in range(channels):
            g = c * B.shape[1] // channels
            h[c] = np.exp(dt[t, c] * A[c]) * h[c] + dt[t, c] * B[t, g] * x[t, c]
            total = (C[t, g] * h[c]).sum()
            y[t, c] = 2 * total.real if wide is np.complex128 else total
    if D is not None:
        y = y + np.float64(D) * x
    if z is not None:
        z = np.float64(z)
        y = y * z / (1 + np.exp(-z))
    return y, h


def time_invariant(x, decay, drive, read, D=None, state=None):
    """Return y (T, C) and the state (C, N); x (T, C); decay, drive, read (C, N); D (C,); state (C, N)."""
    wide = np.complex128 if np.iscomplexobj(decay) else np.float64
    h = np.zeros(decay.shape, wide) if state is None else np.array(state, wide)
    x, y = np.float64(x), np.zeros(x.shape)
    for t in range(len(x)):
        h = wide(decay) * h + wide(drive) * x[t][:, None]
        total = (wide(read) * h).sum(axis=1)
        y[t] = (2 * total.real if wide is np.complex128 else total) + (0 if D is None else np.float64(D) * x[t])
    return y, h
