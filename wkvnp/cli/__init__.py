"""The command line: one file per command, and here what they share at the edge of the process.

Standard output carries the text that was asked for; bars, remarks and errors go to standard error. Exit codes: 0 done,
1 the input was at fault, 2 the command line was, 130 interrupted. Nothing heavy is imported before a command runs.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from importlib import import_module

from .. import __version__
from ..errors import WkvnpError
from .interrupt import INTERRUPTED, leave_at_once
from .streams import complete_streams, forget_stdout, remark

COMMANDS = ("generate", "chat", "score", "tokenize", "info", "random-model", "convert", "warmup")


class UsageError(Exception):
    """The command line asks for something that does not fit together."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; by default those of the process.

    Returns
    -------
    int
        0 done, 1 the input was at fault, 2 the command line was, 130 interrupted.

    Examples
    --------
    >>> main(["tokenize", "--tokenizer", "bytes", "Hi!"])
    72 105 33
    0
    """
    with complete_streams(numbers=argv is None), warnings.catch_warnings():
        return _run(argv)


def _run(argv: Sequence[str] | None) -> int:
    """Run one command; every outcome becomes an exit code and at most one line."""
    try:
        if argv is None:  # this process is ours
            leave_at_once()
            warnings.formatwarning = lambda message, *place: f"wkvnp: {message}\n"
        _speak_utf8()
        arguments = build_parser().parse_args(argv)
        remark.quiet = arguments.quiet
        if arguments.quiet:
            _be_quiet()
        status = int(arguments.run(arguments))
        sys.stdout.flush()
        return status
    except SystemExit as stop:  # argparse has spoken
        return stop.code if isinstance(stop.code, int) else 2
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        forget_stdout()
        return 0
    except UsageError as error:
        return _complain(error, 2)
    except (WkvnpError, OSError) as error:
        return _complain(error, 1)
    except Exception as error:
        return _complain(error, 1, "; this looks like a mistake in wkvnp: WKVNP_DEBUG=1 shows where")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="wkvnp",
        description="Run RWKV language models: text in, text out.",
        epilog="examples:\n"
        '  wkvnp generate "The for statement"\n'
        '  wkvnp generate --model rwkv7.pth "The Eiffel tower is in"\n'
        "  wkvnp COMMAND --help\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"wkvnp {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in COMMANDS:
        module = import_module(f".{name.replace('-', '_')}", __name__)
        command = commands.add_parser(
            name,
            help=module.HELP,
            description=module.HELP[0].upper() + module.HELP[1:] + ".",
            epilog=module.EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
        command.add_argument("--quiet", "-q", action="store_true", help="no remarks and no bars, only errors")
        command.set_defaults(run=module.run)
    return parser


def describe_error(error: BaseException) -> str:
    """Return one line for an exception."""
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    elif isinstance(error, (WkvnpError, UsageError)):
        text = str(error)
    else:
        text = f"{type(error).__name__}: {error}"
    return " ".join(text.split())


def _complain(error: Exception, status: int, hint: str = "") -> int:
    if os.environ.get("WKVNP_DEBUG", "0") not in ("", "0"):
        traceback.print_exception(error)
    with contextlib.suppress(OSError):
        print(f"wkvnp: error: {describe_error(error)}{hint}", file=sys.stderr, flush=True)
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        forget_stdout()
    return status


def _be_quiet() -> None:
    """Silence warnings and the remark about compiling too."""
    from .._jit import compiling

    warnings.simplefilter("ignore")
    compiling.quiet = True


def _speak_utf8() -> None:
    """Text is UTF-8 in every locale; other bytes become a replacement character."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(encoding="utf-8", errors="replace")
