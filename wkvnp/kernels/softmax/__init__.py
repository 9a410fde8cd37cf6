"""Softmax attention over stored keys and values, summed block by block and never as a matrix.

``y_i = sum_j exp(s_ij) v_j / sum_j exp(s_ij)`` with ``s_ij = scale q_i . k_j`` and what is added to it: nothing for
a key that may be seen, minus infinity for any other. The state is the keys and values of the past (`KVCache`).

Letters: M tokens of N packed sequences, H heads of queries, G groups (heads of keys and values), K key width, V value
width.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..._dtypes import aligned
from ..._jit import LARGEST_SERIAL, threads
from ..._shapes import work_windows
from . import cpu
from .mask import KEYS
from .scores import ROWS
from .state import ForgetCache, KVCache

Array = npt.NDArray[Any]

__all__ = ["ForgetCache", "KVCache", "Pattern", "softmax"]

_UNLIMITED = 1 << 40


class Pattern(NamedTuple):
    """Which keys are seen besides those in the window: `flags` (positions,) marks tokens that see all and that all see.

    `table` (1 or H, blocks of queries, blocks of keys) says which blocks of `block` tokens see which; its first row is
    that of block number `first`. Both are uint8; what lies beyond their ends is not shown.
    """

    flags: Array = np.zeros(0, np.uint8)
    table: Array = np.zeros((1, 0, 0), np.uint8)
    block: int = 1
    first: int = 0


def softmax(
    q: Array,
    k: Array,
    v: Array,
    state: KVCache | None,
    offsets: Array,
    *,
    scale: float,
    causal: bool = True,
    window: int | None = None,
    cap: float | None = None,
    slopes: Array | None = None,
    sinks: Array | None = None,
    log_forget: Array | None = None,
    pattern: Pattern | None = None,
    key_offsets: Array | None = None,
) -> tuple[Array, Array, KVCache]:
    """Attend over the past and the given tokens of packed sequences.

    Parameters
    ----------
    q : ndarray (M, H, K)
    k : ndarray (M, G, K)
    v : ndarray (M, G, V)
    state : KVCache or None
        Not changed; a ForgetCache if there is `log_forget`.
    offsets : ndarray of int64 (N + 1,)
    scale : float
        Factor on the scores.
    causal : bool
        Hide keys behind a query's own.
    window : int or None
        A query sees keys less than this far from its own position.
    cap : float or None
        Bound scores softly: ``cap tanh(score / cap)``.
    slopes : ndarray (H,) or None
        Scores are lowered by this times the distance.
    sinks : ndarray (H,) or None
        A score that joins the denominator only.
    log_forget : ndarray (M, H) or None
        Scores are raised by the sum of these over the tokens after the key, up to the query.
    pattern : Pattern or None
        Tokens that are seen besides those in the window, and only those if `window` is 0.
    key_offsets : ndarray of int64 (N + 1,) or None
        Offsets of `k` and `v` where they are others. The last query has the position of the last key.

    Returns
    -------
    y : ndarray (M, H, V)
        Zeros where a query sees no key.
    lse : ndarray (M, H)
        Logarithm of the denominator; minus infinity where a query sees no key.
    state : KVCache

    Notes
    -----
    All arrays are C-contiguous and of one dtype, float32 or float64. Every query takes keys in blocks that begin at
    multiples of 64 in its sequence, so the result has the same bits for any number of threads, any batch and any cut.
    """
    (M, H, K), (G, V), N = q.shape, v.shape[1:], offsets.size - 1
    behind = offsets if key_offsets is None else key_offsets
    if state is None:
        kind = KVCache if log_forget is None else ForgetCache
        state = kind.empty(N, G, K, V, v.dtype, 0 if log_forget is None else H)
    gates = None
    if log_forget is not None:
        assert isinstance(state, ForgetCache)
        gates = _running(log_forget, state.gate, behind)
    final = state.extended(k, v, behind, gates)
    y, lse = np.empty((M, H, V), v.dtype), np.empty((M, H), v.dtype)
    store, base, lengths = final.stored()
    past = lengths - np.diff(offsets)
    pattern = pattern or Pattern()
    near = _UNLIMITED if window is None else window - 1
    tiles, costs = _tiles(offsets, past, lengths, H // max(G, 1), causal, near, pattern)
    if not costs.size or not lse.size:
        return y, lse, final
    costs = np.repeat(costs * (K + V), G)
    workers = 1 if costs.sum() <= LARGEST_SERIAL else min(threads(), costs.size)
    scratch = aligned((workers, ROWS * (K + KEYS + store.values.shape[3] + 16)), v.dtype)
    none = np.empty(0, v.dtype)
    limits = np.array([causal, near, near, pattern.block, pattern.first], np.int64)
    numbers = np.array([scale, cap or 0], v.dtype)
    bias = (store.gates, none if slopes is None else slopes, none if sinks is None else sinks)
    run = cpu.attend.sized(int(costs.sum()))
    for first, stop in work_windows(costs, workers):
        run(
            tiles, first, stop, offsets[:-1], past, lengths, base, q, store.keys, store.values, *bias,
            pattern.flags, pattern.table, limits, numbers, y, lse, scratch,
        )  # fmt: skip
    return y, lse, final


def _running(log_forget: Array, carried: Array, offsets: Array) -> Array:
    """Return the sums of log gates up to each token, float64: in float32 the difference of two late ones is noise."""
    sums = log_forget.astype(np.float64)
    for n in range(offsets.size - 1):
        part = sums[offsets[n] : offsets[n + 1]]
        part[:1] += carried[n]
        np.cumsum(part, axis=0, out=part)
    return sums


def _tiles(
    offsets: Array, past: Array, lengths: Array, shared: int, causal: bool, near: int, pattern: Pattern
) -> tuple[Array, Array]:
    """Cut the rows of every sequence into tiles (sequence, first row, last row); return them and the scores of each.

    A row is a query of one of the `shared` heads that read the same keys. With a pattern that is a rough bound.
    """
    rows = np.diff(offsets) * shared
    count = -(-rows // ROWS)
    n = np.repeat(np.arange(rows.size), count)
    first = (np.arange(n.size) - np.repeat(np.cumsum(count) - count, count)) * ROWS
    last = np.minimum(first + ROWS, rows[n]) - 1
    tiles = np.stack([n, first, last], axis=1)
    position = past[n] + last // max(shared, 1)
    reach = np.minimum(lengths[n], position + 1) if causal else lengths[n]
    some = 2 * near + ROWS + 2 * KEYS
    if pattern.table.size:
        some += int(pattern.table.sum(axis=2, dtype=np.int64).max()) * pattern.block
    full = pattern.flags.any() if pattern.flags.size else False
    reach = reach if full or near >= _UNLIMITED else np.minimum(reach, some)
    return tiles, (last - first + 1) * reach
