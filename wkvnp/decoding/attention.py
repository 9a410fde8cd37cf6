# mypy: allow-untyped-defs
"""Softmax attention for one token of every sequence: norms of heads, rotation, new key and value, sums over the past.

Letters: H heads of queries, G groups that share keys and values, K width of a head, R rotated numbers of a head.
"""

from __future__ import annotations

import numpy as np

from .._address import floats, integers
from .._jit import inlined
from ..kernels.softmax.cpu import attend_rows
from ..kernels.softmax.mask import KEYS
from ..kernels.softmax.scores import ROWS
from ..primitives.norm.cpu import divide_group_by_rms
from .access import address, row
from .fields import Kind, Number, Rows, Size, Slot, Vector

ATTENTION = Kind(
    "attention",
    q=Rows("H K", kept=True), k=Rows("G K", kept=True), v=Rows("G K"), y=Rows("H K", written=True),
    q_norm=Vector("K", optional=True), k_norm=Vector("K", optional=True),
    cos=Rows("R"), sin=Rows("R"), keys=Slot(), values=Slot(),
    base=Rows("1", itemsize=8), length=Rows("1", itemsize=8), scales=Vector("2"),
    H=Size(), G=Size(divides="H"), K=Size(), R=Size(), window=Size(), eps=Number(),
)  # fmt: skip
"""q and k are changed. `keys` and `values` are blocks of the past, `base` is the first block of each sequence, `length`
its number of keys with the new one; a query sees the last `window` keys."""
F = ATTENTION.fields
UNLIMITED = 1 << 62


def scratch_of_groups(H: int, K: int) -> int:
    """Return how many float32 numbers of scratch memory the step needs."""
    return ROWS * (K + KEYS + -(-K // 16) * 16 + 16) + H


@ATTENTION.loop
@inlined
def groups(step, number, first, stop, rows, private, slots, scratch):
    """Do some groups, row by row."""
    for item in range(first, stop):
        _group(step, number, item % step[F.G], item // step[F.G], private, slots, scratch)


@inlined
def _turn(x, weight, eps, cos, sin, scratch):
    """Normalise one head, if there is a weight for it, and rotate it."""
    half = cos.size
    if weight:
        divide_group_by_rms(x, floats(weight, x.size), eps, scratch)
        for i in range(x.size):
            x[i] = scratch[i]
    for i in range(half):
        a, b = x[i], x[i + half]
        x[i], x[i + half] = a * cos[i] - b * sin[i], b * cos[i] + a * sin[i]


@inlined
def _group(step, number, g, m, private, slots, scratch):
    H, G, K, R = step[F.H], step[F.G], step[F.K], step[F.R]
    shared, wide = H // G, (K + 15) // 16 * 16
    q, y = row(step, F.q, m, private, slots, 0, H * K), row(step, F.y, m, private, slots, 0, H * K)
    k, v = row(step, F.k, m, private, slots, g * K, K), row(step, F.v, m, private, slots, g * K, K)
    cos, sin = row(step, F.cos, m, private, slots, 0, R), row(step, F.sin, m, private, slots, 0, R)
    base = integers(address(step, F.base, private, slots) + 8 * m, 1)[0]
    length = integers(address(step, F.length, private, slots) + 8 * m, 1)[0]
    room = floats(scratch, ROWS * (K + KEYS + wide + 16))
    _turn(k, step[F.k_norm], number[F.eps], cos, sin, room)
    for h in range(g * shared, (g + 1) * shared):
        _turn(q[h * K : (h + 1) * K], step[F.q_norm], number[F.eps], cos, sin, room)
    block, j = base + (length - 1) // KEYS, (length - 1) % KEYS
    blocks = base + (length - 1) // KEYS + 1
    keys = floats(slots[step[F.keys]], (blocks, G, K, KEYS))
    values = floats(slots[step[F.values]], (blocks, G, KEYS, wide))
    for i in range(K):
        keys[block, g, i, j] = k[i]
        values[block, g, j, i] = v[i]
    for i in range(K, wide):
        values[block, g, j, i] = np.float32(0)
    near = step[F.window] - 1
    bias = (np.empty((0, 0, 0), np.float64), k[:0], k[:0], floats(step[F.scales], 2))
    mask = (np.array([1, near, near, 64, 0]), np.empty(0, np.uint8), np.empty((1, 0, 0), np.uint8))
    lse = floats(scratch + 4 * room.size, (1, H))
    tile, stored = (0, shared - 1, length - 1, shared), (0, length, base)
    attend_rows(tile, g, stored, q.reshape((1, H, K)), keys, values, bias, mask, y.reshape((1, H, K)), lse, room)
