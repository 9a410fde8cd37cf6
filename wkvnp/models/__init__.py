"""Language models: one file per architecture, and what makes a model out of a file or out of nothing."""

from __future__ import annotations

from importlib import import_module
from os import PathLike
from types import ModuleType
from typing import Any

import numpy as np

from .._dtypes import dtype_name, float_dtype, narrow
from ..checkpoints import open_checkpoint
from ..checkpoints.naming import Array, bind, build, flatten
from ..errors import CheckpointError, ShapeError
from ._schemes import original_names, refuse_relatives, version
from .language_model import Config, Model

ARCHITECTURES = {
    "rwkv4": "rwkv4",
    "rwkv5.0": "rwkv5",
    "rwkv5.1": "rwkv5",
    "rwkv5.2": "rwkv5",
    "rwkv6": "rwkv6",
    "rwkv7": "rwkv7",
}
"""Architecture -> the module that holds it."""

_SMALL = ("r_k", "time_faaaa", "time_first", "time_decay", "time_state")


def load(
    path: str | PathLike[str], *, dtype: str | None = None, group_norm_eps: float | None = None
) -> Model:
    """Load a model from a checkpoint; everything about it is read from the file.

    Parameters
    ----------
    path : path
        A PyTorch ``.pth`` zip file, a safetensors file, an index of shards, or a folder with one of these.
    dtype : {"float32", "bfloat16", "float16", "float64"}, optional
        Convert the matrices; by default they stay as they are stored, and large files stay mapped.
    group_norm_eps : float, optional
        Added to the variance of each head's output (RWKV-5 and later); by default what the file says, else 64e-5.

    Returns
    -------
    Model

    Raises
    ------
    CheckpointError
        If the file is no checkpoint, not one of RWKV-4 to RWKV-7, or incomplete.

    Examples
    --------
    >>> import tempfile, pathlib, wkvnp
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "tiny.safetensors"
    ...     wkvnp.init("rwkv6", n_layer=2, n_embd=64, vocab_size=256, rng=0).save(path)
    ...     wkvnp.load(path)
    <rwkv6: 2 layers of 64, 256 tokens, float32>
    """
    target = None if dtype is None else float_dtype(dtype)
    container = open_checkpoint(path)
    source = str(path)
    tensors = original_names(container.tensors, source)
    refuse_relatives(tensors, container.extras, source)
    architecture = version(tensors, source)
    module = module_of(architecture)
    require = list(module.REQUIRE)
    if architecture.startswith("rwkv5"):
        require += module.bonus_names(tensors)
    weights, sizes = bind(
        weights_of(architecture), tensors, source=source, ignore=module.IGNORE, require=require
    )
    eps = group_norm_eps if group_norm_eps is not None else _stored_eps(container.metadata, source)
    if not eps > 0:
        raise ShapeError(f"load: group_norm_eps must be positive; got {eps}")
    config = _config(architecture, weights, sizes, eps, source)
    if target is not None:
        weights = build(type(weights), {name: _converted(name, a, target) for name, a in flatten(weights).items()})
        config = _config(architecture, weights, sizes, eps, source)
    return Model(module, config, weights)


def module_of(architecture: str) -> ModuleType:
    """Return the module of an architecture."""
    return import_module(f".{ARCHITECTURES[architecture]}", __name__)


def weights_of(architecture: str) -> type[Any]:
    """Return the class that declares the tensors of an architecture."""
    module = module_of(architecture)
    declared: type[Any] = module.WEIGHTS[architecture] if architecture.startswith("rwkv5") else module.Weights
    return declared


def _config(architecture: str, weights: Any, sizes: dict[str, int], eps: float, source: str) -> Config:
    """Return the sizes of a model, and check what letters alone cannot."""
    heads = 0 if architecture == "rwkv4" else sizes["H"]
    size = sizes.get("N", sizes["A"] // heads) if heads else 0
    if heads * size != sizes["A"] and heads:
        raise CheckpointError(
            f"{source}: the attention width must be heads x head size; got {sizes['A']} with {heads} heads"
            + (f" of {size}" if "N" in sizes else "")
        )
    return Config(
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


def _stored_eps(metadata: dict[str, str], source: str) -> float:
    text = metadata.get("group_norm_eps", "64e-5")
    try:
        return float(text)
    except ValueError:
        raise CheckpointError(f"{source}: group_norm_eps in the metadata must be a number; got {text!r}") from None


def _converted(name: str, array: Array, dtype: np.dtype[Any]) -> Array:
    """Return a matrix in another dtype; vectors keep theirs, except that float64 takes everything along."""
    vector = array.ndim < 2 or min(array.shape) == 1 or name.endswith(_SMALL)
    if vector and dtype != np.float64:
        return array
    array = narrow(array, dtype)
    array.flags.writeable = False
    return array
