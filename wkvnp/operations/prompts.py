"""Blocks on prompts: every operation runs at once on the rows of all tokens, in primitives and mechanisms.

Letters: M tokens of B packed sequences, C channels, H heads, N head size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from .. import _scalar as scalar
from ..fused.rwkv7 import rwkv7
from ..mechanisms.gated_deltanet import packed as gated_deltanet
from ..mechanisms.mamba1 import packed as mamba1
from ..mechanisms.mamba2 import packed as mamba2
from ..mechanisms.rwkv4 import packed as rwkv4
from ..mechanisms.rwkv5 import packed as rwkv5
from ..mechanisms.rwkv6 import packed as rwkv6
from ..mechanisms.short_convolution import packed as short_convolution
from ..mechanisms.softmax_attention import packed as softmax_attention
from ..primitives import linear_map as products
from ..primitives.elementwise import elementwise, sigmoid, silu
from ..primitives.linear_map import Activation
from ..primitives.norm import group_norm, layer_norm, rms_norm
from ..primitives.rotary import rotate
from ..primitives.router import top_k_gate
from ..primitives.shift import Mixture, mixtures, shift
from .interface import Array, LowRank, Mixes, Operations, Product, SoftmaxAttention

Named = TypeVar("Named", Array, Mixture)


class Prompts(Operations):
    """An executor for packed sequences.

    Parameters
    ----------
    state : dataclass
        The state of the layer, which is not changed.
    offsets : ndarray of int64 (B + 1,)
        Where sequences begin among the rows.
    """

    def __init__(self, state: Any, offsets: Array) -> None:
        self._state, self._offsets = state, offsets
        self._after: dict[str, Any] = {}

    @property
    def state(self) -> Any:
        """The state after what has run."""
        return replace(self._state, **self._after)

    def note(self, name: str, value: Array | Mixture) -> None:
        """Take note of a value under its name; this executor forgets it."""

    def layer_norm(self, name: str, x: Array, weight: Array, bias: Array, eps: float) -> Array:
        return self._named(name, layer_norm(x, weight, bias, eps))

    def rms_norm(self, name: str, x: Array, weight: Array, eps: float, groups: int = 1) -> Array:
        return self._named(name, rms_norm(x, weight, eps, groups))

    def previous(self, x: Array, cell: str) -> Array:
        last, self._after[cell] = shift(x, getattr(self._state, cell), self._offsets)
        return last

    def mix(self, x: Array, previous: Array, mixes: Mixes, moved: Array | None = None) -> list[Mixture]:
        share = mixes.share[:, None]
        mixed = mixtures(x, previous, share if moved is None else share + moved)
        return [self._named(name, value) for name, value in zip(mixes.names, mixed, strict=True)]

    def multiply(self, **wanted: Product | LowRank) -> list[Array]:
        results = products.multiply([_product(each) for each in wanted.values()])
        return [self._named(name, value) for name, value in zip(wanted, results, strict=True)]

    def low_rank_groups(self, name: str, x: Array, down: Array, up: Array, activation: Activation) -> Array:
        return self._named(name, products.low_rank_groups(x, down, up, activation))

    def add_product(self, x: Array, product: Product, gate: Array | None = None) -> Array:
        if product.bias is not None:
            return self._named("x", x + self.multiply(out=product)[0])
        added = products.Product(product.x, product.weight, product.activation, gate, x)
        return self._named("x", products.multiply([added])[0])

    def add(self, x: Array, y: Array) -> Array:
        return self._named("x", x + y)

    def add_feed_forward(self, x: Array, hidden: Product, out: Array, gate: Array | None = None) -> Array:
        return self._named("x", products.linear_map(_product(hidden), out, gate=gate, added=x))

    def gate(self, name: str, x: Array, gate: Array) -> Array:
        return self._named(name, gated(x, gate))

    def convolve(self, name: str, x: Array, weight: Array, bias: Array | None, cell: str) -> Array:
        y, window = short_convolution(np.ascontiguousarray(x), weight, bias, getattr(self._state, cell), self._offsets)
        self._after[cell] = window
        return self._named(name, silu(y))

    def split(self, x: Array, **sizes: int) -> list[Array]:
        parts = np.split(x, np.cumsum(list(sizes.values()))[:-1], axis=1)
        return [self._named(name, part) for name, part in zip(sizes, parts, strict=True)]

    def wkv(self, r: Array, k: Array, v: Array, log_decay: Array, u: Array, cell: str) -> Array:
        y, self._after[cell] = rwkv4(log_decay, k, v, u, state=getattr(self._state, cell), offsets=self._offsets)
        return self._named("y", r * y)

    def gated_linear(
        self, r: Array, k: Array, v: Array, g: Array | None, decay: Array | tuple[Array, Array], u: Array,
        norm: tuple[Array, Array], eps: float, heads: int, cell: str,
    ) -> Array:  # fmt: skip
        r, k, v = (_heads(each, heads) for each in (r, k, v))
        how: dict[str, Any] = {"state": getattr(self._state, cell), "offsets": self._offsets}
        if isinstance(decay, tuple):
            log_decay = self._named("decay", log_decay_of(decay[1], decay[0]))
            y, self._after[cell] = rwkv6(r, _heads(log_decay, heads), k, v, u, **how)
        else:
            y, self._after[cell] = rwkv5(r, decay, k, v, u, **how)
        y = group_norm(y.reshape(len(y), -1), *norm, heads, eps)
        return self._named("y", y if g is None else y * g)

    def rwkv7(
        self, r: Array, w: Array, k: Array, v: Array, a: Array, g: Array, nu: Array | None, v_first: Array | None,
        constants: Array, eps: float, heads: int, cell: str,
    ) -> Array:  # fmt: skip
        state = getattr(self._state, cell)
        y, self._after[cell] = rwkv7(r, w, k, v, a, g, nu, v_first, constants, state, self._offsets, eps)
        return self._named("y", y)

    def selective(
        self, x: Array, z: Array, dt: Array, dt_weight: Array, dt_bias: Array, B: Array, C: Array, A: Array, D: Array,
        cell: str,
    ) -> Array:  # fmt: skip
        dt = self._named("dt", step_size(products.linear_map(dt, dt_weight), dt_bias))
        state, gate = getattr(self._state, cell), np.ascontiguousarray(z)
        y, self._after[cell] = mamba1(x, dt, A, B, C, D, gate, state, self._offsets)
        return self._named("y", y)

    def state_space(
        self, x: Array, B: Array, C: Array, dt: Array, dt_bias: Array, A: Array, D: Array,
        limits: tuple[float, float], groups: int, cell: str,
    ) -> Array:  # fmt: skip
        dt, heads = step_size(dt, dt_bias), len(A)
        if limits != (0.0, float("inf")):
            np.clip(dt, *limits, out=dt)
        x, B, C = (np.ascontiguousarray(each) for each in (x, B, C))
        y, self._after[cell] = mamba2(
            _heads(x, heads), self._named("dt", dt), A, _heads(B, groups), _heads(C, groups), D, None,
            getattr(self._state, cell), self._offsets,
        )  # fmt: skip
        return self._named("y", y.reshape(len(y), -1))

    def attention(self, q: Array, k: Array, v: Array, how: SoftmaxAttention) -> Array:
        cos, sin, self._after["seen"] = how.rotation(self._state.seen, self._offsets)
        q, k = (_normed(x, norm, how) for x, norm in ((q, how.q_norm), (k, how.k_norm)))
        q, k = (self._named(name, rotate(x, cos, sin)) for name, x in (("q", q), ("k", k)))
        v = v.reshape(len(v), -1, how.width)
        y, kv = softmax_attention(q, k, v, None, None, self._state.kv, self._offsets, window=how.window)
        self._after["kv"] = kv if how.window is None else kv.within(how.window)
        return self._named("y", y.reshape(len(y), -1))

    def delta_rule(
        self, q: Array, k: Array, v: Array, b: Array, a: Array, A_log: Array, dt_bias: Array,
        sizes: tuple[int, int], cell: str,
    ) -> Array:  # fmt: skip
        beta, log_decay = self._named("beta", sigmoid(b)), self._named("decay", delta_log_decay(a + dt_bias, A_log))
        q, k, v = (_heads(np.ascontiguousarray(x), n) for x, n in ((q, sizes[0]), (k, sizes[0]), (v, sizes[1])))
        y, self._after[cell] = gated_deltanet(q, k, v, beta, log_decay, getattr(self._state, cell), self._offsets)
        return self._named("y", y.reshape(len(y), -1))

    def interleaved(self, x: Array, heads: int, **sizes: int) -> list[Array]:
        parts = np.split(x.reshape(len(x), heads, -1), np.cumsum(list(sizes.values()))[:-1], axis=2)
        return [self._named(name, part.reshape(len(x), -1)) for name, part in zip(sizes, parts, strict=True)]

    def join(self, *parts: Array) -> Array:
        return np.hstack(parts)

    def sigmoid_gate(self, name: str, x: Array, gate: Array) -> Array:
        return self._named(name, x * sigmoid(gate))

    def experts(
        self, x: Array, router: Array, run: Sequence[Callable[..., Array]], chosen: int, normalize: bool
    ) -> Array:
        found = top_k_gate(products.linear_map(x, router), chosen, normalize=normalize)
        y = np.zeros_like(x)
        for expert in np.unique(found.experts):  # in the order of numbers, so that a token's sum is its own
            tokens, ranks = np.nonzero(found.experts == expert)
            y[tokens] += found.weights[tokens, ranks, None] * run[expert](self, x[tokens])
        return self._named("experts", y)

    def _named(self, name: str, value: Named) -> Named:
        self.note(f"{self.scope}.{name}", value)
        return value


@elementwise
def gated(x: Any, gate: Any) -> Any:
    """Return x silu(gate)."""
    return x * (gate * scalar.sigmoid(gate))


@elementwise
def step_size(dt: Any, bias: Any) -> Any:
    """Return softplus(dt + bias)."""
    return scalar.softplus(dt + bias)


@elementwise
def log_decay_of(w: Any, w0: Any) -> Any:
    """Return -exp(w0 + w): the log decay of each channel and token of RWKV-6."""
    return -scalar.exp(w0 + w)


@elementwise
def delta_log_decay(step: Any, A_log: Any) -> Any:
    """Return -exp(A_log) softplus(step): the log decay of a token of a gated delta net."""
    return -scalar.exp(A_log) * scalar.softplus(step)


def _product(wanted: Product | LowRank) -> products.Product:
    if isinstance(wanted, LowRank):
        inner = products.Product(wanted.x, wanted.down, wanted.activation, by_inputs=True)
        return products.Product(inner, wanted.up, by_inputs=True)
    bias = None if wanted.bias is None else wanted.bias.reshape(1, -1)
    return products.Product(wanted.x, wanted.weight, wanted.activation, added=bias)


def _heads(x: Array, heads: int) -> Array:
    return x.reshape(len(x), heads, -1)


def _normed(x: Array, norm: Array | None, how: SoftmaxAttention) -> Array:
    heads = x.reshape(len(x), -1, how.width)
    return heads if norm is None else rms_norm(x, norm, how.eps, heads.shape[1]).reshape(heads.shape)
