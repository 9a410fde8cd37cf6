"""The command line of the campaigns."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from .campaign import LIMIT, Report, run
from .formats import FORMATS
from .seed import made
from .worker import write

_SHOWN = 3


def main() -> int:
    """Run campaigns; return 1 if an input failed."""
    arguments = _arguments()
    failed = 0
    for name in arguments.format or FORMATS:
        numbers = (
            range(arguments.first, arguments.first + arguments.inputs) if arguments.only is None else arguments.only
        )
        report = run(
            FORMATS[name], arguments.seed, numbers, limit=arguments.limit, progress=_progress(name, len(numbers))
        )
        print(
            f"{name}: {report.inputs:,} inputs, {report.accepted:,} accepted, {len(report.failures):,} failures",
            flush=True,
        )
        for group in report.alike():
            print(f"  {len(group)} times")
            for failure in group[:_SHOWN]:
                print(f"  {failure}")
                if arguments.keep and failure.number >= 0:
                    _keep(arguments.keep, name, arguments.seed, failure.number)
        if arguments.keep and arguments.only:
            for number in arguments.only:
                _keep(arguments.keep, name, arguments.seed, number)
        failed += len(report.failures)
    return 1 if failed else 0


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
        text = (
            f"{name}: {report.inputs:,} of {count:,}, {report.accepted:,} accepted, {len(report.failures):,} failures"
        )
        print(f"\r\x1b[K{text}", end="\r" if report.inputs < count else "", file=sys.stderr, flush=True)

    return show


def _keep(folder: Path, name: str, seed: int, number: int) -> None:
    """Write the files of an input into a folder of its own."""
    place = folder / f"{name}-{seed}-{number}"
    place.mkdir(parents=True, exist_ok=True)
    files, _ = made(FORMATS[name].seeds(), name, seed, number)
    write(place, files)


if __name__ == "__main__":
    sys.exit(main())
