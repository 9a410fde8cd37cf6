"""A bar on a terminal, and nothing anywhere else."""

from __future__ import annotations

import sys
import time

from .streams import remark

_WIDTH = 30
_PATIENCE = 0.5  # seconds: what is quicker needs no bar


class Bar:
    """A `progress` callback that draws on standard error if that is a terminal, and leaves no trace.

    Parameters
    ----------
    what : str
        Stands before the bar.
    unit : str, default "tokens"
        What is counted.
    """

    def __init__(self, what: str, unit: str = "tokens") -> None:
        self._what, self._unit = what, unit
        self._shown = False
        self._due = time.monotonic() + _PATIENCE
        self._wanted = not remark.quiet and sys.stderr is not None and sys.stderr.isatty()

    def __call__(self, done: int, total: int) -> None:
        """Draw the bar for `done` of `total`; wipe it out at the end."""
        if not self._wanted:
            return
        if done >= total:
            self.clear()
        elif time.monotonic() >= self._due:
            full = _WIDTH * done // total
            bar = "#" * full + "." * (_WIDTH - full)
            print(f"\r{self._what} [{bar}] {done}/{total} {self._unit}", end="", file=sys.stderr, flush=True)
            self._shown, self._due = True, time.monotonic() + 0.1

    def clear(self) -> None:
        """Wipe the line."""
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self._shown = False
