"""Compare the formats of weights: what they take, how fast they decode, what they cost models that were trained.

    python benchmarks/quantisation.py [--out FOLDER] [--text FILE] [--bytes 16384] [--models FILE ...]
                                      [--formats float32 bfloat16 float16 int8 int4] [--only NAME ...]
                                      [--layers 12] [--width 768] [--vocabulary 65536] [--rounds 7] [--skip loss|speed]

Loss is measured on the bundled model and on the small ones of the tests, all byte-level and really trained: bits per
byte of a text, read as one prompt and token by token (which rounds activations too, where weights are quantised).
Token by token, each format is compared with float32: how often its most likely byte is the same, and the divergence
KL(float32 || format) in bits per byte. The text is what the models' corpus holds out, made from this Python if it is
the version that they were trained with (`docs/bundled-models`); else --text must be one that they have not read.

Speed is that of models with random weights, one architecture after the other: its formats decode in turns, so that a
machine that slows down slows all of them, and medians are compared with the rate at which memory is read in the same
rounds. What a token reads is all weights but the embedding.

Writes ``quantisation-loss.csv``, ``quantisation-speed.csv`` and ``quantisation-table.md`` into the folder, or prints
the tables. Takes half an hour with the values above.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from architectures import OPTIONS
from suite.calibration import read_gigabytes_per_second

import wkvnp
from wkvnp._dtypes import dtype_name
from wkvnp.models import BUNDLED

ROOT = Path(__file__).resolve().parents[1]
TRAINED = [BUNDLED, *sorted((ROOT / "tests/data").glob("*.safetensors"))]
FORMATS = ("float32", "bfloat16", "float16", "int8", "int4")
TABLES = ("emb.weight", "model.embed_tokens.weight", "backbone.embeddings.weight")


def held_out() -> bytes:
    """Return the text that the models' corpus holds out."""
    folder = ROOT / "docs/bundled-models"
    sys.path.insert(0, str(folder))
    from corpus import corpus

    whole = corpus()
    text: bytes = whole.text(whole.held_out)
    if f"sha256 {hashlib.sha256(text).hexdigest()}" not in (folder / "corpus.txt").read_text(encoding="utf-8"):
        raise SystemExit(
            "this Python's documentation is not what the models were trained with: give a text with --text"
        )
    return text


def tensors(model: wkvnp.Model) -> dict[str, Any]:
    """Return the tensors of a model by name."""
    from wkvnp.checkpoints.naming import flatten

    return flatten(model.stored)


def token_by_token(model: wkvnp.Model, tokens: np.ndarray) -> np.ndarray:
    """Return the logits (T, V) after every token, each fed alone."""
    logits, state = np.empty((tokens.size, model.config.vocab_size)), None
    for t, token in enumerate(tokens):
        logits[t], state = model([token], state)
    return logits


def log_probabilities(logits: np.ndarray) -> np.ndarray:
    """Return logarithms to base 2 of what the logits say."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return np.asarray((shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))) / np.log(2))


def losses(path: Path, formats: list[str], tokens: np.ndarray) -> list[dict[str, Any]]:
    """Return a row of figures for every format of a trained model; the first is float32."""
    rows: list[dict[str, Any]] = []
    exact = np.empty(0)
    for name in formats:
        model = wkvnp.load(path, dtype=name)
        prompt, decoded = (
            log_probabilities(logits)
            for logits in (model(tokens[:-1], logits="all")[0], token_by_token(model, tokens[:-1]))
        )
        exact = exact if rows else decoded
        at = np.arange(tokens.size - 1), tokens[1:]
        rows.append({
            "model": path.stem,
            "architecture": model.config.architecture,
            "format": name,
            "bytes": model.nbytes,
            "rounded": sum(a.size for a in tensors(model).values() if dtype_name(a.dtype) == name) / model.n_parameters,
            "bits_per_byte": -prompt[at].mean(),
            "bits_per_byte_token_by_token": -decoded[at].mean(),
            "same_most_likely": (decoded.argmax(axis=1) == exact.argmax(axis=1)).mean(),
            "divergence_bits": (2**exact * (exact - decoded)).sum(axis=1).mean(),
        })  # fmt: skip
        print(path.stem, name, rows[-1]["bits_per_byte"], file=sys.stderr, flush=True)
    return rows


def seconds_per_token(model: wkvnp.Model, state: wkvnp.State, count: int = 12) -> float:
    """Return the seconds that a token takes; a few are fed before."""
    for token in range(3):
        _, state = model([token], state)
    begin = time.perf_counter()
    for token in range(count):
        _, state = model([token], state)
    return (time.perf_counter() - begin) / count


def speeds(name: str, formats: list[str], options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return a row of figures for every format of a model with random weights."""
    sizes = {"n_layer": options.layers, "n_embd": options.width, "vocab_size": options.vocabulary, "rng": 0}
    models = {dtype: wkvnp.random_model(name, dtype=dtype, **sizes, **OPTIONS[name]) for dtype in formats}
    states = {dtype: model([0])[1] for dtype, model in models.items()}
    seconds: dict[str, list[float]] = {dtype: [] for dtype in formats}
    reads = []
    for _ in range(options.rounds):
        reads.append(read_gigabytes_per_second())
        for dtype, model in models.items():
            seconds[dtype].append(seconds_per_token(model, states[dtype]))
    rows = []
    for dtype, model in models.items():
        read = model.nbytes - sum(tensors(model)[table].nbytes for table in TABLES if table in tensors(model))
        each, bandwidth = statistics.median(seconds[dtype]), 1e9 * statistics.median(reads)
        rows.append({
            "architecture": name,
            "format": dtype,
            "parameters": model.n_parameters,
            "bytes": model.nbytes,
            "bytes_read_per_token": read,
            "tokens_per_s": 1 / each,
            "share_of_bandwidth": read / each / bandwidth,
            "times_float32": statistics.median(seconds[formats[0]]) / each,
            "read_gbytes_per_s": bandwidth / 1e9,
        })  # fmt: skip
        print(name, dtype, f"{1 / each:.1f} tokens/s", file=sys.stderr, flush=True)
    return rows


