"""Token shift: every token next to the one before it.

Letters: B batch, T time, C channels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .._arguments import named
from ..primitives.shift import shift
from ._spec import Input, Spec

Array = npt.NDArray[Any]

SPEC = Spec(name="token_shift", inputs=(Input("x", ("B T C",)),), state_axes="B C", value="x")


@named
def token_shift(
    x: npt.ArrayLike,
    *,
    reverse: bool = False,
    cu_seqlens: npt.ArrayLike | None = None,
    state: npt.ArrayLike | None = None,
) -> tuple[Array, Array]:
    """Return the token before each token.

    ``y_t = x_{t-1}``, and ``y_1`` is the carried token.

    Parameters
    ----------
    x : array_like, shape (B, T, C)
        What RWKV shifts is the output of the layer norm, not the residual stream.
    reverse : bool, default False
        Walk every sequence from its end to its beginning.
    cu_seqlens : array_like of int, shape (N + 1,), optional
        Offsets of N sequences packed along T, with B = 1.
    state : array_like, shape (B, C), optional
        The last token of an earlier call; None is zeros. It is not changed.

    Returns
    -------
    y : ndarray, shape (B, T, C)
    state : ndarray, shape (B, C)
        The last token of each sequence; of an empty sequence the token that was carried into it.

    Raises
    ------
    ArgumentError
        If a shape or dtype does not fit, naming the argument.

    References
    ----------
    Peng et al. 2023, "RWKV: Reinventing RNNs for the Transformer Era" (arXiv:2305.13048), section 3.1.

    Examples
    --------
    >>> y, state = token_shift([[1.0], [2.0], [3.0]])
    >>> y.ravel(), state
    (array([0., 1., 2.]), array([3.]))
    """
    call = SPEC.enter({"x": x}, state, cu_seqlens, reverse)
    packed = call.arrays["x"]
    carried = np.zeros((call.offsets.size - 1, packed.shape[1]), packed.dtype) if call.state is None else call.state
    return call.leave(*shift(packed, carried, call.offsets))
