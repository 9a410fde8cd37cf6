"""What a mechanism costs: arithmetic, memory traffic and state, counted from its formula.

Letters: T tokens, K key width, V value width and N the third size of one head, H heads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral
from typing import Any, NamedTuple

import numpy.typing as npt

from .._dtypes import float_dtype
from ..errors import ArgumentError
from ..mechanisms import NAMES


@dataclass(frozen=True)
class Work:
    """What some tokens cost.

    Attributes
    ----------
    flops : int
        Additions and multiplications, two for a multiply-add.
    exps : int
        Exponentials and their like, each of them worth some ten additions.
    bytes : int
        Least traffic with memory: every array once.
    """

    flops: int
    exps: int
    bytes: int


@dataclass(frozen=True)
class Cost:
    """What `cost` counted.

    Attributes
    ----------
    prefill : Work
        All T tokens at once.
    token : Work
        One token more after T tokens, the state coming from memory and going back there.
    state_bytes : int
        What has to be kept between calls, after T tokens.
    """

    prefill: Work
    token: Work
    state_bytes: int


class _Step(NamedTuple):
    """One token of one head of a recurrence."""

    flops: int
    exps: int
    numbers: int  # of the arrays that go in and out
    state: int  # numbers kept
    shared: int = 0  # numbers that go in once for all heads
    doubles: int = 0  # numbers kept in float64 always


def _matrix(K: int, V: int, decays: int | None, flops: int = 0) -> _Step:
    """A matrix state (K, V) that takes k v^T and is read by q; a token brings `decays` decays; None is no decay."""
    arithmetic = (4 if decays is None else 5) * K * V + flops
    return _Step(arithmetic, decays or 0, 2 * K + 2 * V + (decays or 0), K * V)


def _features(K: int, V: int, N: int, *, flops: int = 0, exps: int = 0, maxima: int = 0) -> _Step:
    """A matrix state of N features made from K numbers, and the sum of the features."""
    return _Step(4 * N * V + flops, exps, 2 * K + 2 * V, N * V + N + maxima)


def _delta(K: int, V: int, decays: int | None, steps: int = 1) -> _Step:
    """A matrix state on which every key first recalls: 4 K V a step, 2 K V to read, K V to decay."""
    arithmetic = (4 * steps + 2 + (0 if decays is None else 1)) * K * V
    decays = decays or 0
    return _Step(arithmetic, decays, K + V + steps * (K + V + 1) + decays, K * V)


def _mamba2(K: int, V: int, N: int) -> _Step:
    """A matrix state (N, V) per head with one decay; its keys and queries serve all heads."""
    return _Step(5 * N * V + 2 * V, 1, 2 * V + 1, N * V, shared=2 * N)


def _channels(K: int, flops: int, exps: int, numbers: int, state: int, shared: int = 0, doubles: int = 0) -> _Step:
    """A rule for each of K channels by itself."""
    return _Step(K * flops, K * exps, K * numbers, K * state, shared, K * doubles)


_RECURRENCES: dict[str, Callable[[int, int, int], _Step]] = {
    # Matrix states
    "linear_attention": lambda K, V, N: _features(K, V, N, exps=2 * N),
    "performer": lambda K, V, N: _features(K, V, N, flops=4 * K * N, exps=2 * N, maxima=1),
    "based": lambda K, V, N: _features(K, V, N, flops=2 * N),
    "retnet": lambda K, V, N: _matrix(K, V, 0),
    "lightning_attention": lambda K, V, N: _matrix(K, V, 0),
    "simple_gla": lambda K, V, N: _matrix(K, V, 1),
    "gla": lambda K, V, N: _matrix(K, V, K),
    "hgrn2": lambda K, V, N: _matrix(K, V, K),
    "mlstm": lambda K, V, N: _Step(5 * K * V, 3, 2 * K + 2 * V + 2, K * V + K, doubles=1),
    "gsa": lambda K, V, N: _Step(5 * N * (K + V), 2 * N, 2 * K + 2 * V + 2 * N, N * (K + V)),
    "mamba2": _mamba2,
    "rwkv5": lambda K, V, N: _matrix(K, V, 0, flops=3 * K + 2 * V),
    "rwkv6": lambda K, V, N: _matrix(K, V, K, flops=3 * K + 2 * V),
    # Matrix states that also forget along a direction
    "rwkv7": lambda K, V, N: _Step(9 * K * V, K, 5 * K + 2 * V, K * V),
    "deltanet": lambda K, V, N: _delta(K, V, None),
    "gated_deltanet": lambda K, V, N: _delta(K, V, 1),
    "kda": lambda K, V, N: _delta(K, V, K),
    "deltaproduct": lambda K, V, N: _delta(K, V, 1, N),
    # Channels by themselves
    "rwkv4": lambda K, V, N: _channels(K, 19, 2, 3, 2, doubles=1),
    "token_shift": lambda K, V, N: _channels(K, 0, 0, 2, 1),
    "short_convolution": lambda K, V, N: _channels(K, 2 * N, 0, 2, N - 1),
    "hgrn": lambda K, V, N: _channels(K, 4, 1, 3, 1),
    "mingru": lambda K, V, N: _channels(K, 4, 2, 3, 1),
    "rg_lru": lambda K, V, N: _channels(K, 8, 3, 4, 1),
    "mamba1": lambda K, V, N: _channels(K, 6 * N, N, 3, N, shared=2 * N),
    "s4d": lambda K, V, N: _channels(K, 14 * N, 0, 2, 2 * N),
}
"""One token of one head."""

_SIZES = {
    "linear_attention": None,
    "based": None,
    "performer": 256,
    "gsa": 64,
    "mamba2": 128,
    "deltaproduct": 2,
    "short_convolution": 4,
    "mamba1": 16,
    "s4d": 32,
}
"""How large N is unless it is given; None is what `_size` says."""

_ATTENTIONS: dict[str, tuple[int | None, int | None]] = {
    "softmax_attention": (None, None),
    "forgetting_attention": (None, None),
    "longformer": (512, 1023),
    "bigbird": (256, 256),
}
"""Softmax over stored keys: how many a token sees unless it is given, looking back only and both ways; None is all."""

_TWO_WAYS = {"softmax_attention", "longformer", "bigbird", "linear_attention", "performer", "based"}


def cost(
    mechanism: str | Callable[..., Any],
    T: int,
    d: int,
    *,
    heads: int = 1,
    d_v: int | None = None,
    causal: bool = True,
    n_state: int | None = None,
    dtype: npt.DTypeLike = "float32",
) -> Cost:
    """Count what a mechanism does to T tokens, and to one more.

    Parameters
    ----------
    mechanism : str or callable
        Its name, or the function itself: ``"rwkv7"`` or ``wkvnp.rwkv7``.
    T : int
        Tokens of one sequence.
    d : int
        Width of a head's keys. A mechanism of channels has ``heads * d`` of them.
    heads : int, default 1
        How many of that width.
    d_v : int, optional
        Width of a head's values; `d` by default.
    causal : bool, default True
        False counts tokens that also see later ones; recurrences with a decay cannot.
    n_state : int, optional
        The size that `d` does not say: random features (256 by default), features of linear attention (`d`) and Based,
        state numbers per channel of Mamba-1 (16), S4D (32, complex) and Mamba-2 (128), slots of GSA (64), steps
        of DeltaProduct (2), tokens in the window of the short convolution (4), keys that a token sees at most in
        softmax attention (all), Longformer (512) and BigBird (256).
    dtype : dtype, default float32
        Of the arrays. The state is float32, or float64 if they are.

    Returns
    -------
    Cost
        With `prefill`, `token` and `state_bytes`.

    Raises
    ------
    ArgumentError
        If the mechanism is unknown, a size is not a whole number that it can be, or it has no form that is not causal.

    Notes
    -----
    Counts the terms that grow with the product of two sizes, as papers do: no feature maps that work on
    one number at a time, normalisations or divisions. Bytes are what must move at least: what a cache can
    hold is read once. Softmax attention is counted without ever storing its T x T scores.

    References
    ----------
    Katharopoulos et al. 2020, "Transformers are RNNs" (arXiv:2006.16236), section 3.2, for the two orders of growth.

    Examples
    --------
    Attention grows with the square of the tokens, linear attention with the square of the width, so one costs T / d
    times the other; a token that only looks back costs half of that on average:

    >>> def ratio(causal):
    ...     one, other = (
    ...         cost(name, 100_000, 128, causal=causal).prefill.flops
    ...         for name in ("softmax_attention", "linear_attention")
    ...     )
    ...     return round(one / other, 2)
    >>> ratio(causal=False), ratio(causal=True)
    (781.25, 390.63)

    What is kept does not grow at all:

    >>> [cost("softmax_attention", T, 64, heads=12).state_bytes for T in (64, 128, 100_000)]
    [393216, 786432, 614400000]
    >>> [cost("rwkv7", T, 64, heads=12).state_bytes for T in (64, 128, 100_000)]
    [196608, 196608, 196608]
    """
    name = mechanism if isinstance(mechanism, str) else getattr(mechanism, "__name__", repr(mechanism))
    if name not in NAMES:
        raise ArgumentError(f"cost: mechanism must be one of {', '.join(NAMES)}; got {name!r}")
    if name not in _RECURRENCES and name not in _ATTENTIONS:
        raise ArgumentError(f"cost: the cost of {name} is not declared; it belongs in wkvnp/analysis/cost.py")
    V = d if d_v is None else d_v
    for label, size, least in (("T", T, 0), ("d", d, 1), ("heads", heads, 1), ("d_v", V, 1), ("n_state", n_state, 1)):
        if size is not None and (not isinstance(size, Integral) or isinstance(size, bool) or size < least):
            raise ArgumentError(f"cost: {label} must be a whole number of at least {least}; got {size!r}")
    if not causal and name not in _TWO_WAYS:
        raise ArgumentError(f"cost: causal must be True for {name}, which only looks back; got False")
    if n_state is not None and name not in _SIZES and name not in _ATTENTIONS:
        raise ArgumentError(f"cost: n_state must be None for {name}, which d and d_v describe; got {n_state}")
    narrow = float_dtype(dtype).itemsize
    wide = max(narrow, 4)
    if name in _ATTENTIONS:
        seen = n_state or _ATTENTIONS[name][0 if causal else 1]
        gate = 8 if name == "forgetting_attention" else 0
        return _attention(T, d, V, heads, causal, seen, narrow, (d + V) * wide + gate)
    one = _RECURRENCES[name](d, V, n_state or _size(name, d))
    state = heads * (one.state * wide + one.doubles * 8)
    moved = (heads * one.numbers + one.shared) * narrow
    flops, exps = heads * one.flops, heads * one.exps
    reading = flops if causal else flops // 2  # a query more adds nothing to what the others see
    return Cost(Work(T * flops, T * exps, T * moved + 2 * state), Work(reading, exps, moved + 2 * state), state)


def _size(name: str, K: int) -> int:
    """Return how large N is where nobody says."""
    products = 1 + K + K * (K + 1) // 2  # of at most two of K numbers
    return products if name == "based" else _SIZES.get(name) or K


def _attention(T: int, K: int, V: int, heads: int, causal: bool, seen: int | None, narrow: int, stored: int) -> Cost:
    """Count softmax attention, in which a token sees at most `seen` keys and leaves `stored` bytes a head."""
    most = T if seen is None else min(seen, T)
    scores = most * (most + 1) // 2 + (T - most) * most if causal else T * most
    arrays = (2 * K + 2 * V) * narrow

    def work(tokens: int, scores: int, moved: int) -> Work:
        return Work(heads * 2 * scores * (K + V), heads * scores, heads * (tokens * arrays + moved * stored))

    return Cost(work(T, scores, T), work(1, most, most + 1), heads * T * stored)
