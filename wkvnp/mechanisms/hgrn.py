"""HGRN: a weighted mean of inputs, with a forget gate per channel and token.

Letters: B batch, T time, C channels.
"""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from .._arguments import named
from ..kernels.scan import scan
from ._spec import Input, Spec

Array = npt.NDArray[Any]

SPEC = Spec(
    name="hgrn",
    inputs=(Input("c", ("B T C",)), Input("log_decay", ("B T C",), "log_decay")),
    state_axes="B C",
    value="c",
)


def packed(c: Array, log_decay: Array, state: Array | None, offsets: Array) -> tuple[Array, Array]:
    """Run the recurrence on arrays that need no check, sequences behind each other with their `offsets`."""
    return scan(log_decay, c, state, offsets, "rest")


@named
def hgrn(
    c: npt.ArrayLike,
    log_decay: npt.ArrayLike,
    *,
    reverse: bool = False,
    cu_seqlens: npt.ArrayLike | None = None,
    state: npt.ArrayLike | None = None,
) -> tuple[Array, Array]:
    """Run the recurrence of the hierarchically gated recurrent network over sequences.

    ``h_t = lambda_t h_{t-1} + (1 - lambda_t) c_t`` and ``y_t = h_t``, with ``lambda_t = exp(log_decay_t)``.

    Parameters
    ----------
    c : array_like, shape (B, T, C)
        Input: what a SiLU made of the projected token in the model.
    log_decay : array_like, shape (B, T, C)
        Natural logarithm of the forget gate, at most 0. With a lower bound g and a gate's logits z the model's is
        ``logaddexp(log(g), log1p(-g) - logaddexp(0, -z))``.
    reverse : bool, default False
        Walk every sequence from its end to its beginning.
    cu_seqlens : array_like of int, shape (N + 1,), optional
        Offsets of N sequences packed along T, with B = 1.
    state : array_like, shape (B, C), optional
        What an earlier call returned; None is zeros. It is not changed.

    Returns
    -------
    y : ndarray, shape (B, T, C)
        The states, before the model's output gate; of the dtype of the inputs.
    state : ndarray, shape (B, C)
        float32, or float64 if the inputs are. With `cu_seqlens` its first axis is N.

    Raises
    ------
    ArgumentError
        If a shape, dtype or range does not fit, naming the argument.
    DeviceError
        If arrays live on different devices.

    Notes
    -----
    All arrays may be given without the batch axis. ``1 - lambda`` is formed from the logarithm, so a gate near 1 loses
    no digits. Cutting the time axis anywhere and handing the state over gives the same bits. The decays of the paper
    may also turn by a fixed angle per channel; here, as in later implementations, they are real.

    References
    ----------
    Qin et al. 2023, "Hierarchically Gated Recurrent Neural Network for Sequence Modeling" (arXiv:2311.04823),
    section 3; fla-org/flash-linear-attention, ``fla/ops/hgrn/naive.py``.

    Examples
    --------
    >>> import numpy as np
    >>> y, state = hgrn([[4.0], [8.0], [0.0]], np.log([[0.5], [0.5], [0.25]]))
    >>> y.ravel(), state
    (array([2.  , 5.  , 1.25]), array([1.25]))
    """
    call = SPEC.enter({"c": c, "log_decay": log_decay}, state, cu_seqlens, reverse)
    return call.leave(*packed(**call.arrays, state=call.state, offsets=call.offsets))
