"""RWKV-6 "Finch" as a language model.

Letters: M packed tokens, C channels, A attention width, H heads, N head size, F feed-forward width, V vocabulary,
R rank of the mix, D rank of the decay. Factors are stored [in, rank] and [rank, out], matrices [out, in].

References
----------
Peng et al. 2024 (arXiv:2404.05892), section 4.2; BlinkDL/ChatRWKV, ``RWKV_v6_demo.py``.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import numpy as np

from ..checkpoints.naming import Array, Matrix, Norm
from ..operations import LowRank, Operations, Product, Value
from .channel_mix import GatedChannelMix
from .network import vector
from .rwkv_layer import RWKVConfig, mixes, rwkv_network


@dataclass(frozen=True, eq=False)
class TimeMix:
    """``blocks.n.att``. The five groups of the low-rank mix are in the order w, k, v, r, g."""

    time_maa_x: Annotated[Array, "1 1 C"]
    time_maa_w: Annotated[Array, "1 1 C"]
    time_maa_k: Annotated[Array, "1 1 C"]
    time_maa_v: Annotated[Array, "1 1 C"]
    time_maa_r: Annotated[Array, "1 1 C"]
    time_maa_g: Annotated[Array, "1 1 C"]
    time_maa_w1: Annotated[Array, "C 5R"]
    time_maa_w2: Annotated[Array, "5 R C"]
    time_decay: Annotated[Array, "1 1 A"]
    time_decay_w1: Annotated[Array, "C D"]
    time_decay_w2: Annotated[Array, "D A"]
    time_faaaa: Annotated[Array, "H N"]
    receptance: Annotated[Matrix, "A C"]
    key: Annotated[Matrix, "A C"]
    value: Annotated[Matrix, "A C"]
    gate: Annotated[Matrix, "A C"]
    output: Annotated[Matrix, "C A"]
    ln_x: Annotated[Norm, "A"]
    time_state: Annotated[Array | None, "H N N"] = None


@dataclass(frozen=True, eq=False)
class ChannelMix:
    """``blocks.n.ffn``."""

    time_maa_k: Annotated[Array, "1 1 C"]
    time_maa_r: Annotated[Array, "1 1 C"]
    key: Annotated[Matrix, "F C"]
    receptance: Annotated[Matrix, "C C"]
    value: Annotated[Matrix, "C F"]


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


RANKS = ("R", "D")
WEIGHTS = {"rwkv6": Weights}
IGNORE = ()


def required(names: Container[str]) -> tuple[str, ...]:
    """Return patterns of the optional tensors that a file must hold: none."""
    return ()


class Layer(GatedChannelMix):
    """One layer of RWKV-6."""

    def __init__(self, block: Block, config: RWKVConfig, dtype: np.dtype[Any]) -> None:
        ffn, widened = block.ffn, partial(vector, dtype=dtype)
        super().__init__(block, config, dtype, [widened(ffn.time_maa_k), widened(ffn.time_maa_r)])
        att = self._att = block.att
        self._first_mix = mixes(("x_x",), [widened(att.time_maa_x)])
        shares = (att.time_maa_w, att.time_maa_k, att.time_maa_v, att.time_maa_r, att.time_maa_g)
        self._mixes = mixes(("x_w", "x_k", "x_v", "x_r", "x_g"), [widened(share) for share in shares])
        self._time_decay, self._u = widened(att.time_decay).reshape(-1), widened(att.time_faaaa)
        self._ln_x = widened(att.ln_x.weight), widened(att.ln_x.bias)

    def time_mix(self, o: Operations, x: Value, z: Value, previous: Value, v_first: Value) -> tuple[Value, Value]:
        """Return x plus the time mix of z: every token decides its share of the previous one, and its decay."""
        att, c = self._att, self.config
        (x_x,) = o.mix(z, previous, self._first_mix)
        moved = o.low_rank_groups("moved", x_x, att.time_maa_w1, att.time_maa_w2, "tanh")
        x_w, x_k, x_v, x_r, x_g = o.mix(z, previous, self._mixes, moved)
        w, k, v, r, g = o.multiply(
            w=LowRank(x_w, att.time_decay_w1, att.time_decay_w2, "tanh"),
            k=Product(x_k, att.key.weight),
            v=Product(x_v, att.value.weight),
            r=Product(x_r, att.receptance.weight),
            g=Product(x_g, att.gate.weight, "silu"),
        )
        decay = (self._time_decay, w)
        y = o.gated_linear(r, k, v, g, decay, self._u, self._ln_x, c.group_norm_eps, c.n_head, "wkv")
        return o.add_product(x, Product(y, att.output.weight)), v_first


network = partial(rwkv_network, Layer)
