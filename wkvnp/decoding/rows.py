# mypy: allow-untyped-defs
"""Steps over whole rows: the embedding, norms, mixtures with the last token, gates, short convolutions, copies.

Those that are private are so small that every worker does them for itself.
"""

from __future__ import annotations

from .._address import bfloats, floats, half_floats, integers
from .._jit import inlined
from .._scalar import sigmoid, widen
from ..primitives.norm.cpu import divide_group_by_rms, standardize_group
from .access import address, after, before, present, row
from .fields import Kind, Number, Rows, Size, State, Table, Vector

EMBED = Kind(
    "embed",
    tokens=Rows("1", itemsize=8), table=Table("V C"), x=Rows("C", written=True),
    scale=Vector("C", optional=True), shift=Vector("C", optional=True), V=Size(), C=Size(), eps=Number(),
)  # fmt: skip
E = EMBED.fields


@EMBED.loop
@inlined
def embed(step, number, first, stop, rows, private, slots, scratch):
    """Set x to the rows of a table that tokens name, widened; and normalise them, if there is a scale."""
    C, kind, table = step[E.C], step[E.table + 1], step[E.table]
    width = step[E.table + 2]
    tokens = integers(address(step, E.tokens, private, slots), rows)
    for m in range(rows):
        token, x = tokens[m], row(step, E.x, m, private, slots, 0, C)
        if kind == 0:
            numbers = floats(table + 4 * token * width, C)
            for i in range(C):
                x[i] = numbers[i]
        elif kind == 1:
            bits = bfloats(table + 2 * token * width, C)
            for i in range(C):
                x[i] = widen(bits[i])
        else:
            halves = half_floats(table + 2 * token * width, C)
            for i in range(C):
                x[i] = widen(halves[i])
        if step[E.scale]:
            standardize_group(x, floats(step[E.scale], C), floats(step[E.shift], C), number[E.eps], x)


NORM = Kind(
    "norm", private=True,
    x=Rows("C"), y=Rows("C", written=True), weight=Vector("C"), bias=Vector("C", optional=True),
    C=Size(), group=Size(divides="C"), eps=Number(),
)  # fmt: skip
N = NORM.fields


@NORM.loop
@inlined
def norm(step, number, first, stop, rows, private, slots, scratch):
    """Normalise every group of every row; without a bias the mean is not subtracted."""
    C, n = step[N.C], step[N.group]
    weight = floats(step[N.weight], C)
    bias = floats(step[N.bias] if step[N.bias] else step[N.weight], C)
    for m in range(rows):
        x, y = row(step, N.x, m, private, slots, 0, C), row(step, N.y, m, private, slots, 0, C)
        for c in range(0, C, n):
            if step[N.bias]:
                standardize_group(x[c : c + n], weight[c : c + n], bias[c : c + n], number[N.eps], y[c : c + n])
            else:
                divide_group_by_rms(x[c : c + n], weight[c : c + n], number[N.eps], y[c : c + n])


MIX = Kind(
    "mix", private=True,
    z=Rows("C"), previous=Rows("C"), share=Vector("J C"), moved=Rows("J C", optional=True),
    y=Rows("J C", written=True), J=Size(), C=Size(),
)  # fmt: skip
M = MIX.fields


@MIX.loop
@inlined
def mix(step, number, first, stop, rows, private, slots, scratch):
    """Set y[j] to z + (previous - z) (share[j] + moved[j]), where moved may be absent."""
    J, C = step[M.J], step[M.C]
    for m in range(rows):
        z, previous = row(step, M.z, m, private, slots, 0, C), row(step, M.previous, m, private, slots, 0, C)
        for j in range(J):
            share, y = floats(step[M.share] + 4 * j * C, C), row(step, M.y, m, private, slots, j * C, C)
            if present(step, M.moved):
                moved = row(step, M.moved, m, private, slots, j * C, C)
                for i in range(C):
                    y[i] = z[i] + (previous[i] - z[i]) * (share[i] + moved[i])
            else:
                for i in range(C):
                    y[i] = z[i] + (previous[i] - z[i]) * share[i]


COPY = Kind("copy", x=Rows("C"), y=Rows("C", written=True), C=Size())
P = COPY.fields


@COPY.loop
@inlined
def copy(step, number, first, stop, rows, private, slots, scratch):
    """Set y to x."""
    for m in range(rows):
        x, y = row(step, P.x, m, private, slots, 0, step[P.C]), row(step, P.y, m, private, slots, 0, step[P.C])
        for i in range(x.size):
            y[i] = x[i]


GATE = Kind("gate", private=True, x=Rows("C"), gate=Rows("C"), y=Rows("C", written=True), C=Size())
G = GATE.fields


@GATE.loop
@inlined
def gate(step, number, first, stop, rows, private, slots, scratch):
    """Set y to x silu(gate)."""
    C = step[G.C]
    for m in range(rows):
        x, y = row(step, G.x, m, private, slots, 0, C), row(step, G.y, m, private, slots, 0, C)
        gates = row(step, G.gate, m, private, slots, 0, C)
        for i in range(C):
            y[i] = x[i] * (gates[i] * sigmoid(gates[i]))


CONVOLVE = Kind(
    "convolve", private=True,
    x=Rows("C"), window=State("W-1 C"), weight=Vector("W C"), bias=Vector("C"), y=Rows("C", written=True),
    W=Size(), C=Size(),
)  # fmt: skip
V = CONVOLVE.fields


@CONVOLVE.loop
@inlined
def convolve(step, number, first, stop, rows, private, slots, scratch):
    """Set y to silu(bias + the sum of weight times the last W tokens' x, the oldest first)."""
    W, C = step[V.W], step[V.C]
    bias, window = floats(step[V.bias], C), before(step, V.window, slots)
    for m in range(rows):
        x, y = row(step, V.x, m, private, slots, 0, C), row(step, V.y, m, private, slots, 0, C)
        for i in range(C):
            y[i] = bias[i]
        for j in range(W - 1):
            old, weight = floats(window + 4 * (m * (W - 1) + j) * C, C), floats(step[V.weight] + 4 * j * C, C)
            for i in range(C):
                y[i] += weight[i] * old[i]
        weight = floats(step[V.weight] + 4 * (W - 1) * C, C)
        for i in range(C):
            y[i] += weight[i] * x[i]
        for i in range(C):
            y[i] *= sigmoid(y[i])


PUSH = Kind("push", x=Rows("C"), window=State("W-1 C"), W=Size(), C=Size())
U = PUSH.fields


@PUSH.loop
@inlined
def push(step, number, first, stop, rows, private, slots, scratch):
    """Move windows on by one token: the oldest falls out, x comes in."""
    n, C = step[U.W] - 1, step[U.C]
    for m in range(rows):
        old, new = (
            before(step, U.window, slots) + 4 * m * n * C,
            after(step, U.window, slots) + 4 * m * n * C,
        )
        for j in range(n):
            out = floats(new + 4 * j * C, C)
            x = row(step, U.x, m, private, slots, 0, C) if j == n - 1 else floats(old + 4 * (j + 1) * C, C)
            for i in range(C):
                out[i] = x[i]
