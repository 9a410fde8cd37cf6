"""RWKV-7 "Goose" as a language model.

Letters: M packed tokens, C channels, A attention width, H heads, N head size, F feed-forward width, V vocabulary,
Dw, Da, Dv, Dg ranks. Factors are stored [in, rank] and [rank, out], matrices [out, in].

References
----------
Peng et al. 2025 (arXiv:2503.14456), section 4 and appendix A; BlinkDL/RWKV-LM, ``RWKV-v7/rwkv_v7_demo.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import numpy as np

from .. import _scalar as scalar
from ..checkpoints.naming import Array, Matrix, Norm
from ..decoding import Pair, Place, Program, rwkv7_heads
from ..mechanisms.rwkv7 import packed as rwkv7
from ..primitives.elementwise import elementwise, relu_squared
from ..primitives.linear_map import Activation, linear_map, linear_maps, low_ranks
from ..primitives.norm import group_norm, l2_normalize
from ..primitives.shift import mix
from .rwkv_layer import RWKVConfig, RWKVLayer, rwkv_network

_FASTEST = -math.exp(-0.5)


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


@elementwise
def bounded_log_decay(x: Any, w0: Any) -> Any:
    """Return -exp(-1/2) sigmoid(w0 + x): a decay per token between 0.545 and 1."""
    return scalar.cast(_FASTEST, x) * scalar.sigmoid(w0 + x)


@elementwise
def learning_rate(x: Any, a0: Any) -> Any:
    """Return sigmoid(a0 + x): how much of the recalled value is overwritten."""
    return scalar.sigmoid(a0 + x)


@elementwise
def residual_value(v: Any, v_first: Any, x: Any, v0: Any) -> Any:
    """Move the value towards that of the first layer."""
    return v + (v_first - v) * scalar.sigmoid(v0 + x)


@dataclass(frozen=True)
class Small:
    """What a block's small tensors become once: vectors in the dtype of the activations."""

    share: Array  # (6, 1, C): r, k, v, w, a, g
    pairs: tuple[tuple[Array, Array, Activation], ...]  # low-rank factors of v (but in layer 0), w, a, g
    w0: Array
    a0: Array
    v0: Array | None
    k_k: Array
    k_a: Array
    r_k: Array
    ln_x: tuple[Array, Array]
    channel_share: Array  # (1, 1, C)
    heads: int
    eps: float


def prepare(block: Block, config: RWKVConfig, vector: Callable[[Array], Array]) -> Small:
    """Widen the small tensors of a block."""
    att = block.att
    pairs: tuple[tuple[Array, Array, Activation], ...] = (
        (att.w1, att.w2, "tanh"),
        (att.a1, att.a2, None),
        (att.g1, att.g2, "sigmoid"),
    )
    if att.v1 is not None and att.v2 is not None:
        pairs = ((att.v1, att.v2, None), *pairs)
    return Small(
        share=np.concatenate([vector(part) for part in (att.x_r, att.x_k, att.x_v, att.x_w, att.x_a, att.x_g)]),
        pairs=pairs,
        w0=vector(att.w0).reshape(-1),
        a0=vector(att.a0).reshape(-1),
        v0=None if att.v0 is None else vector(att.v0).reshape(-1),
        k_k=vector(att.k_k).reshape(-1),
        k_a=vector(att.k_a).reshape(-1),
        r_k=vector(att.r_k),
        ln_x=(vector(att.ln_x.weight), vector(att.ln_x.bias)),
        channel_share=vector(block.ffn.x_k),
        heads=config.n_head,
        eps=config.group_norm_eps,
    )


