"""What RWKV-4 to 7 share: a layer of time mix and channel mix, its state, and the way from tokens to logits.

Letters: M packed tokens of B sequences, C channels, H heads, K and V channels of a head.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .._dtypes import widen
from ..checkpoints.naming import Array, Norm
from ..errors import StateError
from ..mechanisms.rwkv4 import EMPTY_EXPONENT, WKVState
from ..operations import Mixes, Operations, Value
from .network import Config, Embedding, Head, Network, vector

_EPS = 1e-5
"""Added to the variance in the layer norms."""


@dataclass(frozen=True, kw_only=True)
class RWKVConfig(Config):
    """Sizes of an RWKV, all read from the shapes of its tensors.

    Attributes
    ----------
    architecture : str
        ``"rwkv4"``, ``"rwkv5.0"``, ``"rwkv5.1"``, ``"rwkv5.2"``, ``"rwkv6"`` or ``"rwkv7"``.
    n_att, n_ffn : int
        Width of the time mix and of the channel mix.
    n_head, head_size : int
        Heads and their width; RWKV-4 has none: 0 heads of size 0.
    ranks : dict of str to int
        Ranks of the low-rank factors.
    group_norm_eps : float
        Added to the variance of each head's output.
    """

    n_att: int
    n_ffn: int
    n_head: int = 0
    head_size: int = 0
    ranks: dict[str, int] = field(default_factory=dict)
    group_norm_eps: float = 64e-5

    @property
    def state_bytes(self) -> int:
        """Bytes of the state of one sequence: float32, and the exponents of RWKV-4 float64."""
        wkv = (2 + 2) * self.n_att if self.n_head == 0 else self.n_head * self.head_size**2
        return 4 * self.n_layer * (2 * self.n_embd + wkv)

    def metadata(self) -> dict[str, str]:
        """Return what a safetensors file says besides the tensors."""
        return {"architecture": self.architecture, "group_norm_eps": repr(self.group_norm_eps)}


@dataclass(frozen=True, eq=False)
class LayerState:
    """The state of one RWKV layer; the batch axis comes first.

    Attributes
    ----------
    time_shift, channel_shift : ndarray, shape (B, C)
        The last output of the layer norm before the time mix and before the channel mix.
    wkv : ndarray, shape (B, H, K, V), or WKVState
        The state of the recurrence, key axis first; three vectors (B, C) in RWKV-4.
    """

    time_shift: Array
    wkv: Array | WKVState
    channel_shift: Array


class RWKVLayer(ABC):
    """One layer: the time mix and the channel mix are added to the residual stream, each after a layer norm."""

    def __init__(self, block: Any, config: RWKVConfig, dtype: np.dtype[Any]) -> None:
        self.config, self._dtype = config, dtype
        self._time_state = getattr(block.att, "time_state", None)
        self._ln1, self._ln2 = _norm(block.ln1, dtype), _norm(block.ln2, dtype)

    @abstractmethod
    def time_mix(self, o: Operations, x: Value, z: Value, previous: Value, v_first: Value) -> tuple[Value, Value]:
        """Return x plus the time mix of z, the normalised x; and the values of the first layer, for later layers."""

    @abstractmethod
    def channel_mix(self, o: Operations, x: Value, z: Value, previous: Value) -> Value:
        """Return x plus the channel mix of z."""

    def __call__(self, o: Operations, x: Value, v_first: Value) -> tuple[Value, Value]:
        """Return the residual stream after the layer, and the values of the first layer of RWKV-7."""
        o.scope = "att"
        z = o.layer_norm("x", x, *self._ln1, _EPS)
        x, v_first = self.time_mix(o, x, z, o.previous(z, "time_shift"), v_first)
        o.scope = "ffn"
        z = o.layer_norm("x", x, *self._ln2, _EPS)
        return self.channel_mix(o, x, z, o.previous(z, "channel_shift")), v_first

    def start(self, batch: int) -> LayerState:
        """Return zeros, or what the checkpoint was tuned to start from."""
        return self.start_from(self._time_state, batch)

    def start_from(self, time_state: Array | None, batch: int) -> LayerState:
        """Return zeros, with a tuned `time_state` (H, V, K) as the state of the recurrence."""
        c = self.config

        def zeros(*shape: int) -> Array:
            return np.zeros((batch, *shape), self._dtype)

        wkv: Array | WKVState
        if c.n_head == 0:
            wkv = WKVState(zeros(c.n_att), zeros(c.n_att), np.full((batch, c.n_att), EMPTY_EXPONENT))
        else:
            wkv = zeros(c.n_head, c.head_size, c.head_size)
            if time_state is not None:
                wkv += widen(time_state).swapaxes(1, 2)
        return LayerState(zeros(c.n_embd), wkv, zeros(c.n_embd))


def mixes(names: tuple[str, ...], shares: Sequence[Array]) -> Mixes:
    """Return mixtures with the last token, from vectors of their shares."""
    return Mixes(names, np.stack([share.reshape(-1) for share in shares]))


def rwkv_network(layer: Callable[..., RWKVLayer], weights: Any, config: RWKVConfig, dtype: np.dtype[Any]) -> Network:
    """Return the way from tokens to logits: embedding and its norm, layers, last norm and head."""
    ln0, (scale, shift) = _norm(weights.blocks[0].ln0, dtype), _norm(weights.ln_out, dtype)
    layers = tuple(layer(block, config, dtype) for block in weights.blocks)
    embed = Embedding(weights.emb.weight, dtype, (*ln0, _EPS))
    return Network(embed, layers, Head(weights.head.weight, scale, shift, _EPS))


def fresh_sizes(architecture: str, n_layer: int, n_embd: int, vocab_size: int, head_size: int) -> dict[str, int]:
    """Return the size of every axis letter, by the rules of the published models."""
    sizes = {"C": n_embd, "A": n_embd, "V": vocab_size, "H": n_embd // head_size, "N": head_size}
    sizes["F"] = 4 * n_embd if architecture in ("rwkv4", "rwkv7") else max(32, int(3.5 * n_embd) // 32 * 32)
    large = n_embd >= 4096
    sizes |= {"R": 64 if large else 32, "D": 128 if large else 64}

    def rank(factor: float, power: float) -> int:
        multiple: int = round(factor * n_embd**power / 32)
        return max(32, 32 * multiple)

    sizes |= {"Dw": rank(1.8, 0.5), "Da": rank(1.8, 0.5), "Dg": rank(0.6, 0.8)}
    return sizes | ({"Dv": rank(1.3, 0.5)} if n_layer > 1 else {})


def is_in_fresh(name: str) -> bool:
    """Say which optional tensors a fresh model has."""
    block, _, tensor = name.removeprefix("blocks.").partition(".")
    if tensor.startswith("ln0."):
        return block == "0"
    if tensor in ("att.v0", "att.v1", "att.v2"):
        return block != "0"
    return tensor == "att.time_faaaa"


def tuned_start(layers: Any, tensors: Mapping[str, Array], source: str) -> tuple[LayerState, ...]:
    """Return the initial state that ``blocks.n.att.time_state`` tensors (H, V, K) describe.

    Raises
    ------
    StateError
        If one is missing or has another shape, or the layers are none of RWKV-5 to 7.
    """
    start = []
    for n, layer in enumerate(layers):
        if not isinstance(layer, RWKVLayer):
            raise StateError(f"{source}: holds a tuned state for layers of RWKV-5 to 7; layer {n} of the model is none")
        start.append(layer.start_from(_tuned(layer.config, tensors, f"blocks.{n}.att.time_state", source), 1))
    if len(tensors) != len(start):
        raise StateError(f"{source}: holds {len(tensors)} layers; the model has {len(start)}")
    return tuple(start)


def _tuned(c: RWKVConfig, tensors: Mapping[str, Array], name: str, source: str) -> Array:
    shape = (c.n_head, c.head_size, c.head_size)
    found = tensors[name].shape if name in tensors else "no such tensor"
    if c.n_head == 0 or found != shape:
        raise StateError(f"{source}: {name} must have shape {shape} for {c.architecture}; got {found}")
    return tensors[name]


def _norm(norm: Norm, dtype: np.dtype[Any]) -> tuple[Array, Array]:
    return vector(norm.weight, dtype), vector(norm.bias, dtype)
