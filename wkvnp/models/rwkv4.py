"""RWKV-4 "Dove" as a language model.

Letters: M packed tokens, C channels, A attention width, F feed-forward width, V vocabulary. Matrices are [out, in].

References
----------
Peng et al. 2023 (arXiv:2305.13048), section 3; BlinkDL/ChatRWKV, ``RWKV_in_150_lines.py``.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import numpy as np

from ..checkpoints.naming import Array, Matrix, Norm
from ..operations import Operations, Product, Value
from .channel_mix import ChannelMix, GatedChannelMix
from .network import vector
from .rwkv_layer import RWKVConfig, mixes, rwkv_network


@dataclass(frozen=True, eq=False)
class TimeMix:
    """``blocks.n.att``."""

    time_decay: Annotated[Array, "A"]
    time_first: Annotated[Array, "A"]
    time_mix_k: Annotated[Array, "1 1 C"]
    time_mix_v: Annotated[Array, "1 1 C"]
    time_mix_r: Annotated[Array, "1 1 C"]
    key: Annotated[Matrix, "A C"]
    value: Annotated[Matrix, "A C"]
    receptance: Annotated[Matrix, "A C"]
    output: Annotated[Matrix, "C A"]


@dataclass(frozen=True, eq=False)
class Block:
    """``blocks.n``."""

    ln1: Annotated[Norm, "C"]
    ln2: Annotated[Norm, "C"]
    att: TimeMix
    ffn: ChannelMix
    ln0: Annotated[Norm | None, "C"] = None


@dataclass(frozen=True, eq=False)
class Weights:
    """All tensors of a checkpoint."""

    emb: Annotated[Matrix, "V C"]
    blocks: tuple[Block, ...]
    ln_out: Annotated[Norm, "C"]
    head: Annotated[Matrix, "V C"]


RANKS = ()
WEIGHTS = {"rwkv4": Weights}
IGNORE = ()


def required(names: Container[str]) -> tuple[str, ...]:
    """Return patterns of the optional tensors that a file must hold: none."""
    return ()


def log_decay_of(time_decay: Array) -> Array:
    """Return the log decay per token, -exp(time_decay), of RWKV-4 and RWKV-5."""
    return -np.exp(time_decay)


class Layer(GatedChannelMix):
    """One layer of RWKV-4."""

    def __init__(self, block: Block, config: RWKVConfig, dtype: np.dtype[Any]) -> None:
        att, ffn, widened = block.att, block.ffn, partial(vector, dtype=dtype)
        # Checkpoints store the share of the current token.
        super().__init__(block, config, dtype, [1 - widened(ffn.time_mix_k), 1 - widened(ffn.time_mix_r)])
        shares = (att.time_mix_k, att.time_mix_v, att.time_mix_r)
        self._att, self._mixes = att, mixes(("x_k", "x_v", "x_r"), [1 - widened(share) for share in shares])
        self._log_decay, self._u = log_decay_of(widened(att.time_decay)), widened(att.time_first)

    def time_mix(self, o: Operations, x: Value, z: Value, previous: Value, v_first: Value) -> tuple[Value, Value]:
        """Return x plus the time mix of z."""
        att = self._att
        x_k, x_v, x_r = o.mix(z, previous, self._mixes)
        k, v, r = o.multiply(
            k=Product(x_k, att.key.weight),
            v=Product(x_v, att.value.weight),
            r=Product(x_r, att.receptance.weight, "sigmoid"),
        )
        y = o.wkv(r, k, v, self._log_decay, self._u, "wkv")
        return o.add_product(x, Product(y, att.output.weight)), v_first


network = partial(rwkv_network, Layer)
