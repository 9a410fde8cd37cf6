"""What a newcomer waits for: the compiler, once, and afterwards the machine code on disk."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time

from wkvnp.models import ARCHITECTURES

from .calibration import best_seconds

CALL = """
import wkvnp
from wkvnp._jit import compiling
n_layer = 4 if {architecture!r} == "qwen3_next" else 2
model = wkvnp.random_model({architecture!r}, n_layer=n_layer, n_embd=256, vocab_size=256, rng=0, dtype={dtype!r})
_, state = model(list(range(20)))
model([20], state)
print(compiling.kernels + compiling.loaded)
"""


def run(architecture: str, dtype: str, **variables: str) -> tuple[float, int]:
    """Read 20 tokens and decode one in a process of its own; return its seconds and how many kernels it needed."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", CALL.format(architecture=architecture, dtype=dtype)],
        env=os.environ | variables,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return time.perf_counter() - start, int(done.stdout)


class FirstCall:
    """A process that reads a prompt and decodes a token, of every architecture."""

    params = (list(ARCHITECTURES), ["float32", "bfloat16"])
    param_names = ("architecture", "dtype")
    timeout = 900

    def track_cold(self, architecture: str, dtype: str) -> float:
        with tempfile.TemporaryDirectory() as folder:
            return run(architecture, dtype, WKVNP_CACHE_DIR=folder)[0]

    track_cold.unit = "seconds"  # type: ignore[attr-defined]

    def track_cached(self, architecture: str, dtype: str) -> float:
        """Take the best of several, after one that fills the user's cache."""
        run(architecture, dtype)
        return min(run(architecture, dtype)[0] for _ in range(5))

    track_cached.unit = "seconds"  # type: ignore[attr-defined]

    def track_kernels(self, architecture: str, dtype: str) -> int:
        """Count them: each is compiled once and loaded ever after."""
        return run(architecture, dtype)[1]

    track_kernels.unit = "kernels"  # type: ignore[attr-defined]


class WarmStart:
    """The command line with the model in the package, everything compiled."""

    timeout = 900

    def setup(self) -> None:
        self.call()

    def call(self) -> None:
        command = [sys.executable, "-m", "wkvnp", "generate", "The for statement", "-n", "1", "--temperature", "0"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr)

    def track_first_token_of_the_command_line(self) -> float:
        """Take the best of several: from the start of the process to its end after one token."""
        return best_seconds(self.call, 5)

    track_first_token_of_the_command_line.unit = "seconds"  # type: ignore[attr-defined]
