"""``wkvnp tokenize``: text to token ids, and back."""

from __future__ import annotations

import argparse
import codecs
import itertools
import json
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from ..errors import TokenizerError
from . import UsageError
from .options import add_ignore_option, add_text_input, read_pieces, remark_demonstration

if TYPE_CHECKING:
    from ..tokenizers import Tokenizer

HELP = "turn text into token ids, or back"
EXAMPLES = """examples:
  wkvnp tokenize "Hello"
  wkvnp tokenize --tokenizer rwkv-world --file book.txt | wc -w
  wkvnp tokenize --model rwkv7.pth "Hello world" --json
  wkvnp tokenize --tokenizer bytes --decode "72 101 108 108 111"

Without --json: the ids on one line. With it: one list with the id, text and bytes (hexadecimal) of each token.
--decode reads ids separated by blanks or commas, or a JSON list, and writes the text.
Texts of any size stream through, except with the vocabulary of a tokenizer.json, which takes the text as a whole.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_text_input(parser, "TEXT")
    parser.add_argument(
        "--tokenizer", metavar="T", help="bytes, rwkv-world, or a vocabulary file; default: that of the model"
    )
    parser.add_argument(
        "--model",
        "-m",
        metavar="PATH",
        help="take the tokenizer that fits this checkpoint; default: the demonstration model",
    )
    add_ignore_option(parser)
    parser.add_argument("--decode", action="store_true", help="TEXT is ids; write what they stand for")
    parser.add_argument("--json", action="store_true", help="write JSON")


def run(arguments: argparse.Namespace) -> int:
    """Encode or decode."""
    if arguments.tokenizer is not None and arguments.model is not None:
        raise UsageError("give one of --tokenizer and --model, not both")
    pieces = read_pieces(arguments, "TEXT")
    tokenizer = _tokenizer(arguments)
    if arguments.decode:
        _write_text(tokenizer, pieces, arguments.json)
        return 0

    from ..tokenizers.pieces import encode_pieces

    several = (ids.tolist() for ids in encode_pieces(tokenizer, pieces))
    if arguments.json:
        _write_joined((_as_json(tokenizer, ids) for ids in several), "[", ", ", "]\n")
    else:
        _write_joined((map(str, ids) for ids in several), "", " ", "\n")
    return 0


def _tokenizer(arguments: argparse.Namespace) -> Tokenizer:
    """Return the tokenizer that the options name: by default that of the demonstration model."""
    from ..tokenizers import load_tokenizer

    if arguments.tokenizer is not None:
        return load_tokenizer(arguments.tokenizer)

    from ..models import BUNDLED
    from .header import read_header

    if arguments.model is None:
        remark_demonstration()
    model = str(BUNDLED) if arguments.model is None else arguments.model
    return load_tokenizer(read_header(model, arguments.ignore))


def _as_json(tokenizer: Tokenizer, ids: list[int]) -> Iterator[str]:
    for id in ids:
        piece = tokenizer.token_bytes(id)
        row = {"id": id, "text": piece.decode("utf-8", "replace"), "bytes": piece.hex()}
        yield json.dumps(row, ensure_ascii=False)


def _write_joined(groups: Iterable[Iterable[str]], opening: str, between: str, ending: str) -> None:
    """Write items group by group, as if all were joined."""
    before = opening
    for group in groups:
        if text := between.join(group):
            sys.stdout.write(before + text)
            before = between
    sys.stdout.write(ending if before is between else opening + ending)


def _write_text(tokenizer: Tokenizer, pieces: Iterable[str], as_json: bool) -> None:
    """Write what ids stand for."""
    utf8 = codecs.getincrementaldecoder("utf-8")("replace")
    sys.stdout.write('"' if as_json else "")
    for data in itertools.chain(map(tokenizer.decode_bytes, _ids(pieces)), [None]):
        text = utf8.decode(data or b"", final=data is None)
        sys.stdout.write(json.dumps(text, ensure_ascii=False)[1:-1] if as_json else text)
    sys.stdout.write('"\n' if as_json else "\n" if sys.stdout.isatty() else "")


def _ids(pieces: Iterable[str]) -> Iterator[list[int]]:
    """Yield the ids of a text that may be cut within a number."""
    rest = ""
    for piece in itertools.chain(pieces, [" "]):
        text = rest + piece.translate(_BLANKS)
        words = text.split()
        rest = words.pop() if text and not text[-1].isspace() else ""
        if len(rest) > _LONGEST:
            words.append(rest)
        yield list(map(_id, words))


def _id(word: str) -> int:
    try:
        return int(word if len(word) <= _LONGEST else "")
    except ValueError:
        raise TokenizerError(f"--decode: TEXT must be token ids; got {word[:_LONGEST]!r}") from None


_BLANKS = str.maketrans("[],", "   ")
_LONGEST = 40  # letters of a number
