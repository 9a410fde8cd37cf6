"""Runs a campaign: gives inputs to a worker, sees it fail, hang and die, and goes on behind the input that did it."""

from __future__ import annotations

import collections
import multiprocessing
import os
import re
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from .seed import Format
from .worker import LOG, WARMING, place_of, work

LIMIT = 5.0
"""Seconds that one input may take."""
_WARM_UP = 900.0
"""Seconds for all seeds: the first time, kernels are compiled."""
_LOOK = 0.2
_FRAMES = (" ", "Current", "Thread", "Stack", "stack", "Fatal", "Extension modules", "note:")
"""How the lines begin in which Python and Rust say where they were when they died."""


@dataclass(frozen=True)
class Failure:
    """An input that was not read as it must be; `kind` is exception, crash, hang, growth or seed."""

    format: str
    seed: int
    number: int
    kind: str
    detail: str

    @property
    def command(self) -> str:
        """What makes the input again."""
        return f"python -m tests.mutation --format {self.format} --seed {self.seed} --only {self.number}"

    def __str__(self) -> str:
        return f"{self.kind}: {self.detail}" + (f"\n    {self.command}" if self.number >= 0 else "")


@dataclass
class Report:
    """What a campaign has found.

    Attributes
    ----------
    inputs, accepted : int
        How many inputs were read, and how many of them without an error.
    failures : list of Failure
    """

    inputs: int = 0
    accepted: int = 0
    failures: list[Failure] = field(default_factory=list)

    def alike(self) -> list[list[Failure]]:
        """Return the failures in groups of one kind and place, the largest first."""
        found = collections.defaultdict(list)
        for failure in self.failures:
            place = failure.detail[failure.detail.rfind("(") :]
            found[failure.kind, failure.detail.partition(":")[0], place].append(failure)
        return sorted(found.values(), key=len, reverse=True)


def run(
    format: Format,
    seed: int,
    numbers: Sequence[int],
    *,
    limit: float = LIMIT,
    progress: Callable[[Report], object] = lambda report: None,
) -> Report:
    """Read inputs of one format in worker processes.

    Parameters
    ----------
    format : Format
    seed : int
    numbers : sequence of int
        Which inputs.
    limit : float
        Seconds for one input. One that takes longer twice counts as a hang.
    progress : callable
        Called with the report, a few times a second.
    """
    report, left, slow = Report(), list(numbers), WARMING
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="wkvnp-mutation-", dir=memory) as folder:
        while left:
            worker = _Worker(format, seed, left, Path(folder))
            try:
                ending = worker.watch(limit, report, progress)
            finally:
                worker.end()
            kind, detail = ending
            position = worker.position
            if position < 0:
                report.failures.append(Failure(format.name, seed, WARMING, "seed", detail))
                break
            if kind == "hang" and left[position] != slow:
                slow, position = left[position], position - 1  # perhaps others had the processor: once more
            elif kind != "done":
                report.failures.append(Failure(format.name, seed, left[position], kind, detail))
            report.inputs += position + 1
            report.accepted += worker.accepted
            left = left[position + 1 :]
    return report


class _Worker:
    """A process that reads inputs, and what is known about it."""

    def __init__(self, format: Format, seed: int, numbers: Sequence[int], folder: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self._at: Any = context.RawArray("q", [WARMING, 0])
        self._pipe, theirs = context.Pipe(duplex=False)
        self._format, self._seed, self._numbers, self._log = format.name, seed, numbers, folder / LOG
        arguments = (format, seed, numbers, self._at, theirs, folder)
        self._process = context.Process(target=work, args=arguments, daemon=True)
        self._process.start()
        theirs.close()

    @property
    def position(self) -> int:
        """Where in the numbers the process is, or was when it ended; `WARMING` before the first."""
        return int(self._at[0])

    @property
    def accepted(self) -> int:
        """How many inputs were accepted."""
        return int(self._at[1])

    def watch(self, limit: float, report: Report, progress: Callable[[Report], object]) -> tuple[str, str]:
        """Collect failures until the process ends or an input takes too long; return how it ended, and details."""
        seen, since = WARMING, time.monotonic()
        before = report.inputs, report.accepted
        while True:
            wait([self._pipe, self._process.sentinel], timeout=_LOOK)
            ended = not self._process.is_alive()
            for position, kind, detail in self._messages():
                if kind not in ("done", "seed"):
                    report.failures.append(Failure(self._format, self._seed, self._numbers[position], kind, detail))
                if kind in ("done", "seed", "growth"):
                    self._process.join(10)
                    return "done", detail
            if ended:
                return "crash", self._last_words()
            if self.position != seen:
                seen, since = self.position, time.monotonic()
            report.inputs, report.accepted = before[0] + max(seen, 0), before[1] + self.accepted
            progress(report)
            report.inputs, report.accepted = before
            if time.monotonic() - since > (limit if seen >= 0 else _WARM_UP):
                self._stop()
                return "hang", f"no end after {limit} s; {self._last_words()}"

    def end(self) -> None:
        """Let go of the process."""
        self._process.kill()
        self._process.join()
        self._pipe.close()

    def _messages(self) -> Iterator[tuple[int, str, str]]:
        try:
            while self._pipe.poll():
                yield self._pipe.recv()
        except EOFError:
            return

    def _stop(self) -> None:
        """End the process; where there are signals, it first writes down where it is."""
        if hasattr(signal, "SIGABRT") and os.name == "posix":
            os.kill(self._process.pid or 0, signal.SIGABRT)
            self._process.join(2)
        self._process.kill()
        self._process.join()

    def _last_words(self) -> str:
        """Return how the process ended, what it wrote before that, and where it was."""
        code = self._process.exitcode
        how = signal.Signals(-code).name if code is not None and code < 0 else f"exit status {code}"
        text = self._log.read_text("utf-8", "replace") if self._log.exists() else ""
        place = place_of(re.findall(r'File "(.*?)", line (\d+) in (\S+)', text))
        said = [line for line in text.splitlines() if line and not line.startswith(_FRAMES)]
        return f"{how}{': ' + said[-1][:200] if said else ''}{place}"