def lines(head: list[str], cells: list[list[str]], texts: int) -> str:
    """Return a table in Markdown whose first columns are text."""
    rows = [f"| {' | '.join(row)} |" for row in [head, *cells]]
    return "\n".join([rows[0], f"|{'---|' * texts}{'---:|' * (len(head) - texts)}", *rows[1:]])


def loss_table(rows: list[dict[str, Any]], count: int) -> str:
    """Return the losses in Markdown."""
    head = ["model", "format", "MB", "weights in it", "bits per byte, prompt", "token by token"]
    head += ["most likely byte is the same", "KL, millibits"]
    cells, first = [], rows[0]
    for row in rows:
        first = row if row["model"] != first["model"] else first
        both = [(row[key], row[key] / first[key] - 1) for key in ("bits_per_byte", "bits_per_byte_token_by_token")]
        cells.append([
            row["architecture"] + (", bundled" if row["model"] == BUNDLED.stem else ""), row["format"],
            f"{row['bytes'] / 1e6:.2f}", f"{row['rounded']:.0%}",
            *(f"{bits:.4f} ({change:+.2%})" for bits, change in both),
            f"{row['same_most_likely']:.2%}", f"{1e3 * row['divergence_bits']:.3f}",
        ])  # fmt: skip
    note = f"The first {count:,} bytes of the held-out text; in parentheses the change from float32."
    return lines(head, cells, 2) + "\n\n" + note


def speed_table(rows: list[dict[str, Any]], options: argparse.Namespace) -> str:
    """Return the speeds in Markdown."""
    head = [
        "architecture",
        "format",
        "MB",
        "read for a token, MB",
        "tokens per second",
        "of the bandwidth",
        "times float32",
    ]
    cells = [
        [
            row["architecture"], row["format"], f"{row['bytes'] / 1e6:.0f}", f"{row['bytes_read_per_token'] / 1e6:.0f}",
            f"{row['tokens_per_s']:.1f}", f"{row['share_of_bandwidth']:.0%}", f"{row['times_float32']:.2f}",
        ]
        for row in rows
    ]  # fmt: skip
    rate = statistics.median(row["read_gbytes_per_s"] for row in rows)
    note = (
        f"{options.layers} layers of {options.width}, {options.vocabulary:,} tokens; memory was read at "
        f"{rate:.1f} GB/s in the same rounds."
    )
    return lines(head, cells, 2) + "\n\n" + note


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows as CSV."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    """Parse the command line, measure, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, help="folder for the tables and the figures")
    parser.add_argument("--text", type=Path, help="a text that the models have not read (default: held-out)")
    parser.add_argument("--bytes", type=int, default=16384, help="of the text (default: 16384)")
    parser.add_argument("--models", nargs="+", type=Path, default=TRAINED, help="byte-level models that were trained")
    parser.add_argument("--formats", nargs="+", default=list(FORMATS[1:]), help="beside float32")
    parser.add_argument("--only", nargs="+", choices=OPTIONS, default=list(OPTIONS), help="architectures for speed")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--vocabulary", type=int, default=65536)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--skip", choices=("loss", "speed"))
    options = parser.parse_args()
    formats = ["float32", *(name for name in options.formats if name != "float32")]
    tables = []
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
    if options.skip != "loss":
        text = held_out() if options.text is None else options.text.read_bytes()
        tokens = np.frombuffer(text[: options.bytes], np.uint8).astype(np.int64)
        rows = [row for path in options.models for row in losses(path, formats, tokens)]
        tables.append(loss_table(rows, tokens.size))
        if options.out is not None:
            write(options.out / "quantisation-loss.csv", rows)
    if options.skip != "speed":
        rows = [row for name in options.only for row in speeds(name, formats, options)]
        tables.append(speed_table(rows, options))
        if options.out is not None:
            write(options.out / "quantisation-speed.csv", rows)
    if options.out is None:
        print("\n\n".join(tables))
    else:
        (options.out / "quantisation-table.md").write_text("\n\n".join(tables) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
