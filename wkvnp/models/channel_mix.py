"""The channel mix of RWKV-4, 5 and 6: a squared-ReLU network whose output is gated by a receptance.

Letters: M packed tokens, C channels, F feed-forward width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Protocol

from ..checkpoints.naming import Array, Matrix
from ..decoding import Pair, Place, Program
from ..primitives.linear_map import Product, linear_map
from ..primitives.shift import mixtures


class Gated(Protocol):
    """The three matrices."""

    @property
    def key(self) -> Matrix:
        """Return the matrix (F, C)."""

    @property
    def receptance(self) -> Matrix:
        """Return the matrix (C, C)."""

    @property
    def value(self) -> Matrix:
        """Return the matrix (C, F)."""


@dataclass(frozen=True, eq=False)
class ChannelMix:
    """``blocks.n.ffn`` of RWKV-4 and RWKV-5."""

    time_mix_k: Annotated[Array, "1 1 C"]
    time_mix_r: Annotated[Array, "1 1 C"]
    key: Annotated[Matrix, "F C"]
    receptance: Annotated[Matrix, "C C"]
    value: Annotated[Matrix, "C F"]


def gated_channel_mix(x: Array, z: Array, previous: Array, ffn: Gated, share: Array) -> Array:
    """Return x + sigmoid(W_r m_r) * (W_v relu(W_k m_k)^2) for z (M, C); share (2, 1, C) is that of k and r."""
    m_k, m_r = mixtures(z, previous, share)
    r = linear_map(m_r, ffn.receptance.weight, "sigmoid")
    return linear_map(Product(m_k, ffn.key.weight, "relu_squared"), ffn.value.weight, gate=r, added=x)


def gated_channel_mix_steps(
    p: Program, norm: Callable[[], Place], shift: Pair, ffn: Gated, share: Array, x: Place
) -> None:
    """Add the same for one token of every sequence, and that to x."""
    hidden, r = p.shared("hidden", len(ffn.key.weight)), p.shared("r", x.size)
    p.phase()
    z = norm()
    m_k, m_r = p.mix(z, shift[0], share.reshape(2, -1))
    p.product(m_k, ffn.key.weight, hidden, activation="relu_squared")
    p.product(m_r, ffn.receptance.weight, r, activation="sigmoid")
    p.copy(z, shift[1])
    p.phase()
    p.product(hidden, ffn.value.weight, x, gate=r)
