"""Keys and values of the past, which grow in place without changing any state that still exists.

Successive states are views of one store with spare capacity. Appending writes behind the longest state; going on from
an older state a second time finds its capacity used, and copies into a store of its own. Tokens are in blocks of
`KEYS`, keys of a block transposed, as the compiled loops read them.

Letters: B sequences, S tokens of the past, G groups (heads of keys and values), H heads of queries, K key width,
V value width.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from ..._dtypes import aligned
from ..._shapes import as_floats, check_axes, compute_dtype, contiguous
from ...errors import ArgumentError, ShapeError
from . import cpu
from .mask import KEYS

Array = npt.NDArray[Any]


class KVParts(NamedTuple):
    """A `KVCache` as plain arrays: k (B, S, G, K), v (B, S, G, V), lengths (B,); zeros behind each length."""

    k: Array
    v: Array
    lengths: Array


class ForgetParts(NamedTuple):
    """A `ForgetCache` as plain arrays: as `KVParts`, and the sums of the log gates so far (B, S, H), float64."""

    k: Array
    v: Array
    lengths: Array
    gates: Array


class _Store:
    """Blocks of keys and values for some sequences, each with room of its own."""

    def __init__(self, need: Array, G: int, K: int, V: int, H: int, dtype: npt.DTypeLike) -> None:
        # Half as much again, of the mean: the tokens that can come before everything is copied again.
        spare = int(need.sum()) // (2 * max(need.size, 1)) if need.any() else 0
        blocks = -(-(need + spare) // KEYS)
        P, wide = int(blocks.sum()), -(-V // 16) * 16
        self.base: Array = np.cumsum(blocks) - blocks
        self.room: Array = blocks * KEYS
        self.used = np.zeros(need.size, np.int64)  # tokens written, for whichever state
        self.width = V
        self.keys = aligned((P, G, K, KEYS), dtype)
        self.values = aligned((P, G, KEYS, wide), dtype)
        self.gates: Array = np.empty((P, H, KEYS))
        self.lock = threading.Lock()


class KVCache:
    """Keys and values of the past of some sequences, of the same or of different lengths.

    A state never changes. ``state[i:j]`` and ``state[[0, 2]]`` are states of some of the sequences, ``state[n]`` that
    of one, for calls without the batch axis.

    Examples
    --------
    >>> import numpy as np
    >>> state = KVCache.of(np.ones((2, 5, 3, 8)), np.ones((2, 5, 3, 4)), lengths=[5, 2])
    >>> state
    KVCache(2 sequences, lengths 5, 2; 3 heads of 8 and 4)
    >>> state[1].parts().k.shape
    (2, 3, 8)
    """

    _AXES: ClassVar[tuple[tuple[str, str], ...]] = (("k", "G K"), ("v", "G V"))

    def __init__(
        self, store: _Store, rows: Array, lengths: Array, single: bool = False, gone: Array | None = None
    ) -> None:
        self._store, self._rows, self._lengths, self._single = store, rows, lengths, single
        self._gone = np.zeros_like(lengths) if gone is None else gone  # blocks of the store before the first key
        self._base: Array = store.base[rows] + self._gone

    @classmethod
    def empty(cls, B: int, G: int, K: int, V: int, dtype: npt.DTypeLike, heads: int = 0) -> Self:
        """Return the state of `B` sequences that have no past."""
        nothing = np.zeros(B, np.int64)
        return cls(_Store(nothing, G, K, V, heads, dtype), np.arange(B), nothing)

    @classmethod
    def of(
        cls,
        k: npt.ArrayLike,
        v: npt.ArrayLike,
        lengths: npt.ArrayLike | None = None,
        gates: npt.ArrayLike | None = None,
    ) -> Self:
        """Return a state that holds a copy of keys and values, the inverse of `parts`.

        Parameters
        ----------
        k : array_like, shape (B, S, G, K), or (S, G, K) for one sequence
        v : array_like, shape (B, S, G, V), or (S, G, V)
        lengths : array_like of int, shape (B,), or (), optional
            How many of the S tokens each sequence has; all by default.
        gates : array_like, shape (B, S, H), or (S, H)
            For a `ForgetCache` only: the sums of the log gates up to each token.
        """
        name, sizes = cls.__name__, dict[str, tuple[int, str]]()
        given = {"k": k, "v": v} | ({} if gates is None else {"gates": gates})
        arrays = {label: as_floats(name, label, value) for label, value in given.items()}
        dtype = compute_dtype(name, {label: arrays[label] for label in "kv"})
        single = arrays["k"].ndim == 3
        for label, axes in cls._AXES:
            arrays[label] = arrays[label][None] if single else arrays[label]
            check_axes(name, label, arrays[label], f"B S {axes}", sizes)
        B, S = arrays["k"].shape[:2]
        counts = np.full(B, S) if lengths is None else np.asarray(lengths, np.int64).reshape(-1)
        if counts.size != B or (counts < 0).any() or (counts > S).any():
            raise ArgumentError(f"{name}: lengths must be {B} numbers from 0 to {S}; got {counts.tolist()}")
        there = np.arange(S) < counts[:, None]
        packed = [contiguous(a, np.dtype(np.float64) if n == "gates" else dtype)[there] for n, a in arrays.items()]
        return cls._packed(counts, *packed)._as(single)

    @classmethod
    def _packed(cls, lengths: Array, k: Array, v: Array, gates: Array | None = None) -> Self:
        """Return a state of sequences that lie behind each other: k (M, G, K), v (M, G, V), gates (M, H)."""
        k, v = np.ascontiguousarray(k), np.ascontiguousarray(v)
        heads = 0 if gates is None else gates.shape[1]
        fresh = cls.empty(len(lengths), k.shape[1], k.shape[2], v.shape[2], k.dtype, heads)
        return fresh.extended(k, v, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64), gates)

    def extended(self, k: Array, v: Array, offsets: Array, gates: Array | None = None) -> Self:
        """Return the state after more tokens: k (M, G, K), v (M, G, V), gates (M, H), packed with their `offsets`."""
        final = self.reserved(new := np.diff(offsets))
        store, base = final._store, final._base
        if offsets[-1]:
            run = cpu.store.sized(k.size + v.size)
            run(offsets[:-1], offsets[1:], self._lengths, base, k, v, store.keys, store.values)
        if gates is not None:
            position = np.arange(offsets[-1]) + np.repeat(self._lengths - offsets[:-1], new)
            store.gates[np.repeat(base, new) + position // KEYS, :, position % KEYS] = gates
        return final

    def reserved(self, new: Array) -> Self:
        """Return a state with room for more tokens, which are not written yet."""
        need = self._lengths + new
        store, rows = self._store, self._rows
        end = need + KEYS * self._gone
        with store.lock:
            free = ((store.used[rows] == end - new) | (new == 0)) & (end <= store.room[rows])
            if ours := bool(free.all()) and np.unique(rows).size == rows.size:
                store.used[rows] = np.maximum(store.used[rows], end)
        return type(self)(store, rows, need, False, self._gone) if ours else self._moved(need)

    def _moved(self, need: Array) -> Self:
        """Return a state of `need` tokens in a store of its own: those of this state, and room for the rest."""
        old = self._store
        G, K = old.keys.shape[1:3]
        store = _Store(need, G, K, old.width, old.gates.shape[1], old.keys.dtype)
        for to, begin, length in zip(store.base, self._base, self._lengths, strict=True):
            blocks = -(-length // KEYS)
            for name in ("keys", "values", "gates"):
                getattr(store, name)[to : to + blocks] = getattr(old, name)[begin : begin + blocks]
        store.used[:] = need
        return type(self)(store, np.arange(need.size), need)

    def _pieces(self) -> list[tuple[Array, ...]]:
        """Return k (S, G, K), v (S, G, V) and gates (S, H) of every sequence, copied."""
        store, pieces = self._store, []
        for base, length in zip(self._base, self._lengths, strict=True):
            blocks = slice(base, base + -(-length // KEYS))
            turned = (
                store.keys[blocks].transpose(0, 3, 1, 2),
                store.values[blocks, ..., : store.width].swapaxes(1, 2),
                store.gates[blocks].swapaxes(1, 2),
            )
            pieces.append(tuple(x.reshape(x.shape[0] * KEYS, *x.shape[2:])[:length].copy() for x in turned))
        return pieces

    def _copied(self, change: Callable[[Array, Array, Array], tuple[Array, Array, Array]] | None = None) -> Self:
        """Return a state of the same tokens in a store of its own, after `change` of k, v and gates."""
        k, v, gates = (np.concatenate(parts) for parts in zip(self._none(), *self._pieces(), strict=True))
        return self._packed(self._lengths, *(change(k, v, gates) if change else (k, v, gates)))._as(self._single)

    def stored(self) -> tuple[_Store, Array, Array]:
        """Return the blocks, the first one of every sequence, and the lengths; for the compiled loops."""
        return self._store, self._base, self._lengths

    def _as(self, single: bool) -> Self:
        return type(self)(self._store, self._rows, self._lengths, single, self._gone)

    def parts(self) -> KVParts | ForgetParts:
        """Return everything as plain arrays, copied; of a single sequence without the batch axis."""
        pieces = self._pieces()
        longest = int(self._lengths.max(initial=0))
        arrays = [np.zeros((len(pieces), longest, *x.shape[1:]), x.dtype) for x in self._none()]
        for n, piece in enumerate(pieces):
            for array, x in zip(arrays, piece, strict=True):
                array[n, : len(x)] = x
        k, v, gates = (array[0] if self._single else array for array in arrays)
        return self._named(k, v, self.lengths, gates)

    def _named(self, k: Array, v: Array, lengths: Array, gates: Array) -> KVParts | ForgetParts:
        return KVParts(k, v, lengths)

    def _none(self) -> tuple[Array, Array, Array]:
        """Return what a sequence without tokens holds: arrays (0, G, K), (0, G, V) and (0, H)."""
        store = self._store
        G, K = store.keys.shape[1:3]
        number = store.keys.dtype
        return np.empty((0, G, K), number), np.empty((0, G, store.width), number), np.empty((0, store.gates.shape[1]))

    @property
    def lengths(self) -> Array:
        """Tokens of each sequence, (B,); of a single sequence without the axis."""
        return self._lengths[0].copy() if self._single else self._lengths.copy()

    @property
    def dtype(self) -> np.dtype[Any]:
        """What keys and values are stored as: float32 or float64."""
        return self._store.keys.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of what the state holds, without the room to spare."""
        return int(self._lengths.sum()) * sum(math.prod(x.shape[1:]) * x.itemsize for x in self._none())

    def __len__(self) -> int:
        """How many sequences there are."""
        return len(self._rows)

    def __getitem__(self, index: Any) -> Self:
        if self._single:
            raise ShapeError("KVCache: this is the state of one sequence, which has no batch axis")
        single = isinstance(index, (int, np.integer))
        chosen = [int(index)] if single else index
        return type(self)(self._store, self._rows[chosen], self._lengths[chosen], single, self._gone[chosen])

    def __repr__(self) -> str:
        sequences = "1 sequence" if len(self) == 1 else f"{len(self)} sequences"
        G, K = self._store.keys.shape[1:3]
        lengths = ", ".join(map(str, self._lengths))
        return f"{type(self).__name__}({sequences}, lengths {lengths}; {G} heads of {K} and {self._store.width})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).of, tuple(self.parts())

    def copy(self) -> Self:
        """Return a state that shares no memory with this one and holds no room to spare."""
        return self._copied()

    def astype(self, dtype: npt.DTypeLike) -> Self:
        """Return this state, or a copy of another precision."""
        if self.dtype == dtype:
            return self
        return self._copied(lambda k, v, gates: (k.astype(dtype), v.astype(dtype), gates))

    def without_values(self, width: int) -> Self:
        """Return a state of the same keys with zeros for values, as many as `width`."""
        return self._copied(lambda k, v, gates: (k, np.zeros((*k.shape[:2], width), k.dtype), gates))

    def shortened(self, lengths: npt.ArrayLike) -> Self:
        """Return the state as it was when the sequences had these lengths, at most those of now."""
        fewer = np.broadcast_to(np.asarray(lengths, np.int64), self._lengths.shape)
        if (fewer < 0).any() or (fewer > self._lengths).any():
            raise ArgumentError(f"KVCache: lengths must be from 0 to {self._lengths.tolist()}; got {fewer.tolist()}")
        return type(self)(self._store, self._rows, fewer.copy(), self._single, self._gone)

    def within(self, window: int) -> Self:
        """Return the state without keys that no later query sees through a window, whole blocks from the beginning.

        Nothing is copied. Positions are counted anew from the first key that is left, and results keep their bits.
        """
        gone = np.maximum(self._lengths - (window - 1), 0) // KEYS
        if not gone.any():
            return self
        return type(self)(self._store, self._rows, self._lengths - KEYS * gone, self._single, self._gone + gone)

    @classmethod
    def join(cls, states: Sequence[Self]) -> Self:
        """Return one state for the sequences of all `states`, in order."""
        if not states:
            raise ArgumentError("KVCache: join needs at least one state; got none")
        pieces = list(itertools.chain.from_iterable(state._pieces() for state in states))
        lengths = np.concatenate([state._lengths for state in states])
        return cls._packed(lengths, *(np.concatenate(parts) for parts in zip(states[0]._none(), *pieces, strict=True)))

    @classmethod
    def draw(cls, rng: np.random.Generator, sizes: Mapping[str, int], dtype: npt.DTypeLike) -> Self:
        """Draw a state of unequal lengths, none of which is whole blocks."""
        lengths = KEYS - 7 + 3 * np.arange(sizes["B"])
        M = int(lengths.sum())
        k = rng.standard_normal((M, sizes["G"], sizes["K"])).astype(dtype)
        v = rng.standard_normal((M, sizes["G"], sizes["V"])).astype(dtype)
        return cls._packed(lengths, k, v, cls._draw_gates(rng, M, sizes))

    @classmethod
    def _draw_gates(cls, rng: np.random.Generator, M: int, sizes: Mapping[str, int]) -> Array:
        return np.empty((M, 0))

    @classmethod
    def checked(
        cls, function: str, state: Any, dtype: npt.DTypeLike, sizes: Mapping[str, tuple[int, str]], batched: bool
    ) -> Self:
        """Return a state given by a caller, with a batch axis and of `dtype`; refuse one that does not fit."""
        if type(state) is not cls:
            raise ArgumentError(f"{function}: state must be a {cls.__name__}; got {type(state).__name__}")
        known = dict(sizes)
        outer = (1,) * (not batched) + (len(state),) * (not state._single) + (int(state._lengths.max(initial=0)),)
        for (name, axes), none in zip(cls._AXES, state._none(), strict=False):
            stand_in = np.broadcast_to(np.empty((), none.dtype), (*outer, *none.shape[1:]))
            check_axes(function, f"state.{name}", stand_in, f"B S {axes}", known)
        return state._as(False).astype(dtype)


class ForgetCache(KVCache):
    """A `KVCache` that also has, for every token and head, the sum of the log gates up to it."""

    _AXES: ClassVar[tuple[tuple[str, str], ...]] = (*KVCache._AXES, ("gates", "H"))

    def _named(self, k: Array, v: Array, lengths: Array, gates: Array) -> KVParts | ForgetParts:
        return ForgetParts(k, v, lengths, gates)

    @property
    def gate(self) -> Array:
        """The sum of all log gates so far, (B, H)."""
        sums = np.zeros((len(self), self._store.gates.shape[1]))
        (some,) = np.nonzero(self._lengths)
        last = self._lengths[some] - 1
        sums[some] = self._store.gates[self._base[some] + last // KEYS, :, last % KEYS]
        return sums

    @classmethod
    def _draw_gates(cls, rng: np.random.Generator, M: int, sizes: Mapping[str, int]) -> Array:
        return np.cumsum(-rng.random((M, sizes["H"])), axis=0)
