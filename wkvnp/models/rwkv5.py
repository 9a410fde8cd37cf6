"""RWKV-5 "Eagle" as a language model, in its three published shapes.

5.0 has one decay and one bonus a head and no gate; 5.1 adds the gate; 5.2 has a decay and a bonus per channel.

Letters: M packed tokens, C channels, A attention width, H heads, N head size, F feed-forward width, V vocabulary.
Matrices are [out, in].

References
----------
Peng et al. 2024 (arXiv:2404.05892), section 4.1; BlinkDL/ChatRWKV, ``RWKV_v5_demo.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import numpy as np

from ..checkpoints.naming import Array, Matrix, Norm
from ..decoding import Pair, Place, Program, gated_linear_heads
from ..mechanisms.rwkv5 import packed as rwkv5
from ..primitives.linear_map import Product, linear_map, multiply
from ..primitives.norm import group_norm
from ..primitives.shift import mixtures
from .channel_mix import ChannelMix, gated_channel_mix, gated_channel_mix_steps
from .rwkv4 import log_decay_of
from .rwkv_layer import RWKVConfig, RWKVLayer, rwkv_network


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


@dataclass(frozen=True)
class Small:
    """What a block's small tensors become once: vectors in the dtype of the activations."""

    share: Array  # (3 or 4, 1, C) of the previous token, for r, k, v and g: one minus the stored share
    log_decay: Array  # (H,) or (H, N)
    u: Array  # (H,) or (H, N)
    ln_x: tuple[Array, Array]
    channel_share: Array  # (2, 1, C) for k, r
    heads: int
    eps: float


def prepare(block: Block50, config: RWKVConfig, vector: Callable[[Array], Array]) -> Small:
    """Widen the small tensors of a block."""
    att, ffn = block.att, block.ffn
    shares = [att.time_mix_r, att.time_mix_k, att.time_mix_v]
    if isinstance(att, TimeMix51):
        shares.append(att.time_mix_g)
    if att.time_first is not None:
        u = np.exp(vector(att.time_first))
    else:
        assert att.time_faaaa is not None, "the loader requires a bonus"
        u = vector(att.time_faaaa)
    return Small(
        share=1 - np.concatenate([vector(part) for part in shares]),
        log_decay=log_decay_of(vector(att.time_decay)),
        u=u,
        ln_x=(vector(att.ln_x.weight), vector(att.ln_x.bias)),
        channel_share=1 - np.concatenate([vector(ffn.time_mix_k), vector(ffn.time_mix_r)]),
        heads=config.n_head,
        eps=config.group_norm_eps,
    )


def time_mix(
    x: Array, z: Array, previous: Array, att: TimeMix50, small: Small, state: Any, offsets: Array, carry: Any
) -> tuple[Array, Array, Any]:
    """Return x plus the time mix of z (M, C), the state of the recurrence, and what goes up the layers: nothing."""
    m, matrices = mixtures(z, previous, small.share), (att.receptance, att.key, att.value)

    def heads(array: Array) -> Array:
        return array.reshape(len(z), small.heads, -1)

    products = [Product(*pair) for pair in zip(m, (matrix.weight for matrix in matrices), strict=False)]
    if isinstance(att, TimeMix51):
        products.append(Product(m[3], att.gate.weight, "silu"))
    r, k, v, *g = multiply(products)
    y, final = rwkv5(heads(r), small.log_decay, heads(k), heads(v), small.u, state=state, offsets=offsets)
    y = group_norm(y.reshape(len(z), -1), *small.ln_x, small.heads, small.eps)
    if g:
        y = y * g[0]
    return linear_map(y, att.output.weight, added=x), final, carry


def channel_mix(x: Array, z: Array, previous: Array, ffn: ChannelMix, small: Small) -> Array:
    """Return x plus the channel mix of z (M, C)."""
    return gated_channel_mix(x, z, previous, ffn, small.channel_share)


def time_mix_steps(
    p: Program, norm: Callable[[], Place], shift: Pair, att: TimeMix50, small: Small, wkv: list[Pair], x: Place,
    carry: Any,
) -> Any:  # fmt: skip
    """Add the time mix of one token of every sequence; return what goes up the layers: nothing."""
    A = att.output.weight.shape[1]
    r, k, v, y = (p.shared(name, A) for name in ("r", "k", "v", "y"))
    p.phase()
    z = norm()
    m = p.mix(z, shift[0], small.share.reshape(len(small.share), -1))
    p.product(m[0], att.receptance.weight, r)
    p.product(m[1], att.key.weight, k)
    p.product(m[2], att.value.weight, v)
    g = None
    if isinstance(att, TimeMix51):
        g = p.shared("g", A)
        p.product(m[3], att.gate.weight, g, activation="silu")
    p.copy(z, shift[1])
    p.phase()
    log_decay, u = (np.repeat(part.reshape(-1), A // part.size) for part in (small.log_decay, small.u))
    gated_linear_heads(p, r, k, v, g, log_decay, None, u, small.ln_x, wkv[0], y, small.heads, small.eps)
    p.phase()
    p.product(y, att.output.weight, x, add=True)
    return carry


def channel_mix_steps(
    p: Program, norm: Callable[[], Place], shift: Pair, ffn: ChannelMix, small: Small, x: Place
) -> None:
    """Add the channel mix of one token of every sequence."""
    gated_channel_mix_steps(p, norm, shift, ffn, small.channel_share, x)


layer = partial(RWKVLayer, prepare, time_mix, channel_mix, time_mix_steps, channel_mix_steps)
network = partial(rwkv_network, layer)
