"""The list of architectures, and what loading and making one have in common.

The module of an architecture has `WEIGHTS` (the class that declares its tensors, by architecture) and `network` (makes
the layers out of them). Those of RWKV also have `RANKS` (letters of low ranks), `IGNORE` and `required` (patterns of
tensor names beyond those that all have).
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any

from .._dtypes import dtype_name
from ..errors import CheckpointError
from .rwkv_layer import RWKVConfig

ARCHITECTURES = {
    "rwkv4": "rwkv4",
    "rwkv5.0": "rwkv5",
    "rwkv5.1": "rwkv5",
    "rwkv5.2": "rwkv5",
    "rwkv6": "rwkv6",
    "rwkv7": "rwkv7",
    "transformer": "transformer",
    "mamba1": "mamba1",
    "mamba2": "mamba2",
    "hybrid": "hybrid",
    "qwen3_next": "qwen3_next",
}
"""Architecture -> the module that holds it."""

RWKV = tuple(name for name in ARCHITECTURES if name.startswith("rwkv"))

MODEL_TYPES = {
    "llama": "transformer",
    "mistral": "transformer",
    "qwen2": "transformer",
    "qwen3": "transformer",
    "mamba": "mamba1",
    "falcon_mamba": "mamba1",
    "mamba2": "mamba2",
    "hybrid": "hybrid",
    "qwen3_next": "qwen3_next",
}
"""The ``model_type`` of a configuration -> the architecture."""


def module_of(architecture: str) -> ModuleType:
    """Return the module of an architecture."""
    return import_module(f".{ARCHITECTURES[architecture]}", __package__)


def weights_of(architecture: str) -> type[Any]:
    """Return the class that declares the tensors of an architecture."""
    declared: type[Any] = module_of(architecture).WEIGHTS[architecture]
    return declared


def config_of(architecture: str, weights: Any, sizes: dict[str, int], eps: float, source: str) -> RWKVConfig:
    """Return the sizes of a model, and check what letters alone cannot."""
    heads = 0 if architecture == "rwkv4" else sizes["H"]
    size = sizes.get("N", sizes["A"] // heads) if heads else 0
    if heads * size != sizes["A"] and heads:
        raise CheckpointError(
            f"{source}: the attention width must be heads x head size; got {sizes['A']} with {heads} heads"
            + (f" of {size}" if "N" in sizes else "")
        )
    return RWKVConfig(
        architecture=architecture,
        n_layer=sizes["L"],
        n_embd=sizes["C"],
        n_att=sizes["A"],
        n_ffn=sizes["F"],
        vocab_size=sizes["V"],
        n_head=heads,
        head_size=size,
        dtype=dtype_name(weights.blocks[0].att.key.weight.dtype),
        ranks={letter: sizes[letter] for letter in module_of(architecture).RANKS if letter in sizes},
        group_norm_eps=eps,
    )
