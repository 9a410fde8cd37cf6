"""Longformer's attention: a sliding window, and some global tokens that see all and that all see.

Letters: B batch, T time, H heads of queries, G groups (heads of keys and values), K key width, V value width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .._arguments import named
from ..kernels.softmax import KVCache, Pattern, softmax
from ._attention_options import refuse_state, scale_of, whole
from ._spec import Input, Spec

Array = npt.NDArray[Any]

_NAME = "longformer"
SPEC = Spec(
    name=_NAME,
    inputs=(Input("q", ("B T H K",)), Input("k", ("B T G K",)), Input("v", ("B T G V",))),
    state_type=KVCache,
    divides=(("G", "H"),),
    variants=({"window": 4}, {"window": 3, "global_tokens": (1, 5, 62)}),
)


def packed(
    q: Array,
    k: Array,
    v: Array,
    state: KVCache | None,
    offsets: Array,
    *,
    window: int = 512,
    global_tokens: Sequence[int] = (),
    causal: bool = True,
    scale: float | None = None,
) -> tuple[Array, KVCache]:
    """Attend on arrays that need no check, sequences behind each other with their `offsets`."""
    flags = np.zeros(max(global_tokens, default=-1) + 1, np.uint8)
    flags[list(global_tokens)] = 1
    options: dict[str, Any] = {"scale": scale_of(_NAME, scale, q.shape[2]), "causal": causal, "window": window}
    y, _, final = softmax(q, k, v, state, offsets, pattern=Pattern(flags), **options)
    return y, final


@named
def longformer(
    q: npt.ArrayLike,
    k: npt.ArrayLike,
    v: npt.ArrayLike,
    *,
    window: int = 512,
    global_tokens: Sequence[int] = (),
    causal: bool = True,
    scale: float | None = None,
    reverse: bool = False,
    cu_seqlens: npt.ArrayLike | None = None,
    state: KVCache | None = None,
) -> tuple[Array, KVCache]:
    """Attend to the tokens near by and to a few global ones.

    ``y_i = sum_j exp(s_ij) v_j / sum_j exp(s_ij)``, ``s_ij = scale q_i . k_j``, over the keys with
    ``|i - j| < window``, and all where i or j is a global token; none from the future if `causal`.

    Parameters
    ----------
    q : array_like, shape (B, T, H, K)
        Query.
    k : array_like, shape (B, T, G, K)
        Key; G divides H, and head h of the queries reads head ``h // (H / G)`` of the keys.
    v : array_like, shape (B, T, G, V)
        Value.
    window : int, default 512
        See keys less than this many tokens away, on both sides if not `causal`: half of the paper's window.
    global_tokens : sequence of int, default none
        Positions from the beginning of a sequence, the past in `state` included; the same for all sequences.
    causal : bool, default True
        Whether later keys are hidden. The paper's encoder sets False; then there can be no `state`.
    scale : float, optional
        Factor on the scores; K^-0.5 by default.
    reverse : bool, default False
        Walk every sequence from its end to its beginning; positions then count from the end.
    cu_seqlens : array_like of int, shape (N + 1,), optional
        Offsets of N sequences packed along T, with B = 1.
    state : KVCache, optional
        What an earlier call returned: its keys and values. It is not changed.

    Returns
    -------
    y : ndarray, shape (B, T, H, V)
        Of the dtype of the inputs.
    state : KVCache
        Keys and values so far, float32, or float64 if the inputs are. With `cu_seqlens` it is of N sequences.

    Raises
    ------
    ArgumentError
        If a shape, dtype or range does not fit, naming the argument.
    DeviceError
        If arrays live on different devices.

    Notes
    -----
    All arrays may be given without the batch axis. Blocks of 64 keys that no token of a tile sees are skipped, so the
    cost grows with the window, and with T only where there are global tokens. All keys are kept, also those
    that the window has left behind. Cutting the time axis anywhere and handing the state over gives the same bits if
    the global tokens are the same ones. The model projects global tokens by matrices of their own; that is up to the
    caller. NaN in a value reaches all tokens that meet its block of keys.

    References
    ----------
    Beltagy, Peters and Cohan 2020, "Longformer: The Long-Document Transformer" (arXiv:2004.05150), section 3.1;
    allenai/longformer, ``longformer/longformer.py``.

    Examples
    --------
    The first token is global, the others see only themselves:

    >>> import numpy as np
    >>> zero, v = np.zeros((4, 1, 1)), np.array([[[8.0]], [[2.0]], [[4.0]], [[6.0]]])
    >>> longformer(zero, zero, v, window=1, global_tokens=[0])[0].ravel()
    array([8., 5., 6., 7.])
    >>> longformer(zero, zero, v, window=1, global_tokens=[0], causal=False)[0].ravel()
    array([5., 5., 6., 7.])
    """
    refuse_state(_NAME, state, causal)
    call = SPEC.enter({"q": q, "k": k, "v": v}, state, cu_seqlens, reverse)
    tokens = [whole(_NAME, "global_tokens", token, 0) for token in np.ravel(global_tokens).tolist()]
    options: dict[str, Any] = {"window": whole(_NAME, "window", window), "global_tokens": tokens}
    options |= {"causal": bool(causal), "scale": scale}
    return call.leave(*packed(**call.arrays, state=call.state, offsets=call.offsets, **options))
