"""What compiled code may take for granted of the processor."""

from __future__ import annotations

import platform

import llvmlite.binding
from numba import config


def has(*features: str) -> bool:
    """Say whether there are such instructions, by LLVM's names, and Numba was not told of another machine."""
    if config.CPU_NAME or config.CPU_FEATURES:  # NUMBA_CPU_NAME and NUMBA_CPU_FEATURES
        return False
    found = llvmlite.binding.get_host_cpu_features()
    return all(found.get(name) for name in features)


MACHINE = {"AMD64": "x86_64"}.get(platform.machine(), platform.machine())
"""The kind of processor."""
HALVES = MACHINE != "x86_64" or has("f16c")
"""Whether there are instructions that widen float16; without them LLVM looks for a function that may not exist."""
