"""Options that several commands have, and what they turn into."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import WkvnpError
from . import UsageError

if TYPE_CHECKING:
    from ..models.language_model import Model
    from ..tokenizers import Tokenizer

_DEMONSTRATION = (
    "wkvnp: demonstration model, an RWKV-7 of 2.5 million parameters that has read the documentation of Python only; "
    "--model PATH loads a real one"
)
DTYPES = ("float32", "float16", "bfloat16", "int8", "int4")
"""What weights can be converted to from the shell; float64 is for reference only."""
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\"}


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which model runs, and how."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "--model",
        "-m",
        metavar="PATH",
        help="checkpoint: .pth, .safetensors, .gguf, rwkv.cpp .bin, or a folder with one; "
        "default: a small demonstration model",
    )
    group.add_argument(
        "--tokenizer",
        metavar="T",
        help="bytes, rwkv-world, or a vocabulary file; default: that of the model",
    )
    group.add_argument("--dtype", choices=(*DTYPES, "float64"), help="convert the weights")
    group.add_argument("--threads", type=int, metavar="N", help="threads to use; default: one per core")


def add_sampling_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how tokens are chosen."""
    group = parser.add_argument_group("choice of tokens")
    group.add_argument("--temperature", type=float, default=1.0, metavar="X", help="0 is greedy; default 1.0")
    group.add_argument("--top-p", type=float, default=0.85, metavar="P", help="1 keeps all; default 0.85")
    group.add_argument("--top-k", type=int, default=0, metavar="K", help="0 keeps all; default 0")
    group.add_argument("--presence-penalty", type=float, default=0.0, metavar="X", help="default 0")
    group.add_argument("--frequency-penalty", type=float, default=0.0, metavar="X", help="default 0")
    group.add_argument("--penalty-decay", type=float, default=0.996, metavar="X", help="default 0.996")
    group.add_argument("--ban", type=_ids, default=[], metavar="IDS", help="token ids never chosen, as 0,11,261")
    group.add_argument("--seed", type=int, metavar="N", help="makes the choices repeatable")


def sampling_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the keyword arguments of `wkvnp.generate` that `add_sampling_options` collected."""
    if arguments.seed is not None and arguments.seed < 0:
        raise UsageError(f"--seed must be at least 0; got {arguments.seed}")
    return {
        "max_tokens": arguments.max_tokens,
        "temperature": arguments.temperature,
        "top_p": arguments.top_p,
        "top_k": arguments.top_k,
        "presence_penalty": arguments.presence_penalty,
        "frequency_penalty": arguments.frequency_penalty,
        "penalty_decay": arguments.penalty_decay,
        "ban": arguments.ban,
        "rng": arguments.seed,
    }


def load_model(arguments: argparse.Namespace) -> tuple[Model, Tokenizer]:
    """Return the model and the tokenizer that the options name."""
    from ..models import load
    from ..tokenizers import tokenizer

    if arguments.threads is not None:
        from .._threads import set_threads

        set_threads(arguments.threads)
    if arguments.model is None:
        print(_DEMONSTRATION, file=sys.stderr)
    model = load(arguments.model, dtype=arguments.dtype)
    if arguments.tokenizer is not None:
        return model, tokenizer(arguments.tokenizer)
    return model, tokenizer(model)


def add_text_input(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the three ways to give a text: as an argument, in a file, through a pipe."""
    parser.add_argument("text", nargs="?", metavar=name, help="the text; without it and --file, standard input")
    parser.add_argument("--file", "-f", metavar="F", help="read the text from a file (- is standard input)")


def read_text(arguments: argparse.Namespace, name: str) -> tuple[str, bool]:
    """Return the text, and whether it came from a file or a pipe (where a last newline is rarely meant)."""
    if arguments.text is not None and arguments.file is not None:
        raise UsageError(f"give {name} either as an argument or with --file, not both")
    if arguments.text is not None:
        return str(arguments.text), False
    if arguments.file not in (None, "-"):
        return _decode(Path(arguments.file).read_bytes(), arguments.file), True
    if sys.stdin is None or (arguments.file is None and sys.stdin.isatty()):
        raise UsageError(f"no {name} given: pass it as an argument, with --file, or through a pipe")
    return _decode(sys.stdin.buffer.read(), "standard input"), True


def unescape(text: str) -> str:
    r"""Return the text with ``\n``, ``\t``, ``\r`` and ``\\`` replaced by what they stand for.

    >>> unescape(r"User: Hi\n\nAssistant:")
    'User: Hi\n\nAssistant:'
    """
    return re.sub(r"\\([ntr\\])", lambda match: _ESCAPES[match[1]], text)


def writable(path: str | None) -> str | None:
    """Return the path of a file to be written later, or say now that it cannot be."""
    if path is not None and not Path(path).absolute().parent.is_dir():
        raise WkvnpError(f"{path}: the folder {Path(path).absolute().parent} does not exist")
    return path


def _decode(data: bytes, source: str) -> str:
    from ..checkpoints.mapped_file import without_mark

    try:
        return without_mark(data).decode("utf-8")
    except UnicodeDecodeError as error:
        raise WkvnpError(
            f"{source}: text must be UTF-8; byte {data[error.start]:#04x} at position {error.start} is not"
        ) from None


def _ids(text: str) -> list[int]:
    try:
        return [int(word) for word in text.replace(",", " ").split()]
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be token ids, as 0,11,261; got {text!r}") from None
