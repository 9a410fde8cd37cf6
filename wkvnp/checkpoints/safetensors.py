"""Read and write safetensors: eight bytes of header length, a JSON header, one buffer without holes."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from .._dtypes import BFLOAT16, dtype_name
from ..errors import CheckpointError
from .atomic_file import file_to_write, replacing
from .mapped_file import Buffer
from .strict_json import parse_object
from .tensors import DTYPES, MAX_BYTES, Container, LazyTensor, quoted, shape_fault, strided_view

_NAMES = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "U16": "uint16",
    "I16": "int16",
    "U32": "uint32",
    "I32": "int32",
    "U64": "uint64",
    "I64": "int64",
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
}
_CODES = {name: code for code, name in _NAMES.items()}
# Headers of large models stay below 1 MB; parsed, JSON takes up to 25 times its bytes.
HEADER_LIMIT = 1 << 24
_ALIGNMENT = 64  # where the buffer starts in files that we write: a cache line
_PIECE = 1 << 24  # bytes written at a time


def read_safetensors(path: Path, buffer: Buffer) -> Container:
    """Read the header of a safetensors file and check all of it; the numbers stay in the file.

    Raises
    ------
    CheckpointError
        If the file is not exactly a header and the bytes of its tensors.
    """
    if len(buffer) < 8:
        raise CheckpointError(f"{path}: a safetensors file has at least 8 bytes; this one has {len(buffer)}")
    length = int.from_bytes(buffer[:8], "little")
    if length > min(HEADER_LIMIT, len(buffer) - 8):
        raise CheckpointError(
            f"{path}: its safetensors header should have {length} bytes, but the file has {len(buffer)} "
            f"(and at most {HEADER_LIMIT} are read); it is cut short or no safetensors file"
        )
    header = parse_object(buffer[8 : 8 + length], f"{path}: safetensors header")
    metadata = _check_metadata(path, header.pop("__metadata__", {}))
    spans = sorted((_read_entry(path, name, entry) for name, entry in header.items()), key=lambda span: span[:2])
    start, tensors = 8 + length, {}
    end = 0
    for begin, stop, name, dtype, shape in spans:
        if begin != end:
            raise CheckpointError(
                f"{path}: tensor {quoted(name)} begins at byte {begin} of the data, must begin at {end} "
                "where the one before it ends"
            )
        end = stop
        loader = partial(strided_view, buffer, dtype, shape, start + begin)
        tensors[name] = LazyTensor(name, shape, dtype, loader)
    if start + end != len(buffer):
        raise CheckpointError(
            f"{path}: its header describes {start + end} bytes, the file has {len(buffer)}; "
            f"{'it is cut short' if start + end > len(buffer) else 'something was appended'}"
        )
    return Container(path, "safetensors", tensors, metadata)


def _read_entry(path: Path, name: str, entry: Any) -> tuple[int, int, str, str, tuple[int, ...]]:
    """Check one tensor's entry; return (begin, end, name, dtype, shape)."""
    where = f"{path}: tensor {quoted(name)}"
    if any("\ud800" <= letter <= "\udfff" for letter in name):
        raise CheckpointError(f"{where} has a name that is not valid Unicode")
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
        raise CheckpointError(f"{where} must have a dtype, a shape and data_offsets")
    code, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(code, str) or code not in _NAMES:
        raise CheckpointError(f"{where} has dtype {quoted(code)}; readable are {', '.join(_NAMES)}")
    for numbers in (shape, offsets):
        if not isinstance(numbers, list) or not all(type(number) is int and number >= 0 for number in numbers):
            raise CheckpointError(f"{where}: shape and data_offsets must be lists of integers >= 0")
    itemsize = DTYPES[_NAMES[code]].itemsize
    if fault := shape_fault(tuple(shape), itemsize):
        raise CheckpointError(f"{where} {fault}")
    size = math.prod(shape) * itemsize
    if len(offsets) != 2 or offsets[1] - offsets[0] != size or offsets[1] > MAX_BYTES:
        raise CheckpointError(
            f"{where} has {size} bytes by its shape {tuple(shape)}, but data_offsets {quoted(offsets[:3])}"
        )
    return offsets[0], offsets[1], name, _NAMES[code], tuple(shape)


