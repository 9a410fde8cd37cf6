"""Mamba-2: every layer is a matrix state with one decay a head behind a short convolution, and a norm with a gate.

Letters: M packed tokens of B sequences, C channels, E inner channels, H heads of width P, G groups of heads, N state
width, W tokens of the convolution, Q = E + 2GN channels that it sees, Z = E + Q + H, V vocabulary. Matrices are
[out, in].

References
----------
Dao and Gu 2024 (arXiv:2405.21060), section 7; state-spaces/mamba, ``mamba_ssm/modules/mamba2.py``;
huggingface/transformers, ``models/mamba2/modeling_mamba2.py``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np

from .._dtypes import dtype_name
from ..checkpoints import LazyTensor
from ..checkpoints.naming import Array, Linear, Matrix, declare
from ..operations import Operations, Value
from .mamba_layer import (
    MambaConfig,
    MambaState,
    convolution,
    mamba_network,
    placed,
    pole,
    product_with,
    shared_axes,
    shared_fields,
)
from .network import Network, vector
from .settings import Settings


@dataclass(frozen=True, eq=False)
class Mixer:
    """``mixer``."""

    in_proj: Annotated[Linear, "Z C"]
    conv1d: Annotated[Linear, "Q 1 W"]
    dt_bias: Annotated[Array, "H"]
    A_log: Annotated[Array, "H"]
    D: Annotated[Array, "H"]
    norm: Annotated[Matrix, "E"]
    out_proj: Annotated[Linear, "C E"]


@dataclass(frozen=True, eq=False)
class Block:
    """``backbone.layers.n``."""

    norm: Annotated[Matrix, "C"]
    mixer: Mixer


@dataclass(frozen=True, eq=False)
class Backbone:
    """``backbone``."""

    embeddings: Annotated[Matrix, "V C"]
    layers: tuple[Block, ...]
    norm_f: Annotated[Matrix, "C"]


@dataclass(frozen=True, eq=False)
class Weights:
    """All tensors of a checkpoint; without a head, the embedding is the head."""

    backbone: Backbone
    lm_head: Annotated[Matrix | None, "V C"] = None


WEIGHTS = {"mamba2": Weights}
MODEL_TYPES = ("mamba2",)


@dataclass(frozen=True, kw_only=True)
class Mamba2Config(MambaConfig):
    """Sizes of a Mamba-2.

    Attributes
    ----------
    n_head, head_size, n_group : int
        Heads, their width, and groups of them that share B and C.
    step_limit : tuple of float
        Where steps are cut off, below and above.
    """

    n_head: int
    head_size: int
    n_group: int
    step_limit: tuple[float, float]

    @property
    def n_convolved(self) -> int:
        """Channels of the convolution: those of x, B and C."""
        return self.n_inner + 2 * self.n_group * self.n_state

    @property
    def state_bytes(self) -> int:
        """Bytes of the state of one sequence, in float32."""
        return 4 * self.n_layer * ((self.n_conv - 1) * self.n_convolved + self.n_inner * self.n_state)


class Mamba2Layer:
    """One layer: the mixer is added to the residual stream, after an RMS norm."""

    def __init__(self, block: Block, config: Mamba2Config, dtype: np.dtype[Any]) -> None:
        mixer, self._config, self._dtype = block.mixer, config, dtype
        self._norm, self._gated_norm = vector(block.norm.weight, dtype), vector(mixer.norm.weight, dtype)
        self._in_proj, self._out_proj = product_with(mixer.in_proj, dtype), product_with(mixer.out_proj, dtype)
        self._conv, self._dt_bias = convolution(mixer.conv1d, dtype), vector(mixer.dt_bias, dtype)
        self._A, self._D = pole(mixer.A_log, dtype), vector(mixer.D, dtype)

    def start(self, batch: int) -> MambaState:
        """Return an empty past."""
        c = self._config
        window, ssm = (batch, c.n_conv - 1, c.n_convolved), (batch, c.n_head, c.n_state, c.head_size)
        return MambaState(np.zeros(window, self._dtype), np.zeros(ssm, self._dtype))

    def __call__(self, o: Operations, x: Value, v_first: Value) -> tuple[Value, Value]:
        """Return the residual stream after the layer, and `v_first` as it was."""
        c = self._config
        E, GN = c.n_inner, c.n_group * c.n_state
        o.scope = "mixer"
        (zxBCdt,) = o.multiply(zxBCdt=self._in_proj(o.rms_norm("x", x, self._norm, c.norm_eps)))
        z, xBC, dt = o.split(zxBCdt, z=E, xBC=c.n_convolved, dt=c.n_head)
        u, B, C = o.split(o.convolve("conv", xBC, *self._conv, "convolution"), u=E, B=GN, C=GN)
        y = o.state_space(u, B, C, dt, self._dt_bias, self._A, self._D, c.step_limit, c.n_group, "ssm")
        # As the original: the gate before the norm, and a norm for every group. Older versions of transformers had one
        # norm over all groups, which is another model than the one that was trained.
        y = o.rms_norm("normed", o.gate("gated", y, z), self._gated_norm, c.norm_eps, c.n_group)
        return o.add_product(x, self._out_proj(y)), v_first


def network(weights: Weights, config: Mamba2Config, dtype: np.dtype[Any]) -> Network:
    """Return the way from tokens to logits."""
    return mamba_network(Mamba2Layer, weights, config, dtype)


def bound(tensors: Mapping[str, LazyTensor], settings: Settings, source: str) -> tuple[Weights, Mamba2Config]:
    """Return tensors in their places among the weights, unread, and the configuration that the fields make.

    Raises
    ------
    CheckpointError
        If a tensor or a field is missing, left over, or not what it must be.
    """
    config = config_of(settings)
    settings.finish()
    weights = placed(Weights, tensors, config, _axes(config), source)
    return weights, replace(config, dtype=dtype_name(weights.backbone.layers[0].mixer.in_proj.weight.dtype))


def _axes(c: Mamba2Config) -> tuple[tuple[str, str, int], ...]:
    return (
        *shared_axes(c),
        ("E", "expand x hidden_size", c.n_inner),
        ("H", "num_heads", c.n_head),
        ("Q", "expand x hidden_size + 2 n_groups state_size", c.n_convolved),
        ("Z", "2 expand x hidden_size + 2 n_groups state_size + num_heads", c.n_inner + c.n_convolved + c.n_head),
    )


def config_of(settings: Settings) -> Mamba2Config:
    """Return the configuration that the fields of a ``config.json`` describe."""
    settings.choice("model_type", MODEL_TYPES)
    # Codestral says norm_before_gate, but the code that it was made with, and transformers, have the gate first.
    settings.ignore("chunk_size", "norm_before_gate", "time_step_rank")
    heads, size = settings.integer("num_heads", 128), settings.integer("head_dim", 64)
    groups, inner = settings.integer("n_groups", 8), settings.number("expand", 2.0) * settings.integer("hidden_size")
    if inner != heads * size:
        raise settings.fault("num_heads", f"expand x hidden_size / head_dim = {inner / size:g}")
    if settings.integer("intermediate_size", heads * size) != inner:
        raise settings.fault("intermediate_size", f"expand x hidden_size = {inner:g}")
    if heads % groups:
        raise settings.fault("n_groups", f"a divisor of num_heads = {heads}")
    return Mamba2Config(
        architecture="mamba2",
        n_state=settings.integer("state_size", 128),
        n_head=heads,
        head_size=size,
        n_group=groups,
        step_limit=_limits(settings),
        **shared_fields(settings, heads * size, tied=False),
    )


def _limits(settings: Settings) -> tuple[float, float]:
    """Return the least and the largest step; newer files write an infinite one as an object."""
    found = settings.value("time_step_limit")
    limits = [0.0, math.inf] if found is None else found
    if isinstance(limits, list):
        limits = [math.inf if part == {"__float__": "Infinity"} else part for part in limits]
        if [type(part) in (int, float) for part in limits] == [True, True] and 0 <= limits[0] <= limits[1]:
            with suppress(OverflowError):  # an integer of hundreds of digits
                return float(limits[0]), float(limits[1])
    raise settings.fault("time_step_limit", "two numbers of at least 0, the smaller first")


def fresh_fields(
    *, n_layer: int, n_embd: int, vocab_size: int, head_size: int, n_state: int = 128, n_group: int = 1
) -> dict[str, Any]:
    """Return the fields of a model with random weights."""
    return {
        "model_type": "mamba2",
        "hidden_size": n_embd,
        "num_hidden_layers": n_layer,
        "expand": 2,
        "num_heads": 2 * n_embd // head_size,
        "head_dim": head_size,
        "n_groups": n_group,
        "state_size": n_state,
        "conv_kernel": 4,
        "layer_norm_epsilon": 1e-5,
        "use_bias": False,
        "use_conv_bias": True,
        "tie_word_embeddings": False,
        "vocab_size": vocab_size,
    }


def shapes(config: Mamba2Config) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of the tensors of a fresh model."""
    return declare(Weights, {letter: size for letter, _, size in _axes(config)}, config.n_layer, config.has)
