"""Every mechanism on arrays drawn from its own declaration, so a new one is measured by being listed."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

import wkvnp
from wkvnp.mechanisms import NAMES

from .calibration import best_seconds, times

HEADS, WIDTH = 12, 64
CALLS = {"one token": (1, 1), "one token of 32 sequences": (32, 1), "1024 tokens": (1, 1024)}
EVERYWHERE = {"H": HEADS, "G": HEADS, "K": WIDTH, "V": WIDTH, "C": HEADS * WIDTH} | dict.fromkeys("NMRWPQ", WIDTH)
IN_MODELS = {
    "deltaproduct": {"R": 2},
    "gsa": {"R": 64},
    "mamba1": {"N": 16, "G": 1},
    "mamba2": {"N": 128, "G": 1},
    "performer": {"M": 256},
    "s4d": {"N": 32},
    "short_convolution": {"W": 4},
}
"""Sizes that are not those of the others, as models have them; the first is what `wkvnp.cost` calls n_state."""


def drawn(mechanism: str, batch: int, time: int, dtype: str = "float32") -> dict[str, Any]:
    """Draw arguments of a front door, at the width of a small model."""
    spec: Any = importlib.import_module(f"wkvnp.mechanisms.{mechanism}").SPEC
    sizes = {"B": batch, "T": time, "S": time} | EVERYWHERE | IN_MODELS.get(mechanism, {})
    arguments: dict[str, Any] = spec.draw(np.random.default_rng(0), sizes, dtype)
    if mechanism == "s4d":  # its poles are complex
        imaginary = np.pi * np.arange(sizes["N"])
        arguments["A"] = (arguments["A"] + 1j * imaginary).astype(np.result_type(dtype, np.complex64))
        arguments |= {name: arguments[name].astype(arguments["A"].dtype) for name in ("B_in", "C_out")}
    return arguments


class Mechanism:
    """One call at the width of a small model: 12 heads of 64, 768 channels."""

    params = (list(NAMES), list(CALLS))
    param_names = ("mechanism", "size")
    timeout = 300
    rounds = 1  # every row is a process; the ratio, which is what is read, has rounds of its own

    def setup(self, mechanism: str, size: str) -> None:
        self.front_door = getattr(wkvnp, mechanism)
        self.arguments = drawn(mechanism, *CALLS[size])
        _, self.state = self.front_door(**self.arguments)
        self.call()

    def call(self) -> None:
        self.front_door(**self.arguments, state=self.state)

    def time_call(self, mechanism: str, size: str) -> None:
        self.call()

    def track_call(self, mechanism: str, size: str) -> float:
        a = np.ones((512, 512), np.float32)
        return times(self.call, lambda: best_seconds(lambda: a @ a), repeats=3 if size == "1024 tokens" else 50)

    track_call.unit = "products of 512 x 512"  # type: ignore[attr-defined]
