# mypy: allow-untyped-defs
"""Asking for the stored rows to come while many rows of activations meet those that are here."""

from __future__ import annotations

from .._address import prefetch
from .._jit import inlined


@inlined
def share_of(size, tiles):
    """Return how many bytes of the rows to come to ask for in each tile of those that are here."""
    # With few tiles memory is read all the time, as the processor foresees.
    return (size // tiles + 63) // 64 * 64 if tiles > 2 else 0


@inlined
def ask_for(weight, apart, begin, stop):
    """Ask for bytes of four stored rows."""
    for line in range(begin, stop, 64):
        for q in range(4):
            prefetch(weight + q * apart + line)
