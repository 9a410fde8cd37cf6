# mypy: allow-untyped-defs
"""Prefetching the next stored rows while many rows of activations are multiplied by the present ones."""

from __future__ import annotations

from .._address import prefetch
from .._jit import inlined


@inlined
def share_of(size, tiles):
    """Return how many bytes of the next rows to prefetch in each tile of the present ones."""
    # With few tiles memory is read all the time, as hardware prefetchers predict.
    return (size // tiles + 63) // 64 * 64 if tiles > 2 else 0


@inlined
def prefetch_rows(weight, apart, begin, stop):
    """Prefetch bytes of four stored rows."""
    for line in range(begin, stop, 64):
        for q in range(4):
            prefetch(weight + q * apart + line)
