"""Changes of bytes that know nothing of a format, except where in the file its structure is."""

from __future__ import annotations

import random
from collections.abc import Sequence

Spans = Sequence[tuple[int, int]]

NUMBERS = (0, 1, 2, 3, 7, 15, 31, 63, 64, 127, 128, 255, 256, 32767, 65535, 65536, 2**24, 2**30, 2**31 - 1, 2**31)
NUMBERS += (2**32 - 1, 2**32, 2**40, 2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 8, 2**64 - 1)
"""Where counters, signs and sizes overflow."""


def edited(data: bytes, rng: random.Random, spans: Spans = ()) -> bytes:
    """Return the bytes with one to five changes, four of five in `spans` if there are any."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        if not changed:
            break
        start, stop = rng.choice(spans) if spans and rng.random() < 0.8 else (0, len(changed))
        at = rng.randrange(min(start, len(changed) - 1), max(min(stop, len(changed)), min(start, len(changed) - 1) + 1))
        rng.choice(_EDITS)(changed, at, rng)
    return bytes(changed)


def _flip(data: bytearray, at: int, rng: random.Random) -> None:
    data[at] ^= 1 << rng.randrange(8)


def _overwrite(data: bytearray, at: int, rng: random.Random) -> None:
    data[at] = rng.randrange(256)


def _count(data: bytearray, at: int, rng: random.Random) -> None:
    data[at] = (data[at] + rng.choice((-1, 1))) % 256


def _number(data: bytearray, at: int, rng: random.Random) -> None:
    width = min(rng.choice((1, 2, 4, 8)), len(data) - at)
    number = rng.choice(NUMBERS) % (1 << 8 * width)
    data[at : at + width] = number.to_bytes(width, rng.choice(("little", "little", "big")))


def _run(data: bytearray, at: int, rng: random.Random) -> None:
    width = min(rng.choice((2, 4, 8, 16, 64)), len(data) - at)
    data[at : at + width] = rng.choice((b"\0", b"\xff", b"\x7f", b" ")) * width


def _truncate(data: bytearray, at: int, rng: random.Random) -> None:
    del data[at:]


def _append(data: bytearray, at: int, rng: random.Random) -> None:
    data += rng.choice((b"\0", b"\n", rng.randbytes(rng.randrange(1, 64)), data[at : at + 64]))


def _delete(data: bytearray, at: int, rng: random.Random) -> None:
    del data[at : at + rng.choice((1, 1, 2, 4, 8, rng.randrange(1, 64)))]


def _splice(data: bytearray, at: int, rng: random.Random) -> None:
    """Put a piece from elsewhere in, or over what is there."""
    start, size = rng.randrange(len(data)), rng.choice((1, 2, 4, 8, rng.randrange(1, 64)))
    piece = data[start : start + size]
    data[at : at + rng.choice((0, len(piece)))] = piece


def _swap(data: bytearray, at: int, rng: random.Random) -> None:
    """Swap two fields of 4 or 8 bytes: lengths, offsets, types."""
    width = rng.choice((4, 8))
    other = at + width * rng.choice((1, 1, 2, 3))
    if other + width <= len(data):
        data[at : at + width], data[other : other + width] = data[other : other + width], data[at : at + width]


_EDITS = (_flip, _overwrite, _count, _number, _number, _run, _truncate, _append, _delete, _splice, _splice, _swap)