def _check_metadata(path: Path, metadata: Any) -> dict[str, str]:
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise CheckpointError(f"{path}: the __metadata__ of its safetensors header must map strings to strings")
    return metadata


def save_safetensors(
    path: str | os.PathLike[str],
    tensors: Mapping[str, npt.NDArray[Any] | LazyTensor],
    metadata: Mapping[str, str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write tensors to a safetensors file, completely or not at all.

    The bytes go to a temporary file beside `path`, one tensor at a time, and replace `path` once they are on disk.
    The same tensors give the same bytes: they are ordered by item size, then by name.

    Parameters
    ----------
    path : path-like
        The name of the file; an existing file is replaced, through a symbolic link the one it leads to. Its
        permissions stay.
    tensors : mapping of str to array or LazyTensor
        Any of the dtypes of `LazyTensor`; bfloat16 as `BFLOAT16` or the dtype of ml_dtypes.
    metadata : mapping of str to str, optional
        Free text for the header.
    progress : callable, optional
        Called with the bytes written so far and all of them, often enough for a bar. What it raises ends the writing
        and leaves no trace.

    Raises
    ------
    CheckpointError
        If `path` cannot be written or is no regular file, or a name, a dtype or the metadata cannot be in a
        safetensors file.

    Examples
    --------
    >>> import tempfile
    >>> from wkvnp.checkpoints import open_checkpoint
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_safetensors(Path(folder, "a.safetensors"), {"x": np.arange(3, dtype=np.float32)}, {"by": "wkvnp"})
    ...     container = open_checkpoint(Path(folder, "a.safetensors"))
    ...     container.tensors["x"].read(), container.metadata
    (array([0., 1., 2.], dtype=float32), {'by': 'wkvnp'})
    """
    path = file_to_write(path)
    header: dict[str, Any] = {}
    if metadata:
        header["__metadata__"] = _check_metadata(path, dict(metadata))
    kinds = {name: _storage_name(path, name, tensor) for name, tensor in tensors.items()}
    order = sorted(tensors, key=lambda name: (-DTYPES[kinds[name]].itemsize, name))
    end = 0
    for name in order:
        begin, end = end, end + math.prod(tensors[name].shape) * DTYPES[kinds[name]].itemsize
        header[name] = {"dtype": _CODES[kinds[name]], "shape": list(tensors[name].shape), "data_offsets": [begin, end]}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % _ALIGNMENT)
    done = 0
    with replacing(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            for count in _write(file, tensors[name], kinds[name]):
                done += count
                if progress is not None:
                    progress(done, end)


def _storage_name(path: Path, name: str, tensor: npt.NDArray[Any] | LazyTensor) -> str:
    kind = tensor.dtype if isinstance(tensor, LazyTensor) else dtype_name(tensor.dtype)
    if kind not in _CODES:
        raise CheckpointError(f"{path}: tensor {name!r} has dtype {kind}; safetensors can hold {', '.join(_CODES)}")
    if not isinstance(name, str) or name == "__metadata__":
        raise CheckpointError(f"{path}: {name!r} cannot be the name of a tensor")
    return kind


def _write(file: BinaryIO, tensor: npt.NDArray[Any] | LazyTensor, kind: str) -> Iterator[int]:
    """Write one tensor piece by piece and yield the bytes of each; then the tensor is let go."""
    data = _bytes_of(tensor, kind)
    for at in range(0, len(data), _PIECE):
        yield file.write(data[at : at + _PIECE])


def _bytes_of(tensor: npt.NDArray[Any] | LazyTensor, kind: str) -> memoryview:
    """Return the little-endian bytes of one tensor, without a copy where it already lies so."""
    array = tensor.read() if isinstance(tensor, LazyTensor) else np.asarray(tensor)
    array = np.ascontiguousarray(array).reshape(-1)
    array = array.view(BFLOAT16) if kind == "bfloat16" else array.astype(DTYPES[kind], copy=False)
    return array.view(np.uint8).data
