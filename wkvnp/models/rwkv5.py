"""RWKV-5 "Eagle" as a language model, in its three published shapes.

5.0 has one decay and one bonus a head and no gate; 5.1 adds the gate; 5.2 has a decay and a bonus per channel.

Letters: M packed tokens, C channels, A attention width, H heads, N head size, F feed-forward width, V vocabulary.
Matrices are [out, in].

References
----------
Peng et al. 2024 (arXiv:2404.05892), section 4.1; BlinkDL/ChatRWKV, ``RWKV_v5_demo.py``.
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
from .rwkv4 import log_decay_of
from .rwkv_layer import RWKVConfig, mixes, rwkv_network


@dataclass(frozen=True, eq=False, kw_only=True)
class TimeMix50:
    """``blocks.n.att`` of RWKV-5.0. The bonus is `time_first`, stored as a logarithm, or `time_faaaa`, as it is."""

    time_decay: Annotated[Array, "H"]
    time_first: Annotated[Array | None, "H"] = None
    time_faaaa: Annotated[Array | None, "H"] = None
    time_mix_k: Annotated[Array, "1 1 C"]
    time_mix_v: Annotated[Array, "1 1 C"]
    time_mix_r: Annotated[Array, "1 1 C"]
    receptance: Annotated[Matrix, "A C"]
    key: Annotated[Matrix, "A C"]
    value: Annotated[Matrix, "A C"]
    output: Annotated[Matrix, "C A"]
    ln_x: Annotated[Norm, "A"]
    time_state: Annotated[Array | None, "H N N"] = None


@dataclass(frozen=True, eq=False, kw_only=True)
class TimeMix51(TimeMix50):
    """``blocks.n.att`` of RWKV-5.1."""

    time_mix_g: Annotated[Array, "1 1 C"]
    gate: Annotated[Matrix, "A C"]


@dataclass(frozen=True, eq=False, kw_only=True)
class TimeMix52(TimeMix51):
    """``blocks.n.att`` of RWKV-5.2."""

    time_decay: Annotated[Array, "H N"]
    time_first: Annotated[Array | None, "H N"] = None
    time_faaaa: Annotated[Array | None, "H N"] = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Block50:
    """``blocks.n`` of RWKV-5.0."""

    ln1: Annotated[Norm, "C"]
    ln2: Annotated[Norm, "C"]
    att: TimeMix50
    ffn: ChannelMix
    ln0: Annotated[Norm | None, "C"] = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Block51(Block50):
    """``blocks.n`` of RWKV-5.1."""

    att: TimeMix51


@dataclass(frozen=True, eq=False, kw_only=True)
class Block52(Block50):
    """``blocks.n`` of RWKV-5.2."""

    att: TimeMix52


@dataclass(frozen=True, eq=False)
class Weights50:
    """All tensors of an RWKV-5.0 checkpoint."""

    emb: Annotated[Matrix, "V C"]
    blocks: tuple[Block50, ...]
    ln_out: Annotated[Norm, "C"]
    head: Annotated[Matrix, "V C"]


@dataclass(frozen=True, eq=False)
class Weights51(Weights50):
    """All tensors of an RWKV-5.1 checkpoint."""

    blocks: tuple[Block51, ...]


@dataclass(frozen=True, eq=False)
class Weights52(Weights50):
    """All tensors of an RWKV-5.2 checkpoint."""

    blocks: tuple[Block52, ...]


WEIGHTS = {"rwkv5.0": Weights50, "rwkv5.1": Weights51, "rwkv5.2": Weights52}
RANKS = ()
IGNORE = ()


def required(names: Container[str]) -> tuple[str, ...]:
    """Return patterns of the optional tensors that a file must hold: the kind of bonus that block 0 has."""
    kind = "time_first" if "blocks.0.att.time_first" in names else "time_faaaa"
    return (rf"blocks\.[0-9]+\.att\.{kind}",)


class Layer(GatedChannelMix):
    """One layer of RWKV-5."""

    def __init__(self, block: Block50, config: RWKVConfig, dtype: np.dtype[Any]) -> None:
        ffn, widened = block.ffn, partial(vector, dtype=dtype)
        # Checkpoints store the share of the current token.
        super().__init__(block, config, dtype, [1 - widened(ffn.time_mix_k), 1 - widened(ffn.time_mix_r)])
        att = self._att = block.att
        shares = {"x_r": att.time_mix_r, "x_k": att.time_mix_k, "x_v": att.time_mix_v}
        if isinstance(att, TimeMix51):
            shares["x_g"] = att.time_mix_g
        self._mixes = mixes(tuple(shares), [1 - widened(share) for share in shares.values()])
        self._log_decay = log_decay_of(widened(att.time_decay))
        self._u = widened(att.time_faaaa) if att.time_first is None else np.exp(widened(att.time_first))  # type: ignore[arg-type]
        self._ln_x = widened(att.ln_x.weight), widened(att.ln_x.bias)

    def time_mix(self, o: Operations, x: Value, z: Value, previous: Value, v_first: Value) -> tuple[Value, Value]:
        """Return x plus the time mix of z."""
        att, c = self._att, self.config
        x_r, x_k, x_v, *x_g = o.mix(z, previous, self._mixes)
        gate = {"g": Product(x_g[0], att.gate.weight, "silu")} if isinstance(att, TimeMix51) else {}
        r, k, v, *g = o.multiply(
            r=Product(x_r, att.receptance.weight),
            k=Product(x_k, att.key.weight),
            v=Product(x_v, att.value.weight),
            **gate,
        )
        gate_value = g[0] if g else None
        y = o.gated_linear(r, k, v, gate_value, self._log_decay, self._u, self._ln_x, c.group_norm_eps, c.n_head, "wkv")
        return o.add_product(x, Product(y, att.output.weight)), v_first


network = partial(rwkv_network, Layer)