def time_mix(
    z: Array, previous: Array, att: TimeMix, small: Small, state: Any, offsets: Array, v_first: Array | None
) -> tuple[Array, Array, Array]:
    """Return the time mix of z (M, C), the state of the recurrence, and the first layer's values."""
    mixed = mix(z, previous, small.share)
    r, k, v = linear_maps(mixed[:3], (att.receptance.weight, att.key.weight, att.value.weight))
    *nu, w, a, g = low_ranks(mixed[6 - len(small.pairs) :], small.pairs)
    log_decay, a = bounded_log_decay(w, small.w0), learning_rate(a, small.a0)
    if v_first is None:
        v_first = v
    elif nu:
        v = residual_value(v, v_first, nu[0], small.v0)

    def heads(array: Array) -> Array:
        return array.reshape(len(z), small.heads, -1)

    kappa = l2_normalize(heads(k * small.k_k))
    k = k * (1 + (a - 1) * small.k_a)
    y, final = rwkv7(
        heads(r), heads(log_decay), heads(k), heads(v), -kappa, kappa * heads(a), state=state, offsets=offsets
    )
    y = group_norm(y.reshape(v.shape), *small.ln_x, small.heads, small.eps)
    bonus = np.sum(heads(r * k) * small.r_k, axis=-1, keepdims=True) * heads(v)
    return linear_map((y + bonus.reshape(v.shape)) * g, att.output.weight), final, v_first


def channel_mix(z: Array, previous: Array, ffn: ChannelMix, small: Small) -> Array:
    """Return the channel mix of z (M, C)."""
    (x_k,) = mix(z, previous, small.channel_share)
    return linear_map(relu_squared(linear_map(x_k, ffn.key.weight)), ffn.value.weight)


def time_mix_steps(
    p: Program,
    norm: Callable[[], Place],
    shift: Pair,
    att: TimeMix,
    small: Small,
    wkv: list[Pair],
    x: Place,
    carry: Any,
) -> Place:
    """Add the time mix of one token of every sequence; return where the first layer's values stand."""
    A, pairs = len(small.w0), small.pairs
    names = ["r", "k", "v of the first layer" if carry is None else "v", "y"]
    r, k, v, y = (p.shared(name, A) for name in names)
    p.phase()
    z = norm()
    mixed = p.mix(z, shift[0], small.share.reshape(6, -1))
    for m, matrix, result in zip(mixed, (att.receptance, att.key, att.value), (r, k, v), strict=False):
        p.product(m, matrix.weight, result)
    hidden = [p.shared(f"low {n}", down.shape[1]) for n, (down, _, _) in enumerate(pairs)]
    for m, (down, _, activation), low in zip(mixed[6 - len(pairs) :], pairs, hidden, strict=True):
        p.product(m, down.T, low, activation=activation or "linear")
    p.copy(z, shift[1])
    p.phase()
    order = [*range(len(pairs) - 3, len(pairs)), *range(len(pairs) - 3)]  # w, a, g and v
    v0 = small.w0 if small.v0 is None else small.v0
    rwkv7_heads(
        p, r, k, v, [hidden[n] for n in order], [pairs[n][1] for n in order],
        (small.w0, small.a0, v0, small.k_k, small.k_a, small.r_k, *small.ln_x),
        wkv[0], carry, y, small.heads, small.eps,
    )  # fmt: skip
    p.phase()
    p.product(y, att.output.weight, x, add=True)
    return v if carry is None else carry


def channel_mix_steps(
    p: Program, norm: Callable[[], Place], shift: Pair, ffn: ChannelMix, small: Small, x: Place
) -> None:
    """Add the channel mix of one token of every sequence."""
    hidden = p.shared("hidden", len(ffn.key.weight))
    p.phase()
    z = norm()
    (x_k,) = p.mix(z, shift[0], small.channel_share.reshape(1, -1))
    p.product(x_k, ffn.key.weight, hidden, activation="relu_squared")
    p.copy(z, shift[1])
    p.phase()
    p.product(hidden, ffn.value.weight, x, add=True)


layer = partial(RWKVLayer, prepare, time_mix, channel_mix, time_mix_steps, channel_mix_steps)
network = partial(rwkv_network, layer)
