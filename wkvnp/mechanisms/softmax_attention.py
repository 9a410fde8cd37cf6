"""Softmax attention, the mechanism of the Transformer: every token weighs all that came before it.

Letters: B batch, T time, S time of keys where it differs, H heads of queries, G groups (heads of keys and values),
K key width, V value width.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .._arguments import named
from ..errors import ShapeError
from ..kernels.softmax import KVCache, softmax
from ._attention_options import crossing, positive, refuse_state, scale_of, whole
from ._spec import Input, Spec

Array = npt.NDArray[Any]
__all__ = ["SPEC", "KVCache", "packed", "softmax_attention"]
_NAME = "softmax_attention"
SPEC = Spec(
    name=_NAME,
    inputs=(
        *(Input("q", ("B T H K",)), Input("k", ("B T G K",)), Input("v", ("B T G V",))),
        Input("slopes", ("H",), "positive", optional=True),
        Input("sinks", ("H",), optional=True),
    ),
    state_type=KVCache,
    divides=(("G", "H"),),
    variants=({}, {"window": 4}, {"softcap": 1.5, "scale": 2.0}),
)
_CROSS = crossing(SPEC)


def packed(
    q: Array,
    k: Array,
    v: Array,
    slopes: Array | None,
    sinks: Array | None,
    state: KVCache | None,
    offsets: Array,
    *,
    causal: bool = True,
    window: int | None = None,
    softcap: float | None = None,
    scale: float | None = None,
    key_offsets: Array | None = None,
) -> tuple[Array, KVCache]:
    """Attend on arrays that need no check, sequences behind each other with their `offsets`."""
    options: dict[str, Any] = {"causal": causal, "window": window, "cap": softcap, "slopes": slopes, "sinks": sinks}
    options |= {"scale": scale_of(_NAME, scale, q.shape[2]), "key_offsets": key_offsets}
    return softmax(q, k, v, state, offsets, **options)[::2]


@named
def softmax_attention(
    q: npt.ArrayLike,
    k: npt.ArrayLike,
    v: npt.ArrayLike,
    *,
    slopes: npt.ArrayLike | None = None,
    sinks: npt.ArrayLike | None = None,
    causal: bool = True,
    window: int | None = None,
    softcap: float | None = None,
    scale: float | None = None,
    reverse: bool = False,
    cu_seqlens: npt.ArrayLike | None = None,
    state: KVCache | None = None,
) -> tuple[Array, KVCache]:
    """Return a mean of the values, weighed by how well their keys fit the query.

    ``y_i = sum_j exp(s_ij) v_j / sum_j exp(s_ij)`` over the keys that token i may see, with ``s_ij = scale q_i . k_j``,
    then ``softcap tanh(s_ij / softcap)``, then less ``slope |i - j|``.

    Parameters
    ----------
    q : array_like, shape (B, T, H, K)
        Query.
    k : array_like, shape (B, T, G, K)
        Key; G divides H, and head h of the queries reads head ``h // (H / G)`` of the keys.
    v : array_like, shape (B, T, G, V)
        Value. Without a state, `k` and `v` may be of another length S: cross attention if not `causal`, else the last
        query has the position of the last key, and S is at least T.
    slopes : array_like, shape (H,), optional
        ALiBi: by how much a score falls per token of distance.
    sinks : array_like, shape (H,), optional
        A score for attending to nothing: it joins the denominator only.
    causal : bool, default True
        Whether later keys are hidden. If False there can be no `state`.
    window : int, optional
        See keys less than this many tokens away.
    softcap, scale : float, optional
        Bound on the size of scores, approached smoothly, and factor on them; no bound and K^-0.5 by default.
    reverse : bool, default False
        Walk every sequence from its end to its beginning.
    cu_seqlens : array_like of int, shape (N + 1,), optional
        Offsets of N sequences packed along T, with B = 1.
    state : KVCache, optional
        What an earlier call returned. It is not changed.

    Returns
    -------
    y : ndarray, shape (B, T, H, V)
        Of the dtype of the inputs; zeros where a token sees no key.
    state : KVCache
        Keys and values so far, float32, or float64 if the inputs are; of N sequences with `cu_seqlens`.

    Raises
    ------
    ArgumentError
        If a shape, dtype or range does not fit, naming the argument.

    Notes
    -----
    All arrays may be given without the batch axis. Sums are float32 (float64 for float64 inputs), scaled by the largest
    score so far. Cutting the time axis anywhere and handing the state over gives the same bits. The state grows in
    place: a token costs no copy of the past, and older states stay what they were.

    References
    ----------
    Vaswani et al. 2017 (arXiv:1706.03762), equation 1; Milakov and Gimelshein 2018 (arXiv:1805.02867), algorithm 3, for
    the running maximum; Press et al. 2022 (arXiv:2108.12409) for slopes; Ainslie et al. 2023 (arXiv:2305.13245) for
    groups; Dao-AILab/flash-attention, ``flash_attn/flash_attn_interface.py``.

    Examples
    --------
    >>> import numpy as np
    >>> q, k = np.array([[[0.0]], [[1.0]]]), np.array([[[1.0]], [[1 + np.log(3)]]])
    >>> y, state = softmax_attention(q, k, np.array([[[4.0]], [[8.0]]]))
    >>> y.ravel(), state
    (array([4., 7.]), KVCache(1 sequence, lengths 2; 1 heads of 1 and 1))
    """
    refuse_state(_NAME, state, causal)
    near = None if window is None else whole(_NAME, "window", window)
    cap = None if softcap is None else positive(_NAME, "softcap", softcap)
    options: dict[str, Any] = {"causal": bool(causal), "window": near, "softcap": cap, "scale": scale}
    values = {"q": q, "k": k, "v": v, "slopes": slopes, "sinks": sinks}
    asked, stored = np.shape(q)[-3:-2], np.shape(k)[-3:-2]
    if asked == stored or state is not None or cu_seqlens is not None or reverse or np.ndim(q) != np.ndim(k):
        call = SPEC.enter(values, state, cu_seqlens, reverse)
        return call.leave(*packed(**call.arrays, state=call.state, offsets=call.offsets, **options))
    call = _CROSS.enter(values, None, None)
    if causal and stored < asked:
        raise ShapeError(f"{_NAME}: k must have at least the {asked[0]} tokens of q when causal; got {stored[0]}")
    key_offsets = np.arange(call.offsets.size) * stored[0]
    return call.leave(*packed(**call.arrays, state=None, offsets=call.offsets, key_offsets=key_offsets, **options))
