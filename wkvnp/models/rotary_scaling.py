"""Rotary positions with their published scalings: by what angle each pair of channels turns per token.

Letters: M tokens of B packed sequences, R rotated channels of a head; pair i of R/2 turns by ``theta ** (-2 i / R)``
per token where nothing is scaled, which is ``L theta ** (-2 i / R) / 2 pi`` turns in a text of L tokens.

References
----------
Su et al. 2021 (arXiv:2104.09864), section 3.2.2; Chen et al. 2023 (arXiv:2306.15595), equation 4, for ``linear``; Peng
et al. 2023 (arXiv:2309.00071), section 3, for ``yarn``, whose ramp runs over the number of the pair as in
jquesnelle/yarn, ``scaled_rope/LlamaYaRNScaledRotaryEmbedding.py``; meta-llama/llama-models,
``models/llama3/model.py``, for ``llama3``.
"""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from .settings import Settings

Array = npt.NDArray[Any]
_SCALINGS = ("default", "linear", "llama3", "yarn")
_GROWING = ("dynamic", "longrope", "su", "ntk")
_KNOWN = frozenset(
    ("factor", "original_max_position_embeddings", "attention_factor", "beta_fast", "beta_slow", "short_factor")
    + ("long_factor", "short_mscale", "long_mscale", "low_freq_factor", "high_freq_factor", "mscale", "mscale_all_dim")
    + ("truncate", "alpha", "llama_4_scaling_beta")
)
"""Names that some scaling reads: they are refused where the one at hand does not read them."""
_Number = TypeVar("_Number", int, float)


@dataclass(frozen=True, kw_only=True)
class Rotary:
    """How positions turn the queries and keys of a model.

    Attributes
    ----------
    size : int
        R, how many channels of a head are turned: the first ones.
    theta : float
        Base of the wavelengths.
    scaling : str
        ``"default"`` (none), ``"linear"``, ``"llama3"`` or ``"yarn"``.
    factor : float
        How many times longer the texts became.
    context : int
        L, their length before.
    slow, fast : float
        Pairs that make fewer turns in L tokens than `slow` are slowed down by `factor`, those that make more than
        `fast` stay as they are.
    truncate : bool
        Whether ``yarn`` rounds the pairs where its ramp begins and ends.
    attention_factor : float
        Factor on cosines and sines.

    Examples
    --------
    >>> Rotary(size=4, theta=10000.0).rates()
    array([1.  , 0.01])
    >>> Rotary(size=4, theta=10000.0, scaling="linear", factor=4.0).rates()
    array([0.25  , 0.0025])
    """

    size: int
    theta: float
    scaling: str = "default"
    factor: float = 1.0
    context: int = 1
    slow: float = 1.0
    fast: float = 32.0
    truncate: bool = True
    attention_factor: float = 1.0

    def rates(self) -> Array:
        """Return the angle per token of every pair, float64 (R/2,)."""
        rates: Array = self.theta ** -(np.arange(0, self.size, 2) / self.size)
        if self.scaling == "default":
            return rates
        kept: Array = np.zeros(rates.size)  # the share of a rate that stays as it is
        if self.scaling == "llama3":
            kept = (self.context * rates / (2 * math.pi) - self.slow) / (self.fast - self.slow)
        elif self.scaling == "yarn":
            first, last = self._pair(self.fast), self._pair(self.slow)
            if self.truncate:
                first, last = math.floor(first), math.ceil(last)
            first, last = max(first, 0), min(last, self.size - 1)
            kept = 1 - (np.arange(rates.size) - first) / (last - first if last != first else 0.001)
        kept = np.clip(kept, 0, 1)
        return rates * (kept + (1 - kept) / self.factor)

    def _pair(self, turns: float) -> float:
        """Return the number, with a fraction, of the pair that makes `turns` turns in L tokens."""
        return self.size * math.log(self.context / (2 * math.pi * turns)) / (2 * math.log(self.theta))


def rotary_of(settings: Settings, head_size: int, share: float | None = None) -> Rotary:
    """Return what the fields of a ``config.json`` say about positions.

    Parameters
    ----------
    settings : Settings
        ``rope_theta``, ``rope_scaling``, ``partial_rotary_factor`` and ``original_max_position_embeddings``, or
        ``rope_parameters`` with all of them.
    head_size : int
        Channels of a head.
    share : float, optional
        The part of them that is rotated, where the fields do not say; None if it can only be all of them.

    Raises
    ------
    CheckpointError
        If a field is not what it must be, or names a scaling that is not computed.
    """
    place = _place(settings)
    theta = _either(settings, place, "rope_theta", Settings.number, 1e4)
    if share is None:
        for where in (settings, place):
            where.choice("partial_rotary_factor", (1.0, 1), 1.0)
    part = 1.0 if share is None else _either(settings, place, "partial_rotary_factor", Settings.number, share)
    size = int(head_size * part)
    if not 2 <= size <= head_size or size % 2:
        raise settings.fault("partial_rotary_factor", f"such that an even number of {head_size} channels is rotated")
    scaling = _scaling(place)
    facts: dict[str, Any] = {}
    if scaling in ("llama3", "yarn"):
        facts["context"] = _context(settings, place)
    if scaling != "default":
        # What is null follows from the lengths of the texts, as in transformers.
        longer = settings.integer("max_position_embeddings", 1) / facts["context"] if scaling == "yarn" else None
        facts["factor"] = place.number("factor", longer if "factor" in place.fields else None)
    if scaling == "llama3":
        facts |= {"slow": place.number("low_freq_factor"), "fast": place.number("high_freq_factor")}
        if facts["slow"] >= facts["fast"]:
            raise place.fault("high_freq_factor", "more than low_freq_factor")
    elif scaling == "yarn":
        facts |= {"slow": place.number("beta_slow", 1.0), "fast": place.number("beta_fast", 32.0)}
        facts["truncate"] = place.flag("truncate", True)
        facts["attention_factor"] = _attention_factor(place, facts["factor"])
        if theta == 1:
            raise place.fault("rope_theta", "another number than 1 with yarn")
    place.ignore("mrope_section")  # bands for images; of a text, all of them say the same position
    place.finish(may_matter=_KNOWN)
    return Rotary(size=size, theta=theta, scaling=scaling, **facts)


