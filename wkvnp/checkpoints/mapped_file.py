"""The bytes of a file: mapped when it is large, read when it is small; never more than a regular file."""

from __future__ import annotations

import codecs
import errno
import mmap
import os
import stat
from pathlib import Path
from typing import TypeAlias

from ..errors import CheckpointError

Buffer: TypeAlias = bytes | mmap.mmap

# Below this a plain read is cheaper than a mapping, and a file that shrinks later cannot hurt.
READ_AT_ONCE = 65536


def map_file(path: Path, limit: int | None = None) -> Buffer:
    """Return the bytes of a regular file.

    Raises
    ------
    CheckpointError
        If the file is missing, unreadable, no regular file, or larger than `limit` bytes.
    """
    try:
        # Without O_NONBLOCK, opening a named pipe would wait for a writer.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
        try:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise CheckpointError(f"{path}: not a regular file")
            if limit is not None and status.st_size > limit:
                raise CheckpointError(f"{path}: {status.st_size} bytes are too many for such a file (limit {limit})")
            if status.st_size > READ_AT_ONCE:
                return mmap.mmap(handle, 0, access=mmap.ACCESS_READ)
            with open(handle, "rb", closefd=False) as file:
                return file.read(READ_AT_ONCE)
        finally:
            os.close(handle)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file") from error
    except (OSError, ValueError) as error:
        if getattr(error, "errno", None) == errno.ENAMETOOLONG or "\0" in str(path):
            name = str(path)
            raise CheckpointError(f"{name[:100]!r}: cannot be the name of a file ({len(name)} characters)") from error
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path}: cannot be read: {error}") from error


def without_mark(text: bytes) -> bytes:
    r"""Return the bytes of a text without the byte order mark that some editors put first.

    >>> without_mark("\ufeffa".encode())
    b'a'
    """
    return text.removeprefix(codecs.BOM_UTF8)


def forget(buffer: Buffer) -> None:
    """Release the memory of the pages that were read; they are read again when they are needed."""
    if isinstance(buffer, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        buffer.madvise(mmap.MADV_DONTNEED)
