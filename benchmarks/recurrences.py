"""The kernel classes beside the same loops in C, and softmax attention beside PyTorch's, in turns.

    python benchmarks/recurrences.py [--out FILE] [--tokens 1024] [--keys 4096] [--rounds 7] [--batches 1 8]
                                     [--threads 1 2] [--only NAME ...]

``recurrences.c``, which lies beside this file, is compiled on the spot with ``cc -O3 -march=native -ffast-math``;
without a compiler, and without PyTorch, the columns stay empty. 12 heads of 64, or the 768 channels that they are, or
the 1,536 of a Mamba of that width with 16 numbers each; float32. Results are compared before anything is timed. All
take turns, a matrix product too, and medians are compared. Operations are additions and multiplications that the
equations ask for, and exponentials, each as one.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import importlib.util
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from suite.calibration import sgemm_gflops

import wkvnp
from wkvnp.kernels import delta, linear, selective, softmax, wkv

HEADS, WIDTH, NUMBERS = 12, 64, 16
CHANNELS = HEADS * WIDTH
CALLS = 3
"""Calls of a turn, after one that is not timed; the shortest counts."""
REST = 0.25
"""Seconds after a turn in which its threads come to rest."""
Array = np.ndarray
Call = Callable[[], Array]


class Case(NamedTuple):
    """A recurrence: ours and the peer's, each returning y; how many operations, and the peer's name."""

    ours: Call
    peer: Call | None
    operations: float
    title: str = "C"


class Drawn:
    """Random arguments for B sequences of T tokens."""

    def __init__(self, batch: int, tokens: int) -> None:
        self.rng = np.random.default_rng(0)
        self.batch, self.tokens, self.rows = batch, tokens, batch * tokens
        self.offsets = np.arange(batch + 1, dtype=np.int64) * tokens

    def normal(self, *shape: int, scale: float = 1.0) -> Array:
        return (scale * self.rng.standard_normal(shape)).astype(np.float32)

    def heads(self, scale: float = 1.0) -> Array:
        return self.normal(self.rows, HEADS, WIDTH, scale=scale)

    def log_decay(self) -> Array:
        return -np.exp(self.heads() - 2)

    def zeros(self, *shape: int) -> Array:
        return np.zeros((self.batch, *shape), np.float32)


class Loops:
    """The compiled loops in C."""

    def __init__(self, library: ctypes.CDLL | None) -> None:
        self.library = library
        self.threads = 1

    def call(self, name: str, sizes: tuple[int, ...], *arrays: Array) -> Array:
        """Call a loop; return its last array, the output."""
        function = getattr(self.library, name)
        function.restype = None
        pointers = [array.ctypes.data_as(ctypes.c_void_p) for array in arrays]
        function(ctypes.c_int(self.threads), *map(ctypes.c_ssize_t, sizes), *pointers)
        return arrays[-1]


@contextlib.contextmanager
def compiled() -> Iterator[Loops]:
    """Compile the loops; yield none if there is no compiler."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        print("skipped: C: there is no compiler", file=sys.stderr)
        yield Loops(None)
        return
    with tempfile.TemporaryDirectory(prefix="wkvnp-recurrences-") as folder:
        library = Path(folder) / "recurrences.so"
        options = ["-O3", "-march=native", "-ffast-math", "-fopenmp", "-shared", "-fPIC", "-std=gnu11"]
        source = Path(__file__).with_suffix(".c")
        subprocess.run([compiler, *options, "-o", library, source, "-lm"], check=True)
        yield Loops(ctypes.CDLL(str(library)))


def of_linear(d: Drawn, loops: Loops) -> Case:
    q, k, v, g = d.heads(), d.heads(), d.heads(), d.log_decay()
    sizes = (d.batch, d.tokens, HEADS, WIDTH, WIDTH)

    def peer() -> Array:
        return loops.call("linear", sizes, q, g, k, v, d.zeros(HEADS, WIDTH, WIDTH), np.empty_like(v))

    return Case(lambda: linear.linear(q, g, k, v, None, None, d.offsets)[0], peer, 5.0 * WIDTH * q.size)


