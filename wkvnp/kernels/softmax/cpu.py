"""Compiled loops of softmax attention: tiles of query rows meet blocks of keys.

Blocks of keys begin at multiples of `KEYS` in a sequence, wherever a call began, and every row takes them in that
order with sums of its own: a row has the same bits in every call, tile and batch. Keys of a block lie transposed, so
that lanes run over keys for the scores and over values for their sums, for one row as well as for many.

A row's sums are scaled by its largest score so far. A row that has seen no key has minus infinity there; 0 is then
subtracted in its place, because minus infinity from minus infinity would be NaN.
"""

import numpy as np
from numba import prange

from ..._jit import jit, uncounted
from ..._tile import multiply
from .mask import KEYS, hide, meets, shown
from .scores import ROWS, adjust, weigh


@jit
def _sum_values(scores, rows, tile, j0, count, limits, patterned, values, v0, wide, sums, factor):
    """Add the weighed values of a block to the sums of each row; values that it may not see are not read."""
    r = 0
    while r < rows:
        low, high = shown(r, tile, j0, count, limits, patterned)
        many = rows - r  # rows that see the same keys are one product: all that are left, else four, else one
        while many > 1 and shown(r + many - 1, tile, j0, count, limits, patterned) != (low, high):
            many = 4 if many > 4 else 1
        if high > low:
            s0, v1, y0 = r * KEYS + low, v0 + low * wide, r * wide
            multiply(scores, s0, KEYS, values, v1, wide, sums, y0, wide, many, high - low, wide, factor, r)
        r += many


