"""RWKV-5 "Eagle": a matrix state with a learned, constant decay.

Letters: B batch, T time, H heads, K key width, V value width.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .._arguments import named
from ..kernels.linear import linear
from ._spec import Input, Spec

Array = npt.NDArray[Any]

SPEC = Spec(
    name="rwkv5",
    inputs=(
        Input("r", ("B T H K",)),
        Input("log_decay", ("H K", "H"), "log_decay"),
        Input("k", ("B T H K",)),
        Input("v", ("B T H V",)),
        Input("u", ("H K", "H")),
    ),
    state_axes="B H K V",
)


def packed(
    r: Array, log_decay: Array, k: Array, v: Array, u: Array, state: Array | None, offsets: Array
) -> tuple[Array, Array]:
    """Run the recurrence on arrays that need no check, sequences behind each other with their `offsets`."""
    heads, width = k.shape[1:]
    bonus = np.ascontiguousarray(np.broadcast_to(u.reshape(heads, -1), (heads, width)))
    return linear(r, log_decay.reshape(1, heads, -1), k, v, bonus, state, offsets)


@named
def rwkv5(
    r: npt.ArrayLike,
    log_decay: npt.ArrayLike,
    k: npt.ArrayLike,
    v: npt.ArrayLike,
    u: npt.ArrayLike,
    *,
    reverse: bool = False,
    cu_seqlens: npt.ArrayLike | None = None,
    state: npt.ArrayLike | None = None,
) -> tuple[Array, Array]:
    """Run the recurrence of RWKV-5 (5.0, 5.1 and 5.2) over sequences.

    ``y_t = (S_{t-1} + diag(u) k_t v_t^T)^T r_t``, then ``S_t = diag(exp(log_decay)) S_{t-1} + k_t v_t^T``.

    Parameters
    ----------
    r : array_like, shape (B, T, H, K)
        Receptance: what to read.
    log_decay : array_like, shape (H, K) or (H,)
        Natural logarithm of the decay per token, at most 0: -exp(time_decay) in the model. One number a head in
        5.0 and 5.1.
    k : array_like, shape (B, T, H, K)
        Key.
    v : array_like, shape (B, T, H, V)
        Value.
    u : array_like, shape (H, K) or (H,)
        Bonus: the weight of the current token in its own output.
    reverse : bool, default False
        Walk every sequence from its end to its beginning.
    cu_seqlens : array_like of int, shape (N + 1,), optional
        Offsets of N sequences packed along T, with B = 1.
    state : array_like, shape (B, H, K, V), optional
        What an earlier call returned; None is zeros. It is not changed.

    Returns
    -------
    y : ndarray, shape (B, T, H, V)
        Of the dtype of the inputs.
    state : ndarray, shape (B, H, K, V)
        float32, or float64 if the inputs are. With `cu_seqlens` its first axis is N.

    Raises
    ------
    ArgumentError
        If a shape, dtype or range does not fit, naming the argument.
    DeviceError
        If arrays live on different devices.

    Notes
    -----
    All arrays may be given without the batch axis. Sums and state are float32 (float64 for float64 inputs). Cutting
    the time axis anywhere and handing the state over gives the same bits.

    References
    ----------
    Peng et al. 2024, "Eagle and Finch: RWKV with Matrix-Valued States and Dynamic Recurrence" (arXiv:2404.05892),
    section 4.1; BlinkDL/ChatRWKV, ``RWKV_v5_demo.py``.

    Examples
    --------
    >>> one = np.ones((3, 1, 1))
    >>> y, state = rwkv5(one, [np.log(0.5)], one, one, [2.0])
    >>> y.ravel(), state.ravel()
    (array([2. , 3. , 3.5]), array([1.75]))
    """
    call = SPEC.enter({"r": r, "log_decay": log_decay, "k": k, "v": v, "u": u}, state, cu_seqlens, reverse)
    return call.leave(*packed(**call.arrays, state=call.state, offsets=call.offsets))