def unit(array: Array) -> Array:
    return array / np.linalg.norm(array, axis=-1, keepdims=True)


def of_dplr(d: Drawn, loops: Loops) -> Case:
    q, k, v, g = d.heads(), d.heads(), d.heads(), d.log_decay()
    kappa = unit(d.heads())
    a, b = -kappa, kappa * d.rng.random(kappa.shape, np.float32)
    sizes = (d.batch, d.tokens, HEADS, WIDTH, WIDTH)

    def peer() -> Array:
        return loops.call("dplr", sizes, q, g, k, v, a, b, d.zeros(HEADS, WIDTH, WIDTH), np.empty_like(v))

    return Case(lambda: delta.dplr(q, g, k, v, a, b, None, d.offsets)[0], peer, 9.0 * WIDTH * q.size)


def of_delta_rule(d: Drawn, loops: Loops) -> Case:
    q, k, v, g = d.heads(), unit(d.heads()), d.heads(), d.log_decay()
    beta = d.rng.random((d.rows, HEADS), np.float32)
    sizes = (d.batch, d.tokens, HEADS, WIDTH, WIDTH)

    def peer() -> Array:
        return loops.call("delta_rule", sizes, q, g, k, v, beta, d.zeros(HEADS, WIDTH, WIDTH), np.empty_like(v))

    return Case(lambda: delta.delta_rule(q, g, k, v, beta, None, d.offsets)[0], peer, 7.0 * WIDTH * q.size)


def of_wkv(d: Drawn, loops: Loops) -> Case:
    w, u = -np.exp(d.normal(CHANNELS)), d.normal(CHANNELS)
    k, v = d.normal(d.rows, CHANNELS), d.normal(d.rows, CHANNELS)

    def peer() -> Array:
        pp = np.full((d.batch, CHANNELS), wkv.EMPTY_EXPONENT)
        state = d.zeros(CHANNELS), d.zeros(CHANNELS), pp
        return loops.call("wkv", (d.batch, d.tokens, CHANNELS), w, u, k, v, *state, np.empty_like(v))

    return Case(lambda: wkv.wkv(w, u, k, v, None, d.offsets)[0], peer, 17.0 * k.size)


def of_selective(d: Drawn, loops: Loops) -> Case:
    channels = 2 * CHANNELS
    x, z = d.normal(d.rows, channels), d.normal(d.rows, channels)
    dt = np.exp(d.normal(d.rows, channels) - 4)
    A = -np.tile(np.arange(1, NUMBERS + 1, dtype=np.float32), (channels, 1))
    B, R, D = d.normal(d.rows, 1, NUMBERS), d.normal(d.rows, 1, NUMBERS), d.normal(channels)
    turned = np.ascontiguousarray(A.T)

    def peer() -> Array:
        h = d.zeros(NUMBERS, channels)
        return loops.call(
            "selective", (d.batch, d.tokens, channels, NUMBERS), x, dt, turned, B, R, D, z, h, np.empty_like(x)
        )

    return Case(lambda: selective.selective(x, dt, A, B, R, D, z, None, d.offsets)[0], peer, 8.0 * NUMBERS * x.size)


def of_softmax(d: Drawn, loops: Loops) -> Case:
    q, k, v = d.heads(), d.heads(), d.heads()
    operations = 2.0 * d.tokens * q.size  # half of the scores are hidden

    def ours() -> Array:
        return softmax.softmax(q, k, v, None, d.offsets, scale=WIDTH**-0.5)[0]

    if importlib.util.find_spec("torch") is None:
        return Case(ours, None, operations)
    import torch

    turned = [
        torch.from_numpy(a.reshape(d.batch, d.tokens, HEADS, WIDTH)).transpose(1, 2).contiguous() for a in (q, k, v)
    ]

    def peer() -> Array:
        torch.set_num_threads(loops.threads)
        with torch.inference_mode():
            y = torch.nn.functional.scaled_dot_product_attention(*turned, is_causal=True)
        return y.transpose(1, 2).reshape(q.shape).numpy()

    return Case(ours, peer, operations, "PyTorch")


