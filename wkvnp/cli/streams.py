"""The three standard streams: the null device where one is missing, and remarks on standard error."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

_STREAMS = (("stdin", "r", os.O_RDONLY), ("stdout", "w", os.O_WRONLY), ("stderr", "w", os.O_WRONLY))


@contextlib.contextmanager
def complete_streams(*, numbers: bool) -> Iterator[None]:
    """In this block a standard stream that is missing is the null device.

    Parameters
    ----------
    numbers : bool
        Also open what is closed of the file descriptors 0 to 2, for the rest of the process. The next file to be opened
        would get the free number, and what libraries write to standard error would land in it.
    """
    if numbers:
        for number, (_, _, flags) in enumerate(_STREAMS):
            _occupy(number, flags)
    with contextlib.ExitStack() as opened:
        for name, mode, _ in _STREAMS:
            if getattr(sys, name) is None:
                setattr(sys, name, opened.enter_context(open(os.devnull, mode, encoding="utf-8")))
                opened.callback(setattr, sys, name, None)
        yield


def _occupy(number: int, flags: int) -> None:
    try:
        os.fstat(number)
    except OSError:
        handle = os.open(os.devnull, flags)
        if handle != number:
            os.dup2(handle, number)
            os.close(handle)
        os.set_inheritable(number, True)


def forget_stdout() -> None:
    """The reader has gone: let the interpreter flush into nothing instead of failing at exit."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


class Remarks:
    """What is said on standard error beside errors.

    Attributes
    ----------
    quiet : bool
        Nothing is said.

    Examples
    --------
    >>> remark = Remarks()
    >>> remark.quiet = True
    >>> remark("wkvnp: nobody hears this")
    """

    def __init__(self) -> None:
        self.quiet = False
        self._said: set[str] = set()

    def __call__(self, text: str, *, once: bool = False) -> None:
        """Write one line, or nothing if it is to be said once a process and was."""
        if self.quiet or (once and text in self._said):
            return
        self._said.add(text)
        with contextlib.suppress(OSError):  # nobody listens
            print(text, file=sys.stderr, flush=True)


remark = Remarks()
