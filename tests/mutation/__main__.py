"""The command line of the campaigns."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from .campaign import LIMIT, Report, run
from .formats import FORMATS
from .seed import made
from .worker import write

_SHOWN = 3


def main() -> int:
    """Run campaigns; return 1 if an input failed."""
    arguments = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the worker and its folder go too
    failed = 0
    for name in arguments.format or FORMATS:
        first = arguments.first
        numbers = arguments.only or range(first, first + arguments.inputs)
        show = _progress(name, len(numbers))
        report = run(FORMATS[name], arguments.seed, numbers, limit=arguments.limit, progress=show)
        print(_counted(name, report), flush=True)
        for group in report.alike():
            print(f"  {len(group)} times", *group[:_SHOWN], sep="\n  ")
        if arguments.keep:
            _keep(arguments.keep, name, arguments.seed, arguments.only or [f.number for f in report.failures])
        failed += len(report.failures)
    return 1 if failed else 0


def _counted(name: str, report: Report) -> str:
    return f"{name}: {report.inputs:,} inputs, {report.accepted:,} accepted, {len(report.failures):,} failures"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutation", description=sys.modules[__package__ or ""].__doc__
    )
    parser.add_argument("--format", action="append", choices=FORMATS, help="may be repeated; by default all of them")
    parser.add_argument("--inputs", type=int, default=200_000, metavar="N", help="how many (default %(default)s)")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="number of the first (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the random numbers (default %(default)s)")
    parser.add_argument("--only", type=int, nargs="+", metavar="N", help="the numbers of single inputs")
    parser.add_argument(
        "--limit", type=float, default=LIMIT, metavar="S", help="seconds an input (default %(default)s)"
    )
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="where to write the inputs that failed, or all of --only"
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    return parser.parse_args()


def _progress(name: str, count: int) -> Callable[[Report], None]:
    """Return what shows how far a campaign is: one line on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        return lambda report: None

    def show(report: Report) -> None:
        end = "\r" if report.inputs < count else ""
        print(f"\r\x1b[K{_counted(name, report)}, of {count:,}", end=end, file=sys.stderr, flush=True)

    return show


def _keep(folder: Path, name: str, seed: int, numbers: Iterable[int]) -> None:
    """Write the files of inputs, each into a folder of its own."""
    seeds = FORMATS[name].seeds()
    for number in numbers:
        place = folder / f"{name}-{seed}-{number}"
        place.mkdir(parents=True, exist_ok=True)
        write(place, made(seeds, name, seed, number)[0])


if __name__ == "__main__":
    sys.exit(main())
