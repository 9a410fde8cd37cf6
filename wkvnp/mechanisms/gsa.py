"""Gated slot attention (GSA): softmax attention over a fixed number of slots that fade and are refilled.

Letters: B batch, T time, H heads, K key width, V value width, R slots.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .._arguments import named
from ..kernels.linear import fading_values, linear
from ._scale import scaled
from ._spec import Input, Part, Spec

Array = npt.NDArray[Any]


class GSAState(NamedTuple):
    """What the slots hold: a key (B, H, K, R) and a value (B, H, R, V) each."""

    k: Array
    v: Array


SPEC = Spec(
    name="gsa",
    inputs=(
        Input("q", ("B T H K",)),
        Input("k", ("B T H K",)),
        Input("v", ("B T H V",)),
        Input("log_decay", ("B T H R",), "log_decay"),
        Input("s", ("B T H R",), optional=True, drawn="share"),
    ),
    state_type=GSAState,
    state_parts=(Part("k", "B H K R", linear=False), Part("v", "B H R V")),
    variants=({}, {"scale": 0.7}),
)


def packed(
    q: Array,
    k: Array,
    v: Array,
    log_decay: Array,
    s: Array | None,
    state: GSAState | None,
    offsets: Array,
    *,
    scale: float | None = None,
) -> tuple[Array, GSAState]:
    """Run the recurrence on arrays that need no check, sequences behind each other with their `offsets`."""
    s = -np.expm1(log_decay) if s is None else s
    keys, values = (None, None) if state is None else state
    weight, keys = fading_values(scaled(q, scale), log_decay, k, s, keys, offsets)
    weight -= weight.max(axis=-1, keepdims=True, initial=-np.inf)
    np.exp(weight, out=weight)
    weight /= weight.sum(axis=-1, keepdims=True)
    y, values = linear(weight, log_decay, s, v, None, values, offsets)
    return y, GSAState(keys, values)


@named
def gsa(
    q: npt.ArrayLike,
    k: npt.ArrayLike,
    v: npt.ArrayLike,
    log_decay: npt.ArrayLike,
    s: npt.ArrayLike | None = None,
    *,
    scale: float | None = None,
    reverse: bool = False,
    cu_seqlens: npt.ArrayLike | None = None,
    state: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
) -> tuple[Array, GSAState]:
    """Run gated slot attention over sequences.

    ``K_t = K_{t-1} diag(f_t) + k_t s_t^T`` and ``V_t = diag(f_t) V_{t-1} + s_t v_t^T`` with ``f_t = exp(log_decay_t)``;
    ``y_t = V_t^T softmax(scale K_t^T q_t)``.

    Parameters
    ----------
    q, k : array_like, shape (B, T, H, K)
        Query and key.
    v : array_like, shape (B, T, H, V)
        Value.
    log_decay : array_like, shape (B, T, H, R)
        Natural logarithm of what a slot keeps, at most 0.
    s : array_like, shape (B, T, H, R), optional
        How much of the token goes into each slot; 1 - exp(log_decay) by default, as published.
    scale : float, optional
        Factor of the query; K^-0.5 by default.
    reverse : bool, default False
        Walk every sequence from its end to its beginning.
    cu_seqlens : array_like of int, shape (N + 1,), optional
        Offsets of N sequences packed along T, with B = 1.
    state : tuple (k, v) of array_like, shapes (B, H, K, R) and (B, H, R, V), optional
        What an earlier call returned; None is empty slots. It is not changed.

    Returns
    -------
    y : ndarray, shape (B, T, H, V)
        Of the dtype of the inputs.
    state : GSAState
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
    the time axis anywhere and handing the state over gives the same bits. An empty
    slot has the score 0 and takes part in the softmax.

    References
    ----------
    Zhang et al. 2024, "Gated Slot Attention for Efficient Linear-Time Sequence Modeling" (arXiv:2409.07146), section 3;
    fla-org/flash-linear-attention, ``fla/ops/gsa/naive.py``.

    Examples
    --------
    >>> one = np.ones((2, 1, 1))
    >>> y, state = gsa(one, 0 * one, [[[1.0]], [[2.0]]], np.log([[[0.5, 0.5]], [[0.5, 0.0625]]]))
    >>> y.ravel()
    array([0.5   , 1.578125])
    """
    values = {"q": q, "k": k, "v": v, "log_decay": log_decay, "s": s}
    call = SPEC.enter(values, state, cu_seqlens, reverse)
    return call.leave(*packed(**call.arrays, state=call.state, offsets=call.offsets, scale=scale))
