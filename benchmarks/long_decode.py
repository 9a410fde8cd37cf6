"""Decode many tokens and watch the memory of the process and the size of the state: both must stay flat.

    python benchmarks/long_decode.py [--tokens 100000] [--model FILE]

Without a model it uses random weights of 12 layers of width 64. Prints a line every tenth of the way.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

import wkvnp


def resident_megabytes() -> float:
    """Return the memory that this process holds now."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return float("nan")


def main() -> None:
    """Parse the command line and decode."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tokens", type=int, default=100_000)
    parser.add_argument("--model", type=Path)
    options = parser.parse_args()
    model = wkvnp.load(options.model) if options.model else wkvnp.random_model(
        "rwkv7", n_layer=12, n_embd=64, vocab_size=256, rng=0
    )  # fmt: skip
    rng = np.random.default_rng(0)
    logits, state = model([0])
    begin = time.perf_counter()
    print(f"{'tokens':>8} {'memory MB':>10} {'state MB':>9} {'largest':>9} {'tokens/s':>9}")
    for done in range(1, options.tokens + 1):
        weights = np.exp(logits - logits.max())
        token = int(rng.choice(weights.size, p=weights / weights.sum(dtype=np.float64)))
        logits, state = model([token], state)
        if done % max(1, options.tokens // 10) == 0:
            largest = max(float(np.abs(layer.wkv).max()) for layer in state.layers)
            rate = done / (time.perf_counter() - begin)
            print(
                f"{done:>8} {resident_megabytes():>10.1f} {state.nbytes / 1e6:>9.3f} {largest:>9.2f} {rate:>9.0f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
