"""HGRN2: a gated recurrence whose state is an outer product; what a channel forgets is what it takes in.

Letters: B batch, T time, H heads, K key width, V value width.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .._arguments import named
from ..kernels.linear import linear
from ._scale import scaled
from ._spec import Input, Spec

Array = npt.NDArray[Any]

SPEC = Spec(
    name="hgrn2",
    inputs=(
        Input("q", ("B T H K",)),
        Input("log_decay", ("B T H K",), "log_decay"),
        Input("i", ("B T H V",)),
    ),
    state_axes="B H K V",
    value="i",
    variants=({}, {"scale": 0.7}),
)


def packed(
    q: Array, log_decay: Array, i: Array, state: Array | None, offsets: Array, *, scale: float = 1.0
) -> tuple[Array, Array]:
    """Run the recurrence on arrays that need no check, sequences behind each other with their `offsets`."""
    return linear(scaled(q, scale), log_decay, -np.expm1(log_decay), i, None, state, offsets)


@named
def hgrn2(
    q: npt.ArrayLike,
    log_decay: npt.ArrayLike,
    i: npt.ArrayLike,
    *,
    scale: float = 1.0,
    reverse: bool = False,
    cu_seqlens: npt.ArrayLike | None = None,
    state: npt.ArrayLike | None = None,
) -> tuple[Array, Array]:
    """Run the recurrence of HGRN2 over sequences.

    ``S_t = diag(f_t) S_{t-1} + (1 - f_t) i_t^T`` with ``f_t = exp(log_decay_t)``, and ``y_t = scale S_t^T q_t``.

    Parameters
    ----------
    q : array_like, shape (B, T, H, K)
        What to read: the paper's output gate, silu of a projection in the model.
    log_decay : array_like, shape (B, T, H, K)
        Natural logarithm of the forget gate, at most 0. With a lower bound b of the gate it is
        ``logaddexp(log b, log1p(-b) + logsigmoid(z))``.
    i : array_like, shape (B, T, H, V)
        Input.
    scale : float, default 1.0
        Factor of the query.
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
    the time axis anywhere and handing the state over gives the same bits. ``1 - f`` is
    computed from the logarithm, so a gate near 1 loses no digits.

    References
    ----------
    Qin et al. 2024, "HGRN2: Gated Linear RNNs with State Expansion" (arXiv:2404.07904), section 3;
    fla-org/flash-linear-attention, ``fla/layers/hgrn2.py``.

    Examples
    --------
    >>> one = np.ones((2, 1, 1))
    >>> y, state = hgrn2(one, np.log(0.75) * one, [[[4.0]], [[8.0]]])
    >>> y.ravel()
    array([1.  , 2.75])
    """
    call = SPEC.enter({"q": q, "log_decay": log_decay, "i": i}, state, cu_seqlens, reverse)
    return call.leave(*packed(**call.arrays, state=call.state, offsets=call.offsets, scale=scale))
