"""Changes of safetensors files: of the header as JSON with its length made right, and of bytes."""

from __future__ import annotations

import json
import random

from . import byte_edits, json_edits
from .configuration_values import CONFIGURED

_WORDS = (
    "F32",
    "F16",
    "BF16",
    "F64",
    "I8",
    "U8",
    "I64",
    "BOOL",
    "U16",
    "F8_E4M3",
    "C64",
    [0, 0],
    [0, 4],
    [4, 0],
    [1, 1],
)
_WORDS += ([0] * 33, [2**62, 2**62], [-1, -1], [2**32, 0], [0, 2**63])


def edited(data: bytes, rng: random.Random) -> bytes:
    """Return a changed file."""
    length = int.from_bytes(data[:8], "little")
    if rng.random() < 0.3:
        return byte_edits.edited(data, rng, ((0, 8), (8, 8 + length), (8, 8 + length)))
    header = json.loads(data[8 : 8 + length])
    tail = data[8 + length :]
    choice = rng.random()
    described = header.get("__metadata__", {}).get("config")
    if choice < 0.3:
        _reinterpret(header, rng)
    elif choice < 0.5 and described is not None:
        text = json_edits.written(json_edits.edited(json.loads(described), rng, CONFIGURED), rng)
        header["__metadata__"]["config"] = text.decode("utf-8", "replace")
    else:
        header = json_edits.edited(header, rng, _WORDS)
    text = json_edits.written(header, rng)
    if rng.random() < 0.1:
        tail = byte_edits.edited(tail, rng)
    stated = (
        len(text) if rng.random() < 0.95 else rng.choice((0, length, len(text) - 1, len(text) + 1, 2**63, 2**64 - 1))
    )
    return (stated % 2**64).to_bytes(8, "little") + text + tail


def _reinterpret(header: dict[str, dict[str, object]], rng: random.Random) -> None:
    """Give a tensor another dtype or shape of the same number of bytes: the file stays valid."""
    names = [name for name in header if name != "__metadata__"]
    for name in rng.sample(names, min(len(names), rng.choice((1, 1, 3)))):
        begin, end = header[name]["data_offsets"]  # type: ignore[misc]
        dtype, size = rng.choice((("F32", 4), ("I32", 4), ("F16", 2), ("BF16", 2), ("U8", 1), ("BOOL", 1), ("F64", 8)))
        count = (end - begin) // size
        shapes = ([count], [1, count], [count, 1], [1] * 20 + [count], [count, 1, 1])
        header[name] |= {"dtype": dtype, "shape": rng.choice(shapes)}
