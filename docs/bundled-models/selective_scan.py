"""The recurrence of Mamba-1 for training on a CPU: loops in Numba, forward and backward, under PyTorch's autograd.

Shapes: B sequences, T tokens, E channels, N states a channel. Channels lie innermost, so that every loop over them is
one of vectors. The forward pass keeps the state before every chunk of L tokens; the backward pass computes a chunk
again from there and walks it from its end.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

CHUNK = 16
"""Tokens whose states and decays (2 L N E numbers) stay in the cache of a core."""

LOG2_E, HALF, LOWEST = np.float32(1 / np.log(2)), np.float32(0.5), np.float32(-126)
BIAS, ONE_EXPONENT, ONE = np.float32(127), np.float32(1 << 23), np.float32(1)
C1, C2, C3, C4, C5, C6 = (np.float32(np.log(2) ** n / np.prod(np.arange(1.0, n + 1))) for n in range(1, 7))


@numba.njit(fastmath={"contract", "reassoc", "nsz", "arcp"}, inline="always")
def decays(dt: Any, A: Any, out: Any, bits: Any) -> None:
    """Write exp(dt A), for products that are not positive: a series for the fraction of the power of two."""
    for e in range(len(dt)):
        z = max(dt[e] * A[e] * LOG2_E, LOWEST)
        whole = np.floor(z + HALF)
        f = z - whole
        bits[e] = np.int32((whole + BIAS) * ONE_EXPONENT)
        out[e] = ONE + f * (C1 + f * (C2 + f * (C3 + f * (C4 + f * (C5 + f * C6)))))
    powers = bits.view(np.float32)
    for e in range(len(dt)):
        out[e] *= powers[e]


@numba.njit(fastmath={"contract", "reassoc", "nsz", "arcp"})
def scan(x: Any, dt: Any, A: Any, B: Any, C: Any, h: Any, y: Any, kept: Any) -> None:
    """h_t = exp(dt_t A) h_{t-1} + dt_t x_t B_t, y_t = C_t h_t; h becomes the last, kept receives those of chunks."""
    N, E = A.shape
    a, u, bits = np.empty(E, np.float32), np.empty(E, np.float32), np.empty(E, np.int32)
    for b in range(x.shape[0]):
        for t in range(x.shape[1]):
            if t % CHUNK == 0:
                kept[b, t // CHUNK] = h[b]
            y_t = y[b, t]
            for e in range(E):
                u[e] = dt[b, t, e] * x[b, t, e]
                y_t[e] = 0
            for n in range(N):
                decays(dt[b, t], A[n], a, bits)
                h_n, B_n, C_n = h[b, n], B[b, t, n], C[b, t, n]
                for e in range(E):
                    h_n[e] = a[e] * h_n[e] + B_n * u[e]
                    y_t[e] += C_n * h_n[e]


@numba.njit(fastmath={"contract", "reassoc", "nsz", "arcp"})
def scan_back(
    x: Any, dt: Any, A: Any, B: Any, C: Any, kept: Any, dy: Any, dh: Any, dx: Any, ddt: Any, dA: Any, dB: Any, dC: Any
) -> None:
    """Write the gradients; dh comes as that of the last state and leaves as that of the first."""
    N, E = A.shape
    before, a = np.empty((CHUNK + 1, N, E), np.float32), np.empty((CHUNK, N, E), np.float32)
    u, du, bits = np.empty(E, np.float32), np.empty(E, np.float32), np.empty(E, np.int32)
    for b in range(x.shape[0]):
        for chunk in range(kept.shape[1] - 1, -1, -1):
            first = chunk * CHUNK
            before[0] = kept[b, chunk]
            for i in range(CHUNK):
                t = first + i
                for e in range(E):
                    u[e] = dt[b, t, e] * x[b, t, e]
                for n in range(N):
                    a_n, h_n, next_n, B_n = a[i, n], before[i, n], before[i + 1, n], B[b, t, n]
                    decays(dt[b, t], A[n], a_n, bits)
                    for e in range(E):
                        next_n[e] = a_n[e] * h_n[e] + B_n * u[e]
            for i in range(CHUNK - 1, -1, -1):
                t = first + i
                dt_t, dy_t, ddt_t, x_t = dt[b, t], dy[b, t], ddt[b, t], x[b, t]
                for e in range(E):
                    u[e] = dt_t[e] * x_t[e]
                    du[e] = 0
                    ddt_t[e] = 0
                for n in range(N):
                    a_n, h_n, next_n, dh_n = a[i, n], before[i, n], before[i + 1, n], dh[b, n]
                    A_n, dA_n, B_n, C_n = A[n], dA[n], B[b, t, n], C[b, t, n]
                    to_B, to_C = np.float32(0), np.float32(0)
                    for e in range(E):
                        g = dh_n[e] + C_n * dy_t[e]
                        to_C += dy_t[e] * next_n[e]
                        to_B += g * u[e]
                        du[e] += g * B_n
                        g *= a_n[e]
                        of_power = g * h_n[e]
                        ddt_t[e] += of_power * A_n[e]
                        dA_n[e] += of_power * dt_t[e]
                        dh_n[e] = g
                    dB[b, t, n], dC[b, t, n] = to_B, to_C
                for e in range(E):
                    dx[b, t, e] = du[e] * dt_t[e]
                    ddt_t[e] += du[e] * x_t[e]


class Selective(torch.autograd.Function):
    """`scan` with its gradients."""

    @staticmethod
    def forward(ctx: Any, *given: Tensor) -> tuple[Tensor, Tensor]:
        x, dt, A, B, C, h = (np.ascontiguousarray(tensor.detach().numpy()) for tensor in given)
        y, last = np.empty_like(x), h.copy()
        kept = np.empty((x.shape[0], x.shape[1] // CHUNK, *A.shape), np.float32)
        scan(x, dt, A, B, C, last, y, kept)
        ctx.arrays = x, dt, A, B, C, kept
        return torch.from_numpy(y), torch.from_numpy(last)

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> tuple[Tensor, ...]:
        x, dt, A, B, C, kept = ctx.arrays
        dy, dh = np.ascontiguousarray(given[0].numpy()), given[1].numpy().copy()
        dx, ddt, dA, dB, dC = np.empty_like(x), np.empty_like(x), np.zeros_like(A), np.empty_like(B), np.empty_like(C)
        scan_back(x, dt, A, B, C, kept, dy, dh, dx, ddt, dA, dB, dC)
        return tuple(torch.from_numpy(gradient) for gradient in (dx, ddt, dA, dB, dC, dh))


@torch.compiler.disable
def selective(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """Mamba-1: h_t = exp(dt_t A) h_{t-1} + dt_t x_t B_t, y_t = C_t h_t.

    x and dt are (B, T, E), A is (N, E), B and C are (B, T, N), h is (B, N, E), all in float32. In float64, where speed
    does not matter and every digit does, PyTorch goes from token to token.
    """
    if x.dtype == torch.float32:
        y, h = Selective.apply(x, dt, A, B, C, h)
        return y, h
    outputs = []
    for x_t, dt_t, B_t, C_t in zip(x.unbind(1), dt.unbind(1), B.unbind(1), C.unbind(1), strict=True):
        h = torch.exp(dt_t[:, None] * A) * h + B_t[..., None] * (dt_t * x_t)[:, None]
        outputs.append((C_t[..., None] * h).sum(1))
    return torch.stack(outputs, 1), h
