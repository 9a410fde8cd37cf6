# mypy: allow-untyped-defs
"""Steps over whole rows, so small that every worker does them for itself: norms, mixes, gates, short convolutions."""

from __future__ import annotations

from .._address import bfloats, floats, half_floats, integers, place
from .._jit import inlined
from .._scalar import sigmoid, widen
from ..primitives.norm.cpu import divide_group_by_rms, standardize_group


@inlined
def embed(step, number, rows, private, slots):
    """Widen rows of a table and normalise them. Fields: tokens, kind, table, x and its step, C, scale or 0, shift."""
    C, kind = step[7], step[3]
    for m in range(rows):
        token, x = integers(slots[step[2]] + 8 * m, 1)[0], floats(place(step[5], private, slots) + m * step[6], C)
        if kind == 0:
            row = floats(step[4] + 4 * token * C, C)
            for i in range(C):
                x[i] = row[i]
        elif kind == 1:
            bits = bfloats(step[4] + 2 * token * C, C)
            for i in range(C):
                x[i] = widen(bits[i])
        else:
            halves = half_floats(step[4] + 2 * token * C, C)
            for i in range(C):
                x[i] = widen(halves[i])
        if step[8]:
            standardize_group(x, floats(step[8], C), floats(step[9], C), number[0], x)


@inlined
def norm(step, number, rows, private, slots):
    """Normalise every group of every row. Fields: x and its step, y and its step, weight, bias or 0, C, a group's."""
    C, n, x_step, y_step = step[8], step[9], step[3], step[5]
    x, y = place(step[2], private, slots), place(step[4], private, slots)
    weight = floats(step[6], C)
    bias = floats(step[7] if step[7] else step[6], C)
    for m in range(rows):
        row, out = floats(x + m * x_step, C), floats(y + m * y_step, C)
        for c in range(0, C, n):
            if step[7]:
                standardize_group(row[c : c + n], weight[c : c + n], bias[c : c + n], number[0], out[c : c + n])
            else:
                divide_group_by_rms(row[c : c + n], weight[c : c + n], number[0], out[c : c + n])


@inlined
def mix(step, rows, private, slots):
    """Set y[j] to z + (previous - z) share[j], with share[j] = static[j] + (moved[j] if there is such a place).

    Fields: z and its step, previous, static (J, C), moved or 0, its step and from one of the J to the next, y, its
    step and from one of the J to the next, J, C.
    """
    J, C, z_step, y_step, y_next = step[12], step[13], step[3], step[10], step[11]
    z, previous, y = place(step[2], private, slots), place(step[4], private, slots), place(step[9], private, slots)
    static = step[5]
    moved = place(step[6], private, slots) if step[6] else 0
    for m in range(rows):
        now, before = floats(z + m * z_step, C), floats(previous + 4 * m * C, C)
        for j in range(J):
            share, out = floats(static + 4 * j * C, C), floats(y + j * y_next + m * y_step, C)
            if moved:
                more = floats(moved + j * step[8] + m * step[7], C)
                for i in range(C):
                    out[i] = now[i] + (before[i] - now[i]) * (share[i] + more[i])
            else:
                for i in range(C):
                    out[i] = now[i] + (before[i] - now[i]) * share[i]


@inlined
def copy(step, rows, private, slots):
    """Copy rows. Fields: from and its step, to and its step, numbers a row."""
    source, target = place(step[2], private, slots), place(step[4], private, slots)
    for m in range(rows):
        x, y = floats(source + m * step[3], step[6]), floats(target + m * step[5], step[6])
        for i in range(x.size):
            y[i] = x[i]


@inlined
def gate(step, rows, private, slots):
    """Set y to x silu(gate). Fields: x and its step, gate and its step, y and its step, numbers a row."""
    x, g, y = place(step[2], private, slots), place(step[4], private, slots), place(step[6], private, slots)
    n = step[8]
    for m in range(rows):
        row, gates, out = floats(x + m * step[3], n), floats(g + m * step[5], n), floats(y + m * step[7], n)
        for i in range(n):
            out[i] = row[i] * (gates[i] * sigmoid(gates[i]))


@inlined
def convolve(step, rows, private, slots):
    """Set y to silu(bias + the sum over the last tokens' x times weight).

    Fields: x and its step, the tokens before (M, W - 1, C), weight (W, C) with the oldest first, bias, y and its step,
    W, C.
    """
    W, C = step[9], step[10]
    x, window, y = place(step[2], private, slots), place(step[4], private, slots), place(step[7], private, slots)
    bias = floats(step[6], C)
    for m in range(rows):
        out = floats(y + m * step[8], C)
        for i in range(C):
            out[i] = bias[i]
        for j in range(W):
            at = x + m * step[3] if j == W - 1 else window + 4 * (m * (W - 1) + j) * C
            row, weight = floats(at, C), floats(step[5] + 4 * j * C, C)
            for i in range(C):
                out[i] += weight[i] * row[i]
        for i in range(C):
            out[i] *= sigmoid(out[i])


@inlined
def push(step, rows, private, slots):
    """Move windows on by one token. Fields: x and its step, window before and after (M, W - 1, C), W - 1, C."""
    x, n, C = place(step[2], private, slots), step[6], step[7]
    for m in range(rows):
        before, after = slots[step[4]] + 4 * m * n * C, slots[step[5]] + 4 * m * n * C
        for j in range(n):
            row = floats(x + m * step[3] if j == n - 1 else before + 4 * (j + 1) * C, C)
            out = floats(after + 4 * j * C, C)
            for i in range(C):
                out[i] = row[i]