CASES = {
    "linear": of_linear,
    "delta rule": of_delta_rule,
    "delta, diagonal plus low rank": of_dplr,
    "wkv": of_wkv,
    "selective": of_selective,
    "softmax": of_softmax,
}


def agreeing(name: str, case: Case, loops: Loops) -> Case:
    """Return the case, without a peer that is not there; refuse one that computes something else."""
    if case.peer is None or (case.title == "C" and loops.library is None):
        return case._replace(peer=None)
    ours, theirs = case.ours(), case.peer()
    difference = float(np.abs(ours - theirs).max() / np.abs(ours).max())
    if not difference < 1e-4:
        raise SystemExit(f"{name}: the peer computes something else: {difference:.1e} of the largest output")
    return case


def seconds(call: Call) -> float:
    """Return how long a call takes, then let its threads come to rest."""
    call()
    found = []
    for _ in range(CALLS):
        begin = time.perf_counter()
        call()
        found.append(time.perf_counter() - begin)
    time.sleep(REST)
    return min(found)


def measured(options: argparse.Namespace, loops: Loops) -> tuple[list[tuple[str, int, int, Case, float, float]], float]:
    """Return (name, batch, threads, case, our seconds, the peer's) for every case, and GFLOP/s of a matrix product."""
    keys = [(name, batch) for name in options.only for batch in (options.batches if name != "softmax" else [1])]
    cases = {
        (name, batch): agreeing(
            name, CASES[name](Drawn(batch, options.keys if name == "softmax" else options.tokens), loops), loops
        )
        for name, batch in keys
    }
    turns = [(key, threads) for key in keys for threads in options.threads]
    ours: dict[Any, list[float]] = {turn: [] for turn in turns}
    theirs: dict[Any, list[float]] = {turn: [] for turn in turns}
    products = []
    for _ in range(options.rounds):
        products.append(sgemm_gflops())
        for key, threads in turns:
            wkvnp.set_num_threads(threads)
            loops.threads = threads
            ours[key, threads].append(seconds(cases[key].ours))
            peer = cases[key].peer
            theirs[key, threads].append(seconds(peer) if peer is not None else float("nan"))
    rows = [
        (*key, threads, cases[key], statistics.median(ours[key, threads]), statistics.median(theirs[key, threads]))
        for key, threads in turns
    ]
    return rows, statistics.median(products)


def table(options: argparse.Namespace) -> str:
    """Return the table and the line under it."""
    with compiled() as loops:
        rows, product = measured(options, loops)
    lines = [
        "| recurrence | sequences | threads | ms | GFLOP/s | peer | its ms | its GFLOP/s | times as fast |",
        "|---|---:|---:|---:|---:|---|---:|---:|---:|",
    ]
    for name, batch, threads, case, mine, other in rows:
        cells = [name, str(batch), str(threads), f"{1e3 * mine:.2f}", f"{1e-9 * case.operations / mine:.1f}"]
        if case.peer is not None:
            cells += [case.title, f"{1e3 * other:.2f}", f"{1e-9 * case.operations / other:.1f}", f"{other / mine:.2f}"]
        else:
            cells += [""] * 4
        lines.append(f"| {' | '.join(cells)} |")
    note = (
        f"{options.tokens:,} tokens ({options.keys:,} of softmax), {HEADS} heads of {WIDTH}, float32; medians of "
        f"{options.rounds} rounds in turn, in which a float32 matrix product of 1,024 ran at {product:.0f} GFLOP/s."
    )
    return "\n".join([*lines, "", note, ""])


def main() -> None:
    """Parse the command line, measure, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, help="where to write the table; printed by default")
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--keys", type=int, default=4096, help="tokens of softmax attention")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), metavar="NAME")
    options = parser.parse_args()
    text = table(options)
    if options.out is None:
        sys.stdout.write(text)
    else:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
