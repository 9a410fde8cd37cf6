"""RWKV-6 "Finch" as a language model.

Letters: M packed tokens, C channels, A attention width, H heads, N head size, F feed-forward width, V vocabulary,
R rank of the mix, D rank of the decay. Factors are stored [in, rank] and [rank, out], matrices [out, in].

References
----------
Peng et al. 2024 (arXiv:2404.05892), section 4.2; BlinkDL/ChatRWKV, ``RWKV_v6_demo.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import numpy as np

from .. import _scalar as scalar
from ..checkpoints.naming import Array, Matrix, Norm
from ..decoding import Pair, Place, Program, gated_linear_heads
from ..mechanisms.rwkv6 import packed as rwkv6
from ..primitives.elementwise import elementwise
from ..primitives.linear_map import Product, linear_map, low_rank, low_rank_groups, multiply
from ..primitives.norm import group_norm
from ..primitives.shift import Mixture, mixtures
from .channel_mix import gated_channel_mix, gated_channel_mix_steps
from .rwkv_layer import RWKVConfig, RWKVLayer, rwkv_network


@dataclass(frozen=True, eq=False)
class TimeMix:
    """``blocks.n.att``. The five groups of the low-rank mix stand in the order w, k, v, r, g."""

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


@elementwise
def log_decay_of(x: Any, time_decay: Any) -> Any:
    """Return -exp(time_decay + x): the log decay of each channel and token."""
    return -scalar.exp(time_decay + x)


@dataclass(frozen=True)
class Small:
    """What a block's small tensors become once: vectors in the dtype of the activations."""

    share_x: Array  # (1, 1, C)
    share: Array  # (5, 1, C): w, k, v, r, g
    time_decay: Array
    u: Array
    ln_x: tuple[Array, Array]
    channel_share: Array  # (2, 1, C) for k, r
    heads: int
    eps: float


def prepare(block: Block, config: RWKVConfig, vector: Callable[[Array], Array]) -> Small:
    """Widen the small tensors of a block."""
    att, ffn = block.att, block.ffn
    shares = (att.time_maa_w, att.time_maa_k, att.time_maa_v, att.time_maa_r, att.time_maa_g)
    return Small(
        share_x=vector(att.time_maa_x),
        share=np.concatenate([vector(part) for part in shares]),
        time_decay=vector(att.time_decay).reshape(-1),
        u=vector(att.time_faaaa),
        ln_x=(vector(att.ln_x.weight), vector(att.ln_x.bias)),
        channel_share=np.concatenate([vector(ffn.time_maa_k), vector(ffn.time_maa_r)]),
        heads=config.n_head,
        eps=config.group_norm_eps,
    )


def moved(z: Array, previous: Array, att: TimeMix, small: Small) -> list[Mixture]:
    """Return the mixtures (5, M, C) for w, k, v, r, g: every token decides its share of the previous one."""
    (s,) = mixtures(z, previous, small.share_x)
    return mixtures(z, previous, small.share + low_rank_groups(s, att.time_maa_w1, att.time_maa_w2, "tanh"))


def time_mix(
    x: Array, z: Array, previous: Array, att: TimeMix, small: Small, state: Any, offsets: Array, carry: Any
) -> tuple[Array, Array, Any]:
    """Return x plus the time mix of z (M, C), the state of the recurrence, and what goes up the layers: nothing."""
    m_w, m_k, m_v, m_r, m_g = moved(z, previous, att, small)

    def heads(array: Array) -> Array:
        return array.reshape(len(z), small.heads, -1)

    products = [Product(m_k, att.key.weight), Product(m_v, att.value.weight), Product(m_r, att.receptance.weight)]
    k, v, r, g = multiply([*products, Product(m_g, att.gate.weight, "silu")])
    log_decay = log_decay_of(low_rank(m_w, att.time_decay_w1, att.time_decay_w2, "tanh"), small.time_decay)
    y, final = rwkv6(heads(r), heads(log_decay), heads(k), heads(v), small.u, state=state, offsets=offsets)
    y = group_norm(y.reshape(v.shape), *small.ln_x, small.heads, small.eps)
    return linear_map(y * g, att.output.weight, added=x), final, carry


def channel_mix(x: Array, z: Array, previous: Array, ffn: ChannelMix, small: Small) -> Array:
    """Return x plus the channel mix of z (M, C)."""
    return gated_channel_mix(x, z, previous, ffn, small.channel_share)


def time_mix_steps(
    p: Program,
    norm: Callable[[], Place],
    shift: Pair,
    att: TimeMix,
    small: Small,
    wkv: list[Pair],
    x: Place,
    carry: Any,
) -> Any:
    """Add the time mix of one token of every sequence; return what goes up the layers: nothing."""
    A, C, R = len(small.time_decay), x.size, att.time_maa_w2.shape[1]
    share = small.share.reshape(5, C)
    low, decay = p.shared("low", 5 * R), p.shared("decay", att.time_decay_w1.shape[1])
    moved = [p.shared(f"moved {name}", C) for name in "wkvrg"]
    r, k, v, g, y = (p.shared(name, A) for name in ("r", "k", "v", "g", "y"))
    p.phase()
    z = norm()
    (s,) = p.mix(z, shift[0], small.share_x.reshape(1, C))
    p.product(s, att.time_maa_w1.T, low, activation="tanh")
    p.phase()
    for n, place in enumerate(moved):
        p.product(low.part(n * R, R), att.time_maa_w2[n].T, place)
    p.phase()
    z = norm()
    m = [p.mix(z, shift[0], share[n : n + 1], [place])[0] for n, place in enumerate(moved)]
    p.product(m[0], att.time_decay_w1.T, decay, activation="tanh")
    p.product(m[1], att.key.weight, k)
    p.product(m[2], att.value.weight, v)
    p.product(m[3], att.receptance.weight, r)
    p.product(m[4], att.gate.weight, g, activation="silu")
    p.copy(z, shift[1])
    p.phase()
    gated_linear_heads(
        p, r, k, v, g, small.time_decay, (decay, att.time_decay_w2), small.u, small.ln_x, wkv[0], y, small.heads,
        small.eps,
    )  # fmt: skip
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
