"""Changes of rwkv.cpp files: whole parameters, the fields before their numbers, and bytes."""

from __future__ import annotations

import random
import struct

from ggmf_writer import TYPES

from . import byte_edits

_FIELDS = (0, 1, 2, 3, 4, 7, 8, 9, 10, 31, 32, 33, 255, 256, 257, 2**16, 2**31, 2**32 - 1)
_BYTES = {"FP32": (1, 4), "FP16": (1, 2), "Q4_0": (32, 18), "Q4_1": (32, 20), "Q5_0": (32, 22), "Q5_1": (32, 24)}
_BYTES |= {"Q8_0": (32, 34)}


def edited(data: bytes, rng: random.Random) -> bytes:
    """Return a changed file."""
    parts = _parts(data)
    choice = rng.randrange(6)
    at = rng.randrange(1, len(parts))
    if choice == 0:
        del parts[at]
    elif choice == 1:
        parts.insert(at, parts[rng.randrange(1, len(parts))])
    elif choice == 2:
        head = bytearray(parts[0])
        struct.pack_into("<I", head, 4 * rng.randrange(1, 6), rng.choice((*_FIELDS, 100, 101)))
        parts[0] = bytes(head)
    elif choice == 3:
        part = bytearray(parts[at])
        axes = struct.unpack_from("<I", part)[0]
        struct.pack_into("<I", part, 4 * rng.randrange(3 + axes), rng.choice(_FIELDS))
        parts[at] = bytes(part)
    else:
        spans, start = [(0, 24)], 24
        for part in parts[1:]:
            axes, length, _ = struct.unpack_from("<3I", part)
            spans.append((start, start + 12 + 4 * axes + length))
            start += len(part)
        return byte_edits.edited(data, rng, spans)
    return b"".join(parts)


def _parts(data: bytes) -> list[bytes]:
    """Return the header and every parameter of a valid file."""
    kinds = {number: name for name, number in TYPES.items()}
    parts, at = [data[:24]], 24
    while at < len(data):
        axes, length, kind = struct.unpack_from("<3I", data, at)
        count = 1
        for size in struct.unpack_from(f"<{axes}I", data, at + 12):
            count *= size
        group, bytes_of_group = _BYTES[kinds[kind]]
        end = at + 12 + 4 * axes + length + count // group * bytes_of_group
        parts.append(data[at:end])
        at = end
    return parts
