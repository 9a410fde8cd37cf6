"""How many threads a launch uses, which layer runs them, and what keeps that layer from doing harm.

Numba has three threading layers: ``omp`` where the system has GNU OpenMP, ``tbb`` where it is installed, ``workqueue``
always. Left alone, two Python threads that launch at once abort the process under workqueue; a forked child that
launches is killed under omp; and omp's workers, spinning for the next launch, slow BLAS calls in between 5 to 19 times.
"""

from __future__ import annotations

import contextlib
import ctypes
import operator
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ._arguments import named
from .errors import ArgumentError

# Held around every launch if the layer is not safe to enter twice; None if it is.
turnstile: threading.RLock | None = None  # type: ignore[valid-type, unused-ignore]

_stated: int | None = None  # what `set_num_threads` was given
_count = 0  # threads of a launch; 0 until the first one
_forked = False  # in a child of a process that had started OpenMP, which must not be entered again
_warned = False
_starting = threading.Lock()


class _Here(threading.local):
    """What each Python thread has told Numba, which keeps the number of threads per thread."""

    count = 0


_here = _Here()


@named
def set_num_threads(n: int | None) -> None:
    """Set how many threads a kernel may use, for the whole process.

    Results are the same, bit for bit, for any number. The default is what the process may use: the cores it is bound
    to or the quota of its container, whichever is less, or the environment variable ``WKVNP_NUM_THREADS``.

    Parameters
    ----------
    n : int or None
        From 1 to the number that Numba was started with (``NUMBA_NUM_THREADS``, by default the number of cores);
        None: the default.

    Raises
    ------
    ArgumentError
        If `n` is not a whole number in that range.

    Examples
    --------
    >>> import wkvnp
    >>> wkvnp.set_num_threads(1)
    >>> wkvnp.set_num_threads(None)
    """
    global _stated, _count
    if n is not None:
        try:
            n = operator.index(n) if not isinstance(n, bool) else 0
        except TypeError:
            raise ArgumentError(f"set_num_threads: n must be a whole number or None; got {n!r}") from None
        if not 1 <= n <= most_threads():
            raise ArgumentError(
                f"set_num_threads: n must be from 1 to {most_threads()}; got {n} "
                "(for more, set NUMBA_NUM_THREADS before Python starts)"
            )
    _stated, _count = n, 0


def threads() -> int:
    """Return how many threads a launch uses."""
    if _forked:
        return 1
    return _stated or _count or default_threads()


def most_threads() -> int:
    """Return the number of threads that Numba starts."""
    check_settings()
    import numba

    return int(numba.config.NUMBA_NUM_THREADS)


def check_settings() -> None:
    """Refuse a number of threads that Numba cannot be imported with, or would ignore with a warning.

    Raises
    ------
    ArgumentError
        If ``NUMBA_NUM_THREADS`` is not a whole number from 1.
    """
    stated = os.environ.get("NUMBA_NUM_THREADS")
    if stated is not None:
        _whole_number("NUMBA_NUM_THREADS", stated)


def _whole_number(variable: str, stated: str) -> int:
    if not stated.strip().isdecimal() or int(stated) < 1:
        raise ArgumentError(f"{variable} must be a whole number from 1; got {stated!r} (unset, all cores are used)")
    return int(stated)


def default_threads() -> int:
    """Return the number of threads if `set_num_threads` is not called."""
    stated = os.environ.get("WKVNP_NUM_THREADS")
    if stated is None:
        quota = cpu_quota()
        return min(usable_cores(), most_threads(), max(1, int(quota)) if quota else most_threads())
    return min(_whole_number("WKVNP_NUM_THREADS", stated), most_threads())


