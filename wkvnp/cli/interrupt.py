"""Ctrl-C: at once, and never inside a file that is being written.

An exception is not enough. Raised while a kernel is compiled it may arrive in a callback of the compiler, where it is
swallowed and the program goes on; elsewhere in there it was seen to end in an abort.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType, TracebackType

INTERRUPTED = 130


def leave_at_once() -> None:
    """From now on an interrupt ends the process without further ado, unless interrupts are ignored here."""
    if _is_ours(signal.default_int_handler):
        signal.signal(signal.SIGINT, _leave)


def raise_interrupts() -> None:
    """From now on an interrupt is a KeyboardInterrupt again: line editing has to put the terminal back in order."""
    if _is_ours(_leave):
        signal.signal(signal.SIGINT, signal.default_int_handler)


class Deferred:
    """While this is entered, an interrupt is only remembered.

    Attributes
    ----------
    asked : bool
        Whether there was an interrupt.

    Examples
    --------
    >>> with Deferred() as interrupt:
    ...     interrupt.asked
    False
    """

    def __init__(self) -> None:
        self.asked = False
        self._active = _is_ours(signal.default_int_handler, _leave)

    def __enter__(self) -> Deferred:
        if self._active:
            self._before = signal.signal(signal.SIGINT, self._remember)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._active:
            signal.signal(signal.SIGINT, self._before)

    def check(self) -> None:
        """Raise KeyboardInterrupt, here where it does no harm, if there was an interrupt."""
        if self.asked:
            raise KeyboardInterrupt

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.asked = True


def _is_ours(*handlers: object) -> bool:
    return threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) in handlers


def _leave(number: int, frame: FrameType | None) -> None:
    # Every piece of text was flushed when it was written, and state files are replaced as a whole.
    if sys.stderr is not None and sys.stderr.isatty():
        os.write(2, b"\n")
    os._exit(INTERRUPTED)
