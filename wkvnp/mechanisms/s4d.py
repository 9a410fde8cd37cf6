"""S4D: a state-space model with diagonal, usually complex, constant matrices.

Letters: B batch, T time, C channels (H in the paper), N state width.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from .._arguments import named
from ..errors import ArgumentError
from ..kernels.convolution import diagonal_convolution
from ..kernels.selective import time_invariant
from ._spec import Input, Spec

Array = npt.NDArray[Any]

SPEC = Spec(
    name="s4d",
    inputs=(
        Input("u", ("B T C",)),
        Input("dt", ("C",), "positive"),
        Input("A", ("C N",), "pole", may_be_complex=True),
        Input("B_in", ("C N",), may_be_complex=True),
        Input("C_out", ("C N",), may_be_complex=True),
        Input("D", ("C",), optional=True),
    ),
    state_axes="B C N",
    value="u",
    variants=({}, {"discretization": "bilinear"}),
)


def discretized(dt: Array, A: Array, B_in: Array, rule: str) -> tuple[Array, Array, Array, Array]:
    """Return, in double precision, the decay per token, its logarithm, the decay less 1, and what an input adds."""
    wide = np.result_type(A, np.float64)
    dt = dt[:, None].astype(np.float64)
    step = dt * A.astype(wide)
    if rule == "zoh":
        decay, log_decay, less_one = np.exp(step), step, np.expm1(step)
        gain = np.where(A == 0, dt, less_one / np.where(A == 0, 1, A))
    else:
        with np.errstate(divide="ignore", invalid="ignore"):  # a step of -2 forgets everything
            log_decay = np.nan_to_num(2 * np.arctanh(step / 2 + 0j), neginf=-1e4)
        decay, less_one, gain = (1 + step / 2) / (1 - step / 2), step / (1 - step / 2), dt / (1 - step / 2)
    return decay, log_decay, less_one, gain * B_in.astype(wide)


def packed(
    u: Array,
    dt: Array,
    A: Array,
    B_in: Array,
    C_out: Array,
    D: Array | None,
    state: Array | None,
    offsets: Array,
    discretization: str = "zoh",
    mode: str = "recurrent",
) -> tuple[Array, Array]:
    """Run the model on arrays that need no check, sequences behind each other with their `offsets`."""
    decay, log_decay, less_one, drive = discretized(dt, A, B_in, discretization)
    if mode == "convolution":
        return diagonal_convolution(u, log_decay, drive, C_out, D, state, offsets)
    return time_invariant(u, decay, less_one, drive.astype(A.dtype), C_out, D, state, offsets)


@named
def s4d(
    u: npt.ArrayLike,
    dt: npt.ArrayLike,
    A: npt.ArrayLike,
    B_in: npt.ArrayLike,
    C_out: npt.ArrayLike,
    D: npt.ArrayLike | None = None,
    *,
    discretization: Literal["zoh", "bilinear"] = "zoh",
    mode: Literal["recurrent", "convolution"] = "recurrent",
    reverse: bool = False,
    cu_seqlens: npt.ArrayLike | None = None,
    state: npt.ArrayLike | None = None,
) -> tuple[Array, Array]:
    """Run the diagonal state-space model S4D over sequences.

    ``h_t = exp(dt A) h_{t-1} + (exp(dt A) - 1) / A B u_t`` and ``y_t[c] = 2 Re sum_n C[c, n] h_t[c, n] + D[c] u_t[c]``.

    Parameters
    ----------
    u : array_like, shape (B, T, C)
        Input.
    dt : array_like, shape (C,)
        Step, not negative.
    A : array_like, shape (C, N)
        Pole, usually complex, of a real part of at most 0. S4D-Lin begins with ``-1/2 + i pi n``.
    B_in, C_out : array_like, shape (C, N)
        What the input writes and the output reads.
    D : array_like, shape (C,), optional
        Skip connection; None is zeros.
    discretization : {"zoh", "bilinear"}
        Zero-order hold as above, or ``(1 + dt A/2) / (1 - dt A/2)`` and ``dt B / (1 - dt A/2)``.
    mode : {"recurrent", "convolution"}
        Token by token, or as one convolution of every sequence by way of the fast Fourier transform.
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
        Complex if `A`, `B_in` or `C_out` is; 32 bits a part, or 64 if the inputs are float64.

    Raises
    ------
    ArgumentError
        If a shape, dtype or range does not fit, naming the argument.

    Notes
    -----
    Complex numbers stand for themselves and their conjugates. If all are real, each stands for itself alone, and y is
    the plain sum. Matrices are discretised in double precision. Cutting the time axis gives the same bits in recurrent
    mode, and the same within rounding as a convolution.

    References
    ----------
    Gu et al. 2022, "On the Parameterization and Initialization of Diagonal State Space Models" (arXiv:2206.11893),
    section 3; state-spaces/s4, ``models/s4/s4d.py``.

    Examples
    --------
    >>> import numpy as np
    >>> y, state = s4d([[1.0], [0.0], [0.0]], [np.log(2)], [[-1.0]], [[2.0]], [[1.0]])
    >>> y.ravel()
    array([1.  , 0.5 , 0.25])
    """
    if discretization not in ("zoh", "bilinear"):
        raise ArgumentError(f"s4d: discretization must be 'zoh' or 'bilinear'; got {discretization!r}")
    if mode not in ("recurrent", "convolution"):
        raise ArgumentError(f"s4d: mode must be 'recurrent' or 'convolution'; got {mode!r}")
    call = SPEC.enter({"u": u, "dt": dt, "A": A, "B_in": B_in, "C_out": C_out, "D": D}, state, cu_seqlens, reverse)
    rest = {"state": call.state, "offsets": call.offsets, "discretization": discretization, "mode": mode}
    return call.leave(*packed(**call.arrays, **rest))
