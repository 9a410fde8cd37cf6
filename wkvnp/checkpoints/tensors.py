"""What every container hands out: tensors whose shape is known and whose numbers are read on demand."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .._dtypes import BFLOAT16, dtype_name
from .mapped_file import Buffer

# The dtypes of both containers, by the name that LazyTensor.dtype carries; files are little-endian.
DTYPES: dict[str, np.dtype[Any]] = {
    "bool": np.dtype("?"),
    "uint8": np.dtype("u1"),
    "int8": np.dtype("i1"),
    "uint16": np.dtype("<u2"),
    "int16": np.dtype("<i2"),
    "uint32": np.dtype("<u4"),
    "int32": np.dtype("<i4"),
    "uint64": np.dtype("<u8"),
    "int64": np.dtype("<i8"),
    "float16": np.dtype("<f2"),
    "bfloat16": BFLOAT16,
    "float32": np.dtype("<f4"),
    "float64": np.dtype("<f8"),
}

# NumPy arrays have at most 64 axes and 2**63 - 1 bytes; nothing in a model file comes near.
MAX_AXES = 32
MAX_BYTES = 2**62


@dataclass(frozen=True, eq=False)
class LazyTensor:
    """A named tensor of a checkpoint: shape and dtype are known, the numbers are read by `read`.

    Parameters
    ----------
    name : str
        The name in the file.
    shape : tuple of int
        The stored shape; ``()`` for a scalar.
    dtype : str
        ``"float32"``, ``"float16"``, ``"bfloat16"``, ``"float64"``, ``"int64"``, ...
    loader : callable
        Returns the array when called; `read` wraps it.
    stored : str, optional
        The type in the file, where reading converts it to `dtype`: ``"Q4_K"``, ...

    Examples
    --------
    >>> tensor = LazyTensor.of("emb.weight", np.zeros((7, 3), np.float32))
    >>> tensor.shape, tensor.dtype, tensor.nbytes
    ((7, 3), 'float32', 84)
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    loader: Callable[[], npt.NDArray[Any]] = field(repr=False)
    stored: str | None = None

    @classmethod
    def of(cls, name: str, array: npt.NDArray[Any]) -> LazyTensor:
        """Wrap an array that is already in memory."""
        return cls(name, array.shape, dtype_name(array.dtype), lambda: array)

    @property
    def nbytes(self) -> int:
        """Bytes that the tensor takes when it is read."""
        return math.prod(self.shape) * DTYPES[self.dtype].itemsize

    def shaped(self, shape: tuple[int, ...]) -> LazyTensor:
        """Return the same tensor with as many numbers in another shape."""
        return self if shape == self.shape else replace(self, shape=shape, loader=lambda: self.read().reshape(shape))

    def read(self) -> npt.NDArray[Any]:
        """Return a read-only, C-contiguous array: a view of the mapped file where possible, else a copy."""
        array = np.asarray(self.loader(), order="C").view()
        array.flags.writeable = False
        return array


@dataclass(frozen=True, eq=False)
class Container:
    """An opened checkpoint file: its tensors by name, and what else it says about itself.

    Parameters
    ----------
    path : Path
        The file that was opened (for sharded checkpoints, the index).
    format : str
        ``"safetensors"``, ``"torch-zip"``, ``"ggmf"`` or ``"gguf"``.
    tensors : mapping of str to LazyTensor
        In the order of the file.
    metadata : dict of str to str
        The free text of a safetensors header; empty for other files.
    extras : dict of str to object
        Plain values (str, int, float, bool, None) beside the tensors of a torch file; the sizes in a ggmf header;
        for GGUF the metadata, with tuples and, where they are long, other sequences of such values.
    files : tuple of (Path, bytes or mmap)
        The files that the tensors lie in: one, or the shards.
    """

    path: Path
    format: str
    tensors: Mapping[str, LazyTensor]
    metadata: dict[str, str] = field(default_factory=dict)
    extras: dict[str, object] = field(default_factory=dict)
    files: tuple[tuple[Path, Buffer], ...] = field(default=(), repr=False)


def shape_fault(shape: tuple[int, ...], itemsize: int) -> str | None:
    """Say what makes a shape from a file impossible, or None; sizes are unbounded Python integers here."""
    if len(shape) > MAX_AXES:
        return f"has {len(shape)} axes, more than {MAX_AXES}"
    if any(size < 0 for size in shape):
        return f"has a negative size in its shape {shape}"
    if math.prod(size for size in shape if size) * itemsize > MAX_BYTES:
        return "is larger than any memory"
    return None


def strided_view(
    buffer: Any, dtype: str, shape: tuple[int, ...], offset: int, strides: tuple[int, ...] | None = None
) -> npt.NDArray[Any]:
    """Return the array that starts `offset` bytes into `buffer`: a view where it is contiguous and aligned."""
    stored = DTYPES[dtype]
    if 0 in shape:
        return np.zeros(shape, stored)
    # A structured dtype counts as aligned anywhere, so bfloat16 is judged as the uint16 that kernels will see.
    plain = np.dtype("<u2") if dtype == "bfloat16" else np.dtype("u1") if dtype == "bool" else stored
    array: npt.NDArray[Any] = np.ndarray(shape, plain, buffer, offset, strides)
    if dtype == "bool":
        return np.asarray(array != 0)  # a byte that is neither 0 nor 1 is not a valid NumPy bool
    if not (array.flags.c_contiguous and array.flags.aligned):
        array = np.array(array, order="C")
    return array.view(stored) if dtype == "bfloat16" else array.astype(stored.newbyteorder("="), copy=False)


def quoted(name: object, limit: int = 100) -> str:
    """Return a name from a file for an error message: escaped, and cut where it is very long."""
    text = repr(name[: limit + 1] if isinstance(name, (str, bytes)) else name)
    return text if len(text) <= limit else text[: limit - 3] + "..."
