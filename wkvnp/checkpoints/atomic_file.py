"""Write a file completely or not at all, even if the process is killed on the way.

Only regular files are replaced. A symbolic link stays, and the file that it leads to is replaced.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from .._paths import local_path
from ..errors import CheckpointError

# A temporary file that nobody has written to for so long was left behind by a killed process.
_STALE_SECONDS = 3600.0
_KINDS = (
    (stat.S_ISDIR, "a folder; give the name of a file in it"),
    (stat.S_ISFIFO, "a named pipe, and only regular files are written"),
    (stat.S_ISSOCK, "a socket, and only regular files are written"),
    (stat.S_ISCHR, "a device, and only regular files are written"),
    (stat.S_ISBLK, "a device, and only regular files are written"),
)
_FULL = {errno.ENOSPC, errno.EFBIG, errno.EIO, errno.EDQUOT}


def file_to_write(path: str | os.PathLike[str]) -> Path:
    """Return where a file that is saved under `path` will be: links are followed, and ``~`` is a home folder.

    Nothing is created, so that it can be asked before any work is done.

    Raises
    ------
    CheckpointError
        If something else than a regular file has this name, the folder is missing, or one of them is write-protected.
    """
    given = local_path(path)
    if os.fsdecode(path).endswith(("/", os.sep)):
        raise CheckpointError(f"{given}: cannot be written: the name of a folder; give the name of a file in it")
    real = Path(os.path.realpath(given))
    status = _status(given)
    if status is None:
        if not os.path.isdir(real.parent):
            raise CheckpointError(f"{given}: cannot be written: the folder {real.parent} does not exist")
        if os.path.lexists(real):
            raise CheckpointError(f"{given}: cannot be written: it is a link that leads nowhere")
    else:
        for is_so, what in _KINDS:
            if is_so(status.st_mode):
                raise CheckpointError(f"{given}: cannot be written: it is {what}")
        found = _status(real)  # a link of /proc may lead to a file that has no name any more
        if found is None or not os.path.samestat(found, status):
            raise CheckpointError(f"{given}: cannot be written: the file that it leads to has no name")
        if not os.access(real, os.W_OK):
            raise CheckpointError(f"{given}: cannot be written: the file is write-protected")
    if not os.access(real.parent, os.W_OK | os.X_OK):
        raise CheckpointError(f"{given}: cannot be written: no permission to write into the folder {real.parent}")
    return real


def _status(path: Path) -> os.stat_result | None:
    """Return what is known of a file, or None if there is none."""
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be written: {error.strerror}") from error


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Yield a temporary file in the folder of `path` that takes its place when the block ends without an error.

    Raises
    ------
    CheckpointError
        If `path` cannot be written, as `file_to_write` says, or the disk is full.
    """
    real = file_to_write(path)
    before = _status(real)
    _sweep(real)
    temporary = real.with_name(f"{_prefix(real)}{secrets.token_hex(8)}.partial")
    try:
        with open(temporary, "xb", opener=_create) as file:
            if before is not None:
                _give_permissions(file.fileno(), before)
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, real)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        named = isinstance(error, OSError) and error.filename in (temporary, str(temporary))
        if isinstance(error, OSError) and (named or error.errno in _FULL):
            raise CheckpointError(f"{path}: cannot be written: {error.strerror}") from error
        raise
    _sync_folder(real.parent)


def _create(name: str, flags: int) -> int:
    """Create a file with the permissions that the process gives to any new one, which tempfile would narrow.

    Where standard output or error is closed, a new file gets its number, and what others write there would land in it.
    """
    handle = os.open(name, flags, 0o666)
    if handle > 2 or os.name != "posix":
        return handle
    import fcntl

    try:
        return fcntl.fcntl(handle, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(handle)


def _give_permissions(handle: int, before: os.stat_result) -> None:
    """Give a file the owner and the permissions of the one that it replaces, as far as this process may."""
    if not hasattr(os, "fchmod"):
        return
    now = os.fstat(handle)
    if (now.st_uid, now.st_gid) != (before.st_uid, before.st_gid):
        with suppress(OSError):
            os.fchown(handle, before.st_uid, before.st_gid)
    with suppress(OSError):
        os.fchmod(handle, stat.S_IMODE(before.st_mode))


def _prefix(path: Path) -> str:
    """Return how the temporary files of a target begin: short, because its own name may be as long as names can be."""
    return f".wkvnp-{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:8]}-"


def _sweep(path: Path) -> None:
    """Remove temporary files of the same target that a killed process left."""
    for stale in path.parent.glob(f"{_prefix(path)}*.partial"):
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
