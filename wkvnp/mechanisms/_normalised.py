"""Attention by features: a matrix of keys and values, and the sum of the keys, by which what is read is divided.

The sum is one more column of the matrix, that of a value 1. Features given by their logarithms may be of any size:
they are scaled by the largest of their head met so far, and when that grows from M to M', the state is multiplied by
exp(M - M'): a decay like any other. A maximum rounds nothing, so this too has the same bits under any cut.

Letters: M tokens of N packed sequences, H heads, K key width, F features, V value width.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import ArgumentError, ShapeError
from ..kernels.linear import EMPTY_EXPONENT, linear
from ._spec import Call, Spec

Array = npt.NDArray[Any]
Offsets = npt.NDArray[np.int64]
Reading = tuple[slice, Array, Any]  # a piece of the tokens, what its queries read, and what they were multiplied by

LARGE_QUERY = 2.0**20
"""Features of queries from here on are scaled down before they meet the sums: their products could be infinite."""

FEATURES_AT_ONCE = 1 << 20
"""Numbers in one array of features: time is cut, so that those of a long text are never all in memory."""


class LinearState(NamedTuple):
    """What linear attention carries: S (B, H, M, V), the sum of k v^T, and z (B, H, M), the sum of k, of features k."""

    S: Array
    z: Array


class Flow(NamedTuple):
    """The options of a front door that say where it begins and which way it goes."""

    causal: bool
    reverse: bool
    cu_seqlens: Any
    state: Any


class Maps(NamedTuple):
    """Features (M, H, F) of queries and keys (M, H, K); with `logarithmic` `keys` returns their logarithms."""

    queries: Callable[[Array], Array]
    keys: Callable[[Array], Array]
    logarithmic: bool = False


@dataclass(frozen=True)
class FeatureSpec(Spec):
    """A Spec that draws states with as many features as keys have by its own map."""

    width: Callable[[int], int] = int

    def draw_state(self, rng: np.random.Generator, sizes: Any, dtype: npt.DTypeLike) -> Any:
        """Draw a state that a sequence could have left."""
        return super().draw_state(rng, {**sizes, "M": self.width(sizes["K"])}, dtype)


def attend(
    spec: Spec,
    values: dict[str, Any],
    choose: Callable[[dict[str, Any]], Maps],
    flow: Flow,
    normalize: bool = True,
    eps: float | None = None,
) -> tuple[Array, Any]:
    """Run a front door: check `values`, choose the feature maps, read for each query what its features select.

    It is divided by the sum of its weights plus `eps`, if asked; None is the smallest number, so that 0 / 0 is 0.
    Without `causal` all queries see all keys.
    """
    if eps is not None and not eps >= 0:
        raise ArgumentError(f"{spec.name}: eps must not be negative; got {eps!r}")
    call, key_offsets = _enter(spec, values, flow)
    q, k, v = (a.reshape(math.prod(a.shape[:-2]), *a.shape[-2:]) for a in map(call.arrays.__getitem__, "qkv"))
    maps = choose(call.arrays)
    width = maps.keys(k[:0]).shape[-1]
    if (other := maps.queries(q[:0]).shape[-1]) != width:
        raise ShapeError(f"{spec.name}: features must give q and k the same width; got {other} and {width}")
    if call.state is not None and call.state[0].shape[2] != width:
        got = call.state[0].shape
        raise ShapeError(f"{spec.name}: state.S must have shape (B, H, M, V) with M={width} as in features; got {got}")
    parts = _nothing(call.offsets.size - 1, v, width) if call.state is None else [part.copy() for part in call.state]
    parts = parts if maps.logarithmic else parts[:2]
    y, least = np.empty((len(q), *v.shape[1:]), v.dtype), v.dtype.type(np.finfo(v.dtype).tiny if eps is None else eps)

    most = max(1, FEATURES_AT_ONCE // max(1, v.shape[1] * width))
    if flow.causal:
        readings = _read_along(maps, q, k, v, parts, call.offsets, most)
    else:
        readings = _read_all(maps, q, k, v, parts, (call.offsets, key_offsets), most)
    with np.errstate(over="ignore", invalid="ignore"):  # refused below
        for piece, read, factor in readings:
            if normalize:
                y[piece] = read[..., :-1] / (read[..., -1:] + (least if eps is None else least * factor))
            else:
                y[piece] = read[..., :-1] / factor
    if normalize and not np.isfinite(y).all():
        _refuse_overflow(spec.name, (q, k, v, *(call.state or ())))
    return call.leave(y, spec.state_type(*parts))


def _within_range(queries: Array) -> tuple[Array, Any]:
    """Return features (M, H, F), large ones scaled by powers of two (M, H, 1), so that what they read is finite."""
    if not queries.size or np.abs(queries).max() < LARGE_QUERY:
        return queries, queries.dtype.type(1)
    peaks = np.abs(queries).max(axis=-1, keepdims=True)
    exponents = np.where((peaks >= LARGE_QUERY) & np.isfinite(peaks), np.frexp(peaks)[1], 0)
    factor = np.ldexp(queries.dtype.type(1), -exponents)
    return queries * factor, factor


def _refuse_overflow(function: str, given: Iterable[Array]) -> None:
    """Raise if finite arguments made sums that are not."""
    arrays = list(given)
    if all(np.isfinite(array).all() for array in arrays):
        raise ShapeError(
            f"{function}: k must be so small that its features, their sums and their products with v and q stay below "
            f"{np.finfo(arrays[0].dtype).max:.1g}; got larger ones; use float64, or divide k by a power of two"
        )


def _enter(spec: Spec, values: dict[str, Any], flow: Flow) -> tuple[Call, Offsets]:
    """Check the arguments; return them and where the keys of each sequence begin."""
    if flow.causal:
        call = spec.enter(values, flow.state, flow.cu_seqlens, flow.reverse)
        return call, call.offsets
    if flow.state is not None:
        raise ArgumentError(f"{spec.name}: state must be None with causal=False, which sees all keys at once; got one")
    times = tuple(
        replace(i, axes=(i.axes[0].replace("T", "S"), i.axes[0].replace("B T", "S"))) if i.name in ("k", "v") else i
        for i in spec.inputs
    )
    call = replace(spec, inputs=times).enter(values, None, flow.cu_seqlens)
    k = call.arrays["k"]
    for name in "kv":
        if (shape := call.arrays[name].shape)[:-3] == () != np.shape(values["q"])[:-3]:
            wanted = f"(B, S, H, {name.upper()})"
            raise ShapeError(f"{spec.name}: {name} must have shape {wanted} as q has a batch axis; got {shape}")
    if flow.cu_seqlens is None:
        return call, np.arange(call.offsets.size, dtype=np.int64) * k.shape[-3]
    if k.shape[-3] != call.offsets[-1]:
        wanted = f"(1, T, H, K) with T={call.offsets[-1]} as in q, because of cu_seqlens"
        raise ShapeError(f"{spec.name}: k must have shape {wanted}; got {k.shape}")
    return call, call.offsets


def _nothing(N: int, v: Array, width: int) -> list[Array]:
    """Return the state before the first key, and the largest of no exponents."""
    _, H, V = v.shape
    S, z = np.zeros((N, H, width, V), v.dtype), np.zeros((N, H, width), v.dtype)
    return [S, z, np.full((N, H), EMPTY_EXPONENT, v.dtype)]


def _with_ones(v: Array) -> Array:
    return np.concatenate([v, np.ones((*v.shape[:2], 1), v.dtype)], axis=2)


def _pieces(offsets: Offsets, most: int) -> Iterator[tuple[slice, slice, Offsets]]:
    """Cut the packed tokens into pieces; yield each, the sequences in it, and where in it they begin."""
    for begin in range(int(offsets[0]), int(offsets[-1]), most):
        end = min(begin + most, int(offsets[-1]))
        rows = slice(int(np.searchsorted(offsets, begin, "right")) - 1, int(np.searchsorted(offsets, end, "left")))
        yield slice(begin, end), rows, np.clip(offsets[rows.start : rows.stop + 1], begin, end) - begin


def _read_along(
    maps: Maps, q: Array, k: Array, v: Array, parts: list[Array], offsets: Offsets, most: int
) -> Iterator[Reading]:
    """Read what the token itself and those before it hold; `parts` of the state change in place."""
    log_decay = np.zeros((1, k.shape[1], 1), k.dtype)
    for piece, rows, inside in _pieces(offsets, most):
        features = maps.keys(k[piece])
        if maps.logarithmic:
            peaks = features.max(axis=-1, initial=EMPTY_EXPONENT)
            before, largest = _running_maximum(peaks, parts[2][rows], inside)
            log_decay = (before - largest)[:, :, None]
            features = np.exp(features - largest[:, :, None])
        first = np.concatenate([parts[0][rows], parts[1][rows, ..., None]], axis=3)
        queries, factor = _within_range(np.ascontiguousarray(maps.queries(q[piece])))
        features = np.ascontiguousarray(features)
        read, last = linear(queries, log_decay, features, _with_ones(v[piece]), None, first, inside)
        parts[0][rows], parts[1][rows] = last[..., :-1], last[..., -1]
        yield piece, read, factor


def _running_maximum(peaks: Array, top: Array, offsets: Offsets) -> tuple[Array, Array]:
    """Return the largest of (M, H) before each token, and with it, from `top` (N, H) on, which becomes the last."""
    before, largest = np.empty_like(peaks), np.empty_like(peaks)
    for n, (begin, end) in enumerate(itertools.pairwise(offsets.tolist())):
        chain = np.maximum.accumulate(np.concatenate([top[n : n + 1], peaks[begin:end]]))
        before[begin:end], largest[begin:end], top[n] = chain[:-1], chain[1:], chain[-1]
    return before, largest


def _read_all(
    maps: Maps,
    q: Array,
    k: Array,
    v: Array,
    parts: list[Array],
    offsets: tuple[Offsets, Offsets],
    most: int,
) -> Iterator[Reading]:
    """Read what all keys of the sequence hold, by two matrix products; `parts` of the state change in place."""
    for n in range(offsets[0].size - 1):
        S, z, *top = (part[n] for part in parts)
        total = np.concatenate([S, z[..., None]], axis=2)
        for piece, _, _ in _pieces(offsets[1][n : n + 2], most):
            features = maps.keys(k[piece])
            if maps.logarithmic:
                largest = np.maximum(top[0], features.max(axis=(0, 2), initial=EMPTY_EXPONENT))
                features = np.exp(features - largest[:, None])
                total *= np.exp(top[0] - largest)[:, None, None]
                top[0][...] = largest
            total += features.transpose(1, 2, 0) @ _with_ones(v[piece]).transpose(1, 0, 2)
        S[...], z[...] = total[..., :-1], total[..., -1]
        for piece, _, _ in _pieces(offsets[0][n : n + 2], most):
            queries, factor = _within_range(maps.queries(q[piece]))
            yield piece, (queries.transpose(1, 0, 2) @ total).transpose(1, 0, 2), factor
