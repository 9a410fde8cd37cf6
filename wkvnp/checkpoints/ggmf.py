"""Read the ``.bin`` files of rwkv.cpp ("ggmf"): 24 bytes of header, then one parameter after the other until the end.

All numbers are 32-bit and little-endian, shapes are stored with the fastest axis first, and nothing is aligned.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy.typing as npt

from ..errors import CheckpointError
from .mapped_file import Buffer
from .quantised_blocks import dequantise, packed_size, row_fault
from .tensors import DTYPES, Container, LazyTensor, quoted, shape_fault, strided_view

_HEADER = struct.Struct("<4s5I")  # fmgg, version, n_vocab, n_embed, n_layer, data_type
_PARAMETER = struct.Struct("<3I")  # dim_count, key_length, data_type

_PLAIN = {"FP32": "float32", "FP16": "float16"}
_TYPES = (
    "FP32",
    "FP16",
    "Q4_0",
    "Q4_1",
    "Q4_1_O",
    "Q4_2",
    "Q4_3",
    "Q5_0",
    "Q5_1",
    "Q8_0",
    "Q8_1",
    "Q2_K",
    "Q3_K",
    "Q4_K",
    "Q5_K",
    "Q6_K",
    "Q8_K",
)
_READABLE = ("FP32", "FP16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0")

# Version 100 had blocks of another layout under the same type numbers.
_UNQUANTISED_ONLY, _CURRENT = 100, 101
_AXES_LIMIT, _NAME_LIMIT = 3, 256
# The largest models have some 2,000 tensors; a file of nothing but tiny ones must not fill the memory with objects.
_TENSOR_LIMIT = 16384


def read_ggmf(path: Path, buffer: Buffer) -> Container:
    """Read what an rwkv.cpp file says about its tensors, and check it; the numbers stay in the file.

    Tensors of the quantised types are presented as float32, and decoded when they are read. The sizes in the header
    become the `extras` of the container: ``n_vocab``, ``n_embed``, ``n_layer``.

    Raises
    ------
    CheckpointError
        If the file is not exactly a header and whole parameters, or has a type that rwkv.cpp has given up.
    """
    if len(buffer) < _HEADER.size:
        raise CheckpointError(f"{path}: a ggmf file has at least {_HEADER.size} bytes; this one has {len(buffer)}")
    _, version, n_vocab, n_embed, n_layer, code = _HEADER.unpack_from(buffer)
    if version not in (_UNQUANTISED_ONLY, _CURRENT):
        raise CheckpointError(f"{path}: its ggmf version must be {_UNQUANTISED_ONLY} or {_CURRENT}; got {version}")
    _type_name(code, version, f"{path}: its header")
    tensors: dict[str, LazyTensor] = {}
    at = _HEADER.size
    while at < len(buffer):
        if len(tensors) == _TENSOR_LIMIT:
            raise CheckpointError(f"{path}: it has more than {_TENSOR_LIMIT} tensors, which no RWKV does")
        tensor, at = _read_parameter(path, buffer, at, version)
        if tensor.name in tensors:
            raise CheckpointError(f"{path}: two tensors have the name {quoted(tensor.name)}")
        tensors[tensor.name] = tensor
    return Container(path, "ggmf", tensors, extras={"n_vocab": n_vocab, "n_embed": n_embed, "n_layer": n_layer})


def _read_parameter(path: Path, buffer: Buffer, at: int, version: int) -> tuple[LazyTensor, int]:
    """Return the tensor whose entry begins at an offset, and where the next one begins."""
    where, cut = f"{path}: tensor at byte {at}", f"{path}: it is cut short within the tensor at byte {at}"
    if at + _PARAMETER.size > len(buffer):
        raise CheckpointError(cut)
    axes, length, code = _PARAMETER.unpack_from(buffer, at)
    if not 1 <= axes <= _AXES_LIMIT:
        raise CheckpointError(f"{where} must have 1 to {_AXES_LIMIT} axes; got {axes}")
    if not 1 <= length <= _NAME_LIMIT:
        raise CheckpointError(f"{where} must have a name of 1 to {_NAME_LIMIT} bytes; got {length}")
    at += _PARAMETER.size
    start = at + 4 * axes + length
    if start > len(buffer):
        raise CheckpointError(cut)
    shape = struct.unpack_from(f"<{axes}I", buffer, at)[::-1]
    name = _decode(bytes(buffer[at + 4 * axes : start]), where)
    where = f"{path}: tensor {quoted(name)}"
    kind = _type_name(code, version, where)
    size, loader = _placed(kind, shape, buffer, start, where)
    if start + size > len(buffer):
        raise CheckpointError(
            f"{where} has {size} bytes by its shape {shape} in {kind}; the file ends after {len(buffer) - start}"
        )
    stored = None if kind in _PLAIN else kind
    return LazyTensor(name, shape, _PLAIN.get(kind, "float32"), loader, stored), start + size


def _placed(
    kind: str, shape: tuple[int, ...], buffer: Buffer, start: int, where: str
) -> tuple[int, Callable[[], npt.NDArray[Any]]]:
    """Return how many bytes a tensor takes in the file, and what reads it."""
    fault = "has an axis of size 0" if 0 in shape else shape_fault(shape, DTYPES["float32"].itemsize)
    if fault is None and kind not in _PLAIN:
        fault = row_fault(kind, shape)
    if fault is not None:
        raise CheckpointError(f"{where} {fault}; its shape is {shape}")
    if kind in _PLAIN:
        dtype = _PLAIN[kind]
        return math.prod(shape) * DTYPES[dtype].itemsize, partial(strided_view, buffer, dtype, shape, start)
    return packed_size(kind, shape), partial(dequantise, kind, buffer, shape, start)


def _type_name(code: int, version: int, where: str) -> str:
    """Return the name of a type by its number in ggmf files, which is not the one in GGUF files."""
    name = _TYPES[code] if code < len(_TYPES) else f"of number {code}"
    if name not in _READABLE:
        raise CheckpointError(f"{where} has the type {name}; readable are {', '.join(_READABLE)}")
    if version == _UNQUANTISED_ONLY and name not in _PLAIN:
        raise CheckpointError(
            f"{where} is {name} in a file of version {_UNQUANTISED_ONLY}, whose quantised blocks have an older layout; "
            "quantise the model anew with a current rwkv.cpp"
        )
    return name


def _decode(name: bytes, where: str) -> str:
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        raise CheckpointError(f"{where} must have a name in UTF-8; got {quoted(name)}") from None
