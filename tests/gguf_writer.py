"""Write GGUF files as llama.cpp lays them out: metadata, a directory of tensors, and their data."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from wkvnp._dtypes import dtype_name

TYPES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q5_0": 6, "Q5_1": 7, "Q8_0": 8, "Q4_K": 12, "Q5_K": 13, "Q6_K": 14}
TYPES |= {"BF16": 30}
FORMATS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9


class Typed(NamedTuple):
    """A metadata value of a stated type."""

    kind: int
    value: Any


class Packed(NamedTuple):
    """A tensor as the bytes of its blocks."""

    kind: str | int
    shape: tuple[int, ...]
    data: bytes


def string(text: str | bytes) -> bytes:
    data = text if isinstance(text, bytes) else text.encode()
    return struct.pack("<Q", len(data)) + data


def kind_of(value: Any) -> int:
    if isinstance(value, bool):
        return 7
    if isinstance(value, int):
        return 4 if 0 <= value < 2**32 else 11
    return {float: 6, str: STRING, bytes: STRING, list: ARRAY}[type(value)]


def payload(kind: int, value: Any) -> bytes:
    if kind == STRING:
        return string(value)
    if kind == ARRAY:
        inner = value[0].kind if value and isinstance(value[0], Typed) else kind_of(value[0]) if value else 4
        plain = [item.value if isinstance(item, Typed) else item for item in value]
        return struct.pack("<IQ", inner, len(value)) + b"".join(payload(inner, item) for item in plain)
    return struct.pack("<" + FORMATS[kind], value)


def entry(key: str | bytes, value: Any) -> bytes:
    kind, plain = value if isinstance(value, Typed) else (kind_of(value), value)
    return string(key) + struct.pack("<I", kind) + payload(kind, plain)


def packed(array: Any) -> Packed:
    if isinstance(array, Packed):
        return array
    kind = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}[dtype_name(array.dtype)]
    return Packed(kind, array.shape, np.ascontiguousarray(array).tobytes())


def directory_entry(name: str | bytes, tensor: Packed, offset: int) -> bytes:
    kind = TYPES[tensor.kind] if isinstance(tensor.kind, str) else tensor.kind
    axes = tensor.shape[::-1]
    return string(name) + struct.pack(f"<I{len(axes)}QIQ", len(axes), *axes, kind, offset)


def write_gguf(metadata: Mapping[str, Any], tensors: Mapping[str, Any], version: int = 3, alignment: int = 32) -> bytes:
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(metadata))
    head += b"".join(entry(key, value) for key, value in metadata.items())
    body = b""
    for name, array in tensors.items():
        tensor = packed(array)
        head += directory_entry(name, tensor, len(body))
        body += tensor.data + bytes(-len(tensor.data) % alignment)
    return head + bytes(-len(head) % alignment) + body
