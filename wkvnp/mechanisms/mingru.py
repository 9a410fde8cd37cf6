"""minGRU: a gated recurrent unit whose gate looks at the token only.

Letters: B batch, T time, C channels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .._arguments import named
from ..kernels.scan import scan
from ._spec import Input, Spec

Array = npt.NDArray[Any]

SPEC = Spec(
    name="mingru",
    inputs=(Input("candidate", ("B T C",)), Input("z", ("B T C",), "gate")),
    state_axes="B C",
    value="candidate",
)


def packed(candidate: Array, z: Array, state: Array | None, offsets: Array) -> tuple[Array, Array]:
    """Run the recurrence on arrays that need no check, sequences behind each other with their `offsets`."""
    with np.errstate(divide="ignore"):  # a gate of 1 forgets everything: minus infinity
        log_decay = np.log1p(-z)
    return scan(log_decay, candidate, state, offsets, "rest")


@named
def mingru(
    candidate: npt.ArrayLike,
    z: npt.ArrayLike,
    *,
    reverse: bool = False,
    cu_seqlens: npt.ArrayLike | None = None,
    state: npt.ArrayLike | None = None,
) -> tuple[Array, Array]:
    """Run the recurrence of the minimal gated recurrent unit over sequences.

    ``h_t = (1 - z_t) h_{t-1} + z_t candidate_t`` and ``y_t = h_t``.

    Parameters
    ----------
    candidate : array_like, shape (B, T, C)
        What would be the new state, with a tilde in the paper.
    z : array_like, shape (B, T, C)
        Update gate: how much of the candidate is taken, from 0 to 1. A sigmoid of the projected token in the model.
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
    All arrays may be given without the batch axis. Candidates may have any sign: the scan is sequential, and needs no
    logarithms of them. Cutting the time axis anywhere and handing the state over gives the same bits.

    References
    ----------
    Feng et al. 2024, "Were RNNs All We Needed?" (arXiv:2410.01201), section 3.1; a well-known implementation is
    lucidrains/minGRU-pytorch, ``minGRU_pytorch/minGRU.py``.

    Examples
    --------
    >>> y, state = mingru([[4.0], [8.0], [0.0]], [[0.5], [0.5], [0.75]])
    >>> y.ravel(), state
    (array([2.  , 5.  , 1.25]), array([1.25]))
    """
    call = SPEC.enter({"candidate": candidate, "z": z}, state, cu_seqlens, reverse)
    return call.leave(*packed(**call.arrays, state=call.state, offsets=call.offsets))
