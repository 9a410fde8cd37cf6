"""What machine code depends on: the text of the package, and the constants that a function can see.

Text that any kernel may be made of is hashed as a whole, so a change in a helper is never missed. Constants are looked
at function by function, because Numba freezes them into the code and they may come from the environment.
"""

from __future__ import annotations

import dis
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any, NamedTuple

import numpy as np

_PACKAGE = os.path.dirname(os.path.abspath(__file__))
_FOLDERS = ("decoding", "fused", "kernels", "primitives", "tokenizers")


class Text(NamedTuple):
    """A source file as it was when the package was imported."""

    time: int
    size: int
    digest: str
    shared: bool  # any kernel may be made of it: it is on the floor or among the kernels

    def edited(self, path: str) -> bool:
        """Say whether the file is another one now; then nobody knows which of them runs here."""
        try:
            status = os.stat(path)
        except OSError:
            return True
        return (status.st_mtime_ns, status.st_size) != (self.time, self.size)


def survey(package: str) -> dict[str, Text]:
    """Return all source files of the package, by path."""
    files = {}
    for folder, subfolders, names in os.walk(package):
        subfolders.sort()
        shared = os.path.relpath(folder, package).split(os.sep)[0] in (".", *_FOLDERS)
        for name in sorted(names):
            if name.endswith(".py"):
                path = os.path.join(folder, name)
                status = os.stat(path)
                content = os.path.relpath(path, package).encode() + b"\n" + Path(path).read_bytes()
                digest = hashlib.sha256(content).hexdigest()
                files[path] = Text(status.st_mtime_ns, status.st_size, digest, shared)
    return files


# Read when the package is first imported, before the modules that it describes.
try:
    FILES = survey(_PACKAGE)
except OSError:
    FILES = {}


def shared_text() -> str:
    """Return the digests of the files that any kernel may be made of."""
    return "\n".join(text.digest for text in FILES.values() if text.shared)


def edited() -> bool:
    """Say whether one of these files has changed since."""
    return any(text.shared and text.edited(path) for path, text in FILES.items())


class _Unknown(Exception):
    """Something was reached that neither the stamp covers nor its value tells from others."""


def fingerprint(function: FunctionType) -> str | None:
    """Return a hash of a function and the constants it can see, or None if part of it lies outside the package.

    Tells apart functions made by one factory, notices constants that were computed from the environment, and covers
    the text of files that `shared_text` leaves out, such as a formula in a model.
    """
    parts: list[str] = []
    try:
        _describe(function, parts, {})
    except (_Unknown, ValueError):  # ValueError: an empty closure cell
        return None
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _describe(value: Any, parts: list[str], seen: dict[int, int]) -> None:
    """Append to `parts` what tells `value` from others; raise _Unknown if nothing does."""
    for name, option in sorted(getattr(value, "targetoptions", {}).items()):  # of a Numba dispatcher
        parts.append(f"{name} {sorted(option) if isinstance(option, set) else option}")
    value = _python_function(value)
    root = str(getattr(value, "__module__", "")).partition(".")[0]
    if value is None or isinstance(value, bool | int | float | complex | str | bytes | np.generic | np.dtype):
        parts.append(f"{type(value).__name__} {value!r}")
    elif isinstance(value, tuple | list):
        parts.append(f"{type(value).__name__} {len(value)}")
        for item in value:
            _describe(item, parts, seen)
    elif isinstance(value, np.ndarray) and not value.dtype.hasobject:
        parts.append(f"array {value.dtype} {value.shape} {hashlib.sha256(value.tobytes()).hexdigest()}")
    elif id(value) in seen:
        parts.append(f"again {seen[id(value)]}")
    elif isinstance(value, FunctionType) and value.__code__.co_filename in FILES:
        seen[id(value)] = len(seen)
        _describe_function(value, parts, seen)
    elif isinstance(value, np.ufunc) and getattr(np, str(getattr(value, "__name__", "")), None) is value:
        parts.append(f"numpy {value!r}")  # before NumPy 2.2 it does not say where it is from
    elif root in ("numba", "numpy", "math", "builtins"):
        parts.append(f"{root} {getattr(value, '__qualname__', value)}")  # its version is in the stamp
    else:
        raise _Unknown


def _python_function(value: Any) -> Any:
    """Return the function behind a Numba dispatcher or intrinsic, anything else as it is."""
    return getattr(value, "py_func", getattr(value, "_defn", value))


def _describe_function(function: FunctionType, parts: list[str], seen: dict[int, int]) -> None:
    code = function.__code__
    text = FILES[code.co_filename]
    if text.edited(code.co_filename):
        raise _Unknown
    parts.append("" if text.shared else text.digest)
    parts.append(f"{function.__module__} {code.co_qualname} {code.co_firstlineno} {code.co_code.hex()}")
    for part in _code_objects(code):
        parts += [repr(constant) for constant in part.co_consts if isinstance(constant, bool | int | float | str)]
        names = {step.argval for step in dis.get_instructions(part) if step.opname == "LOAD_GLOBAL"}
        for found in (function.__globals__[name] for name in sorted(names & function.__globals__.keys())):
            try:
                _describe(found, parts, seen)
            except _Unknown:
                if isinstance(_python_function(found), FunctionType):
                    raise  # the others are modules, classes, intrinsics: the text of the package says what they are
    for cell in function.__closure__ or ():
        _describe(cell.cell_contents, parts, seen)
    _describe(function.__defaults__, parts, seen)


def _code_objects(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _code_objects(constant)