def _place(settings: Settings) -> Settings:
    """Return the fields of the scaling, which have an old and a new name; empty ones say nothing."""
    places = [settings.nested(name) for name in ("rope_parameters", "rope_scaling")]
    said = [place for place in places if place is not None and place.fields]
    if len(said) == 2 and said[0].fields != said[1].fields:
        raise settings.fault("rope_scaling", "absent where there is rope_parameters")
    return said[0] if said else Settings({}, f"{settings.source}: rope_parameters")


def _context(settings: Settings, place: Settings) -> int:
    """Return how long texts were before the scaling."""
    name = "original_max_position_embeddings"
    longest = settings.integer("max_position_embeddings", 1)
    if name not in place and name not in settings and "max_position_embeddings" not in settings:
        raise place.fault(name, "a whole number from 1")
    return _either(settings, place, name, Settings.integer, longest)


def _either(settings: Settings, place: Settings, name: str, read: Callable[..., _Number], usual: _Number) -> _Number:
    """Return a field that may be in either of two places."""
    if name in settings and name in place and read(settings, name) != read(place, name):
        raise place.fault(name, f"{read(settings, name)}, as outside")
    return read(place, name, read(settings, name, usual))


def _scaling(place: Settings) -> str:
    """Return the kind of scaling; there are two names for the field."""
    kinds = {name: place.value(name) for name in ("rope_type", "type") if name in place}
    name = next(iter(kinds), "rope_type")
    if any(kind in _GROWING for kind in kinds.values()):
        raise place.fault(
            name,
            f"one of {', '.join(_SCALINGS)}; others depend on the length of the text, so that keys in a state would "
            "have to turn anew when it is continued",
        )
    if len(set(map(str, kinds.values()))) > 1:
        raise place.fault("type", "the same as rope_type")
    scaling: str = place.choice(name, _SCALINGS, "default")
    return scaling


def _attention_factor(place: Settings, factor: float) -> float:
    """Return the factor of YaRN on cosines and sines (equation 22 of the paper), or the quotient of two such ones."""

    def of(scale: float) -> float:
        return 0.1 * scale * math.log(factor) + 1 if factor > 1 else 1.0

    usual = of(1.0)
    place.ignore("mscale", "mscale_all_dim")  # one of them alone changes nothing
    if place.fields.get("mscale") and place.fields.get("mscale_all_dim"):
        usual = of(place.number("mscale")) / of(place.number("mscale_all_dim"))
    return place.number("attention_factor", usual)


@functools.lru_cache(maxsize=64)
def rotation_of(rotary: Rotary, dtype: np.dtype[Any]) -> Rotation:
    """Return the one `Rotation` that all layers which turn alike share."""
    return Rotation(rotary, dtype)


class Rotation:
    """Cosines and sines for the tokens of a call, worked out once for all layers that share this object.

    Each thread remembers its own last call. Angles are float64: in float32 those of position 100,000 are off by up to
    0.004.

    Examples
    --------
    >>> turns = Rotation(Rotary(size=2, theta=1.0), np.dtype("f4"))
    >>> cos, sin, seen = turns(np.array([3, 0]), np.array([0, 1, 3]))
    >>> cos.ravel().round(3), seen
    (array([-0.99,  1.  ,  0.54], dtype=float32), array([4, 2]))
    """

    def __init__(self, rotary: Rotary, dtype: np.dtype[Any]) -> None:
        self._rates, self._factor, self._dtype = rotary.rates(), rotary.attention_factor, dtype
        self._last = threading.local()

    def __call__(self, seen: Array, offsets: Array) -> tuple[Array, Array, Array]:
        """Return cos and sin (M, R/2) of packed tokens that come after `seen` (B,) others, and how many come to be."""
        known = getattr(self._last, "call", None)
        # Within a call all layers get the same array of offsets, and after it the same `seen`.
        if known is not None and known[0] is offsets and (known[1] is seen or np.array_equal(known[1], seen)):
            answer: tuple[Array, Array, Array] = known[2]
            return answer
        new = np.diff(offsets)
        position = np.arange(offsets[-1]) + np.repeat(seen - offsets[:-1], new)
        angles = position[:, None] * self._rates
        cos, sin = ((self._factor * part).astype(self._dtype, copy=False) for part in (np.cos(angles), np.sin(angles)))
        answer = cos, sin, seen + new
        self._last.call = offsets, seen, answer
        return answer
