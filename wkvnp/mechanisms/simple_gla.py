"""Simple gated linear attention: a matrix state with one decay a head and token.

Letters: B batch, T time, H heads, K key width, V value width.
"""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from .._arguments import named
from ..kernels.linear import linear
from ._scale import scaled
from ._spec import Input, Spec

Array = npt.NDArray[Any]

SPEC = Spec(
    name="simple_gla",
    inputs=(
        Input("q", ("B T H K",)),
        Input("k", ("B T H K",)),
        Input("v", ("B T H V",)),
        Input("log_decay", ("B T H",), "log_decay"),
    ),
    state_axes="B H K V",
    variants=({}, {"scale": 0.7}),
)


def packed(
    q: Array,
    k: Array,
    v: Array,
    log_decay: Array,
    state: Array | None,
    offsets: Array,
    *,
    scale: float | None = None,
) -> tuple[Array, Array]:
    """Run the recurrence on arrays that need no check, sequences behind each other with their `offsets`."""
    return linear(scaled(q, scale), log_decay[:, :, None], k, v, None, state, offsets)


@named
def simple_gla(
    q: npt.ArrayLike,
    k: npt.ArrayLike,
    v: npt.ArrayLike,
    log_decay: npt.ArrayLike,
    *,
    scale: float | None = None,
    reverse: bool = False,
    cu_seqlens: npt.ArrayLike | None = None,
    state: npt.ArrayLike | None = None,
) -> tuple[Array, Array]:
    """Run linear attention with one decay a head over sequences: gated RetNet, and what Mamba-2 computes inside.

    ``S_t = exp(log_decay_t) S_{t-1} + k_t v_t^T`` and ``y_t = scale S_t^T q_t``.

    Parameters
    ----------
    q, k : array_like, shape (B, T, H, K)
        Query and key.
    v : array_like, shape (B, T, H, V)
        Value.
    log_decay : array_like, shape (B, T, H)
        Natural logarithm of the decay per token, at most 0: logsigmoid(gate) / 16 in gated RetNet.
    scale : float, optional
        Factor of the query; K^-0.5 by default.
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
    Sun et al. 2024, "You Only Cache Once" (arXiv:2405.05254), section 3.1 (gated retention);
    fla-org/flash-linear-attention, ``fla/ops/simple_gla/naive.py``.

    Examples
    --------
    >>> import numpy as np
    >>> one = np.ones((3, 1, 1))
    >>> y, state = simple_gla(one, one, [[[1.0]], [[2.0]], [[3.0]]], np.log([[0.5], [0.5], [0.25]]))
    >>> y.ravel()
    array([1.   , 2.5  , 3.625])
    """
    call = SPEC.enter({"q": q, "k": k, "v": v, "log_decay": log_decay}, state, cu_seqlens, reverse)
    return call.leave(*packed(**call.arrays, state=call.state, offsets=call.offsets, scale=scale))
