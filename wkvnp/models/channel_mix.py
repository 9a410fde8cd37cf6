"""The channel mix of RWKV-4, 5 and 6: a squared-ReLU network whose output is gated by a receptance.

Letters: C channels, F feed-forward width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from ..checkpoints.naming import Array, Matrix
from ..operations import Operations, Product, Value
from .rwkv_layer import RWKVConfig, RWKVLayer, mixes


@dataclass(frozen=True, eq=False)
class ChannelMix:
    """``blocks.n.ffn`` of RWKV-4 and RWKV-5."""

    time_mix_k: Annotated[Array, "1 1 C"]
    time_mix_r: Annotated[Array, "1 1 C"]
    key: Annotated[Matrix, "F C"]
    receptance: Annotated[Matrix, "C C"]
    value: Annotated[Matrix, "C F"]


class GatedChannelMix(RWKVLayer):
    """A layer with this channel mix; `shares` are those of the last token in the mixtures for key and receptance."""

    def __init__(self, block: Any, config: RWKVConfig, dtype: np.dtype[Any], shares: Sequence[Array]) -> None:
        super().__init__(block, config, dtype)
        self._ffn, self._ffn_mixes = block.ffn, mixes(("x_k", "x_r"), shares)

    def channel_mix(self, o: Operations, x: Value, z: Value, previous: Value) -> Value:
        """Return ``x + sigmoid(W_r x_r) * (W_v relu(W_k x_k)^2)``."""
        ffn = self._ffn
        x_k, x_r = o.mix(z, previous, self._ffn_mixes)
        (r,) = o.multiply(r=Product(x_r, ffn.receptance.weight, "sigmoid"))
        return o.add_feed_forward(x, Product(x_k, ffn.key.weight, "relu_squared"), ffn.value.weight, gate=r)
