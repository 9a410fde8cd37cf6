"""Language models: one file per architecture, and what makes a model out of a file."""

from __future__ import annotations

from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

from .._dtypes import dtype_name, float_dtype
from ..checkpoints import Container, open_checkpoint
from ..checkpoints.naming import bind, build, flatten
from ..errors import CheckpointError, ShapeError
from ._schemes import original_names, refuse_relatives, version
from .architectures import ARCHITECTURES, config_of, converted, module_of, weights_of
from .language_model import Model
from .network import Config

__all__ = ["ARCHITECTURES", "BUNDLED", "load", "recognise"]

BUNDLED = Path(__file__).with_name("python-documentation-rwkv7.safetensors")
"""The demonstration model; docs/bundled-models says how it was trained."""


def load(
    path: str | PathLike[str] | None = None, *, dtype: str | None = None, group_norm_eps: float | None = None
) -> Model:
    """Load a model from a checkpoint; everything about it is read from the file.

    Parameters
    ----------
    path : path, optional
        A PyTorch ``.pth`` zip file, a safetensors file, an index of shards, or a folder with one of these. By default
        the demonstration model of the package: a small RWKV-7 that has read the documentation of Python byte by byte.
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
    >>> import wkvnp
    >>> wkvnp.load()
    <rwkv7: 5 layers of 192, 256 tokens, bfloat16>

    >>> import tempfile, pathlib
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "tiny.safetensors"
    ...     wkvnp.init("rwkv6", n_layer=2, n_embd=64, vocab_size=256, rng=0).save(path)
    ...     wkvnp.load(path)
    <rwkv6: 2 layers of 64, 256 tokens, float32>
    """
    target = None if dtype is None else float_dtype(dtype)
    weights, config = recognise(open_checkpoint(BUNDLED if path is None else path), group_norm_eps)
    if target is not None:
        weights = build(type(weights), {name: converted(name, a, target) for name, a in flatten(weights).items()})
        config = replace(config, dtype=dtype_name(target))
    return Model(config, weights, module_of(config.architecture).network)


def recognise(container: Container, group_norm_eps: float | None = None) -> tuple[Any, Config]:
    """Return the weights in a checkpoint, as stored, and the configuration that their names and shapes imply.

    Raises
    ------
    CheckpointError
        If it is not one of RWKV-4 to RWKV-7, or incomplete.
    """
    source = str(container.path)
    tensors = original_names(container.tensors, source)
    refuse_relatives(tensors, container.extras, source)
    architecture = version(tensors, source)
    module = module_of(architecture)
    weights, sizes = bind(
        weights_of(architecture),
        tensors,
        source=source,
        ignore=(r"blocks\.[1-9][0-9]*\.ln0\.(weight|bias)", *module.IGNORE),  # only layer 0 uses its ln0
        require=(r"blocks\.0\.ln0\.(weight|bias)", *module.required(tensors)),
    )
    eps = group_norm_eps if group_norm_eps is not None else _stored_eps(container.metadata, source)
    if not eps > 0:
        raise ShapeError(f"load: group_norm_eps must be positive; got {eps}")
    return weights, config_of(architecture, weights, sizes, eps, source)


def _stored_eps(metadata: dict[str, str], source: str) -> float:
    text = metadata.get("group_norm_eps", "64e-5")
    try:
        return float(text)
    except ValueError:
        raise CheckpointError(f"{source}: group_norm_eps in the metadata must be a number; got {text!r}") from None
