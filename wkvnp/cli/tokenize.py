"""``wkvnp tokenize``: text to token ids, and back."""

from __future__ import annotations

import argparse
import json
import sys

from ..errors import TokenizerError
from . import UsageError
from .options import add_text_input, read_text

HELP = "turn text into token ids, or back"
EXAMPLES = """examples:
  wkvnp tokenize --tokenizer bytes "Hello"
  wkvnp tokenize --tokenizer rwkv-world --file book.txt | wc -w
  wkvnp tokenize --model rwkv7.pth "Hello world" --json
  wkvnp tokenize --tokenizer bytes --decode "72 101 108 108 111"

Without --json: the ids on one line. With it: one list with the id, text and bytes (hexadecimal) of each token.
--decode reads ids separated by blanks or commas, or a JSON list, and writes the text.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_text_input(parser, "TEXT")
    parser.add_argument("--tokenizer", metavar="T", help="bytes, rwkv-world, or a vocabulary file")
    parser.add_argument("--model", "-m", metavar="PATH", help="take the tokenizer that fits this checkpoint")
    parser.add_argument("--decode", action="store_true", help="TEXT is ids; write what they stand for")
    parser.add_argument("--json", action="store_true", help="write JSON")


def run(arguments: argparse.Namespace) -> int:
    """Encode or decode."""
    if (arguments.tokenizer is None) == (arguments.model is None):
        raise UsageError("give one of --tokenizer and --model; --tokenizer bytes always works")
    text, _ = read_text(arguments, "TEXT")

    from ..tokenizers import tokenizer

    if arguments.tokenizer is not None:
        tokens = tokenizer(arguments.tokenizer)
    else:
        from .header import read_header

        tokens = tokenizer(read_header(arguments.model))
    if arguments.decode:
        decoded = tokens.decode(_ids(text))
        print(
            json.dumps(decoded, ensure_ascii=False) if arguments.json else decoded,
            end="\n" if arguments.json or sys.stdout.isatty() else "",
        )
        return 0
    ids = tokens.encode(text).tolist()
    if arguments.json:
        pieces = [tokens.token_bytes(id) for id in ids]
        table = [
            {"id": id, "text": piece.decode("utf-8", "replace"), "bytes": piece.hex()}
            for id, piece in zip(ids, pieces, strict=True)
        ]
        print(json.dumps(table, ensure_ascii=False))
    else:
        print(*ids)
    return 0


def _ids(text: str) -> list[int]:
    words = text.replace("[", " ").replace("]", " ").replace(",", " ").split()
    try:
        return [int(word) for word in words]
    except ValueError:
        wrong = next(word for word in words if not word.lstrip("-").isdigit())
        raise TokenizerError(f"--decode: TEXT must be token ids; got {wrong!r}") from None
