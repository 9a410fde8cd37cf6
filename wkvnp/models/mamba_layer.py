"""What Mamba-1 and Mamba-2 share: the parts of a layer, its state, the way from tokens to logits, and their files.

Letters: M packed tokens of B sequences, C channels, E inner channels, N state width, W tokens of the convolution, V
vocabulary. Matrices are [out, in].
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from .. import _scalar as scalar
from ..checkpoints import LazyTensor
from ..checkpoints.naming import Array, Linear, Renamed, Rule, bind
from ..checkpoints.tensors import quoted
from ..errors import CheckpointError
from ..mechanisms.short_convolution import packed as short_convolution
from ..primitives.elementwise import elementwise, silu
from .network import Config, Layer, Network, rms_network, vector
from .settings import SILU, Settings, agree, as_metadata
from .tied_head import without_head

Declared = TypeVar("Declared")
_OTHER_NAMES = (
    Rule(r"(?:backbone\.)?embeddings?\.weight", "backbone.embeddings.weight"),  # state-spaces/mamba: embedding
    Rule(r"(layers\..+|norm_f\.weight)", r"backbone.\1"),  # Hugging Face, saved without a head
)


@dataclass(frozen=True, kw_only=True)
class MambaConfig(Config):
    """Sizes that both Mambas have.

    Attributes
    ----------
    n_inner, n_state, n_conv : int
        Width of the mixer, width of the state, tokens that the convolution sees.
    norm_eps : float
        Added to the mean square in the norms.
    bias, conv_bias, tied : bool
        Whether the outer matrices and the convolution have biases, and whether the embedding is the head.
    fields : dict
        The configuration as it was read.
    """

    n_inner: int
    n_state: int
    n_conv: int
    norm_eps: float
    bias: bool
    conv_bias: bool
    tied: bool
    fields: dict[str, Any]

    @property
    def optional(self) -> tuple[tuple[str, str, bool], ...]:
        """Patterns of the names of optional tensors, the field that decides, and whether this model has them."""
        return (
            (r".*\.(in|out)_proj\.bias", "use_bias", self.bias),
            (r".*\.conv1d\.bias", "use_conv_bias", self.conv_bias),
        )

    def has(self, name: str) -> bool:
        """Say whether the model has an optional tensor."""
        if name == "lm_head.weight":
            return not self.tied
        return any(present and re.fullmatch(pattern, name) for pattern, _, present in self.optional)

    def metadata(self) -> dict[str, str]:
        """Return what a safetensors file says besides the tensors."""
        return as_metadata(self.architecture, self.fields)


@dataclass(frozen=True, eq=False)
class MambaState:
    """The state of one layer.

    Attributes
    ----------
    convolution : ndarray, shape (B, W - 1, E)
        The last inputs of the convolution, the oldest first; in Mamba-2 with those of B and C.
    ssm : ndarray, shape (B, E, N)
        The state of the recurrence; in Mamba-2 (B, H, N, P), for heads of width P.
    """

    convolution: Array
    ssm: Array


@elementwise
def step(dt: Any, bias: Any) -> Any:
    """Return softplus(dt + bias)."""
    return scalar.softplus(dt + bias)


def pole(A_log: Array, dtype: np.dtype[Any]) -> Array:
    """Return A = -exp(A_log)."""
    return np.asarray(-np.exp(vector(A_log, dtype)))


class Convolution:
    """A short convolution of every channel by itself, and a SiLU."""

    def __init__(self, linear: Linear, dtype: np.dtype[Any]) -> None:
        self.weight = vector(linear.weight[:, 0].T, dtype)
        self.bias = None if linear.bias is None else vector(linear.bias, dtype)

    def __call__(self, x: Array, window: Array, offsets: Array) -> tuple[Array, Array]:
        """Return x (M, E) after both, and the last inputs (B, W - 1, E)."""
        y, window = short_convolution(np.ascontiguousarray(x), self.weight, self.bias, window, offsets)
        return silu(y), window


def mamba_network(layer: Callable[..., Layer], weights: Any, config: MambaConfig, dtype: np.dtype[Any]) -> Network:
    """Return the way from tokens to logits: embedding, layers, last norm and head."""
    layers = tuple(layer(block, config, dtype) for block in weights.backbone.layers)
    norm = vector(weights.backbone.norm_f.weight, dtype)
    return rms_network(weights.backbone.embeddings, layers, norm, config.norm_eps, weights.lm_head)


def placed(
    declared: type[Declared],
    tensors: Mapping[str, LazyTensor],
    config: MambaConfig,
    axes: Iterable[tuple[str, str, int]],
    source: str,
) -> Declared:
    """Return tensors in their places among declared weights, if they are those that the configuration calls for.

    A copy of the embedding where it is the head, which files of PyTorch have, is left out.
    """
    given = dict(Renamed(tensors, _OTHER_NAMES, source=source))
    for pattern, field, present in config.optional:
        odd = [name for name in given if re.fullmatch(pattern, name)]
        if odd and not present:
            raise CheckpointError(f"{source}: {field} must be true, as there is a tensor {quoted(odd[0])}; got false")
    if config.tied:
        given = without_head(given, "backbone.embeddings.weight", source)
    require = [pattern for pattern, _, present in config.optional if present]
    if not config.tied:
        require.append(r"lm_head\.weight")
    weights, sizes = bind(declared, given, source=source, require=require)
    agree(sizes, {letter: (name, size) for letter, name, size in axes}, source)
    return weights


def shared_axes(c: MambaConfig) -> tuple[tuple[str, str, int], ...]:
    """Return the letters that mean the same in both Mambas, with the fields that say their sizes, and those."""
    return (
        ("C", "hidden_size", c.n_embd),
        ("V", "vocab_size", c.vocab_size),
        ("L", "num_hidden_layers", c.n_layer),
        ("W", "conv_kernel", c.n_conv),
    )


def shared_fields(settings: Settings, inner: int, tied: bool) -> dict[str, Any]:
    """Return what both Mambas read alike from a configuration; `tied` is what they are where it does not say."""
    width, layers = settings.integer("hidden_size"), settings.layers()
    settings.choice("hidden_act", SILU, "silu")
    # How new weights are drawn, and how others compute.
    settings.choice("rescale_prenorm_residual", (False,), False)  # divides stored weights too, where it is loaded
    settings.ignore("time_step_floor", "time_step_init_scheme", "time_step_max")
    settings.ignore("time_step_min", "time_step_scale", "use_associative_scan", "use_falcon_mambapy")
    settings.ignore("fused_add_norm", "residual_in_fp32")
    # What the files of state-spaces' models have kept from before they were Hugging Face's.
    for name, value in {"d_model": width, "n_layer": layers, "d_inner": inner, "rms_norm": True, "ssm_cfg": {}}.items():
        settings.choice(name, (value,), value)
    settings.ignore("pad_vocab_size_multiple")  # vocab_size is the padded one
    return {
        "n_layer": layers,
        "n_embd": width,
        "n_inner": inner,
        "vocab_size": settings.integer("vocab_size"),
        "n_conv": settings.integer("conv_kernel", 4),
        "norm_eps": settings.number("layer_norm_epsilon", 1e-5),
        "bias": settings.flag("use_bias"),
        "conv_bias": settings.flag("use_conv_bias", True),
        "tied": settings.flag("tie_word_embeddings", tied),
        "fields": settings.fields,
    }
