"""Lightning attention: linear attention with a fixed decay that depends on head and layer.

Letters: B batch, T time, H heads, K key width, V value width.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from .._arguments import named
from ..errors import ArgumentError
from ..kernels.linear import linear
from ._scale import scaled
from ._spec import Input, Spec

Array = npt.NDArray[Any]

SPEC = Spec(
    name="lightning_attention",
    inputs=(
        Input("q", ("B T H K",)),
        Input("k", ("B T H K",)),
        Input("v", ("B T H V",)),
        Input("log_decay", ("H",), "log_decay"),
    ),
    state_axes="B H K V",
    variants=({}, {"scale": 0.7}),
)


def layer_decay(form: Literal["transnormer", "minimax"], heads: int, layer: int, layers: int) -> Array:
    """Return the log decay (H,) of one layer; layers count from 0.

    "transnormer": ``-(8 h / H) (1 - l / L)`` for head h of H in layer l of L, as in the paper: head 0 forgets nothing.
    "minimax": ``-2^(-8 (h + 1) / H) (1 - l / (L - 1) + 1e-5)``, as in the code of MiniMax-01; where H is no power of
    two, P, the largest below it, has that formula and the other heads are every second one of the formula for 2 P.

    >>> layer_decay("minimax", 4, 0, 3).round(4)
    array([-0.25  , -0.0625, -0.0156, -0.0039])
    """
    if form not in ("transnormer", "minimax") or heads < 1 or not 0 <= layer < layers:
        raise ArgumentError(
            f"layer_decay: form must be 'transnormer' or 'minimax', heads at least 1 and layer in 0 to layers - 1; "
            f"got {form!r}, heads={heads}, layer={layer}, layers={layers}"
        )
    if form == "transnormer":
        return -(8 * np.arange(heads) / heads) * (1 - layer / layers) + 0.0
    power = 1 << (heads.bit_length() - 1)
    slopes = 2.0 ** (-8 / power * np.arange(1, power + 1))
    between = 2.0 ** (-4 / power * np.arange(1, 2 * power + 1, 2))
    return -np.concatenate([slopes, between[: heads - power]]) * (1 - layer / max(layers - 1, 1) + 1e-5)


def packed(
    q: Array,
    k: Array,
    v: Array,
    log_decay: Array,
    state: Array | None,
    offsets: Array,
    *,
    scale: float = 1.0,
) -> tuple[Array, Array]:
    """Run the recurrence on arrays that need no check, sequences behind each other with their `offsets`."""
    return linear(scaled(q, scale), log_decay.reshape(1, -1, 1), k, v, None, state, offsets)


@named
def lightning_attention(
    q: npt.ArrayLike,
    k: npt.ArrayLike,
    v: npt.ArrayLike,
    log_decay: npt.ArrayLike,
    *,
    scale: float = 1.0,
    reverse: bool = False,
    cu_seqlens: npt.ArrayLike | None = None,
    state: npt.ArrayLike | None = None,
) -> tuple[Array, Array]:
    """Run lightning attention over sequences.

    ``S_t = exp(log_decay) S_{t-1} + k_t v_t^T`` and ``y_t = scale S_t^T q_t``.

    Parameters
    ----------
    q, k : array_like, shape (B, T, H, K)
        Query and key; silu of the projections in MiniMax-01.
    v : array_like, shape (B, T, H, V)
        Value; there silu of the projection too.
    log_decay : array_like, shape (H,)
        Natural logarithm of the decay per token, at most 0: minus the slopes of the paper. Those of TransNormerLLM and
        MiniMax-01 come from ``wkvnp.mechanisms.lightning_attention.layer_decay``.
    scale : float, default 1.0
        Factor of the query.
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

    References
    ----------
    Qin et al. 2024, "Lightning Attention-2" (arXiv:2401.04658), algorithm 1; Qin et al. 2023, "TransNormerLLM"
    (arXiv:2307.14995), section 3.1; OpenNLPLab/lightning-attention, ``lightning_attn/ops/torch/linear_attention.py``.

    Examples
    --------
    >>> one = np.ones((3, 1, 1))
    >>> y, state = lightning_attention(one, one, [[[1.0]], [[2.0]], [[3.0]]], [np.log(0.5)])
    >>> y.ravel()
    array([1.  , 2.5 , 4.25])
    """
    call = SPEC.enter({"q": q, "k": k, "v": v, "log_decay": log_decay}, state, cu_seqlens, reverse)
    return call.leave(*packed(**call.arrays, state=call.state, offsets=call.offsets, scale=scale))
