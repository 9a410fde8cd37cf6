# mypy: allow-untyped-calls
"""Blocks in their meaning: every operation in NumPy and float64, one sequence after the other.

It shares no code with the other executors: what it returns is what they must return, and a debugger can follow it.

Letters: M tokens of B packed sequences, C channels, A attention width, H heads, N head size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .._dtypes import widen
from .._quantised import Quantised
from ..kernels.convolution.oracle import short_convolution
from ..kernels.delta.oracle import delta_rule, dplr
from ..kernels.linear.oracle import linear
from ..kernels.selective.oracle import selective
from ..kernels.softmax import KVCache
from ..kernels.softmax.oracle import softmax
from ..kernels.wkv.oracle import wkv
from .interface import Array, LowRank, Mixes, Operations, Product, SoftmaxAttention


class Oracle(Operations):
    """An executor for packed sequences, in float64.

    Parameters
    ----------
    state : dataclass
        The state of the layer, which is not changed.
    offsets : ndarray of int64 (B + 1,)
        Where sequences begin among the rows.
    prefix : str
        Before the names of all values.

    Attributes
    ----------
    values : dict of str to ndarray
        Every value by its name, in the order in which they were computed.
    """

    def __init__(self, state: Any, offsets: Array, prefix: str = "") -> None:
        self._state, self._offsets, self._prefix = state, offsets, prefix
        self._after: dict[str, Any] = {}
        self.values: dict[str, Array] = {}

    @property
    def state(self) -> Any:
        """The state after what has run."""
        return replace(self._state, **self._after)

    def layer_norm(self, name: str, x: Array, weight: Array, bias: Array, eps: float) -> Array:
        return self._named(name, _standardized(x, 1, eps) * _wide(weight) + _wide(bias))

    def rms_norm(self, name: str, x: Array, weight: Array, eps: float, groups: int = 1) -> Array:
        parts = x.reshape(len(x), groups, -1)
        y = parts / np.sqrt((parts**2).mean(axis=2, keepdims=True) + eps)
        return self._named(name, y.reshape(x.shape) * np.tile(_wide(weight), x.shape[1] // len(weight)))

    def previous(self, x: Array, cell: str) -> Array:
        last, kept = [], _wide(getattr(self._state, cell)).copy()
        for n, part in enumerate(self._sequences(x)):
            last.append(np.concatenate([kept[n : n + 1], part])[: len(part)])
            kept[n] = np.concatenate([kept[n : n + 1], part])[-1]
        self._after[cell] = kept
        return np.concatenate(last)

    def mix(self, x: Array, previous: Array, mixes: Mixes, moved: Array | None = None) -> list[Array]:
        mixed = []
        for j, (name, share) in enumerate(zip(mixes.names, _wide(mixes.share), strict=True)):
            more = 0 if moved is None else moved[:, j]
            mixed.append(self._named(name, x + (previous - x) * (share + more)))
        return mixed

    def multiply(self, **wanted: Product | LowRank) -> list[Array]:
        return [self._named(name, _product(each)) for name, each in wanted.items()]

    def low_rank_groups(self, name: str, x: Array, down: Array, up: Array, activation: str) -> Array:
        low = _ACTIVATIONS[activation](x @ _wide(down)).reshape(len(x), up.shape[0], up.shape[1])
        return self._named(name, np.einsum("mjr,jrc->mjc", low, _wide(up)))

    def add_product(self, x: Array, product: Product, gate: Array | None = None) -> Array:
        y = _product(product)
        return self._named("x", x + (y if gate is None else gate * y))

    def add(self, x: Array, y: Array) -> Array:
        return self._named("x", x + y)

    def add_feed_forward(self, x: Array, hidden: Product, out: Array, gate: Array | None = None) -> Array:
        (k,) = self.multiply(k=hidden)
        return self.add_product(x, Product(k, out), gate)

    def gate(self, name: str, x: Array, gate: Array) -> Array:
        return self._named(name, x * gate * _sigmoid(gate))

    def convolve(self, name: str, x: Array, weight: Array, bias: Array | None, cell: str) -> Array:
        window = getattr(self._state, cell)
        y = self._each(cell, lambda n, x: short_convolution(x, _wide(weight), bias, window[n]), x)
        return self._named(name, y * _sigmoid(y))

    def split(self, x: Array, **sizes: int) -> list[Array]:
        ends = np.cumsum(list(sizes.values()))
        return [self._named(name, x[:, end - sizes[name] : end]) for name, end in zip(sizes, ends, strict=True)]

    def wkv(self, r: Array, k: Array, v: Array, log_decay: Array, u: Array, cell: str) -> Array:
        before = getattr(self._state, cell)
        y = self._each(cell, lambda n, k, v: wkv(log_decay, u, k, v, *(part[n] for part in before)), k, v)
        self._after[cell] = type(before)(*(np.stack(part) for part in zip(*self._after[cell], strict=True)))
        return self._named("y", r * y)

    def gated_linear(
        self, r: Array, k: Array, v: Array, g: Array | None, decay: Array | tuple[Array, Array], u: Array,
        norm: tuple[Array, Array], eps: float, heads: int, cell: str,
    ) -> Array:  # fmt: skip
        if isinstance(decay, tuple):
            log_decay = self._named("decay", -np.exp(_wide(decay[0]) + decay[1]))
        else:
            log_decay = np.tile(np.repeat(_wide(decay).reshape(-1), k.shape[1] // decay.size), (len(k), 1))
        bonus = np.repeat(_wide(u).reshape(-1), k.shape[1] // u.size).reshape(heads, -1)
        state, rows = getattr(self._state, cell), [_heads(x, heads) for x in (r, log_decay, k, v)]
        y = self._each(cell, lambda n, r, d, k, v: linear(r, d, k, v, bonus, state[n]), *rows).reshape(len(r), -1)
        y = _standardized(y, heads, eps) * _wide(norm[0]) + _wide(norm[1])
        return self._named("y", y if g is None else y * g)

    def rwkv7(
        self, r: Array, w: Array, k: Array, v: Array, a: Array, g: Array, nu: Array | None, v_first: Array | None,
        constants: Array, eps: float, heads: int, cell: str,
    ) -> Array:  # fmt: skip
        w0, a0, v0, k_k, k_a, r_k, weight, bias = _wide(constants)
        log_decay = self._named("decay", -np.exp(-0.5) * _sigmoid(w0 + w))
        rate = self._named("rate", _sigmoid(a0 + a))
        kappa = _heads(k * k_k, heads)
        kappa = kappa / np.maximum(np.sqrt((kappa**2).sum(axis=2, keepdims=True)), 1e-12)
        key = self._named("key", k * (1 + (rate - 1) * k_a))
        residual = nu is not None and v_first is not None
        value = self._named("value", v + (v_first - v) * _sigmoid(v0 + nu) if residual else v)
        state, b = getattr(self._state, cell), kappa * _heads(rate, heads)
        rows = [*(_heads(x, heads) for x in (r, log_decay, key, value)), -kappa, b]
        y = self._each(cell, lambda n, q, d, k, v, a, b: dplr(q, d, k, v, a, b, state[n]), *rows).reshape(len(r), -1)
        y = _standardized(y, heads, eps) * weight + bias
        bonus = _heads(r * key * r_k, heads).sum(axis=2, keepdims=True) * _heads(value, heads)
        return self._named("y", (y + bonus.reshape(y.shape)) * g)

    def selective(
        self, x: Array, z: Array, dt: Array, dt_weight: Array, dt_bias: Array, B: Array, C: Array, A: Array, D: Array,
        cell: str,
    ) -> Array:  # fmt: skip
        dt = self._named("dt", _softplus(dt @ _wide(dt_weight).T + _wide(dt_bias)))
        A, D, state = _wide(A), _wide(D), getattr(self._state, cell)
        y = self._each(
            cell, lambda n, x, dt, B, C, z: selective(x, dt, A, B, C, D, z, state[n]), x, dt, B[:, None], C[:, None], z
        )
        return self._named("y", y)

    def state_space(
        self, x: Array, B: Array, C: Array, dt: Array, dt_bias: Array, A: Array, D: Array,
        limits: tuple[float, float], groups: int, cell: str,
    ) -> Array:  # fmt: skip
        H = len(A)
        dt = self._named("dt", np.clip(_softplus(dt + _wide(dt_bias)), *limits))
        u, state = _heads(x, H), getattr(self._state, cell)
        B, C = (np.repeat(_heads(part, groups), H // groups, axis=1) for part in (B, C))
        log_decay = np.broadcast_to((dt * _wide(A))[:, :, None], B.shape)
        rows = (C, log_decay, B, dt[:, :, None] * u)
        y = self._each(cell, lambda n, q, d, k, v: linear(q, d, k, v, None, state[n]), *rows) + _wide(D)[:, None] * u
        return self._named("y", y.reshape(len(x), -1))

    def attention(self, q: Array, k: Array, v: Array, how: SoftmaxAttention) -> Array:
        cos, sin, self._after["seen"] = how.rotation(self._state.seen, self._offsets)
        q, k, v = (x.reshape(len(x), -1, how.width) for x in (q, k, v))
        q, k = (_head_norm(x, norm, how.eps) for x, norm in ((q, how.q_norm), (k, how.k_norm)))
        q, k = (self._named(name, _rotated(x, _wide(cos), _wide(sin))) for name, x in (("q", q), ("k", k)))
        past, lengths = self._state.kv.parts(), self._state.kv.lengths
        scale, window = how.width**-0.5, how.window

        def attend(n: int, q: Array, k: Array, v: Array) -> tuple[Array, Any]:
            before = (part[n, : lengths[n]] for part in past[:2])
            y, _, kept = softmax(q, k, v, *before, scale=scale, window=window)
            return y, kept

        y = self._each("kv", attend, q, k, v)
        kept = self._after["kv"]
        longest = max(len(keys) for keys, _ in kept)
        keys, values = (
            np.stack([np.pad(pair[j], [(0, longest - len(pair[j])), (0, 0), (0, 0)]) for pair in kept]) for j in (0, 1)
        )
        kv = KVCache.of(keys, values, [len(keys) for keys, _ in kept])
        self._after["kv"] = kv if how.window is None else kv.within(how.window)
        return self._named("y", y.reshape(len(y), -1))

    def delta_rule(
        self, q: Array, k: Array, v: Array, b: Array, a: Array, A_log: Array, dt_bias: Array,
        sizes: tuple[int, int], cell: str,
    ) -> Array:  # fmt: skip
        beta = self._named("beta", _sigmoid(b))
        log_decay = self._named("decay", -np.exp(_wide(A_log)) * _softplus(a + _wide(dt_bias)))
        q, k, v = _heads(q, sizes[0]), _heads(k, sizes[0]), _heads(v, sizes[1])
        q, k = (x / np.sqrt((x**2).sum(axis=2, keepdims=True) + 1e-6) for x in (q, k))
        fades = np.repeat(log_decay[:, :, None], q.shape[2], axis=2)
        rows, state = (q * q.shape[2] ** -0.5, fades, k, v, beta), getattr(self._state, cell)
        y = self._each(cell, lambda n, q, d, k, v, b: delta_rule(q, d, k, v, b, state[n]), *rows)
        return self._named("y", y.reshape(len(y), -1))

    def interleaved(self, x: Array, heads: int, **sizes: int) -> list[Array]:
        parts, ends = x.reshape(len(x), heads, -1), np.cumsum(list(sizes.values()))
        cut = (parts[:, :, end - size : end] for end, size in zip(ends, sizes.values(), strict=True))
        return [self._named(name, part.reshape(len(x), -1)) for name, part in zip(sizes, cut, strict=True)]

    def join(self, *parts: Array) -> Array:
        return np.concatenate(parts, axis=1)

    def sigmoid_gate(self, name: str, x: Array, gate: Array) -> Array:
        return self._named(name, x * _sigmoid(gate))

    def experts(
        self, x: Array, router: Array, run: Sequence[Callable[..., Array]], chosen: int, normalize: bool
    ) -> Array:
        scores = x @ _wide(router).T
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        weights /= weights.sum(axis=1, keepdims=True)
        y = np.zeros_like(x)
        for m, row in enumerate(weights):
            best = np.argsort(-row, kind="stable")[:chosen]
            total = row[best].sum() if normalize else 1.0
            for expert in best:
                y[m] += row[expert] / total * run[expert](self, x[m : m + 1])[0]
        return self._named("experts", y)

    def _sequences(self, x: Array) -> list[Array]:
        return np.split(x, self._offsets[1:-1])

    def _each(self, cell: str, run: Callable[..., tuple[Array, Any]], *rows: Array) -> Array:
        """Run a recurrence on every sequence; keep the states, and return what it puts out for all tokens."""
        results = [run(n, *parts) for n, parts in enumerate(zip(*map(self._sequences, rows), strict=True))]
        states = [state for _, state in results]
        self._after[cell] = states if isinstance(states[0], tuple) else np.stack(states)
        return np.concatenate([y for y, _ in results])

    def _named(self, name: str, value: Array) -> Array:
        self.values[f"{self._prefix}{self.scope}.{name}"] = value
        return value


def _wide(array: Array | Quantised) -> Array:
    """Return stored numbers in float64."""
    return (array.widened() if isinstance(array, Quantised) else widen(array)).astype(np.float64)


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def _softplus(x: Array) -> Array:
    return np.logaddexp(x, 0)


_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "linear": lambda x: x,
    "tanh": np.tanh,
    "sigmoid": _sigmoid,
    "silu": lambda x: x * _sigmoid(x),
    "relu_squared": lambda x: np.maximum(x, 0) ** 2,
}


def _product(wanted: Product | LowRank) -> Array:
    if isinstance(wanted, LowRank):
        return _ACTIVATIONS[wanted.activation](wanted.x @ _wide(wanted.down)) @ _wide(wanted.up)
    y = wanted.x @ _wide(wanted.weight).T + (0 if wanted.bias is None else _wide(wanted.bias))
    return _ACTIVATIONS[wanted.activation](y)


def _heads(x: Array, heads: int) -> Array:
    return x.reshape(len(x), heads, -1)


def _standardized(x: Array, groups: int, eps: float) -> Array:
    parts = _heads(x, groups)
    centred = parts - parts.mean(axis=2, keepdims=True)
    y: Array = centred / np.sqrt((centred**2).mean(axis=2, keepdims=True) + eps)
    return y.reshape(x.shape)


def _head_norm(x: Array, weight: Array | None, eps: float) -> Array:
    return x if weight is None else x / np.sqrt((x**2).mean(axis=2, keepdims=True) + eps) * _wide(weight)


def _rotated(x: Array, cos: Array, sin: Array) -> Array:
    half = cos.shape[1]
    a, b, rest = x[:, :, :half], x[:, :, half : 2 * half], x[:, :, 2 * half :]
    cos, sin = cos[:, None], sin[:, None]
    return np.concatenate([a * cos - b * sin, b * cos + a * sin, rest], axis=2)
