"""BigBird's attention: blocks see their neighbours, some global blocks, and some blocks drawn at random.

Letters: B batch, T time, H heads of queries, G groups (heads of keys and values), K key width, V value width, Q blocks
of queries, R random blocks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .._arguments import named
from ..errors import ShapeError
from ..kernels.softmax import KVCache, Pattern, softmax
from ._attention_options import refuse_state, scale_of, whole
from ._spec import Input, Spec
from .random_blocks import seen

Array = npt.NDArray[Any]

_NAME = "bigbird"
SPEC = Spec(
    name=_NAME,
    inputs=(Input("q", ("B T H K",)), Input("k", ("B T G K",)), Input("v", ("B T G V",))),
    state_type=KVCache,
    divides=(("G", "H"),),
    variants=({}, {"block": 10, "window_blocks": 1, "random_blocks": ((-1,),) * 3 + ((1,), (2,), (3,), (4,), (2,))}),
)


def packed(
    q: Array,
    k: Array,
    v: Array,
    state: KVCache | None,
    offsets: Array,
    *,
    block: int = 64,
    window_blocks: int = 3,
    global_blocks: int = 1,
    random_blocks: Array | None = None,
    causal: bool = True,
    scale: float | None = None,
) -> tuple[Array, KVCache]:
    """Attend on arrays that need no check; `random_blocks` is (1 or H, Q, R)."""
    past = np.zeros(1, np.int64) if state is None else state.lengths
    first, blocks = int(past.min(initial=0)) // block, -(-int((past + np.diff(offsets)).max(initial=0)) // block)
    always = seen(np.arange(first, max(first, blocks)), blocks, window_blocks, global_blocks, causal)
    drawn = np.zeros((1, 0, 0), np.int64) if random_blocks is None else random_blocks[:, first:blocks]
    table = np.repeat(always[None].astype(np.uint8), len(drawn), axis=0)
    h, a, r = np.nonzero((drawn >= 0) & (drawn < blocks))
    table[h, a, drawn[h, a, r]] = 1
    options: dict[str, Any] = {"scale": scale_of(_NAME, scale, q.shape[2]), "causal": causal, "window": 0}
    y, _, final = softmax(q, k, v, state, offsets, pattern=Pattern(table=table, block=block, first=first), **options)
    return y, final


@named
def bigbird(
    q: npt.ArrayLike,
    k: npt.ArrayLike,
    v: npt.ArrayLike,
    *,
    block: int = 64,
    window_blocks: int = 3,
    global_blocks: int = 1,
    random_blocks: npt.ArrayLike | None = None,
    causal: bool = True,
    scale: float | None = None,
    reverse: bool = False,
    cu_seqlens: npt.ArrayLike | None = None,
    state: KVCache | None = None,
) -> tuple[Array, KVCache]:
    """Attend block by block to neighbours, to global blocks, and to some drawn at random.

    ``y_i = sum_j exp(s_ij) v_j / sum_j exp(s_ij)``, ``s_ij = scale q_i . k_j``, over the keys in blocks that the block
    of i sees; none from the future if `causal`.

    Parameters
    ----------
    q : array_like, shape (B, T, H, K)
        Query.
    k, v : array_like, shapes (B, T, G, K) and (B, T, G, V)
        Key and value; G divides H, and head h of the queries reads head ``h // (H / G)``.
    block : int, default 64
        Tokens of a block; blocks count from the beginning of a sequence, the past in `state` included.
    window_blocks : int, default 3
        Blocks in a row that see each other: those before and its own, or as many on each side if not `causal`.
    global_blocks : int, default 1
        How many of the first blocks see all and are seen by all.
    random_blocks : array_like of int, shape (Q, R) or (H, Q, R), optional
        More blocks that each block sees, e.g. from `draw_random_blocks`; -1 for none, and none behind the table's end.
    causal : bool, default True
        Whether later keys are hidden. The paper's encoder sets False; then there can be no `state`.
    scale : float, optional
        Factor on the scores; K^-0.5 by default.
    reverse, cu_seqlens, state : optional
        As in `softmax_attention`.

    Returns
    -------
    y : ndarray, shape (B, T, H, V)
    state : KVCache

    Raises
    ------
    ArgumentError
        If a shape, dtype or range does not fit, naming the argument.

    Notes
    -----
    Blocks that are not seen cost nothing, so the cost grows with T. Cutting the time axis anywhere and handing the
    state over gives the same bits if the table is the same one. All keys are kept.

    References
    ----------
    Zaheer et al. 2020, "Big Bird: Transformers for Longer Sequences" (arXiv:2007.14062), section 2 (the internal
    construction); google-research/bigbird, ``bigbird/core/attention.py``.

    Examples
    --------
    Blocks of one token; the last one sees itself, the first, and token 1:

    >>> import numpy as np
    >>> zero, v = np.zeros((4, 1, 1)), np.array([[[8.0]], [[2.0]], [[4.0]], [[5.0]]])
    >>> bigbird(zero, zero, v, block=1, window_blocks=1, random_blocks=[[-1], [-1], [-1], [1]])[0].ravel()
    array([8., 5., 6., 5.])
    """
    refuse_state(_NAME, state, causal)
    call = SPEC.enter({"q": q, "k": k, "v": v}, state, cu_seqlens, reverse)
    options: dict[str, Any] = {
        "block": whole(_NAME, "block", block),
        "window_blocks": whole(_NAME, "window_blocks", window_blocks),
    }
    options |= {"causal": bool(causal), "scale": scale}
    if random_blocks is not None:
        drawn, H = np.asarray(random_blocks), call.arrays["q"].shape[1]
        drawn = drawn[None] if drawn.ndim == 2 else drawn
        if drawn.ndim != 3 or len(drawn) not in (1, H) or drawn.dtype.kind not in "iu":
            shape = np.shape(random_blocks)
            raise ShapeError(f"{_NAME}: random_blocks must be whole numbers (Q, R) or (H={H}, Q, R); got {shape}")
        options["random_blocks"] = drawn.astype(np.int64)
    return call.leave(*packed(**call.arrays, state=call.state, offsets=call.offsets, **options))
