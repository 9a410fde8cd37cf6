# mypy: allow-untyped-defs, allow-untyped-calls
"""Which keys a query may see: compiled functions that `cpu` calls.

`limits` is: whether the future is hidden; how many tokens before and after itself a query sees; how many tokens a
block of `table` has, and the number of its first block of queries. A query sees a key in its window; and all that is
shown to it by `flags`, the tokens that see all and that all see, or by `table`, which blocks see which.
"""

import numpy as np

from ..._jit import jit
from ..._tile import CHUNK

KEYS = CHUNK
"""Keys of a block."""


@jit
def _span(p, j0, count, limits):
    """Return which of `count` keys from j0 on a query at position p may see, and which of them its window shows."""
    end = min(count, p - j0 + 1) if limits[0] else count
    return end, max(0, p - limits[1] - j0), min(end, p + limits[2] - j0 + 1)


@jit
def meets(first, last, j0, heads, limits, flags, table):
    """Say whether any query from position `first` to `last` may see any key of the block from j0 on."""
    if limits[1] + limits[2] >= 0 and j0 <= last + limits[2] and j0 + KEYS > first - limits[1]:
        return True
    for p in range(j0, min(j0 + KEYS, flags.size)):
        if flags[p]:
            return True
    for p in range(first, min(last + 1, flags.size)):
        if flags[p]:
            return True
    for h in range(heads[0], heads[1]):
        rows = table[h if table.shape[0] > 1 else 0]
        for a in range(first // limits[3] - limits[4], min(last // limits[3] - limits[4] + 1, rows.shape[0])):
            for b in range(j0 // limits[3], min((j0 + KEYS - 1) // limits[3] + 1, rows.shape[1])):
                if rows[a, b]:
                    return True
    return False


@jit
def hide(s, p, j0, count, limits, patterned, flags, table):
    """Set the scores of keys that the query at position p may not see to minus infinity."""
    nothing = s.dtype.type(-np.inf)
    end, low, high = _span(p, j0, count, limits)
    for j in range(max(0, end), s.size):
        s[j] = nothing
    if not patterned:
        for j in range(min(low, s.size)):
            s[j] = nothing
        for j in range(max(0, high), end):
            s[j] = nothing
    elif not (p < flags.size and flags[p]):
        a = p // limits[3] - limits[4]
        for j in range(end):
            i = j0 + j
            shown = low <= j < high or (i < flags.size and flags[i])
            if not shown and a < table.shape[0]:
                b = i // limits[3]
                shown = b < table.shape[1] and table[a, b]
            if not shown:
                s[j] = nothing


@jit
def shown(r, tile, j0, count, limits, patterned):
    """Return the run of keys whose values row r of a tile needs; with a pattern, all that lie before its end."""
    end, low, high = _span(tile[2] + (tile[0] + r) // tile[3], j0, count, limits)
    return (0, end) if patterned else (low, high)
