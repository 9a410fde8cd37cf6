"""Machine code kept on disk: never stale, never in the way.

Numba's own cache looks at the time stamp of one file, so it serves old code after a helper has changed, and a damaged
or unwritable cache is an error in every later run. Here:

- a *stamp* hashes every source file that any kernel may be made of, with the versions of what compiles it. Each stamp
  has a folder of its own, and the newest few are kept;
- inside it a file is named by the hash of everything else that machine code depends on: the function and the constants
  it can see, argument types, compiler options, processor, Numba's environment variables;
- a file holds its own SHA-256, checked before unpickling. After any failure the file is deleted and the kernel is
  compiled: a call never fails because of the cache;
- pickles run code when they are read, so a folder is used only if it belongs to this user (or to root) and nobody else
  may write to it.

``WKVNP_CACHE_DIR`` names another place than the user's cache folder; ``WKVNP_CACHE=0`` does without.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import os
import pickle
import re
import stat
import sys
import warnings
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np

from . import __version__
from ._fingerprint import edited, fingerprint, shared_text

_STAMP = re.compile(r"[0-9a-f]{32}")
_SUFFIX, _UNFINISHED = ".kernel", ".unfinished"
_STAMPS_KEPT = 3
_WARNED: set[str] = set()
_DIGEST = hashlib.sha256().digest_size
# These change no machine code; all other variables of Numba might.
_HARMLESS = {
    "NUMBA_NUM_THREADS",
    "NUMBA_THREADING_LAYER",
    "NUMBA_THREADING_LAYER_PRIORITY",
    "NUMBA_CACHE_DIR",
    "NUMBA_ENABLE_CUDASIM",
}


def _user_cache() -> Path:
    """Return the folder that programs of this user may keep things in, by the custom of the platform."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    stated = os.environ.get("XDG_CACHE_HOME", "")
    return Path(stated) if os.path.isabs(stated) else Path.home() / ".cache"


def directory() -> Path | None:
    """Return the folder of all stamps, or None if the cache is switched off or there is no home to keep it in."""
    if os.environ.get("WKVNP_CACHE") == "0":
        return None
    stated = os.environ.get("WKVNP_CACHE_DIR")
    try:
        return (Path(os.path.expanduser(stated)).absolute() if stated else _user_cache() / "wkvnp") / "jit"
    except RuntimeError:  # no home directory
        return None


def contents() -> dict[str, object]:
    """Return where compiled kernels are kept, how many there are for this version, and the bytes of all versions."""
    root = directory()
    if root is None:
        return {"kernel cache": "off"}
    files = list(root.glob(f"*/*{_SUFFIX}"))
    current = sum(path.parent.name == _stamp() for path in files)
    size = 0
    for path in files:
        with contextlib.suppress(OSError):
            size += path.stat().st_size
    return {"kernel cache": str(root), "cached kernels": current, "kernel cache bytes": size}


@functools.cache
def _stamp() -> str:
    import llvmlite
    import numba

    versions = (__version__, sys.version, numba.__version__, llvmlite.__version__, np.__version__, shared_text())
    return hashlib.sha256("\n".join(versions).encode()).hexdigest()[:32]


@functools.cache
def _open_folder(root: Path) -> Path | None:
    """Return the folder for this stamp, made if it is missing; None, with one warning, if it cannot be trusted."""
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        _make_private(root)
        folder = Path(os.path.realpath(root)) / _stamp()
        if not folder.exists():
            _sweep(folder.parent)
        _make_private(folder)
    except OSError as error:
        _warn(f"{root}: {error.strerror or error}")
        return None
    with contextlib.suppress(OSError):
        os.utime(folder)  # used just now: among the last to be swept
    return folder


def _make_private(folder: Path) -> None:
    """Make a folder that only this user may enter; raise PermissionError if it exists and others may write to it."""
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    if os.name != "posix":
        return
    status = folder.stat()
    if status.st_uid not in (os.geteuid(), 0):
        raise PermissionError(errno.EPERM, "the folder belongs to another user")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(errno.EPERM, "others may write to the folder (chmod go-w helps)")


