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
from ..mechanisms.rwkv4 import WKVState
from ..mechanisms.rwkv4 import packed as rwkv4
from ..primitives.elementwise import sigmoid
from ..primitives.linear_map import linear_map, linear_maps
from ..primitives.shift import mix
from .channel_mix import ChannelMix, gated_channel_mix
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
    z: Array, previous: Array, att: TimeMix, small: Small, state: Any, offsets: Array, carry: Any
) -> tuple[Array, WKVState, Any]:
    """Return the time mix of z (M, C), the state of the recurrence, and what goes up the layers: nothing."""
    m = mix(z, previous, small.share)
    k, v, r = linear_maps(m, (att.key.weight, att.value.weight, att.receptance.weight))
    y, final = rwkv4(small.log_decay, small.u, k, v, state=state, offsets=offsets)
    return linear_map(sigmoid(r) * y, att.output.weight), final, carry


def channel_mix(z: Array, previous: Array, ffn: ChannelMix, small: Small) -> Array:
    """Return the channel mix of z (M, C)."""
    return gated_channel_mix(z, previous, ffn, small.channel_share)


layer = partial(RWKVLayer, prepare, time_mix, channel_mix)
network = partial(rwkv_network, layer)
