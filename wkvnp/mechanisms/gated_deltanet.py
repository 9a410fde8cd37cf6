"""Gated DeltaNet: the delta rule, with a decay per head and token before it.

Letters: B batch, T time, G groups (heads of queries and keys), H heads of values, K key width, V value width.
"""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from .._arguments import named
from ..kernels.delta import delta_rule
from ._delta_inputs import queries_and_keys
from ._spec import Input, Spec

Array = npt.NDArray[Any]

SPEC = Spec(
    name="gated_deltanet",
    inputs=(
        Input("q", ("B T G K",)),
        Input("k", ("B T G K",), drawn="direction"),
        Input("v", ("B T H V",)),
        Input("beta", ("B T H",), "strength"),
        Input("log_decay", ("B T H",), "log_decay"),
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
    log_decay: Array,
    state: Array | None,
    offsets: Array,
    *,
    qk_l2norm: bool = True,
    scale: float | None = None,
) -> tuple[Array, Array]:
    """Run the recurrence on arrays that need no check, sequences behind each other with their `offsets`."""
    q, k = queries_and_keys(q, k, qk_l2norm, scale)
    return delta_rule(q, log_decay[:, :, None], k, v, beta, state, offsets)


@named
def gated_deltanet(
    q: npt.ArrayLike,
    k: npt.ArrayLike,
    v: npt.ArrayLike,
    beta: npt.ArrayLike,
    log_decay: npt.ArrayLike,
    *,
    qk_l2norm: bool = True,
    scale: float | None = None,
    reverse: bool = False,
    cu_seqlens: npt.ArrayLike | None = None,
    state: npt.ArrayLike | None = None,
) -> tuple[Array, Array]:
    """Forget a little of everything, then write by the delta rule.

    ``D_t = exp(log_decay_t)``, ``S_t = D_t S_{t-1} + beta_t k_t (v_t - D_t S_{t-1}^T k_t)^T`` and
    ``y_t = scale S_t^T q_t``, key axis first.

    Parameters
    ----------
    q, k : array_like, shape (B, T, G, K)
        Query and key; G divides H.
    v : array_like, shape (B, T, H, V)
        Value.
    beta : array_like, shape (B, T, H)
        Strength of writing: what the key recalls becomes (1 - beta) times itself plus beta times `v`. From 0 to
        1, or to 2 where the model allows negative eigenvalues.
    log_decay : array_like, shape (B, T, H)
        Natural logarithm of the decay per token, at most 0: -exp(A_log) softplus(z + dt_bias) in the model.
    qk_l2norm : bool, default True
        Bring every query and key to length 1 (the square root of the sum of squares plus 1e-6).
    scale : float, optional
        Factor on the queries; K^-0.5 by default.
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

    Heads of values may outnumber those of queries and keys: head h reads query and key h // (H / G).

    Stable for ``0 <= beta |k|^2 <= 2``. Longer keys make the state grow from token to token, up to infinity; nothing is
    clipped. Hence `qk_l2norm` is the default, as it is in the published models; turn it off for keys that have their
    length already.

    References
    ----------
    Yang et al. 2024, "Gated Delta Networks: Improving Mamba2 with Delta Rule" (arXiv:2412.06464), equation 10;
    fla-org/flash-linear-attention, ``fla/ops/gated_delta_rule/fused_recurrent.py``.

    Examples
    --------
    The state halves, then the key recalls 2.5 and stores the rest of 7:

    >>> import numpy as np
    >>> one = np.ones((2, 1, 1))
    >>> y, state = gated_deltanet(one, one, [[[5.0]], [[7.0]]], [[1.0], [0.5]], np.log([[0.5], [0.5]]))
    >>> y.ravel().round(4)
    array([5.  , 4.75])
    """
    values = {"q": q, "k": k, "v": v, "beta": beta, "log_decay": log_decay}
    call = SPEC.enter(values, state, cu_seqlens, reverse)
    y, final = packed(**call.arrays, state=call.state, offsets=call.offsets, qk_l2norm=qk_l2norm, scale=scale)
    return call.leave(y, final)