def usable_cores() -> int:
    """Return the number of cores that this process is bound to."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_quota(root: Path = Path("/sys/fs/cgroup"), groups: Path = Path("/proc/self/cgroup")) -> float | None:
    """Return the least quota of the control groups that this process is in, in cores, or None if there is none."""
    try:
        lines = groups.read_text().splitlines()
    except OSError:
        return None
    quotas = []
    for _, controllers, group in (line.split(":", 2) for line in lines if line.count(":") >= 2):
        if controllers == "":
            quotas += [_read_quota(folder, "cpu.max") for folder in _upwards(root, group)]
        elif "cpu" in controllers.split(","):
            for mount in (controllers, "cpu"):
                names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
                quotas += [_read_quota(folder, *names) for folder in _upwards(root / mount, group)]
    return min((quota for quota in quotas if quota), default=None)


def _upwards(root: Path, group: str) -> list[Path]:
    """Return the folders of a group and of all that it is nested in; a container may see only the last of them."""
    folder = root / group.strip("/")
    return [folder, *folder.parents[: len(folder.parts) - len(root.parts)]]


def _read_quota(folder: Path, *names: str) -> float | None:
    try:
        quota, period = " ".join((folder / name).read_text() for name in names).split()
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError):  # not there, or "max"
        return None


def share() -> bool:
    """Make ready for a launch from this Python thread; say whether it may use several threads."""
    count = _count or _start()
    if count != _here.count and count > 1:
        import numba

        numba.set_num_threads(count)
        _here.count = count
    return count > 1


def _start() -> int:
    """Settle the number of threads and, if it is more than one, start the threading layer."""
    global _count, turnstile
    check_settings()
    import numba

    with _starting:
        count = 1 if numba.config.DISABLE_JIT else _stated or default_threads()
        if _forked and count > 1:
            count = 1
            _warn_of_fork()
        if count > 1:
            with at_peace_with_blas():
                find_tbb()
                _start_layer(numba, count)
            if numba.threading_layer() == "workqueue":
                turnstile = turnstile or threading.RLock()
        _count = count
    return count


LAYERS = ("default", "safe", "threadsafe", "forksafe", "tbb", "omp", "workqueue")


def _start_layer(numba: Any, count: int) -> None:
    """Start the threading layer that the settings ask for, or say which ones there are."""
    try:
        numba.set_num_threads(count)
    except (ValueError, ImportError, OSError) as error:
        asked, order = str(numba.config.THREADING_LAYER).lower(), numba.config.THREADING_LAYER_PRIORITY
        if sorted(order) != ["omp", "tbb", "workqueue"]:
            fault = f"_PRIORITY must name tbb, omp and workqueue, each once; got {' '.join(order)!r}"
        elif asked not in LAYERS:
            fault = f" must be one of {', '.join(LAYERS)}; got {asked!r}"
        elif asked in ("tbb", "safe", "threadsafe", "forksafe"):
            fault = (
                f" is {asked!r}, which needs a library that is not installed: pip install tbb, or unset the variable"
            )
        else:
            fault = f" is {asked!r}, which cannot be started here: {' '.join(str(error).split())}"
        raise ArgumentError(f"NUMBA_THREADING_LAYER{fault}") from None


@contextlib.contextmanager
def at_peace_with_blas() -> Iterator[None]:
    """Have GNU OpenMP, if it is loaded in this block, let its idle workers sleep after a short spin.

    It reads the variable when it is loaded and never again, so child processes need not inherit it.
    """
    stated = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys()
    if stated or os.environ.get("WKVNP_OMP_PEACE") == "0":
        yield
        return
    os.environ["GOMP_SPINCOUNT"] = "10000"
    try:
        yield
    finally:
        os.environ.pop("GOMP_SPINCOUNT", None)


def find_tbb() -> None:
    """Load the library of ``pip install tbb``, which the system's loader does not find in a virtual environment."""
    name = "libtbb.12.dylib" if sys.platform == "darwin" else "libtbb.so.12"
    with contextlib.suppress(OSError):
        ctypes.CDLL(os.path.join(sys.prefix, "lib", name), mode=ctypes.RTLD_GLOBAL)


def layer() -> str | None:
    """Return the name of the threading layer, None if none has been started."""
    numba = sys.modules.get("numba")
    try:
        return None if numba is None else str(numba.threading_layer())
    except (AttributeError, ValueError):
        return None


def _warn_of_fork() -> None:
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(
            "wkvnp: this process was forked from one that had started GNU OpenMP, which does not survive a fork, so "
            "kernels run on one thread here; multiprocessing's start methods 'spawn' and 'forkserver' avoid this",
            RuntimeWarning,
            stacklevel=2,
        )


def _after_fork() -> None:
    """Replace locks that a thread of the parent may have held, and stay out of OpenMP."""
    global _starting, turnstile, _forked, _count
    _starting = threading.Lock()
    turnstile = turnstile and threading.RLock()
    if layer() == "omp":
        _forked, _count = True, 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
