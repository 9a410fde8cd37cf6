"""Forgetting attention (FoX): softmax attention whose heads forget, by a gate for every token.

Letters: B batch, T time, H heads of queries, G groups (heads of keys and values), K key width, V value width.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .._arguments import named
from ..errors import ArgumentError
from ..kernels.softmax import ForgetCache, KVCache, softmax
from ._attention_options import scale_of
from ._spec import Input, Spec

Array = npt.NDArray[Any]

_NAME = "forgetting_attention"
SPEC = Spec(
    name=_NAME,
    inputs=(
        Input("q", ("B T H K",)),
        Input("k", ("B T G K",)),
        Input("v", ("B T G V",)),
        Input("log_forget", ("B T H",), "log_decay"),
    ),
    state_type=ForgetCache,
    divides=(("G", "H"),),
)


def packed(
    q: Array,
    k: Array,
    v: Array,
    log_forget: Array,
    state: ForgetCache | None,
    offsets: Array,
    *,
    scale: float | None = None,
) -> tuple[Array, KVCache]:
    """Attend on arrays that need no check, sequences behind each other with their `offsets`."""
    factor = scale_of(_NAME, scale, q.shape[2])
    y, _, final = softmax(q, k, v, state, offsets, scale=factor, log_forget=log_forget)
    return y, final


@named
def forgetting_attention(
    q: npt.ArrayLike,
    k: npt.ArrayLike,
    v: npt.ArrayLike,
    log_forget: npt.ArrayLike,
    *,
    scale: float | None = None,
    reverse: bool = False,
    cu_seqlens: npt.ArrayLike | None = None,
    state: ForgetCache | None = None,
) -> tuple[Array, ForgetCache]:
    """Attend to a past that fades by a gate of each token.

    ``y_i = sum_j exp(s_ij) v_j / sum_j exp(s_ij)`` over ``j <= i``, with
    ``s_ij = scale q_i . k_j + sum_{l=j+1..i} log_forget_l``.

    Parameters
    ----------
    q : array_like, shape (B, T, H, K)
        Query.
    k : array_like, shape (B, T, G, K)
        Key; G divides H, and head h of the queries reads head ``h // (H / G)`` of the keys.
    v : array_like, shape (B, T, G, V)
        Value.
    log_forget : array_like, shape (B, T, H)
        Natural logarithm of what a token leaves of everything before it, at most 0 and finite: the log-sigmoid of the
        forget gate in the model.
    scale : float, optional
        Factor on the scores; K^-0.5 by default.
    reverse : bool, default False
        Walk every sequence from its end to its beginning.
    cu_seqlens : array_like of int, shape (N + 1,), optional
        Offsets of N sequences packed along T, with B = 1.
    state : ForgetCache, optional
        What an earlier call returned: its keys, values and sums of gates. It is not changed.

    Returns
    -------
    y : ndarray, shape (B, T, H, V)
        Of the dtype of the inputs.
    state : ForgetCache
        Keys and values so far, float32, or float64 if the inputs are; the sums of gates are float64. With `cu_seqlens`
        it is of N sequences.

    Raises
    ------
    ArgumentError
        If a shape, dtype or range does not fit, naming the argument.
    DeviceError
        If arrays live on different devices.

    Notes
    -----
    All arrays may be given without the batch axis. What lies between two tokens is a difference of two sums from the
    beginning of the text; those are float64, because in float32 late ones differ by noise. Cutting the time axis
    anywhere and handing the state over gives the same bits. With gates of 0 this is `softmax_attention`.

    References
    ----------
    Lin et al. 2025, "Forgetting Transformer: Softmax Attention with a Forget Gate" (arXiv:2503.02130), equation 5;
    zhixuan-lin/forgetting-transformer, ``src/forgetting_transformer/ops/forgetting_attention.py``.

    Examples
    --------
    Keys of zero weigh all tokens alike, but for what was forgotten:

    >>> import numpy as np
    >>> zero, v = np.zeros((2, 1, 1)), np.array([[[3.0]], [[0.0]]])
    >>> y, state = forgetting_attention(zero, zero, v, np.log([[1.0], [0.5]]))
    >>> y.ravel()
    array([3., 1.])
    """
    values = {"q": q, "k": k, "v": v, "log_forget": log_forget}
    call = SPEC.enter(values, state, cu_seqlens, reverse)
    if not np.isfinite(call.arrays["log_forget"]).all():
        raise ArgumentError(f"{_NAME}: log_forget must be finite (cu_seqlens begins a text anew); got infinity or NaN")
    return call.leave(*packed(**call.arrays, state=call.state, offsets=call.offsets, scale=scale))
