"""Mamba-1: every layer is a selective state-space model behind a short convolution, and a gate.

FalconMamba is the same with norms of the step, of B and of C.

Letters: M packed tokens of B sequences, C channels, E inner channels, N state width, W tokens of the convolution, R
rank of the step, X = R + 2N, V vocabulary. Matrices are [out, in].

References
----------
Gu and Dao 2023 (arXiv:2312.00752), algorithm 2 and figure 3; state-spaces/mamba, ``mamba_ssm/modules/mamba_simple.py``;
huggingface/transformers, ``models/mamba/modeling_mamba.py`` and ``models/falcon_mamba/modeling_falcon_mamba.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np

from .._dtypes import dtype_name
from ..checkpoints import LazyTensor
from ..checkpoints.naming import Array, Linear, Matrix, declare
from ..operations import Operations, Product, Value
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
class Step:
    """``dt_proj``."""

    weight: Annotated[Array, "E R"]
    bias: Annotated[Array, "E"]


@dataclass(frozen=True, eq=False)
class Mixer:
    """``mixer``."""

    in_proj: Annotated[Linear, "2E C"]
    conv1d: Annotated[Linear, "E 1 W"]
    x_proj: Annotated[Matrix, "X E"]
    dt_proj: Step
    A_log: Annotated[Array, "E N"]
    D: Annotated[Array, "E"]
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


WEIGHTS = {"mamba1": Weights}
MODEL_TYPES = ("mamba", "falcon_mamba")


@dataclass(frozen=True, kw_only=True)
class Mamba1Config(MambaConfig):
    """Sizes of a Mamba-1.

    Attributes
    ----------
    rank : int
        Rank of the step.
    mixer_eps : float or None
        Added to the mean square of the step, of B and of C, where they are normalised.
    """

    rank: int
    mixer_eps: float | None

    @property
    def state_bytes(self) -> int:
        """Bytes of the state of one sequence, in float32."""
        return 4 * self.n_layer * self.n_inner * (self.n_conv - 1 + self.n_state)


class Mamba1Layer:
    """One layer: the mixer is added to the residual stream, after an RMS norm."""

    def __init__(self, block: Block, config: Mamba1Config, dtype: np.dtype[Any]) -> None:
        mixer, self._config, self._dtype = block.mixer, config, dtype
        self._norm = vector(block.norm.weight, dtype)
        self._in_proj, self._out_proj = product_with(mixer.in_proj, dtype), product_with(mixer.out_proj, dtype)
        self._conv, self._x_proj, self._dt_proj = (
            convolution(mixer.conv1d, dtype),
            mixer.x_proj.weight,
            mixer.dt_proj.weight,
        )
        self._dt_bias = vector(mixer.dt_proj.bias, dtype)
        # The kernel wants A with its channels innermost: laid out so here, not for every token.
        self._A, self._D = np.asfortranarray(pole(mixer.A_log, dtype)), vector(mixer.D, dtype)

    def start(self, batch: int) -> MambaState:
        """Return an empty past; in memory, the channels of a state are innermost."""
        c = self._config
        window, ssm = (batch, c.n_conv - 1, c.n_inner), (batch, c.n_state, c.n_inner)
        return MambaState(np.zeros(window, self._dtype), np.zeros(ssm, self._dtype).swapaxes(1, 2))

    def __call__(self, o: Operations, x: Value, v_first: Value) -> tuple[Value, Value]:
        """Return the residual stream after the layer, and `v_first` as it was."""
        c = self._config
        o.scope = "mixer"
        (xz,) = o.multiply(xz=self._in_proj(o.rms_norm("x", x, self._norm, c.norm_eps)))
        u, z = o.split(xz, u=c.n_inner, z=c.n_inner)
        u = o.convolve("conv", u, *self._conv, "convolution")
        (low,) = o.multiply(low=Product(u, self._x_proj))
        dt, B, C = o.split(low, dt=c.rank, B=c.n_state, C=c.n_state)
        if c.mixer_eps is not None:
            ones = np.ones(max(c.rank, c.n_state), self._dtype)
            dt = o.rms_norm("dt", dt, ones[: c.rank], c.mixer_eps)
            B, C = (o.rms_norm(name, part, ones[: c.n_state], c.mixer_eps) for name, part in (("B", B), ("C", C)))
        y = o.selective(u, z, dt, self._dt_proj, self._dt_bias, B, C, self._A, self._D, "ssm")
        return o.add_product(x, self._out_proj(y)), v_first


def network(weights: Weights, config: Mamba1Config, dtype: np.dtype[Any]) -> Network:
    """Return the way from tokens to logits."""
    return mamba_network(Mamba1Layer, weights, config, dtype)


def bound(tensors: Mapping[str, LazyTensor], settings: Settings, source: str) -> tuple[Weights, Mamba1Config]:
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


def _axes(c: Mamba1Config) -> tuple[tuple[str, str, int], ...]:
    return (
        *shared_axes(c),
        ("E", "intermediate_size", c.n_inner),
        ("N", "state_size", c.n_state),
        ("R", "time_step_rank", c.rank),
        ("X", "time_step_rank + 2 state_size", c.rank + 2 * c.n_state),
    )


def config_of(settings: Settings) -> Mamba1Config:
    """Return the configuration that the fields of a ``config.json`` describe."""
    kind = settings.choice("model_type", MODEL_TYPES)
    width = settings.integer("hidden_size")
    expanded = settings.number("expand", 2.0) * width
    if not expanded <= 1 << 40:
        raise settings.fault("expand", "smaller")
    # FalconMamba says that expand is 16 where it is 2: the width itself counts, if it is stated.
    inner = settings.integer("intermediate_size", int(expanded))
    rank = settings.value("time_step_rank")
    if rank in (None, "auto"):
        rank = -(-width // 16)
    else:
        rank = settings.integer("time_step_rank")
    return Mamba1Config(
        architecture="mamba1",
        n_state=settings.integer("state_size", 16),
        rank=rank,
        mixer_eps=settings.number("mixer_rms_eps", 1e-6) if kind == "falcon_mamba" else None,
        **shared_fields(settings, inner, tied=True),
    )


def fresh_fields(
    *, n_layer: int, n_embd: int, vocab_size: int, head_size: int = 1, n_state: int = 16
) -> dict[str, Any]:  # fmt: skip
    """Return the fields of a model with random weights; it has no heads."""
    return {
        "model_type": "mamba",
        "hidden_size": n_embd,
        "intermediate_size": 2 * n_embd,
        "num_hidden_layers": n_layer,
        "state_size": n_state,
        "conv_kernel": 4,
        "time_step_rank": -(-n_embd // 16),
        "layer_norm_epsilon": 1e-5,
        "use_bias": False,
        "use_conv_bias": True,
        "tie_word_embeddings": False,
        "vocab_size": vocab_size,
    }


def shapes(config: Mamba1Config) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of the tensors of a fresh model."""
    return declare(Weights, {letter: size for letter, _, size in _axes(config)}, config.n_layer, config.has)
