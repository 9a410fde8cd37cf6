"""The only place where Numba's options are written.

`jit` is for functions that other compiled functions call, `kernel` for the loops that Python calls. A kernel compiles,
or loads its machine code from disk (`_compile_cache`), when it is first called with arguments of some types. Importing
this module does not import Numba. Arrays that may be written to and those that may not share machine code.

Python hears Ctrl-C only between launches. Hence one launch must not take longer than about 0.1 s: callers cut
longer work along time and launch again.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import itertools
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any

from . import _threads
from ._compile_cache import KernelCache, directory
from ._threads import set_num_threads, threads

__all__ = [
    "FAST",
    "Kernel",
    "compiling",
    "inlined",
    "interpreted",
    "jit",
    "kernel",
    "set_num_threads",
    "threads",
    "uncounted",
]

# Not "nnan" and "ninf": a running maximum starts at minus infinity, and NaN must stay visible.
FAST = {"contract", "reassoc", "nsz", "arcp", "afn"}

_OPTIONS = {"fastmath": FAST, "error_model": "numpy", "nogil": True}

LARGEST_SERIAL = 1 << 17
"""Elementary steps (a multiplication and an addition) that are over before another thread has woken."""


def jit(function: Callable[..., Any]) -> Any:
    """Compile a function that other compiled functions call."""
    return _part(function, inline=False)


def inlined(function: Callable[..., Any]) -> Any:
    """Compile a function into those that call it."""
    return _part(function, inline=True)


def interpreted() -> bool:
    """Say whether compiled functions run as the Python that they are written in (``NUMBA_DISABLE_JIT``)."""
    return bool(_numba().config.DISABLE_JIT)


def kernel(function: Callable[..., None], *, name: str | None = None) -> Kernel:
    """Compile a function that Python calls, whose outer loop is a ``prange``.

    Parameters
    ----------
    function : function
        Takes arrays and numbers; writes its results into some of the arrays.
    name : str, optional
        What tells it from others that the same factory makes.
    """
    assert isinstance(function, FunctionType)
    return Kernel(function, name)


def uncounted(function: Callable[..., None]) -> Kernel:
    """Compile a kernel in which, and in what it calls, no function returns an array.

    Numba counts who holds an array whenever a part of it is passed to a function: atomic operations, which in a loop
    over short rows took a tenth to a half of the time. Where all arrays belong to the caller there is nothing to count.
    """
    assert isinstance(function, FunctionType)
    return Kernel(function, counted=False)


class Kernel:
    """A compiled loop: arrays in, results written into arrays it is given.

    Calling it shares the outer loop among the threads (`threads`); `serial` keeps it on the calling thread.
    """

    def __init__(self, function: FunctionType, name: str | None = None, *, counted: bool = True) -> None:
        self.function, self.counted = function, counted
        self.name = f"{function.__module__}.{function.__qualname__}" + (f"[{name}]" if name else "")
        self._parallel: Any = None
        self._serial: Any = None

    def __repr__(self) -> str:
        return f"<kernel {self.name}>"

    def __call__(self, *arguments: Any) -> None:
        """Run on as many threads as there are."""
        if not _threads.share():
            self.serial(*arguments)
        elif _threads.turnstile is None:
            (self._parallel or self._compile(parallel=True))(*arguments)
        else:
            with _threads.turnstile:
                (self._parallel or self._compile(parallel=True))(*arguments)

    def sized(self, steps: int) -> Callable[..., None]:
        """Return how to run work of `steps` elementary steps: shared, or `serial` if it is too small for that."""
        run = self.serial if steps <= LARGEST_SERIAL else self
        return functools.partial(self._after_compiling_both, run) if compiling.any_size else run

    def serial(self, *arguments: Any) -> None:
        """Run on the calling thread: for work too small to share."""
        (self._serial or self._compile(parallel=False))(*arguments)

    def _after_compiling_both(self, run: Callable[..., None], *arguments: Any) -> None:
        """Run one way when the other, which work of another size would take, has been compiled for the same types."""
        ways = [self._serial or self._compile(parallel=False)]
        if _threads.share():
            ways.append(self._parallel or self._compile(parallel=True))
        for dispatcher in ways:
            if hasattr(dispatcher, "_cache"):
                dispatcher._compile_for_args(*arguments)
        run(*arguments)

    def _compile(self, *, parallel: bool) -> Any:
        options = _OPTIONS | {"parallel": parallel} | ({} if self.counted else {"_nrt": False})
        dispatcher = _compiler().kernel(self.function, options)
        if hasattr(dispatcher, "_cache"):  # not with NUMBA_DISABLE_JIT=1, which leaves the Python function
            dispatcher._cache = KernelCache(self.function, f"{self.name} {parallel=} {sorted(FAST)}")
            dispatcher.compile = functools.partial(_compile_writable, dispatcher, dispatcher.compile)
        if parallel:
            self._parallel = dispatcher
        else:
            self._serial = dispatcher
        return dispatcher


class Compiling:
    """What this process has compiled, and the one remark about it on a terminal.

    Attributes
    ----------
    kernels, loaded : int
        Loops compiled for some types of arguments, and loaded from disk.
    seconds : float
        What compiling took.
    any_size : bool
        A warm-up: all that is called is compiled for small work and for large.
    quiet : bool
        The remark is made, or not wanted.
    """

    PATIENCE = 1.0

    def __init__(self) -> None:
        self.kernels, self.loaded, self.seconds = 0, 0, 0.0
        self.any_size, self.quiet = False, False

    @contextlib.contextmanager
    def one(self, dispatcher: Any) -> Iterator[None]:
        """Count what is compiled or loaded in this block; say so if the waiting grows long."""
        began, before = time.perf_counter(), _compiled_and_loaded(dispatcher)
        waiting = threading.Timer(max(0.0, self.PATIENCE - self.seconds), self._remark)
        if not self.quiet and sys.stderr is not None and sys.stderr.isatty():
            waiting.daemon = True
            waiting.start()
        try:
            yield
        finally:
            waiting.cancel()
            compiled, loaded = (now - then for now, then in zip(_compiled_and_loaded(dispatcher), before, strict=True))
            self.kernels += compiled
            self.loaded += loaded
            self.seconds += time.perf_counter() - began if compiled else 0

    def _remark(self) -> None:
        self.quiet = True
        why = "once (`wkvnp warmup` does it beforehand)" if directory() else "as always without a cache"
        sys.stderr.write(f"\r\x1b[Kwkvnp: compiling for this machine, {why}\n")
        sys.stderr.flush()


compiling = Compiling()


def _compiled_and_loaded(dispatcher: Any) -> tuple[int, int]:
    return sum(dispatcher.stats.cache_misses.values()), sum(dispatcher.stats.cache_hits.values())


def _compile_writable(dispatcher: Any, compile: Callable[..., Any], signature: tuple[Any, ...]) -> Any:
    """Compile, or load, a loop as if all arrays might be written to, and run it for those that may not too.

    Which arrays it writes to does not depend on that, and weights are read-only or not by where they come from: every
    combination would be compiled anew.
    """
    array = _numba().types.Array
    writable = tuple(each.copy(readonly=False) if isinstance(each, array) else each for each in signature)
    with compiling.one(dispatcher):
        entry = compile(writable)
    if writable != signature:
        dispatcher._insert([each._code for each in signature], entry, False)
    return entry


def _part(function: Callable[..., Any], *, inline: bool) -> Any:
    return _compiler().part(function, _OPTIONS | {"parallel": False, "forceinline": inline})


def _compiler() -> Any:
    """Return the module that compiles; it imports Numba."""
    _numba()
    return importlib.import_module("._compiler", __package__)


@functools.cache
def _numba() -> Any:
    """Return Numba, made safe for machine code from several processes.

    Numba's symbols hold a function's name and a number, which counts from 1 in every process. Two functions of one
    factory, compiled by two processes, so got the same symbol, and a third process that loaded both from disk ran
    one in place of the other, without an error. Counting from a random number keeps them apart.
    """
    _threads.check_settings()
    import numba
    from numba.core.bytecode import FunctionIdentity

    def count_from_a_random_number() -> None:
        FunctionIdentity._unique_ids = itertools.count(int.from_bytes(os.urandom(6), "big"))

    count_from_a_random_number()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=count_from_a_random_number)
    return numba
