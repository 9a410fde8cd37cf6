"""Decode and prefill beside the ``rwkv`` package (PyTorch on the CPU, float32): the same weights, one interleaved run.

    python benchmarks/peers/rwkv_package.py

Writes a random RWKV-7 checkpoint into a temporary folder, loads it in two worker processes, one for each library, and
lets them work in turns, never both at once. Separate processes keep the idle threads of one library out of the other's
way. Prints medians, their ratio, the largest difference of the logits, and what the machine itself can do.

Needs ``pip install rwkv torch`` beside wkvnp; without them it says so and ends.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

THREAD_VARIABLES = ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"]
Runner = Callable[[list[int], Any], tuple[np.ndarray, Any]]


def write_checkpoint(path: Path, options: argparse.Namespace) -> None:
    """Write random RWKV-7 weights under their original names, as a PyTorch file."""
    import torch

    import wkvnp
    from wkvnp.checkpoints import open_checkpoint

    model = wkvnp.init(
        "rwkv7", n_layer=options.layers, n_embd=options.width, vocab_size=options.vocabulary, rng=0, dtype="float32"
    )
    model.save(path.with_suffix(".safetensors"))
    tensors = open_checkpoint(path.with_suffix(".safetensors")).tensors
    torch.save({name: torch.from_numpy(tensor.read().copy()) for name, tensor in tensors.items()}, path)


def wkvnp_runner(path: Path) -> Runner:
    """Return a function that runs tokens through wkvnp."""
    import wkvnp

    model = wkvnp.load(path)

    def run(tokens: list[int], state: Any) -> tuple[np.ndarray, Any]:
        logits, state = model(tokens, state)
        return np.asarray(logits), state

    return run


def rwkv_package_runner(path: Path) -> Runner:
    """Return a function that runs tokens through the ``rwkv`` package, set up as its page recommends."""
    os.environ.update(RWKV_V7_ON="1", RWKV_JIT_ON="1", RWKV_CUDA_ON="0")
    import torch
    from rwkv.model import RWKV

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    torch.set_grad_enabled(False)
    model = RWKV(model=str(path.with_suffix("")), strategy="cpu fp32")

    def run(tokens: list[int], state: Any) -> tuple[np.ndarray, Any]:
        logits, state = model.forward(tokens, state)
        return logits.numpy(), state

    return run


RUNNERS = {"wkvnp": wkvnp_runner, "rwkv": rwkv_package_runner}


def work(name: str, path: Path, options: argparse.Namespace) -> None:
    """Answer each line on standard input with one line: the seconds of a prefill and of decoding, and the logits."""
    answers = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):  # the rwkv package talks while it loads
        run = RUNNERS[name](path)
        draw = np.random.default_rng(1)
        prompt = [int(token) for token in draw.integers(0, options.vocabulary, options.prefill)]
        tail = [int(token) for token in draw.integers(0, options.vocabulary, options.decode)]
        for _ in sys.stdin:
            start = time.perf_counter()
            first, state = run(prompt, None)
            prefilled = time.perf_counter()
            for token in tail:
                last, state = run([token], state)
            end = time.perf_counter()
            answer = {
                "prefill": prefilled - start,
                "decode": end - prefilled,
                "logits": [np.asarray(first).tolist(), np.asarray(last).tolist()],
            }
            print(json.dumps(answer), file=answers, flush=True)


def start_worker(name: str, path: Path, arguments: list[str]) -> subprocess.Popen[str]:
    """Start this script again as a worker for one library."""
    command = [sys.executable, __file__, *arguments, "--worker", name, "--checkpoint", str(path)]
    with path.with_name(f"{name}.log").open("w") as log:
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)


def turn(worker: subprocess.Popen[str], log: Path) -> dict[str, Any]:
    """Let a worker do one prefill and one stretch of decoding."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    with contextlib.suppress(BrokenPipeError):
        worker.stdin.write("go\n")
        worker.stdin.flush()
    line = worker.stdout.readline()
    if not line:
        raise SystemExit(f"a worker ended early:\n{log.read_text()[-2000:]}")
    answer: dict[str, Any] = json.loads(line)
    return answer


