"""RetNet: a matrix state with a fixed decay for every head, slower from head to head.

Letters: B batch, T time, H heads, K key width, V value width.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .._arguments import named
from ..errors import ShapeError
from ..kernels.linear import linear
from ._scale import scaled
from ._spec import Input, Spec

Array = npt.NDArray[Any]

SPEC = Spec(
    name="retnet",
    inputs=(
        Input("q", ("B T H K",)),
        Input("k", ("B T H K",)),
        Input("v", ("B T H V",)),
        Input("log_decay", ("H",), "log_decay", optional=True),
    ),
    state_axes="B H K V",
    variants=({}, {"scale": 0.7}),
)


def rotated(x: npt.ArrayLike, position: npt.ArrayLike = 0) -> Array:
    """Return queries or keys (..., T, H, K) turned by the angles of their positions, as the paper's retention needs.

    Neighbouring channels are one complex number, multiplied by ``exp(i position 10000^(-p / (K/2 - 1)))`` for pair p.
    `position` is that of the first token, or the positions (T,) of all. After it, ``q_t . k_s`` depends on t - s only.
    """
    x = np.asarray(x)
    if x.ndim < 3 or x.shape[-1] % 2:
        raise ShapeError(f"rotated: x must have shape (..., T, H, K) with an even K; got {x.shape}")
    pairs = x.shape[-1] // 2
    positions = np.asarray(position, np.float64)
    positions = positions + np.arange(x.shape[-3]) if positions.ndim == 0 else positions
    turn = np.exp(1j * positions[:, None] * 10000.0 ** -np.linspace(0, 1, pairs))[:, None, :]
    z = (x[..., 0::2] + 1j * x[..., 1::2]) * turn
    return np.stack([z.real, z.imag], axis=-1).reshape(x.shape).astype(x.dtype)


def packed(
    q: Array,
    k: Array,
    v: Array,
    log_decay: Array | None,
    state: Array | None,
    offsets: Array,
    *,
    scale: float | None = None,
) -> tuple[Array, Array]:
    """Run the recurrence on arrays that need no check, sequences behind each other with their `offsets`."""
    if log_decay is None:
        log_decay = np.log1p(-(2.0 ** (-5.0 - np.arange(q.shape[1])))).astype(q.dtype)
    return linear(scaled(q, scale), log_decay.reshape(1, -1, 1), k, v, None, state, offsets)


@named
def retnet(
    q: npt.ArrayLike,
    k: npt.ArrayLike,
    v: npt.ArrayLike,
    log_decay: npt.ArrayLike | None = None,
    *,
    scale: float | None = None,
    reverse: bool = False,
    cu_seqlens: npt.ArrayLike | None = None,
    state: npt.ArrayLike | None = None,
) -> tuple[Array, Array]:
    """Run the retention of RetNet over sequences.

    ``S_t = gamma S_{t-1} + k_t v_t^T`` and ``y_t = scale S_t^T q_t``, with ``gamma = exp(log_decay)`` of the head.

    Parameters
    ----------
    q, k : array_like, shape (B, T, H, K)
        Query and key, after their rotation (see the notes).
    v : array_like, shape (B, T, H, V)
        Value.
    log_decay : array_like, shape (H,), optional
        Natural logarithm of the decay per token, at most 0; log(1 - 2^(-5-h)) for head h = 0, 1, ... by default.
    scale : float, optional
        Factor of the query; K^-0.5 by default.
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
    the time axis anywhere and handing the state over gives the same bits. The rotation of
    the paper stays outside, since it needs the position of every token: ``wkvnp.mechanisms.retnet.rotated``.

    References
    ----------
    Sun et al. 2023, "Retentive Network: A Successor to Transformer for Large Language Models" (arXiv:2307.08621),
    equations 6 and 8; microsoft/torchscale, ``torchscale/component/multiscale_retention.py``.

    Examples
    --------
    >>> one = np.ones((3, 1, 1))
    >>> y, state = retnet(one, one, [[[32.0]], [[0.0]], [[0.0]]])
    >>> y.ravel()
    array([32.     , 31.     , 30.03125])
    """
    call = SPEC.enter({"q": q, "k": k, "v": v, "log_decay": log_decay}, state, cu_seqlens, reverse)
    return call.leave(*packed(**call.arrays, state=call.state, offsets=call.offsets, scale=scale))
