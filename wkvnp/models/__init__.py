"""Language models: one file per architecture, and what makes a model out of a file."""

from __future__ import annotations

from collections.abc import Collection
from os import PathLike
from pathlib import Path

from .._arguments import named
from ..checkpoints import open_checkpoint
from ..checkpoints.naming import read
from ..checkpoints.opening import source_of
from .architectures import ARCHITECTURES, module_of
from .language_model import Model
from .recognition import recognise
from .storage import checked, kept_in

__all__ = ["ARCHITECTURES", "BUNDLED", "load", "recognise"]

BUNDLED = Path(__file__).with_name("python-documentation-rwkv7.safetensors")
"""The demonstration model; docs/bundled-models says how it was trained."""


@named
def load(
    path: str | PathLike[str] | None = None,
    *,
    dtype: str | None = None,
    group_norm_eps: float | None = None,
    ignore: Collection[str] = (),
) -> Model:
    """Load a model from a checkpoint; everything about it is read from the file.

    Parameters
    ----------
    path : path, optional
        A PyTorch ``.pth`` zip file, a safetensors file, an index of shards, a GGUF file, an rwkv.cpp ``.bin``, or a
        folder with one of these, in which ``config.json`` is read too. By default the demonstration model of the
        package: a small RWKV-7 that has read the documentation of Python byte by byte.
    dtype : {"float32", "bfloat16", "float16", "float64", "int8", "int4"}, optional
        float32 and float64 convert every tensor, float16 and bfloat16 the matrices; int8 and int4 round the large
        matrices to 8 or 4 bits, with a scale for every 32 weights. By default all stay as they are stored, and large
        files stay mapped.
    group_norm_eps : float, optional
        Added to the variance of each head's output (RWKV-5 and later); by default what the file says, else 1e-5
        for an RWKV-5 of rwkv.cpp and 64e-5 for all others.
    ignore : list of str
        Fields of ``config.json``, or entries of the metadata of a GGUF file, that count as if they were not there, so
        that they cannot be refused; ``"rope_scaling.factor"`` is inside another.

    Returns
    -------
    Model

    Raises
    ------
    CheckpointError
        If the file is no checkpoint, of an architecture that wkvnp does not compute, or incomplete, or a number is
        too large for `dtype`.
    ArgumentError
        If `dtype` is unknown, the model has no matrix that can be quantised, or there is no field to ignore.

    Warns
    -----
    UnknownFieldWarning
        If ``config.json`` has fields that no software is known to read.

    Examples
    --------
    >>> import wkvnp
    >>> wkvnp.load()
    <rwkv7: 5 layers of 192, 256 tokens, bfloat16>

    >>> import tempfile, pathlib
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "tiny.safetensors"
    ...     wkvnp.random_model("rwkv6", n_layer=2, n_embd=64, vocab_size=256, rng=0).save(path)
    ...     wkvnp.load(path)
    <rwkv6: 2 layers of 64, 256 tokens, float32>
    """
    target = None if dtype is None else checked(dtype)
    container = open_checkpoint(BUNDLED if path is None else path)
    weights, config = recognise(container, group_norm_eps, ignore)
    if target is not None:
        weights, config = kept_in(target, weights, config, str(container.path))
    model = Model(config, read(weights), module_of(config.architecture).network)
    model.source = None if path is None else source_of(path, container)
    return model
