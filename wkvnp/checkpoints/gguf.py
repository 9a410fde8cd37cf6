"""Read GGUF, the format of llama.cpp: a header of typed metadata, a directory of tensors, and their data.

Every count, length and offset is compared with the file before anything is made from it. Quantised tensors are
decoded to float32 when they are read.
"""

from __future__ import annotations

import math
import struct
from array import array
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from ..errors import CheckpointError
from .long_array import LongNumbers, LongTexts
from .mapped_file import Buffer
from .quantised_blocks import BLOCK_TYPES, dequantise, packed_size, row_fault
from .tensors import DTYPES, Container, LazyTensor, quoted, shape_fault, strided_view

# Bounds of what is read at all. Headers of large models have 20 MB, most of it vocabulary, 100 entries and 2,000
# tensors.
_HEADER_LIMIT = 1 << 26
_ENTRY_LIMIT = 1 << 16
_TENSOR_LIMIT = 1 << 17
_KEY_LIMIT = (1 << 16) - 1
_NAME_LIMIT = 64
_AXES_LIMIT = 4
# Arrays of more elements than this stay in the file.
_SHORT = 128

_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 4: "Q4_2", 5: "Q4_3", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 9: "Q8_1",
    10: "Q2_K", 11: "Q3_K", 12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS",
    18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32",
    27: "I64", 28: "F64", 29: "IQ1_M", 30: "BF16", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4", 40: "NVFP4", 41: "Q1_0",
}  # fmt: skip
_READABLE = (*_DTYPES, *BLOCK_TYPES)

# What a metadata value or an array's element can be.
_NUMBERS: dict[int, np.dtype[Any]] = {
    0: np.dtype("u1"), 1: np.dtype("i1"), 2: np.dtype("<u2"), 3: np.dtype("<i2"), 4: np.dtype("<u4"),
    5: np.dtype("<i4"), 6: np.dtype("<f4"), 10: np.dtype("<u8"), 11: np.dtype("<i8"), 12: np.dtype("<f8"),
}  # fmt: skip
_BOOL, _STRING, _ARRAY = 7, 8, 9


_Entry: TypeAlias = tuple[str, tuple[int, ...], str, int]
"""Of the directory: name, shape (slowest axis first), type, offset."""


