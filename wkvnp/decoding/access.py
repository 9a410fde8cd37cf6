# mypy: allow-untyped-defs
"""How compiled code finds what the fields of a step refer to.

Steps are checked in Python before compiled code sees them (`Program.finish`): nothing is checked here.
"""

from __future__ import annotations

from .._address import floats, write_past_caches
from .._jit import inlined
from .memory import Storage

_PRIVATE, _SLOT = Storage.PRIVATE, Storage.SLOT
MANY_SEQUENCES = 16
"""Sequences from which on states are written with non-temporal stores: they do not fit the caches."""


@inlined
def present(step, field):
    """Say whether an optional operand is there."""
    return step[field] != 0


@inlined
def address(step, field, private, slots):
    """Return the address of the first row of an operand."""
    storage, base = step[field], step[field + 1]
    if storage == _PRIVATE:
        base = private
    elif storage == _SLOT:
        base = slots[base]
    return base + step[field + 2]


@inlined
def stride(step, field):
    """Return the bytes from row to row of an operand."""
    return step[field + 3]


@inlined
def row(step, field, m, private, slots, begin, size):
    """Return `size` numbers of row m of an operand, from `begin` on."""
    return floats(address(step, field, private, slots) + m * step[field + 3] + 4 * begin, size)


@inlined
def before(step, field, slots):
    """Return the address of a state before the token."""
    return slots[step[field]]


@inlined
def after(step, field, slots):
    """Return the address of a state after the token."""
    return slots[step[field + 1]]


@inlined
def begin_state(old, new, numbers, rows, scratch):
    """Copy a state to where the token changes it; return this address: `new`, or `scratch` for many sequences."""
    here = scratch if rows >= MANY_SEQUENCES and numbers % 16 == 0 and new % 64 == 0 else new
    source, target = floats(old, numbers), floats(here, numbers)
    for i in range(numbers):
        target[i] = source[i]
    return here


@inlined
def end_state(here, new, numbers):
    """Write a state that was changed in scratch memory to its place."""
    if here != new:
        write_past_caches(here, new, numbers)
