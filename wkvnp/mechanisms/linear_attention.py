"""Linear attention: products of features in place of exponentials of products, so that a sum replaces all keys.

Letters: B batch, T time, S time of other keys, H heads, K key width, M features, V value width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from .._arguments import named
from ..errors import ArgumentError, ShapeError
from ..primitives.feature_maps import FEATURES, identity
from ._normalised import FeatureSpec, Flow, LinearState, Maps, attend
from ._spec import Input, Part

Array = npt.NDArray[Any]
Features = str | Callable[[Array], Array] | None

__all__ = ["SPEC", "LinearState", "linear_attention"]

SPEC = FeatureSpec(
    name="linear_attention",
    inputs=(Input("q", ("B T H K",)), Input("k", ("B T H K",)), Input("v", ("B T H V",))),
    state_type=LinearState,
    state_parts=(Part("S", "B H M V"), Part("z", "B H M", linear=False, domain="positive")),
    variants=(
        {},
        {"features": "relu"},
        {"features": "relu^2", "eps": 1e-3},
        {"features": "softmax"},
        {"features": None, "normalize": False},
    ),
)


def _map(features: Features) -> Callable[[Array], Array]:
    """Return the function that `features` means, made to answer for what it returns."""
    if features is None:
        return identity
    if isinstance(features, str):
        if features not in FEATURES:
            names = ", ".join(map(repr, FEATURES))
            raise ArgumentError(f"linear_attention: features must be {names}, None or a function; got {features!r}")
        return FEATURES[features]

    def checked(x: Array) -> Array:
        result = np.asarray(features(x), x.dtype)
        if result.shape[:-1] != x.shape[:-1]:
            raise ShapeError(
                f"linear_attention: features must keep all axes but the last of {x.shape}; got {result.shape}"
            )
        return result

    return checked


@named
def linear_attention(
    q: npt.ArrayLike,
    k: npt.ArrayLike,
    v: npt.ArrayLike,
    *,
    features: Features | tuple[Features, Features] = "elu+1",
    causal: bool = True,
    normalize: bool = True,
    eps: float = 1e-6,
    reverse: bool = False,
    cu_seqlens: npt.ArrayLike | None = None,
    state: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
) -> tuple[Array, LinearState]:
    """Average values with weights that are products of features.

    ``S_t = S_{t-1} + phi(k_t) v_t^T``, ``z_t = z_{t-1} + phi(k_t)`` and
    ``y_t = S_t^T phi(q_t) / (phi(q_t) . z_t + eps)``.

    Parameters
    ----------
    q, k : array_like, shape (B, T, H, K)
        Query and key. Without `causal`, `k` and `v` may be of another length S.
    v : array_like, shape (B, T, H, V)
        Value.
    features : str, function, None, or a pair of such, default "elu+1"
        phi: "elu+1", "relu", "relu^2", "softmax" (of each row), "taylor", "dpfp", or a function that takes an array
        (tokens, H, K), treats every row alone and returns (tokens, H, M), such as those of
        `wkvnp.primitives.feature_maps`. None takes q and k as they are. A pair is one for q and one for k.
    causal : bool, default True
        Whether a query sees only its own token and those before. If not, no state can be given.
    normalize : bool, default True
        Whether to divide. Features that may be negative have no mean to speak of.
    eps : float, default 1e-6
        Added to the divisor: where all features are zero, y is zero.
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
    same bits, if the features of a row do not depend on other rows.

    References
    ----------
    Katharopoulos et al. 2020, "Transformers are RNNs" (arXiv:2006.16236), equations 16 to 20;
    idiap/fast-transformers, ``fast_transformers/attention/causal_linear_attention.py``.

    Examples
    --------
    >>> import numpy as np
    >>> q, k = np.array([[[0.0, 1]], [[1, 0]]]), np.array([[[0.0, 1]], [[1, 1]]])
    >>> linear_attention(q, k, np.array([[[1.0]], [[2.0]]]), eps=0)[0].ravel()
    array([1. , 1.6])
    """
    pair = features if isinstance(features, tuple) else (features, features)
    maps = Maps(_map(pair[0]), _map(pair[1]))
    flow = Flow(causal, reverse, cu_seqlens, state)
    return attend(SPEC, {"q": q, "k": k, "v": v}, lambda _: maps, flow, normalize, eps)