def compare(path: Path, options: argparse.Namespace, arguments: list[str]) -> dict[str, Any]:
    """Run both workers in turns and return medians in tokens per second."""
    workers = {name: start_worker(name, path, arguments) for name in RUNNERS}
    try:
        for _ in range(2):  # compile and warm up
            logits = {
                name: np.array(turn(worker, path.with_name(f"{name}.log"))["logits"])
                for name, worker in workers.items()
            }
        turns: dict[str, list[dict[str, Any]]] = {name: [] for name in workers}
        for _ in range(options.rounds):
            for name, worker in workers.items():
                turns[name].append(turn(worker, path.with_name(f"{name}.log")))
    finally:
        for worker in workers.values():
            worker.kill()
            worker.wait()
    rates = {
        job: {
            name: getattr(options, job) / statistics.median(answer[job] for answer in answers)
            for name, answers in turns.items()
        }
        for job in ("decode", "prefill")
    }
    return {"tokens_per_second": rates, "largest_difference": float(np.abs(logits["wkvnp"] - logits["rwkv"]).max())}


def machine() -> dict[str, float]:
    """Return what NumPy reaches on this machine with the same number of threads."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "suite"))
    from calibration import sgemm_gflops, sgemv_gigabytes_per_second

    return {"sgemm": sgemm_gflops(), "sgemv": sgemv_gigabytes_per_second()}


def report(result: dict[str, Any], options: argparse.Namespace) -> None:
    """Print the result for people."""
    print(f"RWKV-7, {options.layers} layers, width {options.width}, vocabulary {options.vocabulary}, float32, ", end="")
    print(f"{options.threads} threads, medians of {options.rounds} interleaved rounds")
    print(f"{'tokens/s':<22}{'wkvnp':>10}{'rwkv':>10}{'ratio':>8}")
    for job, rates in result["tokens_per_second"].items():
        label = f"{job}, {getattr(options, job)} tokens"
        print(f"{label:<22}{rates['wkvnp']:>10.1f}{rates['rwkv']:>10.1f}{rates['wkvnp'] / rates['rwkv']:>8.2f}")
    print(f"largest difference of logits: {result['largest_difference']:.1e}")
    for when, rates in result["machine"].items():
        print(f"machine, {when}: sgemm {rates['sgemm']:.0f} GFLOP/s, sgemv {rates['sgemv']:.1f} GB/s")


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--vocabulary", type=int, default=65536)
    parser.add_argument("--prefill", type=int, default=512, metavar="TOKENS")
    parser.add_argument("--decode", type=int, default=32, metavar="TOKENS")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument("--worker", choices=[*RUNNERS, "write"], help=argparse.SUPPRESS)
    parser.add_argument("--checkpoint", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker == "write":
        return write_checkpoint(options.checkpoint, options)
    if options.worker:
        return work(options.worker, options.checkpoint, options)
    absent = [name for name in ("rwkv", "torch") if importlib.util.find_spec(name) is None]
    if absent:
        print(f"skipped: not installed: {', '.join(absent)} (pip install rwkv torch)")
        return None
    wanted = dict.fromkeys(THREAD_VARIABLES, str(options.threads))
    if not wanted.items() <= os.environ.items():  # the libraries read these while they are loaded: start again
        os.environ.update(wanted)
        os.execv(sys.executable, [sys.executable, __file__, *sys.argv[1:]])
    arguments = sys.argv[1:]
    with tempfile.TemporaryDirectory(prefix="wkvnp-peers-") as folder:
        path = Path(folder) / "random-rwkv7.pth"
        subprocess.run(
            [sys.executable, __file__, *arguments, "--worker", "write", "--checkpoint", str(path)], check=True
        )
        before = machine()
        result = compare(path, options, arguments) | {"machine": {"before": before, "after": machine()}}
    print(json.dumps(result)) if options.json else report(result, options)
    return None


if __name__ == "__main__":
    main()
