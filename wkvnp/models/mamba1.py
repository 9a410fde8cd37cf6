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
from ..decoding import Place, Program, selective_blocks
from ..mechanisms.mamba1 import packed as selective_scan
from ..primitives.linear_map import linear_map
from ..primitives.norm import rms_norm
from .mamba_layer import (
    Convolution,
    MambaConfig,
    MambaState,
    mamba_network,
    placed,
    pole,
    shared_axes,
    shared_fields,
    step,
)
from .maps import Maps
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
        self._in_proj, self._convolution = Maps((mixer.in_proj,), dtype), Convolution(mixer.conv1d, dtype)
        self._x_proj, self._dt_proj = mixer.x_proj.weight, mixer.dt_proj.weight
        self._dt_bias = vector(mixer.dt_proj.bias, dtype)
        # The kernel wants A with its channels innermost: laid out so here, not for every token.
        self._A, self._D = np.asfortranarray(pole(mixer.A_log, dtype)), vector(mixer.D, dtype)
        self._out_proj = Maps((mixer.out_proj,), dtype)
        self._ones = np.ones(max(config.rank, config.n_state), dtype)

    def start(self, batch: int) -> MambaState:
        """Return an empty past."""
        c = self._config
        window, ssm = (batch, c.n_conv - 1, c.n_inner), (batch, c.n_inner, c.n_state)
        return MambaState(np.zeros(window, self._dtype), np.zeros(ssm, self._dtype))

    def __call__(self, x: Array, state: MambaState, offsets: Array, carry: Any) -> tuple[Array, MambaState, Any]:
        """Return x (M, C) after the layer, its state, and `carry` untouched."""
        y, final = self._mix(rms_norm(x, self._norm, self._config.norm_eps), state, offsets)
        return x + y, final, carry

    def plan(self, program: Program, x: Place, carry: Any) -> Any:
        """Add what the layer does with one token of every sequence; return `carry` untouched."""
        c, p = self._config, program
        E, R, N = c.n_inner, c.rank, c.n_state
        before, after = ((p.slot((c.n_conv - 1) * E), p.slot(E * N)) for _ in range(2))
        xz, low, convolved, y = p.shared("xz", 2 * E), p.shared("low", R + 2 * N), p.shared("x", E), p.shared("y", E)
        p.phase()
        self._in_proj.plan(p, p.norm(x, self._norm, None, c.norm_eps), (xz,))
        p.phase()
        conv = p.convolve(xz.part(0, E), before[0], self._convolution.weight, self._convolution.bias)
        p.product(conv, self._x_proj, low)
        p.copy(conv, convolved)
        p.push(xz.part(0, E), (before[0], after[0]))
        p.phase()
        dt, B, C = low.part(0, R), low.part(R, N), low.part(R + N, N)
        if c.mixer_eps is not None:
            dt, B, C = (p.norm(part, self._ones[: part.size], None, c.mixer_eps) for part in (dt, B, C))
        step = (self._dt_proj, self._dt_bias)
        selective_blocks(p, convolved, xz.part(E, E), dt, B, C, step, self._A, self._D, (before[1], after[1]), y)
        p.phase()
        self._out_proj.plan(p, y, (x,), add=True)
        return carry

    def arrays(self, state: MambaState) -> list[Array]:
        """Return the arrays of a state, in the order of the slots of `plan`."""
        return [state.convolution, state.ssm.swapaxes(1, 2)]

    def state_of(self, arrays: list[Array]) -> MambaState:
        """Return the state of such arrays."""
        return MambaState(arrays[0], arrays[1].swapaxes(1, 2))

    def _mix(self, z: Array, state: MambaState, offsets: Array) -> tuple[Array, MambaState]:
        E, R, N = self._config.n_inner, self._config.rank, self._config.n_state
        xz = self._in_proj(z)[0]
        x, gate = xz[:, :E], np.ascontiguousarray(xz[:, E:])
        x, window = self._convolution(x, state.convolution, offsets)
        low = linear_map(x, self._x_proj)
        dt, B, C = self._normed(low[:, :R]), self._normed(low[:, R : R + N]), self._normed(low[:, R + N :])
        dt = step(linear_map(dt, self._dt_proj), self._dt_bias)
        y, ssm = selective_scan(x, dt, self._A, B, C, self._D, gate, state.ssm, offsets)
        return self._out_proj(y)[0], MambaState(window, ssm)

    def _normed(self, x: Array) -> Array:
        eps = self._config.mixer_eps
        return x if eps is None else rms_norm(x, self._ones[: x.shape[1]], eps)


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
