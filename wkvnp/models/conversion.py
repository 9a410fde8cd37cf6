"""Write the weights of any readable checkpoint as safetensors, one tensor at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from .._dtypes import dtype_name, float_dtype, narrow, widen
from ..checkpoints import LazyTensor, open_checkpoint, save_safetensors
from ..checkpoints.mapped_file import forget
from ..checkpoints.naming import Array, flatten
from ..errors import CheckpointError
from .architectures import keeps_its_dtype
from .recognition import recognise

_PIECE = 1 << 20  # numbers converted at a time: a few megabytes beside the tensor and its result


def convert(
    source: str | PathLike[str],
    target: str | PathLike[str],
    *,
    dtype: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write the model in a checkpoint as safetensors, under the original tensor names.

    The file is the one that ``wkvnp.load(source, dtype=dtype).save(target)`` writes, but only one tensor at a time is
    in memory. It appears completely or not at all. Tokenizers and other things beside the weights are left behind.

    Parameters
    ----------
    source : path
        What `wkvnp.load` can read.
    target : path
        The safetensors file; an existing file is replaced.
    dtype : {"float32", "bfloat16", "float16", "float64"}, optional
        Convert the matrices, vectors stay as they are; by default all do, and quantised ones become float32.
    progress : callable, optional
        Called with the bytes written so far and all of them.

    Raises
    ------
    CheckpointError
        If the source is not a model that `wkvnp.load` can read, a number is too large for `dtype`, or the target is a
        folder or a file of the source.

    Examples
    --------
    >>> import pathlib, tempfile, wkvnp
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     small, large = pathlib.Path(folder, "small.safetensors"), pathlib.Path(folder, "large.safetensors")
    ...     wkvnp.init("rwkv7", n_layer=2, n_embd=64, vocab_size=256, rng=0, dtype="bfloat16").save(small)
    ...     wkvnp.convert(small, large, dtype="float32")
    ...     wkvnp.load(large)
    <rwkv7: 2 layers of 64, 256 tokens, float32>
    """
    chosen = None if dtype is None else float_dtype(dtype)
    container = open_checkpoint(source)
    target = Path(target)
    if target.is_dir():
        raise CheckpointError(f"convert: target must be a file; {target} is a folder")
    if target.exists() and any(os.path.samefile(target, path) for path, _ in container.files):
        raise CheckpointError(f"convert: target must not be a file that is read; got {target}")
    weights, config = recognise(container)
    tensors: Mapping[str, LazyTensor] = flatten(weights)
    if chosen is not None:
        tensors = in_dtype(tensors, chosen, str(container.path))

    def written(done: int, total: int) -> None:
        for _, buffer in container.files:
            forget(buffer)
        if progress is not None:
            progress(done, total)

    save_safetensors(target, tensors, config.metadata(), written)


def in_dtype(tensors: Mapping[str, LazyTensor], dtype: np.dtype[Any], source: str) -> dict[str, LazyTensor]:
    """Return tensors that are converted when they are read; vectors stay as they are.

    Reading raises CheckpointError where a number is too large for the dtype.
    """
    name_of = dtype_name(dtype)
    result = {}
    for name, tensor in tensors.items():
        if tensor.dtype == name_of or keeps_its_dtype(name, tensor.shape, dtype):
            result[name] = tensor
        else:
            result[name] = replace(tensor, dtype=name_of, stored=None, loader=_narrowing(tensor, name, dtype, source))
    return result


def _narrowing(tensor: LazyTensor, name: str, dtype: np.dtype[Any], source: str) -> Callable[[], Array]:
    def load() -> Array:
        array = tensor.read()
        result = np.empty(array.shape, dtype)
        before, after = array.reshape(-1), result.reshape(-1)
        for at in range(0, array.size, _PIECE):
            piece = before[at : at + _PIECE]
            after[at : at + _PIECE] = narrowed = narrow(piece, dtype)
            lost = np.isinf(widen(narrowed))
            if lost.any() and (lost & np.isfinite(widen(piece))).any():
                raise CheckpointError(f"{source}: tensor {name} has numbers too large for {dtype_name(dtype)}")
        return result

    return load
