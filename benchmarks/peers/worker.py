"""A process for one library: it waits for its turn on a pipe, so that no library's idle threads meet another's work.

    worker.py draw - FOLDER/source.safetensors LAYERSxWIDTHxVOCABULARY
    worker.py write PEER SOURCE PATH FORMAT
    worker.py run PEER PATH FORMAT THREADS

The last answers every line of JSON on standard input with one on standard output; what the libraries print goes to
standard error.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SEED = 0


def draw(path: Path, layers: int, width: int, vocabulary: int) -> None:
    """Write random RWKV-7 weights in float32."""
    import wkvnp

    wkvnp.random_model("rwkv7", n_layer=layers, n_embd=width, vocab_size=vocabulary, rng=SEED).save(path)


def tokens(count: int, vocabulary: int) -> list[int]:
    """Return random tokens, the same for every library."""
    return [int(token) for token in np.random.default_rng(SEED).integers(0, vocabulary, count)]


def seconds(job: Callable[[Any], Any], given: Any) -> float:
    """Return how long a call takes."""
    begin = time.perf_counter()
    job(given)
    return time.perf_counter() - begin


def prefill(runner: Any, vocabulary: int, count: int) -> dict[str, float]:
    """Time the reading of a prompt."""
    return {"rate": count / seconds(runner.prefill, tokens(count, vocabulary))}


def decode(runner: Any, vocabulary: int, count: int) -> dict[str, float]:
    """Time some tokens one by one, after two to come back into the caches with."""
    drawn = tokens(count + 2, vocabulary)
    runner.decode(drawn[:2])
    return {"rate": count / seconds(runner.decode, drawn[2:])}


def batch(runner: Any, vocabulary: int, sequences: int, count: int) -> dict[str, float]:
    """Time some tokens of many texts at once."""
    drawn = np.array(tokens(sequences * (count + 1), vocabulary)).reshape(-1, sequences)
    runner.batch(drawn[:1])
    return {"rate": sequences * count / seconds(runner.batch, drawn[1:])}


def check(runner: Any, vocabulary: int, path: str) -> dict[str, float]:
    """Write the logits after a short prompt, and after some tokens more, where the caller can read them."""
    drawn = tokens(32, vocabulary)
    np.save(path, np.stack([runner.prefill(drawn[:24]), runner.decode(drawn[24:])]))
    return {}


def sizes(runner: Any, vocabulary: int) -> dict[str, float]:
    """Return what one token reads and multiplies, which our own model knows."""
    found: dict[str, float] = runner.sizes()
    return found


def machine(runner: Any, vocabulary: int) -> dict[str, float]:
    """Measure what the machine itself can do."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from suite.calibration import read_gigabytes_per_second, sgemm_gflops

    return {"read": read_gigabytes_per_second(), "sgemm": sgemm_gflops()}


JOBS = {job.__name__: job for job in (prefill, decode, batch, check, sizes, machine)}


def run(name: str, path: Path, form: str, threads: int) -> None:
    """Load a model, say so, and do as told until nothing more comes."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries talk while they load, some of them from C
    runner = None if name == "machine" else importlib.import_module(name).prepare(path, form, threads)
    print(json.dumps({}), file=answers, flush=True)
    for line in sys.stdin:
        job, arguments = json.loads(line)
        print(json.dumps(JOBS[job](runner, **arguments)), file=answers, flush=True)


def main() -> None:
    """Do what the command line says."""
    what, name, path, *rest = sys.argv[1:]
    if what == "draw":
        draw(Path(path), *(int(number) for number in rest[0].split("x")))
    elif what == "write":
        importlib.import_module(name).write(Path(path), Path(rest[0]), rest[1])
    else:
        run(name, Path(path), rest[0], int(rest[1]))


if __name__ == "__main__":
    main()
