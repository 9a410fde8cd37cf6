"""DeltaProduct: several delta-rule steps a token, so that a token can turn the state and not only reflect it.

Letters: B batch, T time, R steps a token, G groups (heads of queries and keys), H heads of values, K key width, V value
width.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .._arguments import named
from ..errors import ShapeError
from ..kernels.delta import delta_rule
from ._delta_inputs import queries_and_keys
from ._spec import Input, Spec

Array = npt.NDArray[Any]

SPEC = Spec(
    name="deltaproduct",
    inputs=(
        Input("q", ("B T G K",)),
        Input("k", ("B T R G K",), drawn="direction"),
        Input("v", ("B T R H V",)),
        Input("beta", ("B T R H",), "strength"),
        Input("log_decay", ("B T H",), "log_decay", optional=True),
    ),
    state_axes="B H K V",
    divides=(("G", "H"),),
    variants=({}, {"qk_l2norm": False, "scale": 0.7}),
)


def packed(
    q: Array,
    k: Array,
    v: Array,
    beta: Array,
    log_decay: Array | None,
    state: Array | None,
    offsets: Array,
    *,
    qk_l2norm: bool = True,
    scale: float | None = None,
) -> tuple[Array, Array]:
    """Run the recurrence on arrays that need no check, sequences behind each other with their `offsets`."""
    M, R, G, K = k.shape
    H, V = v.shape[2:]
    q, k = queries_and_keys(q, k, qk_l2norm, scale)
    asked = np.zeros((M, R, G, K), q.dtype)  # only the last step of a token is read
    asked[:, -1] = q
    decay = np.zeros((1 if log_decay is None else M * R, H, 1), v.dtype)  # and only its first one decays
    if log_decay is not None:
        decay[::R, :, 0] = log_decay
    steps = (x.reshape(M * R, *x.shape[2:]) for x in (asked, k, v, beta))
    asked, k, v, beta = steps
    y, final = delta_rule(asked, decay, k, v, beta, state, offsets * R)
    return np.ascontiguousarray(y.reshape(M, R, H, V)[:, -1]), final


@named
def deltaproduct(
    q: npt.ArrayLike,
    k: npt.ArrayLike,
    v: npt.ArrayLike,
    beta: npt.ArrayLike,
    log_decay: npt.ArrayLike | None = None,
    *,
    qk_l2norm: bool = True,
    scale: float | None = None,
    reverse: bool = False,
    cu_seqlens: npt.ArrayLike | None = None,
    state: npt.ArrayLike | None = None,
) -> tuple[Array, Array]:
    """Write by the delta rule R times a token, then read once.

    ``S <- exp(log_decay_t) S``, for every step r ``S <- S + beta_tr k_tr (v_tr - S^T k_tr)^T``, then
    ``y_t = scale S^T q_t``, key axis first.

    Parameters
    ----------
    q : array_like, shape (B, T, G, K)
        Query; G divides H.
    k : array_like, shape (B, T, R, G, K)
        Keys of the R steps of a token.
    v : array_like, shape (B, T, R, H, V)
        Values.
    beta : array_like, shape (B, T, R, H)
        Strength of writing, in [0, 1]; up to 2 where the model allows negative eigenvalues.
    log_decay : array_like, shape (B, T, H), optional
        Natural logarithm of the decay per token, at most 0; none by default.
    qk_l2norm : bool, default True
        Bring every query and key to length 1 (the square root of the sum of squares plus 1e-6).
    scale : float, optional
        Factor on the queries; K^-0.5 by default.
    reverse : bool, default False
        Walk every sequence from its last token to its first; the steps of a token keep their order.
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
    Sums and state are float32 (float64 for float64 inputs); cutting the time axis and handing the state over gives
    the same bits. Grouped heads, and what happens to keys that are too long, are as in `gated_deltanet`.

    References
    ----------
    Siems et al. 2025, "DeltaProduct: Improving State-Tracking in Linear RNNs via Householder Products"
    (arXiv:2502.10297), section 4, equation 3; fla-org/flash-linear-attention, ``fla/ops/gated_delta_product/naive.py``.

    Examples
    --------
    Two reflections are a rotation: here a quarter turn a token, and the state comes back after four.

    >>> import numpy as np
    >>> k = np.broadcast_to(np.array([[1, 0], [1, 1]])[:, None] / np.sqrt([[[1]], [[2]]]), (4, 2, 1, 2))
    >>> q, two = np.broadcast_to([1.0, 0.0], (4, 1, 2)), np.full((4, 2, 1), 2.0)
    >>> y, state = deltaproduct(q, k, np.zeros((4, 2, 1, 1)), two, scale=1, state=[[[3.0], [4.0]]])
    >>> y.ravel().round(3)
    array([-4., -3.,  4.,  3.])
    """
    values = {"q": q, "k": k, "v": v, "beta": beta, "log_decay": log_decay}
    call = SPEC.enter(values, state, cu_seqlens, reverse)
    if call.arrays["k"].shape[1] == 0:
        raise ShapeError(f"deltaproduct: k must have at least one step a token (axis R); got {np.shape(k)}")
    y, final = packed(**call.arrays, state=call.state, offsets=call.offsets, qk_l2norm=qk_l2norm, scale=scale)
    return call.leave(y, final)
