"""RWKV-7 "Goose" as a language model.

Letters: M packed tokens, C channels, A attention width, H heads, N head size, F feed-forward width, V vocabulary,
Dw, Da, Dv, Dg ranks. Factors are stored [in, rank] and [rank, out], matrices [out, in].

References
----------
Peng et al. 2025 (arXiv:2503.14456), section 4 and appendix A; BlinkDL/RWKV-LM, ``RWKV-v7/rwkv_v7_demo.py``.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import numpy as np

from ..checkpoints.naming import Array, Matrix, Norm
from ..operations import LowRank, Operations, Product, Value
from .network import vector
from .rwkv_layer import RWKVConfig, RWKVLayer, mixes, rwkv_network


@dataclass(frozen=True, eq=False)
class TimeMix:
    """``blocks.n.att``."""

    x_r: Annotated[Array, "1 1 C"]
    x_w: Annotated[Array, "1 1 C"]
    x_k: Annotated[Array, "1 1 C"]
    x_v: Annotated[Array, "1 1 C"]
    x_a: Annotated[Array, "1 1 C"]
    x_g: Annotated[Array, "1 1 C"]
    w0: Annotated[Array, "1 1 A"]
    w1: Annotated[Array, "C Dw"]
    w2: Annotated[Array, "Dw A"]
    a0: Annotated[Array, "1 1 A"]
    a1: Annotated[Array, "C Da"]
    a2: Annotated[Array, "Da A"]
    g1: Annotated[Array, "C Dg"]
    g2: Annotated[Array, "Dg A"]
    k_k: Annotated[Array, "1 1 A"]
    k_a: Annotated[Array, "1 1 A"]
    r_k: Annotated[Array, "H N"]
    receptance: Annotated[Matrix, "A C"]
    key: Annotated[Matrix, "A C"]
    value: Annotated[Matrix, "A C"]
    output: Annotated[Matrix, "C A"]
    ln_x: Annotated[Norm, "A"]
    v0: Annotated[Array | None, "1 1 A"] = None
    v1: Annotated[Array | None, "C Dv"] = None
    v2: Annotated[Array | None, "Dv A"] = None
    time_state: Annotated[Array | None, "H N N"] = None


@dataclass(frozen=True, eq=False)
class ChannelMix:
    """``blocks.n.ffn``."""

    x_k: Annotated[Array, "1 1 C"]
    key: Annotated[Matrix, "F C"]
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


RANKS = ("Dw", "Da", "Dv", "Dg")
WEIGHTS = {"rwkv7": Weights}
IGNORE = (r"blocks\.0\.att\.v[012]",)


def required(names: Container[str]) -> tuple[str, ...]:
    """Return patterns of the optional tensors that a file must hold: the value residual, but in layer 0."""
    return (r"blocks\.[1-9][0-9]*\.att\.v[012]",)


class Layer(RWKVLayer):
    """One layer of RWKV-7."""

    def __init__(self, block: Block, config: RWKVConfig, dtype: np.dtype[Any]) -> None:
        super().__init__(block, config, dtype)
        att, widened = block.att, partial(vector, dtype=dtype)
        self._att, self._ffn = att, block.ffn
        names = ("x_r", "x_k", "x_v", "x_w", "x_a", "x_g")
        self._mixes = mixes(names, [widened(getattr(att, name)) for name in names])
        self._ffn_mix = mixes(("x_k",), [widened(block.ffn.x_k)])
        v0 = np.zeros_like(att.w0) if att.v0 is None else att.v0
        constants = (att.w0, att.a0, v0, att.k_k, att.k_a, att.r_k, att.ln_x.weight, att.ln_x.bias)
        self._constants = np.stack([widened(each).reshape(-1) for each in constants])

    def time_mix(self, o: Operations, x: Value, z: Value, previous: Value, v_first: Value) -> tuple[Value, Value]:
        """Return x plus the time mix of z, and the values of the first layer."""
        att = self._att
        x_r, x_k, x_v, x_w, x_a, x_g = o.mix(z, previous, self._mixes)
        residual = {} if att.v1 is None or att.v2 is None else {"nu": LowRank(x_v, att.v1, att.v2)}
        r, k, v, w, a, g, *nu = o.multiply(
            r=Product(x_r, att.receptance.weight),
            k=Product(x_k, att.key.weight),
            v=Product(x_v, att.value.weight),
            w=LowRank(x_w, att.w1, att.w2, "tanh"),
            a=LowRank(x_a, att.a1, att.a2),
            g=LowRank(x_g, att.g1, att.g2, "sigmoid"),
            **residual,
        )
        if v_first is None:
            v_first, nu = v, []
        c = self.config
        y = o.rwkv7(
            r, w, k, v, a, g, nu[0] if nu else None, v_first if nu else None, self._constants, c.group_norm_eps,
            c.n_head, "wkv",
        )  # fmt: skip
        return o.add_product(x, Product(y, att.output.weight)), v_first

    def channel_mix(self, o: Operations, x: Value, z: Value, previous: Value) -> Value:
        """Return x plus the channel mix of z."""
        (x_k,) = o.mix(z, previous, self._ffn_mix)
        return o.add_feed_forward(x, Product(x_k, self._ffn.key.weight, "relu_squared"), self._ffn.value.weight)


network = partial(rwkv_network, Layer)
