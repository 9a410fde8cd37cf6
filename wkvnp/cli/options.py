"""Options that several commands have, and what they turn into."""

from __future__ import annotations

import argparse
import codecs
import contextlib
import re
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

from .._paths import local_path
from ..errors import WkvnpError
from . import UsageError
from .streams import remark

if TYPE_CHECKING:
    from ..models.language_model import Model
    from ..tokenizers import Tokenizer

_DEMONSTRATION = "wkvnp: demonstration model (documentation of Python); --model PATH takes others"
DTYPES = ("float32", "float16", "bfloat16", "int8", "int4")
"""What weights can be converted to from the shell; float64 is for reference only."""
_PIECE = 1 << 18  # bytes
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
    add_ignore_option(group)
    group.add_argument("--threads", type=int, metavar="N", help="threads to use; default: one per core")


def add_ignore_option(group: argparse._ActionsContainer) -> None:
    """Add the option that names what a configuration says in vain."""
    group.add_argument(
        "--ignore", metavar="FIELD", action="append", default=[], help="compute as if config.json had no such field"
    )


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
    from ..tokenizers import load_tokenizer

    if arguments.threads is not None:
        from .._threads import set_num_threads

        set_num_threads(arguments.threads)
    if arguments.model is None:
        remark_demonstration()
    model = load(arguments.model, dtype=arguments.dtype, ignore=arguments.ignore)
    if arguments.tokenizer is not None:
        return model, load_tokenizer(arguments.tokenizer)
    return model, load_tokenizer(model)


def remark_demonstration() -> None:
    """Say, once a process, that no model was named."""
    remark(_DEMONSTRATION, once=True)


def add_text_input(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the three ways to give a text: as an argument, in a file, through a pipe."""
    parser.add_argument("text", nargs="?", metavar=name, help="the text; without it and --file, standard input")
    parser.add_argument("--file", "-f", metavar="F", help="read the text from a file (- is standard input)")


def read_text(arguments: argparse.Namespace, name: str) -> tuple[str, bool]:
    """Return the text, and whether it came from a file or a pipe (where a last newline is rarely meant)."""
    stream = _stream(arguments, name)
    if stream is None:
        return str(arguments.text), False
    with stream as file:
        return _decode(file.read(), _called(arguments)), True


def read_pieces(arguments: argparse.Namespace, name: str) -> Iterator[str]:
    """Return the same text in pieces, so that it may be larger than the memory."""
    stream = _stream(arguments, name)
    return iter([arguments.text]) if stream is None else _decoded_pieces(stream, _called(arguments))


def _stream(arguments: argparse.Namespace, name: str) -> contextlib.AbstractContextManager[BinaryIO] | None:
    """Return where the text is read from, or None if it is an argument."""
    if arguments.text is not None and arguments.file is not None:
        raise UsageError(f"give {name} either as an argument or with --file, not both")
    if arguments.text is not None:
        return None
    if arguments.file not in (None, "-"):
        return local_path(arguments.file, WkvnpError, "--file").open("rb")
    if sys.stdin is None or (arguments.file is None and sys.stdin.isatty()):
        raise UsageError(f"no {name} given: pass it as an argument, with --file, or through a pipe")
    return contextlib.nullcontext(sys.stdin.buffer)


def _called(arguments: argparse.Namespace) -> str:
    """Return what messages call the stream of the text."""
    return "standard input" if arguments.file in (None, "-") else str(arguments.file)


def unescape(text: str) -> str:
    r"""Return the text with ``\n``, ``\t``, ``\r`` and ``\\`` replaced by what they stand for.

    >>> unescape(r"User: Hi\n\nAssistant:")
    'User: Hi\n\nAssistant:'
    """
    return re.sub(r"\\([ntr\\])", lambda match: _ESCAPES[match[1]], text)


def writable(path: str) -> str:
    """Return the path of a file to be written later, or say now that it cannot be."""
    from ..checkpoints.atomic_file import file_to_write

    return str(file_to_write(path))


def _decode(data: bytes, source: str) -> str:
    from ..checkpoints.mapped_file import without_mark

    try:
        return without_mark(data).decode("utf-8")
    except UnicodeDecodeError as error:
        raise _not_utf8(source, data[error.start], error.start) from None


def _decoded_pieces(stream: contextlib.AbstractContextManager[BinaryIO], source: str) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")()
    at = 0  # where in the stream what is decoded next begins
    with stream as file:
        while True:
            data = file.read(_PIECE)
            try:
                text = decoder.decode(data, final=not data)
            except UnicodeDecodeError as error:
                raise _not_utf8(source, error.object[error.start], at + error.start) from None
            yield text if at else text.removeprefix("\ufeff")
            if not data:
                return
            at += len(text.encode("utf-8"))


def _not_utf8(source: str, byte: int, position: int) -> WkvnpError:
    return WkvnpError(f"{source}: text must be UTF-8; byte {byte:#04x} at position {position} is not")


def _ids(text: str) -> list[int]:
    try:
        return [int(word) for word in text.replace(",", " ").split()]
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be token ids, as 0,11,261; got {text!r}") from None
