"""The router of a mixture of experts: which k of E experts a token goes to, with what weight, and how even that is.

Letters: E experts, k of them a token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from .._arguments import named
from .._dtypes import narrow
from .._shapes import as_floats, check_axes, compute_dtype, contiguous
from ..errors import ArgumentError, ShapeError

__all__ = ["Gate", "Load", "expert_load", "top_k_gate"]

Array = npt.NDArray[Any]


class Gate(NamedTuple):
    """What `top_k_gate` decided: experts and weights (..., k), the best first, and probabilities (..., E)."""

    experts: npt.NDArray[np.int64]
    weights: Array
    probabilities: Array


@dataclass(frozen=True, eq=False)
class Load:
    """How tokens are spread over experts.

    `counts` (E,) is the tokens that each gets; `balance` E times the sum of share of tokens times mean probability, 1
    if all are equal and at most E; `overload` by how much the busiest is above the mean; `idle` how many get nothing.
    """

    counts: npt.NDArray[np.int64]
    balance: float
    overload: float
    idle: int


@named
def top_k_gate(
    logits: npt.ArrayLike,
    k: int,
    *,
    scores: Literal["softmax", "sigmoid"] = "softmax",
    normalize: bool = True,
    bias: npt.ArrayLike | None = None,
) -> Gate:
    """Choose k experts for every token.

    Parameters
    ----------
    logits : array_like, shape (..., E)
        What the router's matrix gives for each token.
    k : int
        Experts a token, from 1 to E.
    scores : {"softmax", "sigmoid"}
        What logits become: shares of all experts, or a number for each by itself.
    normalize : bool, default True
        Make the weights of the chosen sum to 1: with "softmax", a softmax over their logits alone.
    bias : array_like, shape (E,), optional
        Added to the scores for choosing only, which evens the load without touching the weights.

    Returns
    -------
    Gate
        Experts and weights (..., k), the best first, and of equals the one with the lower number; and the scores of all
        experts as shares (..., E).

    Raises
    ------
    ArgumentError
        If k or a shape does not fit.

    References
    ----------
    Jiang et al. 2024, "Mixtral of Experts" (arXiv:2401.04088), section 2.1: the default; Fedus et al. 2021, "Switch
    Transformers" (arXiv:2101.03961): k = 1 with ``normalize=False``; DeepSeek-AI 2024, "DeepSeek-V3"
    (arXiv:2412.19437), section 2.1.2: "sigmoid" with a bias, before its groups and its factor.

    Examples
    --------
    >>> gate = top_k_gate(np.log([0.5, 0.1, 0.3, 0.1]), 2)
    >>> gate.experts, gate.weights
    (array([0, 2]), array([0.625, 0.375]))
    """
    given = as_floats("top_k_gate", "logits", logits)
    if given.ndim < 1 or not (k == int(k) and 1 <= k <= given.shape[-1]):
        raise ShapeError(f"top_k_gate: k must be a whole number from 1 to E of logits {given.shape}; got {k!r}")
    if scores not in ("softmax", "sigmoid"):
        raise ArgumentError(f"top_k_gate: scores must be 'softmax' or 'sigmoid'; got {scores!r}")
    x = contiguous(given, compute_dtype("top_k_gate", {"logits": given}))
    soft = scores == "softmax"
    values = _shares(np.exp(x - x.max(axis=-1, keepdims=True))) if soft else np.exp(-np.logaddexp(0, -x))
    choice = x
    if bias is not None:
        extra = as_floats("top_k_gate", "bias", bias)
        check_axes("top_k_gate", "bias", extra, "E", {"E": (x.shape[-1], "logits")})
        choice = values + contiguous(extra, x.dtype)
    experts = np.argsort(-choice, axis=-1, kind="stable")[..., : int(k)]
    weights = np.take_along_axis(values, experts, axis=-1)
    if normalize and soft:  # from the logits, so that shares too small for a float still have a ratio
        chosen = np.take_along_axis(x, experts, axis=-1)
        weights = np.exp(chosen - chosen.max(axis=-1, keepdims=True))
    weights = _shares(weights) if normalize else weights
    return Gate(experts.astype(np.int64), narrow(weights, given.dtype), _shares(values))


@named
def expert_load(gate: Gate) -> Load:
    """Say how evenly a router spreads its tokens.

    Parameters
    ----------
    gate : Gate
        From `top_k_gate`, for any number of tokens.

    Returns
    -------
    Load
        Counts, the auxiliary loss of Switch Transformers without its factor, and what the busiest and the idle get.

    References
    ----------
    Fedus et al. 2021 (arXiv:2101.03961), equations 4 to 6.

    Examples
    --------
    >>> load = expert_load(top_k_gate([[2.0, 0, 0], [0, 2.0, 0], [2.0, 1, 0]], 1))
    >>> load.counts, load.idle, round(load.overload, 3)
    (array([2, 1, 0]), 1, 1.0)
    """
    number = gate.probabilities.shape[-1]
    counts = np.bincount(gate.experts.ravel(), minlength=number)
    if not counts.any():
        return Load(counts, 0.0, 0.0, number)
    share = counts / counts.sum()
    mean = gate.probabilities.reshape(-1, number).mean(axis=0, dtype=np.float64)
    return Load(counts, float(number * share @ mean), float(number * share.max() - 1), int((counts == 0).sum()))


def _shares(values: Array) -> Array:
    """Divide by the sum of the last axis, and leave zeros alone."""
    shares: Array = values / (values.sum(axis=-1, keepdims=True) + values.dtype.type(1e-20))
    return shares
