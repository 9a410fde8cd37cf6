"""Based: linear attention with the Taylor series of the exponential, to second order.

Letters: B batch, T time, S time of other keys, H heads, K key width, M features, V value width.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy.typing as npt

from .._arguments import named
from ..primitives.feature_maps import taylor, taylor_width
from ._normalised import FeatureSpec, Flow, LinearState, Maps, attend
from ._spec import Input, Part

Array = npt.NDArray[Any]

SPEC = FeatureSpec(
    name="based",
    inputs=(Input("q", ("B T H K",)), Input("k", ("B T H K",)), Input("v", ("B T H V",))),
    state_type=LinearState,
    state_parts=(Part("S", "B H M V"), Part("z", "B H M", linear=False, domain="positive")),
    width=taylor_width,
)


@named
def based(
    q: npt.ArrayLike,
    k: npt.ArrayLike,
    v: npt.ArrayLike,
    *,
    full: bool = False,
    causal: bool = True,
    eps: float = 1e-12,
    reverse: bool = False,
    cu_seqlens: npt.ArrayLike | None = None,
    state: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
) -> tuple[Array, LinearState]:
    """Average values with the weights ``1 + s + s^2 / 2`` in place of exp(s), s = q . k / sqrt(K).

    ``S_t = S_{t-1} + phi(k_t) v_t^T``, ``z_t = z_{t-1} + phi(k_t)`` and
    ``y_t = S_t^T phi(q_t) / (phi(q_t) . z_t + eps)`` with ``phi(q) . phi(k) = 1 + s + s^2 / 2``.

    Parameters
    ----------
    q, k : array_like, shape (B, T, H, K)
        Query and key, not scaled. Without `causal`, `k` and `v` may be of another length S.
    v : array_like, shape (B, T, H, V)
        Value.
    full : bool, default False
        Whether a state holds the product of x_i and x_j twice, as in the original: M = 1 + K + K^2 features; otherwise
        once, M = 1 + K + K (K + 1) / 2. The output is the same.
    causal : bool, default True
        Whether a query sees only its own token and those before. If not, no state can be given.
    eps : float, default 1e-12
        Added to the divisor, which is at least half the number of keys.
    reverse : bool, default False
        Walk every sequence from its end to its beginning. Nothing changes without `causal`.
    cu_seqlens : array_like of int, shape (N + 1,), optional
        Offsets of N sequences packed along T, with B = 1.
    state : tuple (S, z) of array_like, shapes (B, H, M, V) and (B, H, M), optional
        What an earlier call returned; None is zeros. It is not changed.

    Returns
    -------
    y : ndarray, shape (B, T, H, V)
        Of the dtype of the inputs.
    state : LinearState
        float32, or float64 if the inputs are. With `cu_seqlens` its first axis is N.

    Raises
    ------
    ArgumentError
        If a shape, dtype or option does not fit, naming the argument.
    DeviceError
        If arrays live on different devices.

    Notes
    -----
    All arrays may be given without the batch axis. Cutting the time axis anywhere and handing the state over gives the
    same bits. The model has keys of width 16, beside a sliding window of softmax attention, which is not part of this.

    References
    ----------
    Arora et al. 2024, "Simple linear attention language models balance the recall-throughput tradeoff"
    (arXiv:2402.18668), section 4.1; HazyResearch/based, ``based/models/mixers/linear_attention.py``.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([[[0.0]], [[2.0]]])
    >>> based(x, x, np.array([[[0.0]], [[14.0]]]))[0].ravel()
    array([ 0., 13.])
    """
    phi = functools.partial(taylor, full=full)
    flow = Flow(causal, reverse, cu_seqlens, state)
    return attend(SPEC, {"q": q, "k": k, "v": v}, lambda _: Maps(phi, phi), flow, eps=eps)
