"""mLSTM (xLSTM): a matrix memory with an exponential input gate and a normaliser.

Letters: B batch, T time, H heads, K key width, V value width.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy.typing as npt

from .._arguments import named
from ..kernels.linear import EMPTY_EXPONENT, exponential
from ._scale import scaled
from ._spec import Input, Part, Spec

Array = npt.NDArray[Any]

__all__ = ["EMPTY_EXPONENT", "SPEC", "MLSTMState", "mlstm"]


class MLSTMState(NamedTuple):
    """What mLSTM carries: memory ``C exp(m)`` (B, H, K, V) and normaliser ``n exp(m)`` (B, H, K), scaled by m (B, H).

    m is the largest exponent so far and float64 always. Two states are the same if ``C exp(m)`` and ``n exp(m)`` are.
    """

    C: Array
    n: Array
    m: Array


SPEC = Spec(
    name="mlstm",
    inputs=(
        Input("q", ("B T H K",)),
        Input("k", ("B T H K",)),
        Input("v", ("B T H V",)),
        Input("log_input", ("B T H",)),
        Input("log_decay", ("B T H",), "log_decay"),
    ),
    state_type=MLSTMState,
    state_parts=(
        Part("C", "B H K V"),
        Part("n", "B H K", linear=False),
        Part("m", "B H", linear=False, double=True),
    ),
    variants=({}, {"scale": 0.7}),
)


def packed(
    q: Array,
    k: Array,
    v: Array,
    log_input: Array,
    log_decay: Array,
    state: MLSTMState | None,
    offsets: Array,
    *,
    scale: float | None = None,
) -> tuple[Array, MLSTMState]:
    """Run the recurrence on arrays that need no check, sequences behind each other with their `offsets`."""
    y, final = exponential(scaled(q, scale), k, v, log_input, log_decay, state, offsets)
    return y, MLSTMState(*final)


@named
def mlstm(
    q: npt.ArrayLike,
    k: npt.ArrayLike,
    v: npt.ArrayLike,
    log_input: npt.ArrayLike,
    log_decay: npt.ArrayLike,
    *,
    scale: float | None = None,
    reverse: bool = False,
    cu_seqlens: npt.ArrayLike | None = None,
    state: tuple[npt.ArrayLike, npt.ArrayLike, npt.ArrayLike] | None = None,
) -> tuple[Array, MLSTMState]:
    """Run the matrix memory of xLSTM over sequences.

    ``C_t = f_t C_{t-1} + i_t k_t v_t^T``, ``n_t = f_t n_{t-1} + i_t k_t`` and ``y_t = C_t^T q_t / max(|n_t . q_t|, 1)``
    with ``i_t = exp(log_input_t)``, ``f_t = exp(log_decay_t)`` and q times `scale`.

    Parameters
    ----------
    q, k : array_like, shape (B, T, H, K)
        Query and key.
    v : array_like, shape (B, T, H, V)
        Value.
    log_input : array_like, shape (B, T, H)
        Logarithm of the input gate, the paper's pre-activation; any size, nothing overflows.
    log_decay : array_like, shape (B, T, H)
        Natural logarithm of the forget gate, at most 0: logsigmoid of its pre-activation.
    scale : float, optional
        Factor of the query; K^-0.5 by default.
    reverse : bool, default False
        Walk every sequence from its end to its beginning.
    cu_seqlens : array_like of int, shape (N + 1,), optional
        Offsets of N sequences packed along T, with B = 1.
    state : tuple (C, n, m) of array_like, shapes (B, H, K, V), (B, H, K) and (B, H), optional
        What an earlier call returned; None is an empty memory. It is not changed.

    Returns
    -------
    y : ndarray, shape (B, T, H, V)
        Of the dtype of the inputs. The model multiplies it by an output gate.
    state : MLSTMState
        float32, or float64 if the inputs are; m float64. With `cu_seqlens` its first axis is N.

    Raises
    ------
    ArgumentError
        If a shape, dtype or range does not fit, naming the argument.
    DeviceError
        If arrays live on different devices.

    Notes
    -----
    All arrays may be given without the batch axis. Memory and normaliser are scaled by the largest exponent met so far;
    the scale does not change the output. The original code adds 1e-6 to the divisor, the paper nothing, as here.
    Cutting the time axis anywhere and handing the state over gives the same bits.

    References
    ----------
    Beck et al. 2024, "xLSTM: Extended Long Short-Term Memory" (arXiv:2405.04517), equations 19 to 27 and 15;
    NX-AI/xlstm, ``xlstm/blocks/mlstm/backends.py``.

    Examples
    --------
    >>> import numpy as np
    >>> one = np.ones((2, 1, 1))
    >>> y, state = mlstm(one, one, [[[1.0]], [[4.0]]], [[1000.0], [1000.0]], np.log([[1.0], [0.5]]))
    >>> y.ravel(), state.m
    (array([1., 3.]), array([1000.]))
    """
    values = {"q": q, "k": k, "v": v, "log_input": log_input, "log_decay": log_decay}
    call = SPEC.enter(values, state, cu_seqlens, reverse)
    return call.leave(*packed(**call.arrays, state=call.state, offsets=call.offsets, scale=scale))
