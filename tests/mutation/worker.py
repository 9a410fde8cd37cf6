"""The process that reads the inputs; what it is at stands in memory that its parent sees, also after a crash."""

from __future__ import annotations

import faulthandler
import gc
import multiprocessing
import os
import re
import shutil
import sys
import tempfile
import traceback
import warnings
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import wkvnp
from wkvnp.errors import WkvnpError

from .seed import Files, Format, made

try:
    import resource
except ImportError:  # Windows: growth is not seen there
    resource = None  # type: ignore[assignment]

GROWTH = 500 << 20
"""Bytes that the process may grow beyond its size when all seeds had been read."""
_ADDRESSES = 2 << 30
"""Beyond its size then, it gets no more memory than this: a larger request is a MemoryError, and a failure."""
WARMING = -1
"""The position before the first."""
LOG = "log"


def work(format: Format, seed: int, numbers: Sequence[int], at: Any, parent: Connection, folder: Path) -> None:
    """Read inputs; send ``(position, kind, detail)`` for each that failed, and one of the kind ``"done"`` at the end.

    Parameters
    ----------
    format : Format
    seed : int
    numbers : sequence of int
        Which inputs.
    at : shared array of two int64
        The position in `numbers` of the input that is being read, and how many were accepted.
    parent : Connection
    folder : Path
        Where the inputs are written, and in the file `LOG` what native code says before it dies.
    """
    with open(folder / LOG, "wb", buffering=0) as file:
        os.dup2(file.fileno(), 2)
    faulthandler.enable(all_threads=False)
    warnings.simplefilter("ignore")
    seeds = format.seeds()
    for number, each in enumerate(seeds):
        accepted, failure = _read(format, folder, each.files, each.opened)
        if failure or accepted != each.complete:
            must = "accepted" if each.complete else "refused"
            parent.send((WARMING, "seed", f"seed {number} must be {must}; {failure[1] if failure else 'it is not'}"))
            return
    size = _limited()
    for position, number in enumerate(numbers):
        at[0] = position
        accepted, failure = _read(format, folder, *made(seeds, format.name, seed, number))
        at[1] += accepted
        if failure:
            parent.send((position, *failure))
        if (grown := _peak() - size) > GROWTH:
            parent.send((position, "growth", f"the process grew by {grown >> 20} MB"))
            return
        if position % 100 == 0 and _is_orphan():
            return
    parent.send((len(numbers), "done", ""))


def _is_orphan() -> bool:
    process = multiprocessing.parent_process()
    return process is not None and not process.is_alive()


def write(folder: Path, files: Files) -> None:
    """Put the files of an input into an empty folder."""
    for name, data in files.items():
        (folder / name).write_bytes(data)


def _read(format: Format, folder: Path, files: Files, opened: str) -> tuple[bool, tuple[str, str] | None]:
    """Return whether an input was accepted, and what was wrong with how it was read, in kind and detail."""
    place = Path(tempfile.mkdtemp(dir=folder))  # a new one: files that are still mapped must not change
    write(place, files)
    try:
        return format.read(place / opened if opened else place), None
    except WkvnpError:
        return False, None
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a PanicException of a Rust package is no Exception
        return False, ("exception", _described(error))
    finally:
        gc.collect(0)
        shutil.rmtree(place, ignore_errors=True)


def _described(error: BaseException) -> str:
    """Return one line: the exception, and where in the package it came from."""
    frames = [(frame.filename, str(frame.lineno), frame.name) for frame in traceback.extract_tb(error.__traceback__)]
    text = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {text}{place_of(frames[::-1])}"


def place_of(frames: Sequence[tuple[str, str, str]]) -> str:
    """Return the first of (file, line, function), the innermost first, that is in the package, or just the first."""
    package = Path(wkvnp.__file__).parent
    ours = [frame for frame in frames if Path(frame[0]).is_relative_to(package)] or list(frames)
    return f" ({'/'.join(Path(ours[0][0]).parts[-3:])}:{ours[0][1]} in {ours[0][2]})" if ours else ""


def _peak() -> int:
    """Return the largest number of bytes that the process has had in memory; 0 where that is not told."""
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s*(\d+) kB", status.read_text()) if status.exists() else None
    if found is not None:
        return int(found[1]) << 10
    if resource is None:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _limited() -> int:
    """Limit what the process may still ask for, where the system can; return its size."""
    status = Path("/proc/self/statm")
    if resource is not None and status.exists():
        pages = int(status.read_text().split()[0])
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        limit = pages * resource.getpagesize() + _ADDRESSES
        resource.setrlimit(resource.RLIMIT_AS, (limit if hard < 0 else min(limit, hard), hard))
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    return _peak()
