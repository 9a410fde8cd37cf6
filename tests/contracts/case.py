"""One kernel form to be tested: how to draw inputs for it, run it, and ask its oracle."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Case:
    """`draw(rng, M, N)` gives packed inputs and a state; `run` and `oracle` take them as keywords."""

    name: str
    draw: Callable[[np.random.Generator, int, int], tuple[Arrays, Any]]
    run: Callable[[Arrays, Any, np.ndarray], tuple[np.ndarray, Any]]
    oracle: Callable[[Arrays, Any], tuple[np.ndarray, Any]]
    constant: tuple[str, ...] = ()  # inputs without a time axis
    fades: bool = True  # whether its state decays

    def sequence(self, inputs: Arrays, begin: int, end: int) -> Arrays:
        return {name: a if name in self.constant else a[begin:end] for name, a in inputs.items()}


def decays(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Strong, weak and mixed decays: from exp(-20) to all but 1."""
    return -np.exp(rng.uniform(-8, 3, shape))
