"""In which dtype the tensors of a model are kept, and the way from one to another.

Converting to float32 or float64 changes every tensor, to float16 or bfloat16 the matrices only: vectors keep the digits
that the file has. Quantising changes the large matrices only: those that every token is multiplied by. Embeddings,
norms, convolutions, low-rank factors and what a gate or a step is made of stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from .._dtypes import FLOAT_DTYPES, compiled_view, dtype_name, narrow, widen
from .._quantised import GROUP, QUANTISED, Quantised
from ..checkpoints import LazyTensor
from ..checkpoints.naming import Array, build, flatten
from ..checkpoints.quantised_tensors import QuantisedTensor
from ..errors import ArgumentError, CheckpointError
from ..primitives.quantise import quantise
from .network import Config

_PIECE = 1 << 20  # numbers converted at a time: a few megabytes beside the tensor and its result
_SMALL = ("r_k", "time_faaaa", "time_first", "time_decay", "time_state", "A_log")
_LARGE = re.compile(
    r"(?:.+\.)?(?:head|lm_head|att\.(?:receptance|key|value|gate|output)|ffn\.(?:receptance|key|value)"
    r"|[qkvo]_proj|(?:gate|up|down|in|out)_proj|in_proj_qkvz)\.weight"
)
_TABLES = ("model.embed_tokens.weight", "backbone.embeddings.weight")
"""The embeddings of models whose head may be the embedding."""


def checked(dtype: Any) -> str:
    """Return the name of a dtype that matrices can have.

    Raises
    ------
    ArgumentError
        If it is none.
    """
    try:
        name = dtype_name(dtype)
    except TypeError:
        name = ""
    if name not in FLOAT_DTYPES and name not in QUANTISED:
        raise ArgumentError(f"dtype must be one of {', '.join((*FLOAT_DTYPES, *QUANTISED))}; got {dtype!r}")
    return name


def can_be_quantised(name: str, shape: tuple[int, ...]) -> bool:
    """Say whether a tensor is one of the large matrices, and its rows are groups."""
    return len(shape) == 2 and min(shape) > 1 and shape[1] % GROUP == 0 and _LARGE.fullmatch(name) is not None


def dtype_in(name: str, shape: tuple[int, ...], stored: str, dtype: str) -> str:
    """Return what the dtype of a tensor is in a model that is kept in a dtype."""
    if dtype in QUANTISED:
        if can_be_quantised(name, shape):
            return dtype
        return "float32" if stored in ("float64", *QUANTISED) else stored
    if dtype in ("float32", "float64"):
        return dtype
    vector = len(shape) < 2 or min(shape) == 1 or name.endswith(_SMALL)
    return stored if vector else dtype


def converted(name: str, array: Array | Quantised, dtype: str, source: str) -> Any:
    """Return a tensor as a model has it that is kept in a dtype: an array, or `Quantised`.

    Raises
    ------
    CheckpointError
        If a number is too large for the dtype, or cannot be quantised.
    """
    stored = dtype_name(array.dtype)
    wanted = dtype_in(name, array.shape, stored, dtype)
    if wanted == stored:
        return array
    if isinstance(array, Quantised):
        array = array.widened()
    if wanted not in QUANTISED:
        return _narrowed(name, array, wanted, source)
    try:
        return quantise(array, wanted)
    except ValueError as error:
        raise CheckpointError(f"{source}: tensor {name}: {error}") from None


def _narrowed(name: str, array: Array, dtype: str, source: str) -> Array:
    result = np.empty(array.shape, FLOAT_DTYPES[dtype])
    before, after = array.reshape(-1), result.reshape(-1)
    for at in range(0, array.size, _PIECE):
        piece = before[at : at + _PIECE]
        narrowed = narrow(piece, dtype)
        compiled_view(after)[at : at + _PIECE] = compiled_view(narrowed)
        lost = np.isinf(widen(narrowed))
        if lost.any() and (lost & np.isfinite(widen(piece))).any():
            raise CheckpointError(f"{source}: tensor {name} has numbers too large for {dtype}")
    result.flags.writeable = False
    return result


def kept_in(dtype: str, weights: Any, config: Config, source: str) -> tuple[Any, Config]:
    """Return weights whose tensors are converted when they are read, and the configuration of that model.

    Where the embedding is the head too, it stays as it is as an embedding, and the head becomes a matrix of its own.

    Raises
    ------
    ArgumentError
        If the model has no matrix that can be quantised.
    """
    tensors: dict[str, LazyTensor] = flatten(weights)
    if dtype in QUANTISED:
        tensors, config = _with_head(tensors, config)
    require_groups({name: tensor.shape for name, tensor in tensors.items()}, dtype, source)
    return build(type(weights), in_dtype(tensors, dtype, source)), config.kept_in(dtype)


def require_groups(shapes: Mapping[str, tuple[int, ...]], dtype: str, source: str) -> None:
    """Raise ArgumentError if there is nothing to quantise."""
    if dtype in QUANTISED and not any(can_be_quantised(name, shape) for name, shape in shapes.items()):
        raise ArgumentError(f"{source}: {dtype} needs matrices whose rows are multiples of {GROUP}; there are none")


def in_dtype(tensors: Mapping[str, LazyTensor], dtype: str, source: str) -> dict[str, LazyTensor]:
    """Return tensors that are converted when they are read."""
    result = {}
    for name, tensor in tensors.items():
        wanted = dtype_in(name, tensor.shape, tensor.dtype, dtype)
        result[name] = tensor if wanted == tensor.dtype else _converting(name, tensor, wanted, dtype, source)
    return result


def _converting(name: str, tensor: LazyTensor, wanted: str, dtype: str, source: str) -> LazyTensor:
    kind = QuantisedTensor if wanted in QUANTISED else LazyTensor
    return kind(name, tensor.shape, wanted, lambda: converted(name, tensor.read(), dtype, source))


def _with_head(tensors: dict[str, LazyTensor], config: Config) -> tuple[dict[str, LazyTensor], Config]:
    if not getattr(config, "tied", False):
        return tensors, config
    table = next(tensors[name] for name in _TABLES if name in tensors)
    fields = {**config.fields, "tie_word_embeddings": False}  # type: ignore[attr-defined]
    untied: Any = replace(config, tied=False, fields=fields)  # type: ignore[call-arg]
    return {**tensors, "lm_head.weight": replace(table, name="lm_head.weight")}, untied


def check_quantised(tensors: Mapping[str, LazyTensor], source: str) -> None:
    """Refuse files in which other tensors are quantised than those that can be.

    Raises
    ------
    CheckpointError
    """
    for name, tensor in tensors.items():
        if isinstance(tensor, QuantisedTensor) and not can_be_quantised(name, tensor.shape):
            raise CheckpointError(f"{source}: tensor {name} must be floating point; got {tensor.dtype} codes")
