# mypy: allow-untyped-defs
"""Softmax attention for one token of every sequence: norms of heads, rotation, new key and value, sums over the past.

Letters: H heads of queries, G groups that share keys and values, K width of a head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .._address import floats, integers, place
from .._jit import inlined
from ..kernels.softmax.cpu import attend_rows
from ..kernels.softmax.mask import KEYS
from ..kernels.softmax.scores import ROWS
from ..primitives.norm.cpu import divide_group_by_rms
from . import opcodes
from .places import Array, Place

if TYPE_CHECKING:
    from .program import Program

UNLIMITED = 1 << 62


def attention_groups(
    program: Program,
    q: Place,
    k: Place,
    v: Place,
    norms: tuple[Array | None, Array | None],
    eps: float,
    rotation: tuple[Place, Place],
    store: tuple[Place, Place, Place, Place],
    y: Place,
    sizes: tuple[int, int, int],
    window: int | None,
) -> None:
    """Add what is done group by group; q and k are changed.

    Parameters
    ----------
    q, y : Place (M, H K)
    k, v : Place (M, G K)
    norms : pair of ndarray (K,) or None
        Scales of the norms of the heads of q and k.
    rotation : pair of Place (M, R/2)
        cos and sin.
    store : tuple of Place
        Blocks of keys, of values, first block of each sequence (int64), and its keys with the new one (int64).
    sizes : tuple of int
        H, G, K.
    """
    H, G, K = sizes
    places = [number for p in (q, k, v, y) for number in (p.code, p.step)]
    weights = [0 if norm is None else program.vector(norm) for norm in norms]
    limit = UNLIMITED if window is None else window - 1
    slots = [p.code for p in (*rotation, *store)]
    numbers = program.vector(np.array([K**-0.5, 0], np.float32))
    fields = [H, G, K, *places, *weights, *slots, rotation[0].size, limit, numbers]
    wide = -(-K // 16) * 16
    program.add(opcodes.ATTENTION, G, fields, eps, scratch=ROWS * (K + KEYS + wide + 16) + H, each_row=True)


@inlined
def groups(step, number, first, stop, private, slots, scratch):
    """Do some groups, row by row."""
    for item in range(first, stop):
        _group(step, number, item % step[3], item // step[3], private, slots, scratch)


@inlined
def _turn(x, weight, eps, cos, sin, room):
    """Normalise one head, if there is a weight for it, and turn it."""
    half = cos.size
    if weight:
        divide_group_by_rms(x, floats(weight, x.size), eps, room)
        for i in range(x.size):
            x[i] = room[i]
    for i in range(half):
        a, b = x[i], x[i + half]
        x[i], x[i + half] = a * cos[i] - b * sin[i], b * cos[i] + a * sin[i]


@inlined
def _group(step, number, g, m, private, slots, scratch):
    H, G, K, half = step[2], step[3], step[4], step[21]
    shared, wide = H // G, (K + 15) // 16 * 16
    q = floats(place(step[5], private, slots) + m * step[6], H * K)
    k = floats(place(step[7], private, slots) + m * step[8] + 4 * g * K, K)
    v = floats(place(step[9], private, slots) + m * step[10] + 4 * g * K, K)
    y = floats(place(step[11], private, slots) + m * step[12], H * K)
    cos, sin = floats(slots[step[15]] + 4 * m * half, half), floats(slots[step[16]] + 4 * m * half, half)
    base, length = integers(slots[step[19]] + 8 * m, 1)[0], integers(slots[step[20]] + 8 * m, 1)[0]
    room = floats(scratch, ROWS * (K + KEYS + wide + 16))
    _turn(k, step[14], number[0], cos, sin, room)
    for h in range(g * shared, (g + 1) * shared):
        _turn(q[h * K : (h + 1) * K], step[13], number[0], cos, sin, room)
    block, j = base + (length - 1) // KEYS, (length - 1) % KEYS
    blocks = base + (length - 1) // KEYS + 1
    keys = floats(slots[step[17]], (blocks, G, K, KEYS))
    values = floats(slots[step[18]], (blocks, G, KEYS, wide))
    for i in range(K):
        keys[block, g, i, j] = k[i]
        values[block, g, j, i] = v[i]
    for i in range(K, wide):
        values[block, g, j, i] = np.float32(0)
    near = step[22]
    bias = (np.empty((0, 0, 0), np.float64), k[:0], k[:0], floats(step[23], 2))
    mask = (np.array([1, near, near, 64, 0]), np.empty(0, np.uint8), np.empty((1, 0, 0), np.uint8))
    lse = floats(scratch + 4 * room.size, (1, H))
    tile, stored = (0, shared - 1, length - 1, shared), (0, length, base)
    attend_rows(tile, g, stored, q.reshape((1, H, K)), keys, values, bias, mask, y.reshape((1, H, K)), lse, room)