def _sweep(root: Path) -> None:
    """Delete all but the newest stamps; of those, only files that the cache wrote."""
    stamps = []
    for path in root.iterdir():
        with contextlib.suppress(OSError):  # another process sweeps too
            if _STAMP.fullmatch(path.name):
                stamps.append((path.stat().st_mtime, path))
    for _, folder in sorted(stamps)[: 1 - _STAMPS_KEPT]:
        with contextlib.suppress(OSError):  # ... or it holds a file that is not ours
            for path in folder.iterdir():
                if path.suffix in (_SUFFIX, _UNFINISHED):
                    path.unlink(missing_ok=True)
            folder.rmdir()


def _warn(trouble: str) -> None:
    """Tell once what a user can mend."""
    if trouble in _WARNED:
        return
    _WARNED.add(trouble)
    warnings.warn(
        f"wkvnp: compiled kernels cannot be kept, so every process compiles them anew ({trouble}); "
        "set WKVNP_CACHE_DIR to a folder that only you can write to, or WKVNP_CACHE=0 to do without",
        RuntimeWarning,
        stacklevel=2,
    )


class KernelCache:
    """The place of one kernel on disk, with the methods that a Numba dispatcher calls on its cache.

    Parameters
    ----------
    function : function
        What is compiled.
    variant : str
        What else tells this kernel from others: its options, and a name if a factory made it.
    """

    def __init__(self, function: FunctionType, variant: str) -> None:
        self._title = re.sub(r"\W+", "_", f"{function.__module__}.{function.__code__.co_qualname}")[-80:]
        self._fingerprint = None if edited() else fingerprint(function)
        self._variant = variant

    @property
    def cache_path(self) -> str | None:
        """The folder, for `Dispatcher.stats`."""
        root = directory()
        return None if root is None else str(root / _stamp())

    def enable(self) -> None:
        """Do nothing: the environment decides."""

    def disable(self) -> None:
        """Do nothing: the environment decides."""

    def flush(self) -> None:
        """Do nothing: entries are never stale."""

    def _entry(self, signature: Any, target: Any) -> tuple[Path, bytes] | None:
        """Return the file of one specialisation and the digest of all that it depends on; None: do without."""
        root = directory()
        if root is None or self._fingerprint is None:
            return None
        folder = _open_folder(root)
        if folder is None:
            return None
        numba_variables = sorted(
            f"{name}={value}"
            for name, value in os.environ.items()
            if name.startswith("NUMBA_") and name not in _HARMLESS
        )
        key = (self._fingerprint, self._variant, repr(signature), repr(target.codegen().magic_tuple()))
        digest = hashlib.sha256("\n".join([*key, *numba_variables]).encode()).digest()
        return folder / f"{self._title}-{digest.hex()[:32]}{_SUFFIX}", digest

    def load_overload(self, signature: Any, target: Any) -> Any:
        """Return the compiled kernel for these argument types, or None."""
        from numba.core.compiler import CompileResult
        from numba.core.runtime import rtsys

        entry = self._entry(signature, target)
        if entry is None:
            return None
        path, key = entry
        try:
            content = path.read_bytes()
        except OSError:
            return None
        try:
            if content[:_DIGEST] != hashlib.sha256(key + content[_DIGEST:]).digest():
                raise ValueError("damaged")
            # Numba would load every function it knows how to compile first (0.1 to 0.3 s, with scipy.linalg); ready
            # machine code needs the memory routines only.
            rtsys.initialize(target)
            reduced = pickle.loads(memoryview(content)[_DIGEST:])  # noqa: S301  our own file, verified, in our folder
            return CompileResult._rebuild(target, *reduced)
        except Exception:
            with contextlib.suppress(OSError):
                path.unlink()
            return None

    def save_overload(self, signature: Any, compiled: Any) -> None:
        """Keep a kernel that was just compiled."""
        from numba.core import serialize

        entry = self._entry(signature, compiled.target_context)
        if entry is None or compiled.lifted or compiled.library.has_dynamic_globals:
            return
        path, key = entry
        unfinished = path.with_suffix(f".{os.urandom(6).hex()}{_UNFINISHED}")
        try:
            payload = serialize.dumps(compiled._reduce())
            with open(unfinished, "xb") as file:
                file.write(hashlib.sha256(key + payload).digest())
                file.write(payload)
            os.replace(unfinished, path)
        except Exception as error:
            with contextlib.suppress(OSError):
                unfinished.unlink(missing_ok=True)
            if isinstance(error, OSError) and path.parent.exists():
                trouble = f"{path.parent}: {error.strerror or error}"
            else:
                return  # swept by a newer version of the package, or a kernel that cannot be pickled
        else:
            return
        _warn(trouble)
