"""What the machine offers and what the library makes of it, for error reports."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import warnings
from typing import Any

from . import __version__, _compile_cache, _threads


def system_report() -> dict[str, Any]:
    """Return versions, processors, threads, the cache of compiled kernels and the GPU; never raises.

    Examples
    --------
    >>> report = system_report()
    >>> report["wkvnp"], report["cores"] >= 1
    ('0.1.0', True)
    """
    report: dict[str, Any] = {"wkvnp": __version__, "python": platform.python_version()}
    for package in ("numpy", "numba", "llvmlite", "scipy"):
        report[package] = _answer(importlib.metadata.version, package)
    report["platform"] = platform.platform()
    report["processor"] = _answer(_processor)
    report["cores"] = os.cpu_count() or 1
    report["usable cores"] = _threads.usable_cores()
    report["container quota"] = _threads.cpu_quota()
    report["threads"] = _answer(_threads.threads)
    report["threading layers"] = _answer(_layers)
    report["threading layer"] = _answer(_chosen_layer)
    report |= _compile_cache.contents()
    report["gpu"] = _answer(_gpus)
    return report


def _answer(question: Any, *arguments: Any) -> Any:
    """Return what the question returns, or why it could not be answered."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return question(*arguments)
    except Exception as error:
        return f"unknown ({type(error).__name__}: {error})"


def _processor() -> str:
    """Return the name that machine code is made for; two computers share a cache only if it is the same."""
    return str(importlib.import_module("llvmlite.binding").get_host_cpu_name())


def _layers() -> list[str]:
    """Return the threading layers that can be loaded here."""
    found = []
    with _threads.at_peace_with_blas():
        _threads.find_tbb()
        for name, module in (("tbb", "tbbpool"), ("omp", "omppool"), ("workqueue", "workqueue")):
            try:
                importlib.import_module(f"numba.np.ufunc.{module}")
            except ImportError:
                continue
            found.append(name)
    return found


def _chosen_layer() -> str:
    _threads.share()
    return _threads.layer() or "none: one thread"


def _gpus() -> list[str] | str:
    cuda = importlib.import_module("numba.cuda")
    if not cuda.is_available():
        return "none"
    names = [device.name for device in cuda.gpus]
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names] or "none"
