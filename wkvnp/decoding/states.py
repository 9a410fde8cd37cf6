# mypy: allow-untyped-defs
"""States of many sequences: they do not fit the caches, so they are written past them."""

from __future__ import annotations

from .._address import floats, write_past_caches
from .._jit import inlined

MANY = 16
"""Sequences from which on a state is written past the caches."""


@inlined
def begin_state(before, after, numbers, rows, room):
    """Copy a state to where a token changes it, and return this address: `after` or, for many rows, `room`."""
    here = room if rows >= MANY and numbers % 16 == 0 and after % 64 == 0 else after
    old, new = floats(before, numbers), floats(here, numbers)
    for i in range(numbers):
        new[i] = old[i]
    return here


@inlined
def end_state(here, after, numbers):
    """Bring what was changed to where it belongs."""
    if here != after:
        write_past_caches(here, after, numbers)
