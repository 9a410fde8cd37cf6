"""RWKV-7 on the CPU beside its peers, from the same random weights, in turns: A B A B.

    python benchmarks/peers/run.py [--out FOLDER] [--sizes 12x768 24x1024] [--formats float32 bfloat16 int8 int4]
                                   [--rounds 7] [--threads N] [--only PEER ...]

Peers are the ``rwkv`` package (with PyTorch), llama.cpp (through ``llama-cpp-python``, with ``gguf`` to write its
files) and a plain NumPy version that lies beside this file. What is not installed is skipped; wkvnp never needs any.
Weights are drawn once and written in each one's own format into a temporary folder, which takes up to 10 GB. Every
library runs in a process of its own with the same number of threads, and waits while another has its turn.

Before anything is timed, each one's logits are compared with those that wkvnp computes in float32 from the very file
that it was given. Then rounds of turns: what the machine can do, decoding, a prompt, and many texts at once (wkvnp
against itself). Medians are compared. Writes ``peers.csv``, ``peers.md`` and, with matplotlib, ``peers.svg`` into the
folder, or prints the table. Takes about half an hour with the values above.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from table import table, write_results

PEERS = {"wkvnp": "ours", "rwkv": "rwkv_package", "llama.cpp": "llama_cpp_python", "numpy": "plain_numpy"}
FORMATS = ("float32", "bfloat16", "int8", "int4")
PREFILLED = ("float32", "bfloat16")
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
LIMIT = 1e-3
"""Largest difference of float32 logits, as a share of the largest logit, that is still the same model."""
ALIKE = 0.8
"""Correlation of logits that is still the same model where numbers are rounded to fewer bits."""
REST = 0.25
"""Seconds after a turn in which the threads that had it come to rest."""


class Worker:
    """A process that has loaded one library's model and waits for its turn."""

    def __init__(self, name: str, path: Path, form: str, threads: int, log: Path) -> None:
        self.log = log
        command = [sys.executable, str(Path(__file__).with_name("worker.py")), "run", name, str(path), form]
        environment = os.environ | dict.fromkeys(THREAD_VARIABLES, str(threads))
        with log.open("w") as errors:
            self.process = subprocess.Popen(
                [*command, str(threads)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
                text=True, env=environment,
            )  # fmt: skip
        self._answer()

    def _answer(self) -> dict[str, float]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            raise RuntimeError((self.log.read_text().strip() or "ended early").splitlines()[-1])
        answer: dict[str, float] = json.loads(line)
        return answer

    def turn(self, job: str, **arguments: Any) -> dict[str, float]:
        """Let it do one job, then let its threads come to rest."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps([job, arguments]) + "\n")
            self.process.stdin.flush()
        answer = self._answer()
        time.sleep(REST)
        return answer

    def stop(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def installed(names: list[str]) -> list[str]:
    """Return those whose packages are there; say which are not."""
    found = []
    for name in names:
        absent = [p for p in importlib.import_module(PEERS[name]).PACKAGES if importlib.util.find_spec(p) is None]
        if absent:
            say(f"skipped: {name}: not installed: {', '.join(absent)}")
        else:
            found.append(name)
    return found


def script(*arguments: object) -> None:
    """Run a step that needs memory of its own."""
    subprocess.run([sys.executable, Path(__file__).with_name("worker.py"), *map(str, arguments)], check=True)


def difference(worker: Worker, reference: np.ndarray, vocabulary: int, form: str) -> float:
    """Return the largest difference from our own logits, as a share of the largest; refuse another model."""
    path = worker.log.with_suffix(".npy")
    worker.turn("check", vocabulary=vocabulary, path=str(path))
    logits = np.load(path)
    found = float(np.abs(logits - reference).max() / np.abs(reference).max())
    alike = np.corrcoef(logits.ravel(), reference.ravel())[0, 1]
    if not (found <= LIMIT if form == "float32" else alike >= ALIKE):
        raise RuntimeError(f"computes another model: logits differ by {found:.1e} of the largest")
    return found


def reference_logits(path: Path, options: argparse.Namespace) -> np.ndarray:
    """Return what wkvnp computes from a file in float32."""
    ours = Worker("ours", path, "float32", options.threads, path.with_suffix(".log"))
    logits = path.with_suffix(".npy")
    try:
        ours.turn("check", vocabulary=options.vocabulary, path=str(logits))
    finally:
        ours.stop()
    return np.load(logits)


@contextlib.contextmanager
def prepared(
    names: list[str], source: Path, form: str, options: argparse.Namespace
) -> Iterator[tuple[dict[str, Worker], dict[str, float]]]:
    """Write the weights, start a worker for each library and compare its logits with ours; yield both."""
    workers, differences, paths = {}, {}, []
    try:
        for name in names:
            peer = importlib.import_module(PEERS[name])
            path = source.with_name(f"{PEERS[name]}-{form}{peer.SUFFIX}")
            paths.append(path)
            try:
                script("write", PEERS[name], source, path, form)
                reference = reference_logits(path, options)
                worker = Worker(PEERS[name], path, form, options.threads, path.with_suffix(".log"))
                workers[name] = worker
                differences[name] = difference(worker, reference, options.vocabulary, form)
                say(f"{form} {name}: logits differ by {differences[name]:.1e} of the largest")
            except (RuntimeError, subprocess.CalledProcessError) as error:
                say(f"skipped: {name} {form}: {error}")
                if name in workers:
                    workers.pop(name).stop()
        yield workers, differences
    finally:
        for worker in workers.values():
            worker.stop()
        for path in paths:
            path.unlink(missing_ok=True)


def jobs_of(form: str, options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Return the jobs of a format, and what they are told."""
    jobs: dict[str, dict[str, Any]] = {"decode": {"count": options.decode}}
    if form in PREFILLED:
        jobs["prefill"] = {"count": options.prefill}
    return jobs | {"batch": {"sequences": options.batch, "count": max(1, options.decode // 4)}}


def measured(size: str, form: str, names: list[str], source: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return a row for every job and library: the median of its rate, beside what the machine could do meanwhile."""
    with prepared(names, source, form, options) as (workers, differences):
        if not workers:
            return []
        machine = Worker("machine", source, form, options.threads, source.with_name("machine.log"))
        given = {"vocabulary": options.vocabulary}
        jobs = jobs_of(form, options)
        turns = [(job, name) for job in jobs for name in workers if job != "batch" or name == "wkvnp"]
        rates: dict[tuple[str, str], list[float]] = {turn: [] for turn in turns}
        ceilings = []
        try:
            for job, name in 2 * turns:  # compile, and bring the weights into memory
                workers[name].turn(job, **given, **jobs[job])
            for _ in range(options.rounds):
                ceilings.append(machine.turn("machine", **given))
                for job, name in turns:
                    rates[job, name].append(workers[name].turn(job, **given, **jobs[job])["rate"])
            sizes = workers["wkvnp"].turn("sizes", **given) if "wkvnp" in workers else {}
        finally:
            machine.stop()
    ceiling = {what: statistics.median(c[what] for c in ceilings) for what in ("read", "sgemm")}
    same = {"size": size, "format": form, "threads": options.threads, "rounds": options.rounds, **ceiling}
    same |= {"bytes_per_token": sizes.get("bytes"), "layers": sizes.get("layers"), "head": sizes.get("head")}
    return [
        {
            **same,
            "job": job,
            "tokens": options.prefill if job == "prefill" else options.batch if job == "batch" else 1,
            "peer": name,
            "tokens_per_s": statistics.median(found),
            "slowest": min(found),
            "fastest": max(found),
            "difference": differences[name],
        }
        for (job, name), found in rates.items()
    ]


def main() -> None:
    """Parse the command line, measure, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, help="folder for the figures, the table and the picture")
    parser.add_argument("--sizes", nargs="+", default=["12x768", "24x1024"], metavar="LAYERSxWIDTH")
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--vocabulary", type=int, default=65536)
    parser.add_argument("--prefill", type=int, default=512, metavar="TOKENS", help="of a prompt (default: 512)")
    parser.add_argument("--decode", type=int, default=16, metavar="TOKENS", help="in a turn (default: 16)")
    parser.add_argument("--batch", type=int, default=32, metavar="SEQUENCES", help="decoded at once (default: 32)")
    parser.add_argument("--only", nargs="+", choices=PEERS, default=list(PEERS), help="beside wkvnp itself")
    options = parser.parse_args()
    names = installed(["wkvnp", *(name for name in options.only if name != "wkvnp")])
    peers = {name: importlib.import_module(PEERS[name]) for name in names}
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="wkvnp-peers-") as folder:
        for size in options.sizes:
            source = Path(folder) / "source.safetensors"
            script("draw", "-", source, f"{size}x{options.vocabulary}")
            for form in options.formats:
                able = [name for name, peer in peers.items() if form in peer.FORMATS]
                say(f"{size} {form}: {', '.join(able)}")
                rows += measured(size, form, able, source, options)
                if options.out is not None:  # again after every format: a long run may be cut short
                    write_results(rows, peers, options.out)
    if options.out is None:
        print(table(rows, peers))


if __name__ == "__main__":
    main()
