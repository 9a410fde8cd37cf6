"""``wkvnp score``: how well a model predicts a text."""

from __future__ import annotations

import argparse
import csv
import sys
from typing import TYPE_CHECKING, Any

from .json_text import json_text
from .options import add_model_options, add_text_input, load_model, read_text

if TYPE_CHECKING:
    from ..analysis import Score

HELP = "measure how well a model predicts a text"
EXAMPLES = """examples:
  wkvnp score "A list is a sequence of items."
  wkvnp score --model rwkv7.pth --file book.txt
  wkvnp score --model rwkv7.pth "The Eiffel tower is in Paris." --per-token
  wkvnp score --model rwkv7.pth --file book.txt --per-token --format csv > book.csv

Where the vocabulary has an end of text (World: 0) it is fed first, so the first token is scored too; --bos feeds
another token. Without either the first token is only context and counts for nothing.
Log-probabilities are in nats; rank 0 is the model's first choice; the text is taken as it is, with every newline.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_text_input(parser, "TEXT")
    parser.add_argument("--format", choices=("text", "json", "csv"), default="text", help="default text")
    parser.add_argument("--per-token", action="store_true", help="one row per token")
    parser.add_argument("--bos", type=int, metavar="ID", help="token to feed first")
    add_model_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Score and print."""
    text, _ = read_text(arguments, "TEXT")
    model, tokenizer = load_model(arguments)

    from ..analysis import score
    from .progress import Bar

    result = score(model, tokenizer, text, bos=arguments.bos, progress=Bar("scoring"))
    write = {"text": _write_text, "json": _write_json, "csv": _write_csv}[arguments.format]
    write(result, arguments.per_token)
    return 0


def _summary(result: Score) -> dict[str, Any]:
    return {
        "tokens": len(result.tokens),
        "bytes": result.n_bytes,
        "nats": result.nats,
        "bits_per_byte": result.bits_per_byte,
        "perplexity": result.perplexity,
        "top1": result.top1,
    }


def _rows(result: Score) -> list[dict[str, Any]]:
    columns = zip(result.tokens.tolist(), result.pieces, result.logprobs.tolist(), result.ranks.tolist(), strict=True)
    return [
        {"token": token, "text": piece.decode("utf-8", "replace"), "logprob": logprob, "rank": rank}
        for token, piece, logprob, rank in columns
    ]


def _write_text(result: Score, per_token: bool) -> None:
    if per_token:
        print(f"{'token':>7} {'logprob':>10} {'rank':>6}  text")
        for row in _rows(result):
            print(f"{row['token']:7d} {row['logprob']:10.4f} {row['rank']:6d}  {row['text']!r}")
        print()
    print(f"tokens         {len(result.tokens)}")
    print(f"bytes          {result.n_bytes}")
    print(f"nats           {result.nats:.4f}")
    print(f"bits per byte  {result.bits_per_byte:.4f}")
    print(f"perplexity     {result.perplexity:.4f} per token")
    print(f"first choice   {100 * result.top1:.1f} % of the tokens")


def _write_json(result: Score, per_token: bool) -> None:
    facts = _summary(result)
    if per_token:
        facts["per_token"] = _rows(result)
    print(json_text(facts))


def _write_csv(result: Score, per_token: bool) -> None:
    rows = _rows(result) if per_token else [_summary(result)]
    writer = csv.DictWriter(sys.stdout, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
