"""wkvnp itself, behind the interface of the peers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

TITLE, PACKAGES = "wkvnp", ("wkvnp",)
FORMATS = ("float32", "bfloat16", "int8", "int4")
SUFFIX = ".safetensors"


def write(source: Path, path: Path, form: str) -> None:
    """Write the weights as safetensors: those of `source`, whose matrices are narrowed."""
    import wkvnp

    wkvnp.convert(source, path, dtype=form if form == "float32" else "bfloat16")


def prepare(path: Path, form: str, threads: int) -> Runner:
    """Load a model."""
    import wkvnp

    wkvnp.set_num_threads(threads)
    return Runner(wkvnp.load(path, dtype=form))


class Runner:
    """A model and the state after what it was last given."""

    def __init__(self, model: Any) -> None:
        self.model, self.state, self.states = model, None, None

    def prefill(self, tokens: list[int]) -> np.ndarray:
        """Read a prompt from the beginning of a text; return the logits after it."""
        logits, self.state = self.model(tokens)
        return logits

    def decode(self, tokens: list[int]) -> np.ndarray:
        """Go on token by token; return the logits after the last."""
        for token in tokens:
            logits, self.state = self.model([token], self.state)
        return logits

    def batch(self, tokens: np.ndarray) -> np.ndarray:
        """Decode many texts at once: a row (B,) of tokens after the other."""
        for row in tokens:
            logits, self.states = self.model(row[:, None], self.states)
        return logits

    def sizes(self) -> dict[str, float]:
        """Return the bytes that a token reads, the multiplications of one in the layers, and those of the head."""
        blocks = [array for block in self.model.stored.blocks for array in matrices(block.att, block.ffn)]
        weights = self.model.stored
        return {
            "bytes": float(self.model.nbytes - weights.emb.weight.nbytes),
            "layers": float(sum(np.prod(array.shape) for array in blocks)),
            "head": float(np.prod(weights.head.weight.shape)),
        }


def matrices(*parts: Any) -> list[Any]:
    """Return what a token is multiplied with: every matrix and low-rank factor, but not the bonus of a head."""
    arrays = [getattr(v, "weight", v) for part in parts for name, v in vars(part).items() if name != "r_k"]
    return [array for array in arrays if getattr(array, "ndim", 0) == 2]
