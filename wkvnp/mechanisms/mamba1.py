"""Mamba-1 (S6): a state-space model whose step, input and readout follow the token.

Letters: B batch, T time, C channels (E in the paper's code), N state width, G groups of channels.
"""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from .._arguments import named
from ..kernels.selective import selective
from ._spec import Input, Spec

Array = npt.NDArray[Any]

SPEC = Spec(
    name="mamba1",
    inputs=(
        Input("x", ("B T C",)),
        Input("dt", ("B T C",), "positive"),
        Input("A", ("C N",), "pole", may_be_complex=True),
        Input("B_in", ("B T G N", "B T N"), may_be_complex=True),
        Input("C_out", ("B T G N", "B T N"), may_be_complex=True),
        Input("D", ("C",), optional=True),
        Input("z", ("B T C",), optional=True),
    ),
    state_axes="B C N",
    value="x",
    divides=(("G", "C"),),
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
    B_in, C_out = (a if a.ndim == 3 else a[:, None] for a in (B_in, C_out))
    return selective(x, dt, A, B_in, C_out, D, z, state, offsets)


@named
def mamba1(
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
    """Run the selective scan of Mamba over sequences.

    ``h_t[c, n] = exp(dt_t[c] A[c, n]) h_{t-1}[c, n] + dt_t[c] B_t[n] x_t[c]`` and
    ``y_t[c] = (sum_n C_t[n] h_t[c, n] + D[c] x_t[c]) silu(z_t[c])``.

    Parameters
    ----------
    x : array_like, shape (B, T, C)
        Input.
    dt : array_like, shape (B, T, C)
        Step, not negative: after the softplus. A step of 0 leaves the state alone.
    A : array_like, shape (C, N)
        Pole, at most 0; complex with a real part of at most 0. -exp(A_log) in the model.
    B_in, C_out : array_like, shape (B, T, G, N) or (B, T, N)
        What a token writes to and reads from the state; channel c takes group ``c // (C // G)``. May be complex.
    D : array_like, shape (C,), optional
        Skip connection; None is zeros.
    z : array_like, shape (B, T, C), optional
        Gate, before its SiLU; None is no gate.
    reverse : bool, default False
        Walk every sequence from its end to its beginning.
    cu_seqlens : array_like of int, shape (N + 1,), optional
        Offsets of N sequences packed along T, with B = 1.
    state : array_like, shape (B, C, N), optional
        What an earlier call returned; None is zeros. It is not changed.

    Returns
    -------
    y : ndarray, shape (B, T, C)
        Real, of the dtype of the inputs.
    state : ndarray, shape (B, C, N)
        float32, or float64 if the inputs are; complex if `A`, `B_in` or `C_out` is. With `cu_seqlens` its first axis is
        that of the sequences.

    Raises
    ------
    ArgumentError
        If a shape, dtype or range does not fit, naming the argument.
    DeviceError
        If arrays live on different devices.

    Notes
    -----
    What has B and T may be given without B. Each complex number stands for itself and its conjugate, so y is twice the
    real part of the sum. B is discretised by Euler's rule (dt B), as the code does; the paper's rule would be that of
    `s4d`. Nothing of size T x C x N is ever made. Cutting the time axis anywhere and handing the state over gives the
    same bits.

    References
    ----------
    Gu and Dao 2023, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces" (arXiv:2312.00752), algorithm
    2; state-spaces/mamba, ``mamba_ssm/ops/selective_scan_interface.py``.

    Examples
    --------
    >>> import numpy as np
    >>> one = np.ones((3, 1))
    >>> y, state = mamba1([[1.0], [2.0], [4.0]], np.log(2) * one, [[-1.0]], one, one / np.log(2))
    >>> y.ravel()
    array([1.  , 2.5 , 5.25])
    """
    values = {"x": x, "dt": dt, "A": A, "B_in": B_in, "C_out": C_out, "D": D, "z": z}
    call = SPEC.enter(values, state, cu_seqlens, reverse)
    return call.leave(*packed(**call.arrays, state=call.state, offsets=call.offsets))