def read_gguf(path: Path, buffer: Buffer) -> Container:
    """Read and check the header of a GGUF file; the numbers stay in the file.

    Raises
    ------
    CheckpointError
        If the file is damaged, of another version, one of several parts, or has tensors of a type that is not read.
    """
    header = _Header(path, buffer)
    n_tensors, n_entries = _read_start(header)
    metadata: dict[str, object] = {}
    for _ in range(n_entries):
        key = header.string("the name of a metadata entry", _KEY_LIMIT)
        if key in metadata:
            raise CheckpointError(f"{path}: the metadata entry {quoted(key)} appears twice")
        metadata[key] = _read_value(header, header.uint(4, f"the entry {quoted(key)}"), key)
    parts = metadata.get("split.count", 1)
    if parts not in (0, 1):
        raise CheckpointError(
            f"{path}: this is one of {parts} parts of a model; join them with llama-gguf-split --merge"
        )
    alignment = _read_alignment(path, metadata)
    directory = [_read_tensor(header) for _ in range(n_tensors)]
    start = -(-header.at // alignment) * alignment
    tensors: dict[str, LazyTensor] = {}
    for name, shape, kind, offset in directory:
        if name in tensors:
            raise CheckpointError(f"{path}: two tensors have the name {quoted(name)}")
        tensors[name] = _place(path, buffer, name, shape, kind, start + offset)
    _check_offsets(path, directory, alignment, len(buffer) - start)
    return Container(path, "gguf", tensors, extras=metadata)


class _Header:
    """The header, read from front to back; nothing beyond the file or the limit is touched."""

    def __init__(self, path: Path, buffer: Buffer) -> None:
        self.path = path
        self.buffer = buffer
        self.at = 0
        self.end = min(len(buffer), _HEADER_LIMIT)

    def skip(self, size: int, what: str) -> int:
        """Return where the next `size` bytes begin, and go on behind them."""
        start = self.at
        if size > self.end - start:
            raise CheckpointError(
                f"{self.path}: {what} needs {size} bytes at byte {start} of its GGUF header, but the file has "
                f"{len(self.buffer)} (and at most {_HEADER_LIMIT} are read); it is cut short or damaged"
            )
        self.at = start + size
        return start

    def uint(self, size: int, what: str) -> int:
        start = self.skip(size, what)
        return int.from_bytes(self.buffer[start : start + size], "little")

    def string(self, what: str, limit: int = _HEADER_LIMIT) -> str:
        length = self.uint(8, what)
        if length > limit:
            raise CheckpointError(f"{self.path}: {what} has {length} bytes at byte {self.at}; at most {limit} are read")
        start = self.skip(length, what)
        try:
            return bytes(self.buffer[start : start + length]).decode()
        except UnicodeDecodeError as error:
            raise CheckpointError(f"{self.path}: {what} at byte {start} is not valid UTF-8") from error


def _read_start(header: _Header) -> tuple[int, int]:
    """Check the magic number and the version; return the counts of tensors and of metadata entries."""
    path = header.path
    header.skip(4, "the magic number")
    version = header.uint(4, "the version")
    if version not in (2, 3):
        if version & 0xFFFF == 0 and version:
            raise CheckpointError(f"{path}: a big-endian GGUF file; only little-endian files are readable")
        raise CheckpointError(f"{path}: a GGUF file of version {version}; readable are 2 and 3")
    n_tensors = header.uint(8, "the number of tensors")
    n_entries = header.uint(8, "the number of metadata entries")
    # An entry has at least a length, a type and one byte; a tensor a length, a number of axes, a type and an offset.
    room = header.end - header.at
    for what, count, limit, least in (
        ("metadata entries", n_entries, _ENTRY_LIMIT, 13),
        ("tensors", n_tensors, _TENSOR_LIMIT, 24),
    ):
        if count > limit or count * least > room:
            raise CheckpointError(
                f"{path}: its GGUF header promises {count} {what}; a file of {len(header.buffer)} bytes cannot hold "
                f"them, or they are more than the {limit} that are read"
            )
    return n_tensors, n_entries


def _read_value(header: _Header, kind: int, key: str) -> object:
    what = f"the entry {quoted(key)}"
    if kind in _NUMBERS:
        dtype = _NUMBERS[kind]
        return np.frombuffer(header.buffer, dtype, 1, header.skip(dtype.itemsize, what))[0].item()
    if kind == _BOOL:
        truth = header.uint(1, what)
        if truth > 1:
            raise CheckpointError(f"{header.path}: {what} must be true (1) or false (0); got {truth}")
        return bool(truth)
    if kind == _STRING:
        return header.string(what)
    if kind == _ARRAY:
        return _read_array(header, what)
    raise CheckpointError(f"{header.path}: {what} has the unknown type {kind}")


def _read_array(header: _Header, what: str) -> object:
    kind, count = header.uint(4, what), header.uint(8, what)
    if kind == _STRING:
        starts = array("Q")
        header.skip(8 * count, what)  # each string has at least its length
        header.at -= 8 * count
        for _ in range(count):
            starts.append(header.at)
            header.skip(header.uint(8, what), what)
        texts = LongTexts(header.buffer, starts, f"{header.path}: {what}")
        return texts if count > _SHORT else texts[:]
    if kind not in _NUMBERS and kind != _BOOL:
        fault = "is an array of arrays" if kind == _ARRAY else f"is an array of the unknown type {kind}"
        raise CheckpointError(f"{header.path}: {what} {fault}, which is not read")
    dtype = _NUMBERS.get(kind, np.dtype("u1"))
    numbers = np.frombuffer(header.buffer, dtype, count, header.skip(count * dtype.itemsize, what))
    if kind == _BOOL:
        if count and numbers.max() > 1:
            raise CheckpointError(f"{header.path}: {what} must hold true (1) and false (0); got {numbers.max()}")
        numbers = numbers.view(np.bool_)
    return LongNumbers(numbers) if count > _SHORT else tuple(numbers.tolist())


def _read_tensor(header: _Header) -> _Entry:
    """Check one entry of the directory."""
    path, name = header.path, header.string("the name of a tensor", _NAME_LIMIT)
    what = f"tensor {quoted(name)}"
    axes = header.uint(4, what)
    if axes > _AXES_LIMIT:
        raise CheckpointError(f"{path}: {what} has {axes} axes; at most {_AXES_LIMIT} are possible")
    start = header.skip(8 * axes, what)
    shape = struct.unpack_from(f"<{axes}Q", header.buffer, start)[::-1]
    number = header.uint(4, what)
    kind = _TYPES.get(number, f"number {number}")
    if kind not in _READABLE:
        raise CheckpointError(f"{path}: {what} is stored in the type {kind}; readable are {', '.join(_READABLE)}")
    fault = shape_fault(shape, 4)  # 4: quantised numbers become float32
    if fault is None and kind in BLOCK_TYPES:
        fault = row_fault(kind, shape)
    if fault is not None:
        raise CheckpointError(f"{path}: {what} {fault}")
    return name, shape, kind, header.uint(8, what)


def _size(kind: str, shape: tuple[int, ...]) -> int:
    """Return how many bytes of the file a tensor takes."""
    return packed_size(kind, shape) if kind in BLOCK_TYPES else math.prod(shape) * DTYPES[_DTYPES[kind]].itemsize


def _place(path: Path, buffer: Buffer, name: str, shape: tuple[int, ...], kind: str, at: int) -> LazyTensor:
    """Check that a tensor lies inside the file."""
    size = _size(kind, shape)
    if at + size > len(buffer):
        raise CheckpointError(
            f"{path}: tensor {quoted(name)} has {size} bytes at byte {at}, but the file has {len(buffer)}; "
            "it is cut short or damaged"
        )
    if kind in BLOCK_TYPES:
        return LazyTensor(name, shape, "float32", partial(dequantise, kind, buffer, shape, at), kind)
    dtype = _DTYPES[kind]
    return LazyTensor(name, shape, dtype, partial(strided_view, buffer, dtype, shape, at))


def _read_alignment(path: Path, metadata: dict[str, object]) -> int:
    alignment = metadata.get("general.alignment", 32)
    if type(alignment) is not int or alignment < 8 or alignment & (alignment - 1):
        raise CheckpointError(
            f"{path}: general.alignment must be a power of two and a multiple of 8; got {quoted(alignment)}"
        )
    return alignment


def _check_offsets(path: Path, directory: list[_Entry], alignment: int, room: int) -> None:
    """Check that the tensors follow each other without gaps, to the end of the file.

    A gap, or bytes that belong to nothing, mean that a tensor is stored in another type than its label says, or that
    the alignment is not that of the file: what is read would be noise.
    """
    remedy = "a type, a shape or general.alignment is wrong"
    end = free = 0
    for name, shape, kind, offset in directory:
        if offset != free:
            raise CheckpointError(
                f"{path}: tensor {quoted(name)} must begin at byte {free} of the data, where the one before it ends by "
                f"its type and the alignment {alignment}; it begins at {offset}: {remedy}"
            )
        end = offset + _size(kind, shape)
        free = -(-end // alignment) * alignment
    if directory and room > free:
        raise CheckpointError(
            f"{path}: its tensors end after {end} bytes of data, by their types and the alignment {alignment}, but the "
            f"file has {room}: {remedy}"
        )
