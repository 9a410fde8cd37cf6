"""Every mechanism on arrays drawn from its own declaration, so a new one is measured by being listed."""

from __future__ import annotations

import importlib

import numpy as np

from wkvnp.mechanisms import NAMES

SIZES = {"one token": (1, 1), "one token of 32 sequences": (32, 1), "1024 tokens": (1, 1024)}


class Mechanism:
    """One call at the width of a small model: 12 heads of 64, 768 channels."""

    params = (list(NAMES), list(SIZES))
    param_names = ("mechanism", "size")
    timeout = 300

    def setup(self, mechanism: str, size: str) -> None:
        module = importlib.import_module(f"wkvnp.mechanisms.{mechanism}")
        batch, time = SIZES[size]
        sizes = {"B": batch, "T": time, "H": 12, "K": 64, "V": 64, "C": 768}
        self.front_door = getattr(module, mechanism)
        self.arguments = module.SPEC.draw(np.random.default_rng(0), sizes, "float32")
        _, self.state = self.front_door(**self.arguments)
        self.front_door(**self.arguments, state=self.state)

    def time_call(self, mechanism: str, size: str) -> None:
        self.front_door(**self.arguments, state=self.state)
