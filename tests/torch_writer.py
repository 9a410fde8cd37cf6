"""Writes torch zip checkpoints without torch, and pickles that no honest program would write."""

from __future__ import annotations

import io
import struct
import zipfile
from dataclasses import dataclass
from typing import Any

import numpy as np

STORAGE_OF = {
    "float32": "FloatStorage",
    "float16": "HalfStorage",
    "bfloat16": "BFloat16Storage",
    "float64": "DoubleStorage",
    "int64": "LongStorage",
    "int32": "IntStorage",
    "int16": "ShortStorage",
    "int8": "CharStorage",
    "uint8": "ByteStorage",
    "bool": "BoolStorage",
}


@dataclass(frozen=True)
class Name:
    """A global: module and name, each on a line of its own."""

    module: str
    name: str


@dataclass(frozen=True)
class Call:
    function: Name
    arguments: Any


@dataclass(frozen=True)
class Persistent:
    value: Any


@dataclass(frozen=True)
class Raw:
    """Opcodes as they are."""

    code: bytes


def emit(value: Any) -> bytes:
    """Return the protocol-2 opcodes that push a value; strings, numbers, containers and the classes above."""
    if isinstance(value, Raw):
        return value.code
    if isinstance(value, Name):
        return b"c" + value.module.encode() + b"\n" + value.name.encode() + b"\n"
    if isinstance(value, Call):
        return emit(value.function) + emit(value.arguments) + b"R"
    if isinstance(value, Persistent):
        return emit(value.value) + b"Q"
    if value is None or isinstance(value, bool):
        return {None: b"N", True: b"\x88", False: b"\x89"}[value]
    if isinstance(value, int):
        size = value.bit_length() // 8 + 1
        return b"\x8a" + bytes((size,)) + value.to_bytes(size, "little", signed=True)
    if isinstance(value, float):
        return b"G" + struct.pack(">d", value)
    if isinstance(value, str):
        return b"X" + struct.pack("<L", len(value.encode())) + value.encode()
    if isinstance(value, tuple):
        return b"(" + b"".join(map(emit, value)) + b"t"
    if isinstance(value, list):
        return b"](" + b"".join(map(emit, value)) + b"e"
    if isinstance(value, dict):
        return b"}(" + b"".join(emit(key) + emit(member) for key, member in value.items()) + b"u"
    raise TypeError(type(value))


def dump(value: Any) -> bytes:
    return b"\x80\x02" + emit(value) + b"."


ORDERED = Call(Name("collections", "OrderedDict"), ())


def tensor(key: str, dtype: str, count: int, shape: Any, strides: Any = None, offset: Any = 0) -> Call:
    """Describe a tensor in storage `key`; strides in elements, row-major by default."""
    if strides is None:
        strides = tuple(int(np.prod(shape[axis + 1 :])) for axis in range(len(shape)))
    storage = Persistent(("storage", Name("torch", STORAGE_OF.get(dtype, dtype)), key, "cpu", count))
    return Call(Name("torch._utils", "_rebuild_tensor_v2"), (storage, offset, shape, strides, False, ORDERED))


def archive(entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as target:
        for name, data in entries.items():
            target.writestr(zipfile.ZipInfo(name), data, compression)
    return file.getvalue()


def torch_file(top: Any, storages: dict[str, bytes], folder: str = "archive", **more: bytes) -> bytes:
    """Return the bytes of a checkpoint; `top` is a value for `dump`, or a finished pickle."""
    entries = {f"{folder}/data.pkl": top if isinstance(top, bytes) else dump(top)}
    entries |= {f"{folder}/{name}": data for name, data in more.items()}
    entries |= {f"{folder}/data/{key}": data for key, data in storages.items()}
    return archive(entries | {f"{folder}/version": b"3\n"})


def weights_file(arrays: dict[str, np.ndarray], **more: bytes) -> bytes:
    """Return a checkpoint of contiguous arrays, each in a storage of its own."""
    names = {np.dtype("V2"): "bfloat16"}
    top = {}
    storages = {}
    for number, (name, array) in enumerate(arrays.items()):
        dtype = "bfloat16" if array.dtype.kind == "V" else array.dtype.name
        top[name] = tensor(str(number), names.get(array.dtype, dtype), array.size, array.shape)
        storages[str(number)] = array.tobytes()
    return torch_file(top, storages, **more)
