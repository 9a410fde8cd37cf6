"""Write a file completely or not at all, even if the process is killed on the way."""

from __future__ import annotations

import glob
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

# A temporary file that nobody has written to for so long was left behind by a killed process.
_STALE_SECONDS = 3600.0


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Yield a temporary file beside `path` that takes its place when the block ends without an error."""
    _sweep(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.partial")
    # Created with the permissions that the process gives to any new file, which tempfile would narrow.
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        with open(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    _sync_folder(path.parent)


def _sweep(path: Path) -> None:
    """Remove temporary files of the same target that a killed process left."""
    for stale in path.parent.glob("." + glob.escape(path.name) + ".*.partial"):
        with suppress(OSError):
            if time.time() - stale.stat().st_mtime > _STALE_SECONDS:
                stale.unlink()


def _sync_folder(folder: Path) -> None:
    """Make the new name itself durable; some systems cannot open folders, and then there is nothing to do."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