@jit
def _begin(tile, rows, g, start, q, scale, sinks, queries, top, mass, sums):
    """Scale the queries of a tile and set its sums to what they are before the first key."""
    number, K = queries.dtype.type, q.shape[2]
    for r in range(rows):
        h = g * tile[3] + (tile[0] + r) % tile[3]
        row = q[start + (tile[0] + r) // tile[3], h]
        for i in range(K):
            queries[r * K + i] = scale * row[i]
        top[r] = sinks[h] if sinks.size else number(-np.inf)
        mass[r] = number(0) if top[r] == -np.inf else number(1)
    for i in range(sums.size):
        sums[i] = number(0)


@jit
def _end(tile, rows, g, start, wide, top, mass, sums, y, lse):
    """Divide the sums of a tile by their weights; a row that has seen nothing is 0."""
    number, V = y.dtype.type, y.shape[2]
    for r in range(rows):
        t, h = start + (tile[0] + r) // tile[3], g * tile[3] + (tile[0] + r) % tile[3]
        share = number(0) if mass[r] == 0 else number(1) / mass[r]
        out = y[t, h]
        for i in range(V):
            out[i] = sums[r * wide + i] * share
        lse[t, h] = top[r] + np.log(mass[r])


@jit
def attend_rows(tile, g, stored, q, keys, values, bias, mask, y, lse, room):
    """Attend for the rows of one tile and one group of keys.

    tile: its first row, its last, the position of row 0, heads that share keys; stored: first query of the sequence,
    its keys, and their first block; bias: gates, slopes, sinks, numbers; mask: limits, flags, table.
    """
    start, length, base = stored
    gates, slopes, sinks, numbers = bias
    limits, flags, table = mask
    G, K, wide, H, shared = keys.shape[1], keys.shape[2], values.shape[3], q.shape[1], tile[3]
    rows, first, last = tile[1] - tile[0] + 1, tile[2] + tile[0] // shared, tile[2] + tile[1] // shared
    a, b, c, d = ROWS * K, ROWS * (K + KEYS), ROWS * (K + KEYS + wide), ROWS * (K + KEYS + wide + 2)
    queries, scores, sums = room[:a], room[a:b], room[b:c]
    top, mass, factor, highest = (
        room[c : c + ROWS],
        room[c + ROWS : d],
        room[d : d + ROWS],
        room[d + ROWS : d + 2 * ROWS],
    )
    flat_keys, flat_values, flat_gates = keys.reshape(-1), values.reshape(-1), gates.reshape(-1)
    _begin(tile, rows, g, start, q, numbers[0], sinks, queries, top, mass, sums)
    patterned, unbiased = flags.size + table.size > 0, slopes.size + gates.size == 0 and not numbers[1] > 0
    begin, end = 0, min(length, last + 1) if limits[0] else length
    if not patterned:
        begin, end = max(0, first - limits[1]) // KEYS, min(end, last + limits[2] + 1)
    for block in range(begin, (end + KEYS - 1) // KEYS):
        j0 = block * KEYS
        if patterned and not meets(first, last, j0, (g * shared, (g + 1) * shared), limits, flags, table):
            continue
        count, place = min(KEYS, length - j0), (base + block) * G + g
        multiply(queries, 0, K, flat_keys, place * K * KEYS, KEYS, scores, 0, KEYS, rows, K, KEYS, None, 0)
        # Nothing is done to the scores of a block that all rows see whole.
        seen = not patterned and count == KEYS and (not limits[0] or j0 + KEYS <= first + 1)
        whole = seen and j0 >= last - limits[1] and j0 + KEYS <= first + limits[2] + 1 and unbiased
        for r in range(0 if whole else rows):
            s, p, h = scores[r * KEYS : (r + 1) * KEYS], tile[2] + (tile[0] + r) // shared, (tile[0] + r) % shared
            h += g * shared
            line = ((base + block) * H + h) * KEYS
            slope = slopes[h] if slopes.size else s.dtype.type(0)
            gate = flat_gates[((base + p // KEYS) * H + h) * KEYS + p % KEYS] if flat_gates.size else 0.0
            adjust(s, p, j0, numbers[1], slope, gate, flat_gates[line : line + KEYS])
            hide(s, p, j0, count, limits, patterned, flags, table[h if table.shape[0] > 1 else 0])
        weigh(scores, rows, top, mass, factor, highest)
        v0 = place * KEYS * wide
        _sum_values(scores, rows, tile, j0, count, limits, patterned, flat_values, v0, wide, sums, factor)
    _end(tile, rows, g, start, wide, top, mass, sums, y, lse)


@uncounted
def attend(
    tiles,  # IN  (J, 3) sequence, first and last row; a row is a query of one of the heads that share keys
    first,  # IN  first piece of work: tile, then group
    stop,  # IN  one past the last
    starts,  # IN  (N,) first query of each sequence
    past,  # IN  (N,) its position among the keys
    lengths,  # IN  (N,) keys of each sequence
    base,  # IN  (N,) first block of its keys
    q,  # IN  (M, H, K)
    keys,  # IN  (P, G, K, KEYS)
    values,  # IN  (P, G, KEYS, V, rounded up to 16)
    gates,  # IN  (P, H, KEYS) float64, sum of log gates up to each token; or empty
    slopes,  # IN  (H,) or empty
    sinks,  # IN  (H,) or empty
    flags,  # IN  (positions,) uint8: tokens that see all and that all see; or empty
    table,  # IN  (1 or H, blocks of queries, blocks of keys) uint8: which see which; or (1, 0, 0)
    limits,  # IN  causal; window before and after the query; tokens of a block of the table, its first block of queries
    numbers,  # IN  scale, cap or 0
    y,  # OUT (M, H, V)
    lse,  # OUT (M, H) logarithm of the sum of exponentials
    scratch,  # (workers, ROWS (K + KEYS + V, rounded up to 16, + 4))
):
    """Attend for every tile and group; workers take turns, because later tiles see more keys."""
    workers, G = scratch.shape[0], keys.shape[1]
    shared = q.shape[1] // G
    bias, mask = (gates, slopes, sinks, numbers), (limits, flags, table)
    for w in prange(workers):
        for item in range(first + w, stop, workers):
            n, g = tiles[item // G, 0], item % G
            tile = (tiles[item // G, 1], tiles[item // G, 2], past[n], shared)
            attend_rows(tile, g, (starts[n], lengths[n], base[n]), q, keys, values, bias, mask, y, lse, scratch[w])


@uncounted
def store(
    starts,  # IN  (N,) first new token of each sequence
    stops,  # IN  (N,) one past its last
    lengths,  # IN  (N,) tokens that are stored already
    base,  # IN  (N,) first block of each sequence
    k,  # IN  (M, G, K)
    v,  # IN  (M, G, V)
    keys,  # INOUT (P, G, K, KEYS)
    values,  # INOUT (P, G, KEYS, V, rounded up to 16)
):
    """Write new keys and values behind those of each sequence."""
    N, G = lengths.size, k.shape[1]
    zero = values.dtype.type(0)
    for item in prange(N * G):
        n, g = item // G, item % G
        for t in range(starts[n], stops[n]):
            p = lengths[n] + t - starts[n]
            block, j = base[n] + p // KEYS, p % KEYS
            for i in range(k.shape[2]):
                keys[block, g, i, j] = k[t, g, i]
            row, new = values[block, g, j], v[t, g]
            for i in range(new.size):
                row[i] = new[i]
            for i in range(new.size, row.size):
                row[i] = zero
