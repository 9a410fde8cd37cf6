"""RWKV-7 "Goose": a delta rule with a decay and a learning rate per channel and token.

Letters: B batch, T time, H heads, K key width, V value width.
"""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from .._arguments import named
from ..kernels.delta import dplr
from ._spec import Input, Spec

Array = npt.NDArray[Any]

SPEC = Spec(
    name="rwkv7",
    inputs=(
        Input("r", ("B T H K",)),
        Input("log_decay", ("B T H K",), "log_decay"),
        Input("k", ("B T H K",)),
        Input("v", ("B T H V",)),
        Input("a", ("B T H K",), drawn="direction"),
        Input("b", ("B T H K",), drawn="direction"),
    ),
    state_axes="B H K V",
)


def packed(
    r: Array, log_decay: Array, k: Array, v: Array, a: Array, b: Array, state: Array | None, offsets: Array
) -> tuple[Array, Array]:
    """Run the recurrence on arrays that need no check, sequences behind each other with their `offsets`."""
    return dplr(r, log_decay, k, v, a, b, state, offsets)


@named
def rwkv7(
    r: npt.ArrayLike,
    log_decay: npt.ArrayLike,
    k: npt.ArrayLike,
    v: npt.ArrayLike,
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    *,
    reverse: bool = False,
    cu_seqlens: npt.ArrayLike | None = None,
    state: npt.ArrayLike | None = None,
) -> tuple[Array, Array]:
    """Run the recurrence of RWKV-7 over sequences.

    ``S_t = (diag(exp(log_decay_t)) + b_t a_t^T) S_{t-1} + k_t v_t^T`` and ``y_t = S_t^T r_t``, key axis first.

    Parameters
    ----------
    r : array_like, shape (B, T, H, K)
        Receptance: what to read.
    log_decay : array_like, shape (B, T, H, K)
        Natural logarithm of the decay per token, at most 0; the model's is in (-0.6066, 0).
    k : array_like, shape (B, T, H, K)
        Key.
    v : array_like, shape (B, T, H, V)
        Value.
    a, b : array_like, shape (B, T, H, K)
        What is read from the state before its decay, and where that is written: -kappa and kappa times the in-context
        learning rate in the model, with kappa of length 1.
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
    Peng et al. 2025, "RWKV-7 Goose with Expressive Dynamic State Evolution" (arXiv:2503.14456), equation 16;
    BlinkDL/RWKV-LM, ``RWKV-v7/rwkv_v7_demo.py``.

    Examples
    --------
    >>> import numpy as np
    >>> one = np.ones((2, 1, 2))
    >>> y, state = rwkv7(one, 0 * one, one, one, -0.5 * one, 0.5 * one)
    >>> y[:, 0]
    array([[2., 2.],
           [3., 3.]])
    """
    values = {"r": r, "log_decay": log_decay, "k": k, "v": v, "a": a, "b": b}
    call = SPEC.enter(values, state, cu_seqlens, reverse)
    return call.leave(*packed(**call.arrays, state=call.state, offsets=call.offsets))
