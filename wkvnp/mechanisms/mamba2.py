"""Mamba-2 (SSD): a selective state-space model with one decay a head and token.

Letters: B batch, T time, H heads, G groups of heads, N state width, V width of a head (the paper's P).
"""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from .._arguments import named
from ..kernels.linear import linear
from ..primitives.elementwise import silu
from ._spec import Input, Spec

Array = npt.NDArray[Any]

SPEC = Spec(
    name="mamba2",
    inputs=(
        Input("x", ("B T H V",)),
        Input("dt", ("B T H",), "positive"),
        Input("A", ("H",), "pole"),
        Input("B_in", ("B T G N",)),
        Input("C_out", ("B T G N",)),
        Input("D", ("H", "H V"), optional=True),
        Input("z", ("B T H V",), optional=True),
    ),
    state_axes="B H N V",
    value="x",
    divides=(("G", "H"),),
)


def packed(
    x: Array,
    dt: Array,
    A: Array,
    B_in: Array,
    C_out: Array,
    D: Array | None,
    z: Array | None,
    state: Array | None,
    offsets: Array,
) -> tuple[Array, Array]:
    """Run the recurrence on arrays that need no check, sequences behind each other with their `offsets`."""
    M, H, V = x.shape
    y, final = linear(C_out, (dt * A)[:, :, None], B_in, x * dt[:, :, None], None, state, offsets)
    if D is not None:
        y += D.reshape(H, -1) * x
    if z is not None:
        y *= silu(z.reshape(M, H * V)).reshape(M, H, V)
    return y, final


@named
def mamba2(
    x: npt.ArrayLike,
    dt: npt.ArrayLike,
    A: npt.ArrayLike,
    B_in: npt.ArrayLike,
    C_out: npt.ArrayLike,
    D: npt.ArrayLike | None = None,
    z: npt.ArrayLike | None = None,
    *,
    reverse: bool = False,
    cu_seqlens: npt.ArrayLike | None = None,
    state: npt.ArrayLike | None = None,
) -> tuple[Array, Array]:
    """Run the state-space recurrence of Mamba-2 over sequences.

    ``S_t = exp(dt_t A) S_{t-1} + dt_t B_t x_t^T`` and ``y_t = (S_t^T C_t + D x_t) silu(z_t)``.

    Parameters
    ----------
    x : array_like, shape (B, T, H, V)
        Input.
    dt : array_like, shape (B, T, H)
        Step, at least 0: softplus(dt + dt_bias) in the model.
    A : array_like, shape (H,)
        Rate of the decay, at most 0: -exp(A_log) in the model.
    B_in, C_out : array_like, shape (B, T, G, N)
        What the input is written to and what is read. G divides H; head h takes group h // (H // G).
    D : array_like, shape (H,) or (H, V), optional
        Weight of the input in its own output; none if None.
    z : array_like, shape (B, T, H, V), optional
        Gate of the output; none if None. The model gates inside a norm after it and then gives none here.
    reverse : bool, default False
        Walk every sequence from its end to its beginning.
    cu_seqlens : array_like of int, shape (N + 1,), optional
        Offsets of N sequences packed along T, with B = 1.
    state : array_like, shape (B, H, N, V), optional
        What an earlier call returned; None is zeros. It is not changed.

    Returns
    -------
    y : ndarray, shape (B, T, H, V)
        Of the dtype of the inputs.
    state : ndarray, shape (B, H, N, V)
        float32, or float64 if the inputs are. With `cu_seqlens` its first axis is that of the sequences.

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

    The published state is value first, (..., V, N): transpose it.

    References
    ----------
    Dao and Gu 2024, "Transformers are SSMs: Generalized Models and Efficient Algorithms Through Structured State
    Space Duality" (arXiv:2405.21060), section 6; state-spaces/mamba, ``mamba_ssm/ops/triton/ssd_combined.py``.

    Examples
    --------
    >>> import numpy as np
    >>> one = np.ones((3, 1, 1))
    >>> y, state = mamba2([[[1.0]], [[2.0]], [[3.0]]], one[:, 0], [np.log(0.5)], one, one, D=[10.0])
    >>> y.ravel()
    array([11.  , 22.5 , 34.25])
    """
    values = {"x": x, "dt": dt, "A": A, "B_in": B_in, "C_out": C_out, "D": D, "z": z}
    call = SPEC.enter(values, state, cu_seqlens, reverse)
    return call.leave(*packed(**call.arrays, state=call.state, offsets=call.offsets))
