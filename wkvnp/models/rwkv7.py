"""RWKV-7 "Goose" as a language model.

Letters: M packed tokens, C channels, A attention width, H heads, N head size, F feed-forward width, V vocabulary,
Dw, Da, Dv, Dg ranks. Factors are stored [in, rank] and [rank, out], matrices [out, in].

References
----------
Peng et al. 2025 (arXiv:2503.14456), section 4 and appendix A; BlinkDL/RWKV-LM, ``RWKV-v7/rwkv_v7_demo.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import numpy as np

from ..checkpoints.naming import Array, Matrix, Norm
from ..decoding import Pair, Place, Program, rwkv7_heads, rwkv7_tokens
from ..primitives.linear_map import Activation, Product, linear_map, multiply
from ..primitives.shift import mixtures
from .rwkv_layer import RWKVConfig, RWKVLayer, rwkv_network


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


@dataclass(frozen=True)
class Small:
    """What a block's small tensors become once: vectors in the dtype of the activations."""

    share: Array  # (6, 1, C): r, k, v, w, a, g
    pairs: tuple[tuple[Array, Array, Activation], ...]  # low-rank factors of v (but in layer 0), w, a, g
    vectors: Array  # (8, A): w0, a0, v0 or zeros, k_k, k_a, r_k, scale and shift of the norm
    channel_share: Array  # (1, 1, C)
    heads: int
    eps: float


def prepare(block: Block, config: RWKVConfig, vector: Callable[[Array], Array]) -> Small:
    """Widen the small tensors of a block."""
    att = block.att
    pairs: tuple[tuple[Array, Array, Activation], ...] = (
        (att.w1, att.w2, "tanh"),
        (att.a1, att.a2, "linear"),
        (att.g1, att.g2, "sigmoid"),
    )
    if att.v1 is not None and att.v2 is not None:
        pairs = ((att.v1, att.v2, "linear"), *pairs)
    v0 = np.zeros_like(att.w0) if att.v0 is None else att.v0
    parts = (att.w0, att.a0, v0, att.k_k, att.k_a, att.r_k, att.ln_x.weight, att.ln_x.bias)
    return Small(
        share=np.concatenate([vector(part) for part in (att.x_r, att.x_k, att.x_v, att.x_w, att.x_a, att.x_g)]),
        pairs=pairs,
        vectors=np.stack([vector(part).reshape(-1) for part in parts]),
        channel_share=vector(block.ffn.x_k),
        heads=config.n_head,
        eps=config.group_norm_eps,
    )


def time_mix(
    x: Array, z: Array, previous: Array, att: TimeMix, small: Small, state: Any, offsets: Array, v_first: Array | None
) -> tuple[Array, Array, Array]:
    """Return x plus the time mix of z (M, C), the state of the recurrence, and the first layer's values."""
    mixed, matrices = mixtures(z, previous, small.share), (att.receptance, att.key, att.value)
    products = [Product(m, matrix.weight) for m, matrix in zip(mixed, matrices, strict=False)]
    for m, (down, up, activation) in zip(mixed[6 - len(small.pairs) :], small.pairs, strict=True):
        products.append(Product(Product(m, down, activation, by_inputs=True), up, by_inputs=True))
    r, k, v, *nu, w, a, g = multiply(products)
    y, final = rwkv7_tokens(r, k, v, (w, a, g, *nu), small.vectors, v_first, state, offsets, small.eps)
    return linear_map(y, att.output.weight, added=x), final, v if v_first is None else v_first


def channel_mix(x: Array, z: Array, previous: Array, ffn: ChannelMix, small: Small) -> Array:
    """Return x plus the channel mix of z (M, C)."""
    (x_k,) = mixtures(z, previous, small.channel_share)
    return linear_map(Product(x_k, ffn.key.weight, "relu_squared"), ffn.value.weight, added=x)


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
    A, pairs = small.vectors.shape[1], small.pairs
    names = ["r", "k", "v of the first layer" if carry is None else "v", "y"]
    r, k, v, y = (p.shared(name, A) for name in names)
    p.phase()
    z = norm()
    mixed = p.mix(z, shift[0], small.share.reshape(6, -1))
    for m, matrix, result in zip(mixed, (att.receptance, att.key, att.value), (r, k, v), strict=False):
        p.product(m, matrix.weight, result)
    hidden = [p.shared(f"low {n}", down.shape[1]) for n, (down, _, _) in enumerate(pairs)]
    for m, (down, _, activation), low in zip(mixed[6 - len(pairs) :], pairs, hidden, strict=True):
        p.product(m, down.T, low, activation=activation)
    p.copy(z, shift[1])
    p.phase()
    order = [*range(len(pairs) - 3, len(pairs)), *range(len(pairs) - 3)]  # w, a, g and v
    rwkv7_heads(
        p, r, k, v, [hidden[n] for n in order], [pairs[n][1] for n in order],
        small.vectors,
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
