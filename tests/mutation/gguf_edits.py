"""Changes of GGUF files: of metadata, token lists and tensor types before they are written, and of bytes."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from gguf_writer import TYPES, Packed, Typed, packed, write_gguf

from . import byte_edits
from .array_edits import Arrays

_SCALARS: tuple[Any, ...] = (
    0,
    1,
    3,
    2**31,
    2**32 - 1,
    2**40,
    -1,
    0.0,
    0.5,
    -1.0,
    1e30,
    float("nan"),
    float("inf"),
    True,
)
_SCALARS += ("", "llama", "rwkv7", "rwkv6", "mamba", "mamba2", "qwen2", "gpt2", "rwkv", "no", "yarn", "a" * 300)
_SCALARS += (
    b"\xff\xfe",
    [],
    ["a"],
    [0],
    [1.5],
    Typed(0, 255),
    Typed(11, -(2**63)),
    Typed(10, 2**64 - 1),
    Typed(12, 1e300),
)
_TOKENS = (
    "",
    "a",
    "\\x00",
    "\\xff",
    "<0x41>",
    "\u2581",
    "\u0120",
    "<s>",
    "'a'",
    "b'\\xff'",
    "a" * 300,
    b"\xff",
    b"\xed\xa0\x80",
)


def written(metadata: Mapping[str, Any], tensors: Arrays, rng: random.Random) -> bytes:
    """Return a file of changed metadata, tensors as they are or of another type, and sometimes changed bytes."""
    changed: dict[str, Any] = dict(tensors)
    entries = dict(metadata)
    choice = rng.random()
    if choice < 0.45:
        entries = edited_metadata(entries, rng)
    elif choice < 0.6:
        name = rng.choice(list(changed))
        changed[name] = _retyped(packed(changed[name]), rng)
    alignment = rng.choice((32, 32, 32, 32, 8, 64, 1))
    data = write_gguf(entries, changed, rng.choice((3, 3, 3, 2)), alignment)
    if choice < 0.6:
        return data
    return byte_edits.edited(data, rng, _spans(data, entries, changed))


def _spans(data: bytes, entries: Mapping[str, Any], tensors: Mapping[str, Any]) -> byte_edits.Spans:
    """Return the start of the file, the metadata without the many tokens, and the directory of tensors."""
    directory = data.find(next(iter(tensors)).encode()) - 8
    data_starts = directory + sum(8 + len(name) + 24 + 8 * len(tensor.shape) for name, tensor in tensors.items())
    return [(0, 24), (24, min(directory, 1000)), (directory, data_starts), (directory, data_starts)]


def edited_metadata(entries: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """Return metadata with one to four changes."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        key = rng.choice(list(entries)) if entries else ""
        lists = [name for name, value in entries.items() if isinstance(value, list) and value]
        choice = rng.randrange(7)
        if choice == 0 and lists:
            key = rng.choice(lists)
            entries[key] = _edited_list(list(entries[key]), rng)
        elif choice == 1 and key:
            del entries[key]
        elif choice == 2 and key:
            entries[rng.choice((key + "x", key.rpartition(".")[2], "x." + key, "", "general.alignment"))] = entries.pop(
                key
            )
        elif choice == 3 and key:
            other = rng.choice(list(entries))
            entries[key], entries[other] = entries[other], entries[key]
        elif choice == 4:
            entries["general.alignment"] = rng.choice((1, 2, 8, 16, 64, 128, 4096, 2**31, 3, 0, Typed(10, 2**63), 32.0))
        elif key:
            entries[key] = rng.choice(_SCALARS)
    return entries


def _edited_list(values: list[Any], rng: random.Random) -> list[Any]:
    """Return a list of tokens, scores or merges with changed, lost, repeated or moved elements."""
    at, other = rng.randrange(len(values)), rng.randrange(len(values))
    choice = rng.randrange(6)
    if choice == 0:
        del values[at]
    elif choice == 1:
        values[at] = values[other]
    elif choice == 2:
        values = values[:at]
    elif choice == 3:
        values = values + values
    elif isinstance(values[at], str | bytes):
        values[at] = rng.choice(_TOKENS)
    elif not isinstance(values[at], Typed):
        values[at] = type(values[at])(rng.choice((0, 1, 2, 100, 6)))
    return values


def _retyped(tensor: Packed, rng: random.Random) -> Packed:
    """Return a tensor under the label of another type, or of another number of axes."""
    kind = rng.choice((*TYPES, *TYPES, 4, 9, 15, 24, 28, 31, 99, 2**32 - 1))
    shape = rng.choice(
        (tensor.shape, tensor.shape, tensor.shape[::-1], (1, *tensor.shape)[:4], (), (0, 4), (2**40, 2**40))
    )
    return Packed(kind, shape, tensor.data)
