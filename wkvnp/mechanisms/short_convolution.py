"""Short convolution: every channel weighs its last few tokens.

Letters: B batch, T time, C channels, W tokens in a window.
"""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from .._arguments import named
from ..errors import ShapeError
from ..kernels import convolution
from ._spec import Input, Spec

Array = npt.NDArray[Any]

SPEC = Spec(
    name="short_convolution",
    inputs=(Input("x", ("B T C",)), Input("weight", ("W C",)), Input("bias", ("C",), optional=True, added=True)),
    state_axes="B W-1 C",
    value="x",
)


def packed(x: Array, weight: Array, bias: Array | None, state: Array | None, offsets: Array) -> tuple[Array, Array]:
    """Convolve arrays that need no check, sequences behind each other with their `offsets`."""
    return convolution.short_convolution(x, weight, bias, state, offsets)


@named
def short_convolution(
    x: npt.ArrayLike,
    weight: npt.ArrayLike,
    bias: npt.ArrayLike | None = None,
    *,
    reverse: bool = False,
    cu_seqlens: npt.ArrayLike | None = None,
    state: npt.ArrayLike | None = None,
) -> tuple[Array, Array]:
    """Convolve every channel with a causal window of its own.

    ``y_t[c] = bias[c] + sum_{j=0}^{W-1} weight[W-1-j, c] x_{t-j}[c]``.

    Parameters
    ----------
    x : array_like, shape (B, T, C)
        Tokens.
    weight : array_like, shape (W, C)
        The oldest token's first, the present's last. PyTorch's depthwise ``Conv1d`` holds it as (C, 1, W).
    bias : array_like, shape (C,), optional
        Added to every token; None is zeros.
    reverse : bool, default False
        Walk every sequence from its end to its beginning.
    cu_seqlens : array_like of int, shape (N + 1,), optional
        Offsets of N sequences packed along T, with B = 1.
    state : array_like, shape (B, W - 1, C), optional
        The last tokens of an earlier call, the oldest first; None is zeros. It is not changed.

    Returns
    -------
    y : ndarray, shape (B, T, C)
        Of the dtype of the inputs. Mamba and the delta-rule models apply a SiLU to it.
    state : ndarray, shape (B, W - 1, C)
        The last W - 1 tokens, those that were carried in among them where a sequence is shorter.

    Raises
    ------
    ArgumentError
        If a shape or dtype does not fit, naming the argument.
    DeviceError
        If arrays live on different devices.

    Notes
    -----
    `x` and the state may be given without the batch axis. Cutting the time axis anywhere and handing the state over
    gives the same bits. Some libraries carry W tokens: drop the oldest.

    References
    ----------
    Gu and Dao 2023, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces" (arXiv:2312.00752), figure 3;
    Dao-AILab/causal-conv1d, ``causal_conv1d/causal_conv1d_interface.py``.

    Examples
    --------
    >>> y, state = short_convolution([[1.0], [2.0], [3.0]], [[0.5], [1.0]])
    >>> y.ravel(), state
    (array([1. , 2.5, 4. ]), array([[3.]]))
    """
    call = SPEC.enter({"x": x, "weight": weight, "bias": bias}, state, cu_seqlens, reverse)
    if not len(call.arrays["weight"]):
        raise ShapeError("short_convolution: weight must have shape (W, C) with W at least 1; got W=0")
    return call.leave(*packed(**call.arrays, state=call.state, offsets=call.offsets))
