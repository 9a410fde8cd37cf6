"""The table of contents of a zip archive, read strictly: where each stored entry's bytes lie in the file.

Only what torch writes is accepted: one disk, no encryption, no compression, entries that do not overlap, and a
central directory that ends exactly where the end record begins. Sizes come from the central directory (local headers
leave them out), data offsets from the local headers (whose padding differs from the central ones).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from ..errors import CheckpointError
from .mapped_file import Buffer
from .tensors import quoted

_END = struct.Struct("<4s4H2LH")  # PK\5\6
_END64_LOCATOR = struct.Struct("<4sLQL")  # PK\6\7
_END64 = struct.Struct("<4sQ2H2L4Q")  # PK\6\6
_CENTRAL = struct.Struct("<4s6H3L5H2L")  # PK\1\2
_LOCAL = struct.Struct("<4s5H3L2H")  # PK\3\4
_MASK16, _MASK32 = 0xFFFF, 0xFFFFFFFF


@dataclass(frozen=True)
class Entry:
    """One member of an archive; `header` is the offset of its local header."""

    name: bytes
    header: int
    size: int
    stored: bool  # neither compressed nor encrypted, so that its bytes can be used in place


def read_directory(path: Path, buffer: Buffer) -> tuple[list[Entry], int]:
    """Return the entries of an archive, and the offset of its central directory, before which they must lie.

    Raises
    ------
    CheckpointError
        If the records contradict each other or point outside the file.
    """
    count, size, offset, end = _find_directory(path, buffer)
    if offset + size != end or count * _CENTRAL.size > size:
        raise CheckpointError(f"{path}: the table of contents of this zip archive does not fit the file; it is damaged")
    entries, at = [], offset
    for _ in range(count):
        if at + _CENTRAL.size > end:
            raise CheckpointError(f"{path}: the table of contents of this zip archive is cut short")
        entry, at = _read_entry(path, buffer, at, end)
        entries.append(entry)
    if at != end:
        raise CheckpointError(f"{path}: the table of contents of this zip archive is longer than its {count} entries")
    if len({entry.name for entry in entries}) != count:
        raise CheckpointError(f"{path}: two entries of this zip archive have the same name")
    return entries, offset


def _find_directory(path: Path, buffer: Buffer) -> tuple[int, int, int, int]:
    """Return the number of entries, the size and offset of the central directory, and where it must end."""
    at = buffer.rfind(b"PK\5\6", max(0, len(buffer) - _END.size - _MASK16))
    if at < 0 or at + _END.size > len(buffer):
        raise CheckpointError(f"{path}: a zip archive without its end record; the file is cut short")
    _, disk, first_disk, here, count, size, offset, comment = _END.unpack_from(buffer, at)
    if at + _END.size + comment != len(buffer):
        raise CheckpointError(f"{path}: bytes follow the end of this zip archive, or its last record is damaged")
    locator = at - _END64_LOCATOR.size
    if locator >= 0 and buffer[locator : locator + 4] == b"PK\6\7":
        _, _, at, disks = _END64_LOCATOR.unpack_from(buffer, locator)
        if disks > 1 or at + _END64.size != locator or buffer[at : at + 4] != b"PK\6\6":
            raise CheckpointError(f"{path}: the 64-bit end record of this zip archive is damaged")
        wide = _END64.unpack_from(buffer, at)
        for narrow, value, mask in zip(
            (disk, first_disk, here, count, size, offset), wide[4:], (_MASK16,) * 4 + (_MASK32,) * 2, strict=True
        ):
            if narrow not in (value, mask):
                raise CheckpointError(f"{path}: the two end records of this zip archive contradict each other")
        disk, first_disk, here, count, size, offset = wide[4:]
    if disk or first_disk or here != count:
        raise CheckpointError(f"{path}: a zip archive in several parts is not readable")
    return count, size, offset, at


def _read_entry(path: Path, buffer: Buffer, at: int, end: int) -> tuple[Entry, int]:
    """Return the central entry at an offset, and the offset after it."""
    fields = _CENTRAL.unpack_from(buffer, at)
    flags, method, packed, size = fields[3], fields[4], fields[8], fields[9]
    name_length, extra_length, comment_length, header = fields[10], fields[11], fields[12], fields[16]
    start = at + _CENTRAL.size
    after = start + name_length + extra_length + comment_length
    if fields[0] != b"PK\1\2" or after > end:
        raise CheckpointError(f"{path}: an entry in the table of contents of this zip archive is damaged")
    name = bytes(buffer[start : start + name_length])
    size, packed, header = _widen(
        path, (size, packed, header), bytes(buffer[start + name_length : start + name_length + extra_length])
    )
    if name.startswith(b"/") or b"\\" in name or b"\0" in name or b".." in name.split(b"/"):
        raise CheckpointError(f"{path}: the zip entry {quoted(name)} has a path that leads out of the archive")
    stored = method == 0 and not flags & 0x41 and packed == size
    return Entry(name, header, size, stored), after


def _widen(path: Path, fields: tuple[int, int, int], extra: bytes) -> tuple[int, ...]:
    """Replace the fields that are all ones by their 64-bit values from the extra field, which has only those."""
    missing = sum(field == _MASK32 for field in fields)
    if not missing:
        return fields
    at = 0
    while at + 4 <= len(extra):
        tag, length = struct.unpack_from("<2H", extra, at)
        if tag == 1 and 8 * missing <= length <= len(extra) - at - 4:
            wide = iter(struct.unpack_from(f"<{missing}Q", extra, at + 4))
            return tuple(next(wide) if field == _MASK32 else field for field in fields)
        at += 4 + length
    raise CheckpointError(f"{path}: a large zip entry lacks its 64-bit sizes")


def locate(path: Path, buffer: Buffer, entries: list[Entry], limit: int) -> dict[bytes, tuple[int, int]]:
    """Return name -> (offset, size) of the bytes of stored entries, which end before `limit` and do not overlap.

    Raises
    ------
    CheckpointError
        If an entry is compressed or encrypted, overlaps another, or lies outside the file.
    """
    places: dict[bytes, tuple[int, int]] = {}
    free = 0
    for entry in sorted(entries, key=lambda entry: entry.header):
        if not entry.stored:
            raise CheckpointError(
                f"{path}: the zip entry {quoted(entry.name)} is compressed or encrypted; torch stores entries plainly. "
                "Save the checkpoint anew with torch.save"
            )
        if entry.header < free or entry.header + _LOCAL.size > limit:
            raise CheckpointError(f"{path}: the zip entry {quoted(entry.name)} overlaps another or lies outside")
        fields = _LOCAL.unpack_from(buffer, entry.header)
        name_start = entry.header + _LOCAL.size
        start = name_start + fields[9] + fields[10]
        if fields[0] != b"PK\3\4" or buffer[name_start : name_start + fields[9]] != entry.name:
            raise CheckpointError(f"{path}: the zip entry {quoted(entry.name)} is not where the table of contents says")
        free = start + entry.size
        if free > limit:
            raise CheckpointError(f"{path}: the zip entry {quoted(entry.name)} is longer than the file")
        places[entry.name] = (start, entry.size)
    return places
