"""What a block may do: the operations, with their meaning.

Values are rows of numbers, one row a token; what they are made of is the executor's business. Every operation names
its result, within a `scope` such as ``att``.

Letters: M tokens of B packed sequences, C channels, A attention width, H heads, N head size, F hidden width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy.typing as npt

from .._quantised import Quantised
from ..primitives.linear_map import Activation

Array = npt.NDArray[Any]
Value = Any
"""Rows of numbers: an array for `Prompts` and `Oracle`, an operand of a program for `Tokens`."""


class Product(NamedTuple):
    """``f(x W^T + bias)`` for a matrix W stored [out, in]."""

    x: Value
    weight: Array | Quantised
    activation: Activation = "linear"
    bias: Array | None = None


class LowRank(NamedTuple):
    """``f(x down) up`` for factors stored [in, rank] and [rank, out]."""

    x: Value
    down: Array
    up: Array
    activation: Activation = "linear"


@dataclass(frozen=True)
class Mixes:
    """How much of the last token several mixtures have, and what these are called.

    Attributes
    ----------
    names : tuple of J str
    share : ndarray (J, C)
        0 keeps the current token, 1 takes the last one.
    """

    names: tuple[str, ...]
    share: Array


@dataclass(frozen=True)
class SoftmaxAttention:
    """What softmax attention needs besides queries, keys and values.

    Attributes
    ----------
    heads, groups, width : int
        Heads of queries, heads of keys and values, and their width.
    rotation : callable
        Takes the tokens seen (B,) and offsets (B + 1,); returns cosines and sines (M, R/2), and the tokens seen then.
    rotated : int
        R, how many channels of a head are rotated.
    window : int or None
        How many keys a query sees, with its own; None: all.
    q_norm, k_norm : ndarray (width,) or None
        Scales of an RMS norm of every head, before the rotation.
    eps : float
    """

    heads: int
    groups: int
    width: int
    rotation: Callable[[Array, Array], tuple[Array, Array, Array]]
    rotated: int
    window: int | None = None
    q_norm: Array | None = None
    k_norm: Array | None = None
    eps: float = 1e-6


class Operations(ABC):
    """An executor of blocks.

    States are read and written by the name of their field: an operation that takes a `cell` moves that part of the
    layer's state on.
    """

    scope = ""

    @abstractmethod
    def layer_norm(self, name: str, x: Value, weight: Array, bias: Array, eps: float) -> Value:
        """Return ``(x - mean) / sqrt(var + eps) * weight + bias`` over the channels."""

    @abstractmethod
    def rms_norm(self, name: str, x: Value, weight: Array, eps: float, groups: int = 1) -> Value:
        """Return ``x / sqrt(mean(x^2) + eps) * weight`` over each of some groups of consecutive channels."""

    @abstractmethod
    def previous(self, x: Value, cell: str) -> Value:
        """Return the token before each token; of the first one, what the state holds."""

    @abstractmethod
    def mix(self, x: Value, previous: Value, mixes: Mixes, moved: Value | None = None) -> list[Value]:
        """Return J mixtures ``x + (previous - x) (share[j] + moved[j])``; moved is of `low_rank_groups`."""

    @abstractmethod
    def multiply(self, **products: Product | LowRank) -> list[Value]:
        """Return products that do not depend on one another; the keywords are their names."""

    @abstractmethod
    def low_rank_groups(self, name: str, x: Value, down: Array, up: Array, activation: Activation) -> Value:
        """Return ``f(x down)``, cut into J groups of rank R, each through its own matrix of `up` (J, R, C)."""

    @abstractmethod
    def add_product(self, x: Value, product: Product, gate: Value | None = None) -> Value:
        """Return ``x + gate * product``: x is not read by any operation after this."""

    @abstractmethod
    def add(self, x: Value, y: Value) -> Value:
        """Return ``x + y``: x is not read by any operation after this."""

    @abstractmethod
    def add_feed_forward(self, x: Value, hidden: Product, out: Array, gate: Value | None = None) -> Value:
        """Return ``x + gate * (hidden W^T)`` for the matrix `out`; hidden is called k."""

    @abstractmethod
    def gate(self, name: str, x: Value, gate: Value) -> Value:
        """Return ``x silu(gate)``."""

    @abstractmethod
    def convolve(self, name: str, x: Value, weight: Array, bias: Array | None, cell: str) -> Value:
        """Return ``silu(bias + sum_j weight[j] x[t - W + 1 + j])``: a convolution of each channel, and a SiLU."""

    @abstractmethod
    def split(self, x: Value, **sizes: int) -> list[Value]:
        """Return x cut into runs of channels; the keywords are their names."""

    @abstractmethod
    def wkv(self, r: Value, k: Value, v: Value, log_decay: Array, u: Array, cell: str) -> Value:
        """Return ``y = r WKV(k, v)`` of RWKV-4."""

    @abstractmethod
    def gated_linear(
        self, r: Value, k: Value, v: Value, g: Value | None, decay: Array | tuple[Array, Value], u: Array,
        norm: tuple[Array, Array], eps: float, heads: int, cell: str,
    ) -> Value:  # fmt: skip
        """Return ``y = g * norm(recurrence)``: the recurrence of RWKV-5 and 6, a norm of each head, a gate.

        `decay` is the log decay (H,) or (H, N), or the pair (w0, w) of ``log_decay = -exp(w0 + w)`` with w (M, A).
        """

    @abstractmethod
    def rwkv7(
        self, r: Value, w: Value, k: Value, v: Value, a: Value, g: Value, nu: Value | None, v_first: Value | None,
        constants: Array, eps: float, heads: int, cell: str,
    ) -> Value:  # fmt: skip
        """Return the output y of the recurrence of RWKV-7 with its gates, group norm and bonus.

        `constants` (8, A) are w0, a0, v0, k_k, k_a, r_k, and scale and shift of the norm. With s the sigmoid:
        log_decay = -s(w0 + w) / sqrt(e); rate = s(a0 + a); kappa = k k_k, of length 1 in every head;
        key = k (1 + (rate - 1) k_a); value = v + (v_first - v) s(v0 + nu), or v without these;
        S = S (diag(decay) - kappa (rate kappa)^T) + value key^T; y = (norm(S r) + (r key r_k) value) g.
        """

    @abstractmethod
    def selective(
        self, x: Value, z: Value, dt: Value, dt_weight: Array, dt_bias: Array, B: Value, C: Value, A: Array, D: Array,
        cell: str,
    ) -> Value:  # fmt: skip
        """Return ``y = (C h + D x) silu(z)`` of Mamba-1.

        ``dt = softplus(dt W^T + bias)``, ``h = exp(dt A) h + dt B x``.
        """

    @abstractmethod
    def state_space(
        self, x: Value, B: Value, C: Value, dt: Value, dt_bias: Array, A: Array, D: Array,
        limits: tuple[float, float], groups: int, cell: str,
    ) -> Value:  # fmt: skip
        """Return ``y = S^T C + D x`` of Mamba-2.

        ``dt = clip(softplus(dt + bias))``, ``S = exp(dt A) S + dt B x^T``.
        """

    @abstractmethod
    def attention(self, q: Value, k: Value, v: Value, how: SoftmaxAttention) -> Value:
        """Return softmax attention over the past, ``kv`` and ``seen`` of the state; q and k are normed and rotated."""

    @abstractmethod
    def delta_rule(
        self, q: Value, k: Value, v: Value, b: Value, a: Value, A_log: Array, dt_bias: Array,
        sizes: tuple[int, int], cell: str,
    ) -> Value:  # fmt: skip
        """Return the gated delta rule with ``beta = sigmoid(b)``, ``log_decay = -exp(A_log) softplus(a + dt_bias)``.

        `sizes` are the heads of q and k, and the heads of v.
        """

    @abstractmethod
    def interleaved(self, x: Value, heads: int, **sizes: int) -> list[Value]:
        """Return parts of every head of x, those of all heads behind each other; the keywords are their names."""

    @abstractmethod
    def join(self, *parts: Value) -> Value:
        """Return values behind each other, channel after channel."""

    @abstractmethod
    def sigmoid_gate(self, name: str, x: Value, gate: Value) -> Value:
        """Return ``x sigmoid(gate)``; one number a row gates the whole row."""

    @abstractmethod
    def experts(
        self, x: Value, router: Array, run: Sequence[Callable[..., Value]], chosen: int, normalize: bool
    ) -> Value:
        """Return the weighted sum of the experts that each token chooses: the `chosen` with the largest softmax."""
