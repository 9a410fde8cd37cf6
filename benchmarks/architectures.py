"""Compare the architectures at equal numbers of parameters: prompts, decoding after long contexts, states, memory.

    python benchmarks/architectures.py [--out FOLDER] [--millions 100] [--dtypes float32 bfloat16]
                                       [--contexts 512 2048 8192 32768] [--rounds 9] [--only NAME ...]

Weights are random. Every architecture gets as many layers as bring it nearest to the number of parameters. A prompt of
the longest context is read once, in pieces, which gives the rate at each length and the states to decode from; decoding
is then timed in turns, all architectures one after the other, so that a machine that slows down slows all of them, and
medians are compared. The peak of memory is that of a process of its own that loads the model and reads a prompt.

Writes ``architectures.csv``, ``architectures.md`` and, with matplotlib, ``architectures.svg`` into the folder, or
prints the table. Takes half an hour with the values above.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from suite.calibration import sgemm_gflops, sgemv_gigabytes_per_second

import wkvnp
from wkvnp.models.state import State

WIDTH, VOCABULARY, MIXED = 768, 16384, "arrr"
OPTIONS: dict[str, dict[str, Any]] = {
    "transformer": {"n_group": 12},
    "hybrid": {"pattern": MIXED, "n_group": 12},
    "rwkv4": {},
    "rwkv5.2": {},
    "rwkv6": {},
    "rwkv7": {},
    "mamba1": {},
    "mamba2": {},
}
"""Architecture -> options of `wkvnp.random_model`. The Transformer has as many heads of keys as of queries."""

PIECE = 512
"""Tokens of a prompt that are fed at once."""


def make(name: str, layers: int, dtype: str = "float32", vocabulary: int = VOCABULARY) -> wkvnp.Model:
    """Return a model with random weights."""
    options: dict[str, Any] = {"n_layer": layers, "n_embd": WIDTH, "vocab_size": vocabulary, "dtype": dtype, "rng": 0}
    return wkvnp.random_model(name, **options, **OPTIONS[name])


def layers_for(name: str, parameters: float) -> int:
    """Return the number of layers with which the model comes nearest to so many parameters."""
    step = len(MIXED) if name == "hybrid" else 1
    few, more = (make(name, n * step, vocabulary=16).n_parameters for n in (1, 2))
    rest = few + 2 * WIDTH * (VOCABULARY - 16) - (more - few)
    return step * max(1, round((parameters - rest) / (more - few)))


def read_prompt(
    model: wkvnp.Model, tokens: np.ndarray, contexts: list[int]
) -> tuple[dict[int, float], dict[int, State]]:
    """Read a prompt in pieces; return the tokens per second up to each context, and the state there."""
    rates, states, state, seconds = {}, {}, None, 0.0
    for begin in range(0, max(contexts), PIECE):
        start = time.perf_counter()
        _, state = model(tokens[begin : begin + PIECE], state)
        seconds += time.perf_counter() - start
        if begin + PIECE in contexts:
            rates[begin + PIECE], states[begin + PIECE] = (begin + PIECE) / seconds, state
    return rates, states


def seconds_to_decode(model: wkvnp.Model, state: State, tokens: int) -> float:
    """Return the seconds per token of decoding a few tokens from a state.

    The first is not counted: going on from keys and values that another text went on from copies them.
    """
    _, state = model([0], state)
    begin = time.perf_counter()
    for token in range(tokens):
        _, state = model([token], state)
    return (time.perf_counter() - begin) / tokens


def measured(names: list[str], dtype: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return one row of figures for every architecture and context."""
    tokens = np.random.default_rng(0).integers(0, VOCABULARY, max(options.contexts))
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    models: dict[str, wkvnp.Model] = {}
    states: dict[tuple[str, int], State] = {}
    for name in names:
        layers = layers_for(name, 1e6 * options.millions)
        model = models[name] = make(name, layers, dtype)
        model(tokens[:PIECE])
        model(tokens[:1])
        rates, found = read_prompt(model, tokens, options.contexts)
        print(f"{dtype} {name}: {layers} layers, {model.n_parameters:,} parameters", file=sys.stderr, flush=True)
        for context in options.contexts:
            states[name, context] = found[context]
            rows[name, context] = {
                "architecture": name,
                "dtype": dtype,
                "layers": layers,
                "parameters": model.n_parameters,
                "weight_bytes": model.nbytes,
                "context": context,
                "prefill_tokens_per_s": rates[context],
                "state_bytes": found[context].nbytes,
            }
    seconds: dict[tuple[str, int], list[float]] = {key: [] for key in rows}
    reads, products = [], []
    for _ in range(options.rounds):
        reads.append(sgemv_gigabytes_per_second())
        products.append(sgemm_gflops())
        for context, name in itertools.product(options.contexts, names):
            seconds[name, context].append(seconds_to_decode(models[name], states[name, context], options.tokens))
    for key, row in rows.items():
        row["decode_tokens_per_s"] = 1 / statistics.median(seconds[key])
        row["read_gbytes_per_s"] = statistics.median(reads)
        row["sgemm_gflops"] = statistics.median(products)
        row["peak_bytes"] = peak_bytes(key[0], row["layers"], dtype) if key[1] == options.contexts[0] else None
    return list(rows.values())


def peak_bytes(name: str, layers: int, dtype: str) -> int:
    """Return by how much the memory of a process grows that makes the model and reads 2,048 tokens."""
    command = [sys.executable, __file__, "--peak", name, str(layers), dtype]
    return int(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def print_peak(name: str, layers: str, dtype: str) -> None:
    """Print by how much the memory of this process grows, in bytes; what drawing the weights needs is not counted."""

    def now(what: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith(what)).split()[1])

    small = make(name, len(MIXED) if name == "hybrid" else 1, dtype, vocabulary=64)
    small(np.zeros(PIECE, int))  # the compiler and its code are not the model's
    small([0])
    before = now("VmRSS")
    model = make(name, int(layers), dtype)
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    model(np.zeros(2048, int))
    print(now("VmHWM") - before)


