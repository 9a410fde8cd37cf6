"""Public functions: one file, one published mechanism, one function of that name.

Imported one by one, on use, so that looking at the list loads nothing.
"""

import os

_OTHERS = ("favor", "random_blocks")
"""Public files that hold no mechanism, but what some need."""


def _names() -> tuple[str, ...]:
    """Return the names of the files of this folder that have a mechanism."""
    stems = {name.removesuffix(".py") for name in os.listdir(__path__[0]) if name.endswith(".py")}
    return tuple(sorted(stem for stem in stems if not stem.startswith("_") and stem not in _OTHERS))


NAMES = _names()
"""All mechanisms."""
