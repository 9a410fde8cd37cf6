"""RWKV-4 "Dove": an exponentially weighted mean of values, one per channel.

Letters: B batch, T time, C channels.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy.typing as npt

from .._arguments import named
from ..kernels.wkv import EMPTY_EXPONENT, wkv
from ._spec import Input, Part, Spec

Array = npt.NDArray[Any]

__all__ = ["EMPTY_EXPONENT", "SPEC", "WKVState", "rwkv4"]


class WKVState(NamedTuple):
    """What RWKV-4 carries: numerator ``aa exp(pp)`` and denominator ``bb exp(pp)`` of the weighted mean, each (B, C).

    Two states are the same if ``aa exp(pp)`` and ``bb exp(pp)`` are, for any pp. pp is always float64.
    """

    aa: Array
    bb: Array
    pp: Array


SPEC = Spec(
    name="rwkv4",
    inputs=(
        Input("log_decay", ("C",), "log_decay"),
        Input("k", ("B T C",)),
        Input("v", ("B T C",)),
        Input("u", ("C",)),
    ),
    state_type=WKVState,
    state_parts=(
        Part("aa", "B C"),
        Part("bb", "B C", linear=False, domain="positive"),
        Part("pp", "B C", linear=False, double=True),
    ),
)


def packed(
    log_decay: Array, k: Array, v: Array, u: Array, state: WKVState | None, offsets: Array
) -> tuple[Array, WKVState]:
    """Run the recurrence on arrays that need no check, sequences behind each other with their `offsets`."""
    y, final = wkv(log_decay, u, k, v, state, offsets)
    return y, WKVState(*final)


@named
def rwkv4(
    log_decay: npt.ArrayLike,
    k: npt.ArrayLike,
    v: npt.ArrayLike,
    u: npt.ArrayLike,
    *,
    reverse: bool = False,
    cu_seqlens: npt.ArrayLike | None = None,
    state: tuple[npt.ArrayLike, npt.ArrayLike, npt.ArrayLike] | None = None,
) -> tuple[Array, WKVState]:
    """Run the WKV of RWKV-4 over sequences.

    ``y_t = (n_{t-1} + e^{u + k_t} v_t) / (d_{t-1} + e^{u + k_t})``, then ``n_t = e^{log_decay} n_{t-1} + e^{k_t} v_t``
    and ``d_t = e^{log_decay} d_{t-1} + e^{k_t}``.

    Parameters
    ----------
    log_decay : array_like, shape (C,)
        Natural logarithm of the decay per token, at most 0: -exp(time_decay) in the model.
    k : array_like, shape (B, T, C)
        Key: the logarithm of a token's weight; any size, nothing overflows.
    v : array_like, shape (B, T, C)
        Value.
    u : array_like, shape (C,)
        Logarithm of the bonus of the current token: time_first in the model.
    reverse : bool, default False
        Walk every sequence from its end to its beginning.
    cu_seqlens : array_like of int, shape (N + 1,), optional
        Offsets of N sequences packed along T, with B = 1.
    state : tuple (aa, bb, pp) of array_like, each of shape (B, C), optional
        What an earlier call returned; None is an empty past. It is not changed.

    Returns
    -------
    y : ndarray, shape (B, T, C)
        Of the dtype of the inputs.
    state : WKVState
        float32, or float64 if the inputs are; pp float64. With `cu_seqlens` its first axis is N.

    Raises
    ------
    ArgumentError
        If a shape, dtype or range does not fit, naming the argument.
    DeviceError
        If arrays live on different devices.

    Notes
    -----
    `k`, `v` and the state may be given without the batch axis. Sums are scaled by the largest exponent met so far.
    Cutting the time axis anywhere and handing the state over gives the same bits.

    References
    ----------
    Peng et al. 2023, "RWKV: Reinventing RNNs for the Transformer Era" (arXiv:2305.13048), equations 16 and 19 to 28;
    BlinkDL/ChatRWKV, ``RWKV_in_150_lines.py``.

    Examples
    --------
    >>> import numpy as np
    >>> y, state = rwkv4([np.log(0.5)], np.zeros((3, 1)), np.array([[1.0], [2.0], [6.0]]), [0.0])
    >>> y.ravel()
    array([1. , 1.5, 3.4])
    """
    call = SPEC.enter({"log_decay": log_decay, "k": k, "v": v, "u": u}, state, cu_seqlens, reverse)
    return call.leave(*packed(**call.arrays, state=call.state, offsets=call.offsets))