def ratio(rows: list[dict[str, Any]], row: dict[str, Any], what: str) -> float:
    """Return how many times the Transformer's a figure is."""
    same = ("dtype", "context")
    (other,) = (r for r in rows if r["architecture"] == "transformer" and all(r[key] == row[key] for key in same))
    return float(row[what] / other[what])


def crossing(rows: list[dict[str, Any]], name: str, dtype: str) -> str:
    """Say from which context on an architecture decodes faster than the Transformer."""
    mine = sorted((r for r in rows if (r["architecture"], r["dtype"]) == (name, dtype)), key=lambda r: r["context"])
    ratios = [ratio(rows, row, "decode_tokens_per_s") for row in mine]
    if ratios[0] >= 1:
        return f"below {mine[0]['context']:,}"
    for (low, a), (high, b) in itertools.pairwise(zip((row["context"] for row in mine), ratios, strict=True)):
        if b >= 1:  # on a straight line between the two
            return f"about {round(low + (high - low) * (1 - a) / (b - a), -2):,.0f}"
    return f"above {mine[-1]['context']:,}"


def table(rows: list[dict[str, Any]]) -> str:
    """Return the figures in Markdown, with ratios to the Transformer in parentheses."""
    parts = []
    for dtype in dict.fromkeys(row["dtype"] for row in rows):
        mine = [row for row in rows if row["dtype"] == dtype]
        contexts = sorted({row["context"] for row in mine})
        head = ["architecture", "layers", "parameters", *(f"decode after {n:,}" for n in contexts)]
        head += [f"prompt of {contexts[0]:,}", f"prompt of {contexts[-1]:,}", f"state after {contexts[-1]:,}, MB"]
        head += ["peak, MB", "decodes faster than the Transformer from"]
        lines = [f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}"]
        for name in dict.fromkeys(row["architecture"] for row in mine):
            of = {row["context"]: row for row in mine if row["architecture"] == name}
            first, last = of[contexts[0]], of[contexts[-1]]
            cells = [f"`{name}`", str(first["layers"]), f"{first['parameters'] / 1e6:.1f} M"]
            shown = [(of[n], "decode_tokens_per_s") for n in contexts]
            shown += [(first, "prefill_tokens_per_s"), (last, "prefill_tokens_per_s")]
            cells += [f"{row[what]:.1f} ({ratio(rows, row, what):.2f})" for row, what in shown]
            cells += [f"{last['state_bytes'] / 1e6:.2f}", f"{first['peak_bytes'] / 1e6:.0f}"]
            cells.append("" if name == "transformer" else crossing(rows, name, dtype))
            lines.append(f"| {' | '.join(cells)} |")
        note = (
            f"{dtype}, width {WIDTH}, vocabulary {VOCABULARY:,}; tokens per second, in parentheses the ratio to the "
            f"Transformer. In the same rounds memory was read at {mine[0]['read_gbytes_per_s']:.1f} GB/s and a float32 "
            f"matrix product ran at {mine[0]['sgemm_gflops']:.0f} GFLOP/s."
        )
        parts += ["\n".join(lines), note]
    return "\n\n".join(parts) + "\n"


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw decoding and state size over the context."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "wkvnp"
    import matplotlib.pyplot as plt

    dtypes = list(dict.fromkeys(row["dtype"] for row in rows))
    figure, panels = plt.subplots(1, len(dtypes) + 1, figsize=(4.2 * (len(dtypes) + 1), 3.8), layout="constrained")
    for panel, dtype in zip(panels, [*dtypes, None], strict=True):
        for name in dict.fromkeys(row["architecture"] for row in rows):
            mine = [r for r in rows if r["architecture"] == name and r["dtype"] == (dtype or dtypes[0])]
            values = [r["decode_tokens_per_s"] if dtype else r["state_bytes"] / 1e6 for r in mine]
            panel.plot([r["context"] for r in mine], values, "o-", ms=3, lw=1.2, label=name)
        panel.set(xscale="log", xlabel="tokens before", title=f"decode, {dtype}" if dtype else "state")
        panel.set(ylabel="tokens per second" if dtype else "MB", yscale="linear" if dtype else "log")
    panels[0].legend(frameon=False, fontsize=8)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Parse the command line, measure, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, help="folder for the table, the figures and the picture")
    parser.add_argument("--millions", type=float, default=100, help="parameters of every model (default: 100)")
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--contexts", nargs="+", type=int, default=[512, 2048, 8192, 32768])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--tokens", type=int, default=8, help="tokens to decode in a round (default: 8)")
    parser.add_argument("--only", nargs="+", choices=OPTIONS, default=list(OPTIONS))
    parser.add_argument("--peak", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        print_peak(*options.peak)
        return
    if any(context % PIECE for context in options.contexts):
        parser.error(f"--contexts must be multiples of {PIECE}")
    names = ["transformer", *(name for name in options.only if name != "transformer")]
    rows = [row for dtype in options.dtypes for row in measured(names, dtype, options)]
    if options.out is None:
        print(table(rows))
        return
    options.out.mkdir(parents=True, exist_ok=True)
    with open(options.out / "architectures.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    (options.out / "architectures.md").write_text(table(rows), encoding="utf-8")
    try:
        draw(rows, options.out / "architectures.svg")
    except ImportError:
        print("no picture: matplotlib is not installed", file=sys.stderr)


if __name__ == "__main__":
    main()
