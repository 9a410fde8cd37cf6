"""RWKV-4 "Dove" as a language model.

Letters: M packed tokens, C channels, A attention width, F feed-forward width, V vocabulary. Matrices are [out, in].

References
----------
Peng et al. 2023 (arXiv:2305.13048), section 3; BlinkDL/ChatRWKV, ``RWKV_in_150_lines.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import numpy as np

from ..checkpoints.naming import Array, Matrix, Norm
from ..decoding import Pair, Place, Program, wkv
from ..mechanisms.rwkv4 import WKVState
from ..mechanisms.rwkv4 import packed as rwkv4
from ..primitives.linear_map import Product, linear_map, multiply
from ..primitives.shift import mixtures
from .channel_mix import ChannelMix, gated_channel_mix, gated_channel_mix_steps
from .rwkv_layer import RWKVConfig, RWKVLayer, rwkv_network


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


@dataclass(frozen=True)
class Small:
    """What a block's small tensors become once: vectors in the dtype of the activations."""

    share: Array  # (3, 1, C) of the previous token, for k, v, r: one minus the stored share of the current one
    log_decay: Array
    u: Array
    channel_share: Array  # (2, 1, C) for k, r


def log_decay_of(time_decay: Array) -> Array:
    """Return the log decay per token, -exp(time_decay), of RWKV-4 and RWKV-5."""
    return -np.exp(time_decay)


def prepare(block: Block, config: RWKVConfig, vector: Callable[[Array], Array]) -> Small:
    """Widen the small tensors of a block."""
    att, ffn = block.att, block.ffn
    return Small(
        share=1 - np.concatenate([vector(part) for part in (att.time_mix_k, att.time_mix_v, att.time_mix_r)]),
        log_decay=log_decay_of(vector(att.time_decay)),
        u=vector(att.time_first),
        channel_share=1 - np.concatenate([vector(ffn.time_mix_k), vector(ffn.time_mix_r)]),
    )


def time_mix(
    x: Array, z: Array, previous: Array, att: TimeMix, small: Small, state: Any, offsets: Array, carry: Any
) -> tuple[Array, WKVState, Any]:
    """Return x plus the time mix of z (M, C), the state of the recurrence, and what goes up the layers: nothing."""
    m_k, m_v, m_r = mixtures(z, previous, small.share)
    products = [Product(m_k, att.key.weight), Product(m_v, att.value.weight)]
    k, v, r = multiply([*products, Product(m_r, att.receptance.weight, "sigmoid")])
    y, final = rwkv4(small.log_decay, small.u, k, v, state=state, offsets=offsets)
    return linear_map(r * y, att.output.weight, added=x), final, carry


def channel_mix(x: Array, z: Array, previous: Array, ffn: ChannelMix, small: Small) -> Array:
    """Return x plus the channel mix of z (M, C)."""
    return gated_channel_mix(x, z, previous, ffn, small.channel_share)


def time_mix_steps(
    p: Program, norm: Callable[[], Place], shift: Pair, att: TimeMix, small: Small, wkv_state: list[Pair], x: Place,
    carry: Any,
) -> Any:  # fmt: skip
    """Add the time mix of one token of every sequence; return what goes up the layers: nothing."""
    r, k, v, y = (p.shared(name, len(small.u)) for name in ("r", "k", "v", "y"))
    p.phase()
    z = norm()
    m = p.mix(z, shift[0], small.share.reshape(3, -1))
    p.product(m[0], att.key.weight, k)
    p.product(m[1], att.value.weight, v)
    p.product(m[2], att.receptance.weight, r, activation="sigmoid")
    p.copy(z, shift[1])
    p.phase()
    wkv(p, r, k, v, small.log_decay, small.u, wkv_state, y)
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
