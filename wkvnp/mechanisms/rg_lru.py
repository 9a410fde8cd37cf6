"""RG-LRU, the recurrence of Griffin: a gate per token chooses the power to which a channel's decay is raised.

Letters: B batch, T time, C channels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .._arguments import named
from ..errors import ArgumentError
from ..kernels.scan import scan
from ._spec import Input, Spec

Array = npt.NDArray[Any]

SPEC = Spec(
    name="rg_lru",
    inputs=(
        Input("x", ("B T C",)),
        Input("r", ("B T C",), "gate"),
        Input("i", ("B T C",), "gate"),
        Input("Lambda", ("C",)),
    ),
    state_axes="B C",
    value="x",
)


def packed(
    x: Array, r: Array, i: Array, Lambda: Array, state: Array | None, offsets: Array, power: float = 8.0
) -> tuple[Array, Array]:
    """Run the recurrence on arrays that need no check, sequences behind each other with their `offsets`."""
    log_decay = r * (Lambda.dtype.type(-power) * np.logaddexp(Lambda.dtype.type(0), Lambda))
    return scan(log_decay, i * x, state, offsets, "root")


@named
def rg_lru(
    x: npt.ArrayLike,
    r: npt.ArrayLike,
    i: npt.ArrayLike,
    Lambda: npt.ArrayLike,
    *,
    power: float = 8.0,
    reverse: bool = False,
    cu_seqlens: npt.ArrayLike | None = None,
    state: npt.ArrayLike | None = None,
) -> tuple[Array, Array]:
    """Run the real-gated linear recurrent unit of Griffin over sequences.

    ``h_t = a_t h_{t-1} + sqrt(1 - a_t^2) (i_t x_t)`` and ``y_t = h_t``, with ``log a_t = -power softplus(Lambda) r_t``.

    Parameters
    ----------
    x : array_like, shape (B, T, C)
        Input.
    r : array_like, shape (B, T, C)
        Recurrence gate, from 0 (remember) to 1 (forget fastest).
    i : array_like, shape (B, T, C)
        Input gate, from 0 to 1.
    Lambda : array_like, shape (C,)
        Sets the fastest decay of a channel: the larger, the faster.
    power : float, default 8
        The constant c of the paper.
    reverse : bool, default False
        Walk every sequence from its end to its beginning.
    cu_seqlens : array_like of int, shape (N + 1,), optional
        Offsets of N sequences packed along T, with B = 1.
    state : array_like, shape (B, C), optional
        What an earlier call returned; None is zeros. It is not changed.

    Returns
    -------
    y : ndarray, shape (B, T, C)
        The states; of the dtype of the inputs.
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
    All arrays may be given without the batch axis. ``1 - a^2`` is formed from the logarithm, so a decay near 1 loses no
    digits. Cutting the time axis anywhere and handing the state over gives the same bits.

    The main text of the paper has ``a = sigmoid(Lambda)``, whose logarithm is ``-softplus(-Lambda)``; its appendix and
    the code have the sign used here. The code also takes the first token of a document without the square root; to do
    that, divide that token by its ``sqrt(1 - a^2)``.

    References
    ----------
    De et al. 2024, "Griffin: Mixing Gated Linear Recurrences with Local Attention for Efficient Language Models"
    (arXiv:2402.19427), equations 1 to 4 and appendix A; google-deepmind/recurrentgemma,
    ``recurrentgemma/jax/layers.py``.

    Examples
    --------
    A channel whose decay is 0.6 at r = 1, and 1 at r = 0:

    >>> import numpy as np
    >>> Lambda = [np.log(np.expm1(-np.log(0.6) / 8))]
    >>> y, state = rg_lru([[1.0], [0.0], [5.0]], [[1.0], [1.0], [0.0]], np.ones((3, 1)), Lambda)
    >>> y.ravel().round(12)
    array([0.8 , 0.48, 0.48])
    """
    if not power >= 0:
        raise ArgumentError(f"rg_lru: power must not be negative; got {power}")
    call = SPEC.enter({"x": x, "r": r, "i": i, "Lambda": Lambda}, state, cu_seqlens, reverse)
    return call.leave(*packed(**call.arrays, state=call.state, offsets=call.offsets, power=power))
