"""Performer: softmax attention estimated with random positive features (FAVOR+).

Letters: B batch, T time, S time of other keys, H heads, K key width, M features, V value width.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .._arguments import named
from ..primitives.feature_maps import favor_exponents
from ._normalised import Flow, Maps, attend
from ._spec import Input, Part, Spec

Array = npt.NDArray[Any]


class PerformerState(NamedTuple):
    """Sums over keys of their features scaled by exp(-M): S (B, H, M, V) of k v^T, z (B, H, M) of k, and M (B, H).

    M is the largest exponent of a feature met so far. Two states are the same if ``S exp(M)`` and ``z exp(M)`` are.
    """

    S: Array
    z: Array
    M: Array


SPEC = Spec(
    name="performer",
    inputs=(
        Input("q", ("B T H K",)),
        Input("k", ("B T H K",)),
        Input("v", ("B T H V",)),
        Input("W", ("M K", "H M K")),
    ),
    state_type=PerformerState,
    state_parts=(
        Part("S", "B H M V"),
        Part("z", "B H M", linear=False, domain="positive"),
        Part("M", "B H", linear=False),
    ),
)


def _maps(arrays: dict[str, Array]) -> Maps:
    W = arrays["W"]

    def queries(q: Array) -> Array:
        exponents = favor_exponents(q, W, norm=False)
        return np.asarray(np.exp(exponents - exponents.max(axis=-1, keepdims=True)))

    return Maps(queries, lambda k: favor_exponents(k, W), logarithmic=True)


@named
def performer(
    q: npt.ArrayLike,
    k: npt.ArrayLike,
    v: npt.ArrayLike,
    W: npt.ArrayLike,
    *,
    causal: bool = True,
    reverse: bool = False,
    cu_seqlens: npt.ArrayLike | None = None,
    state: tuple[npt.ArrayLike, npt.ArrayLike, npt.ArrayLike] | None = None,
) -> tuple[Array, PerformerState]:
    """Estimate softmax attention with M random features, in time linear in T.

    ``y_t = sum_i (phi(q_t) . phi(k_i)) v_i / sum_i (phi(q_t) . phi(k_i))`` with
    ``phi(x)_j = exp(w_j . x' - |x'|^2 / 2)`` and ``x' = x K^-1/4``.

    Parameters
    ----------
    q, k : array_like, shape (B, T, H, K)
        Query and key, not scaled. Without `causal`, `k` and `v` may be of another length S.
    v : array_like, shape (B, T, H, V)
        Value.
    W : array_like, shape (M, K) or (H, M, K)
        Random directions w_j, from `favor_matrix`. What goes on from a `state` must use the same.
    causal : bool, default True
        Whether a query sees only its own token and those before. If not, no state can be given.
    reverse : bool, default False
        Walk every sequence from its end to its beginning. Nothing changes without `causal`.
    cu_seqlens : array_like of int, shape (N + 1,), optional
        Offsets of N sequences packed along T, with B = 1.
    state : tuple (S, z, M) of array_like, shapes (B, H, M, V), (B, H, M) and (B, H), optional
        What an earlier call returned; None is an empty past. It is not changed.

    Returns
    -------
    y : ndarray, shape (B, T, H, V)
        Of the dtype of the inputs.
    state : PerformerState
        float32, or float64 if the inputs are. With `cu_seqlens` its first axis is N.

    Raises
    ------
    ArgumentError
        If a shape, dtype or option does not fit, naming the argument.
    DeviceError
        If arrays live on different devices.

    Notes
    -----
    The estimate of a weight has a relative standard deviation of ``sqrt((exp(|q' + k'|^2) - 1) / M)``: see
    `favor_relative_std`, and the page of this mechanism for where that makes it useless. Nothing overflows: features
    are scaled by the largest of their query, and of all keys so far, neither of which changes y. No epsilon is added
    to features, which would mix in an average of all values; where all weights are too small for the dtype, y is zero.
    All arrays but `W` may be given without the batch axis. Cutting the time axis anywhere and handing the state over
    gives the same bits.

    References
    ----------
    Choromanski et al. 2021, "Rethinking Attention with Performers" (arXiv:2009.14794), lemma 1 and section 2.4;
    google-research/google-research, ``performer/fast_attention/jax/fast_attention.py``.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([[[0.0]], [[0.5]]])
    >>> performer(x, x, np.array([[[1.0]], [[2.0]]]), W=[[1.0], [-1.0]])[0].ravel().round(6)
    array([1.      , 1.547027])
    """
    flow = Flow(causal, reverse, cu_seqlens, state)
    return attend(SPEC, {"q": q, "k": k, "v": v, "W": W}, _maps, flow)
