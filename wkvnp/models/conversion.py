"""Write the weights of any readable checkpoint as safetensors, one tensor at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from os import PathLike

from .._arguments import named
from ..checkpoints import open_checkpoint, save_safetensors
from ..checkpoints.atomic_file import file_to_write
from ..checkpoints.mapped_file import forget
from ..checkpoints.naming import flatten
from ..checkpoints.quantised_tensors import parts
from ..errors import CheckpointError
from .recognition import recognise
from .storage import checked, kept_in


@named
def convert(
    source: str | PathLike[str],
    target: str | PathLike[str],
    *,
    dtype: str | None = None,
    ignore: Collection[str] = (),
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
    dtype : {"float32", "bfloat16", "float16", "float64", "int8", "int4"}, optional
        float32 and float64 convert every tensor, float16 and bfloat16 the matrices, int8 and int4 the large ones; the
        rest stays as it is. By default all does, and what other software has quantised becomes float32. Quantised
        matrices are read twice, for their scales and codes.
    ignore : list of str
        Fields that count as if they were not there, as for `wkvnp.load`.
    progress : callable, optional
        Called with the bytes written so far and all of them.

    Raises
    ------
    CheckpointError
        If the source is not a model that `wkvnp.load` can read, a number is too large for `dtype`, or the target
        cannot be written, is no regular file, or is a file of the source.
    ArgumentError
        If `dtype` is unknown, the model has no matrix that can be quantised, or there is no field to ignore.

    Examples
    --------
    >>> import pathlib, tempfile, wkvnp
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     small, large = pathlib.Path(folder, "small.safetensors"), pathlib.Path(folder, "large.safetensors")
    ...     wkvnp.random_model("rwkv7", n_layer=2, n_embd=64, vocab_size=256, rng=0, dtype="bfloat16").save(small)
    ...     wkvnp.convert(small, large, dtype="float32")
    ...     wkvnp.load(large)
    <rwkv7: 2 layers of 64, 256 tokens, float32>
    """
    chosen = None if dtype is None else checked(dtype)
    target = file_to_write(target)
    container = open_checkpoint(source)
    if target.exists() and any(os.path.samefile(target, path) for path, _ in container.files):
        raise CheckpointError(f"convert: target must not be a file that is read; got {target}")
    weights, config = recognise(container, ignore=ignore)
    if chosen is not None:
        weights, config = kept_in(chosen, weights, config, str(container.path))
    tensors, more = parts(flatten(weights))

    def written(done: int, total: int) -> None:
        for _, buffer in container.files:
            forget(buffer)
        if progress is not None:
            progress(done, total)

    save_safetensors(target, tensors, config.metadata() | more, written)
