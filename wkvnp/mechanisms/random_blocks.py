"""Which blocks of tokens see which, in block-sparse attention."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .._arguments import generator_of, named
from ._attention_options import whole

__all__ = ["draw_random_blocks"]

Array = npt.NDArray[Any]


def seen(rows: Array, blocks: int, window: int, global_blocks: int, causal: bool) -> Array:
    """Return (rows, blocks): which blocks of keys the blocks `rows` of queries see, chance aside."""
    a, b = rows[:, None], np.arange(blocks)
    near = (b <= a) & (a - b < window) if causal else np.abs(a - b) <= window // 2
    return near | (a < global_blocks) | (b < global_blocks)


@named
def draw_random_blocks(
    rng: np.random.Generator | int,
    blocks: int,
    count: int,
    *,
    window_blocks: int = 3,
    global_blocks: int = 1,
    causal: bool = True,
) -> Array:
    """Draw the random blocks of `bigbird`, each from those that its block does not see anyway.

    Parameters
    ----------
    rng : numpy.random.Generator or int
        Where chance comes from, or a seed for it.
    blocks : int
        Blocks of a sequence: its length over the tokens of a block, rounded up.
    count : int
        How many blocks to draw for each.
    window_blocks, global_blocks, causal : int, int and bool
        As they will be given to `bigbird`.

    Returns
    -------
    random_blocks : ndarray of int64, shape (blocks, count)
        Increasing numbers of blocks, and -1 where there are too few to draw from.

    Raises
    ------
    ArgumentError
        If a number does not fit, naming the argument.

    Notes
    -----
    If `causal`, a longer table from the same seed begins like a shorter one.

    Examples
    --------
    >>> draw_random_blocks(0, 6, 2)[:, 0]
    array([-1, -1, -1, -1,  1,  1])
    """
    name = "draw_random_blocks"
    blocks, count = whole(name, "blocks", blocks, 0), whole(name, "count", count, 0)
    rng = generator_of(name, rng, optional=False)
    anyway = seen(np.arange(blocks), blocks, whole(name, "window_blocks", window_blocks), global_blocks, causal)
    table = np.full((blocks, count), -1, np.int64)
    for a in range(blocks):
        drawn = rng.permutation(np.flatnonzero(~anyway[a, : a + 1 if causal else blocks]))[:count]
        table[a, : drawn.size] = np.sort(drawn)
    return table
