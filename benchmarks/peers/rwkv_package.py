"""The ``rwkv`` package: the original author's, on PyTorch, set up for the CPU as its page recommends."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

TITLE, PACKAGES = "rwkv package", ("rwkv", "torch")
FORMATS = ("float32", "bfloat16")
SUFFIX = ".pth"


def write(source: Path, path: Path, form: str) -> None:
    """Write the weights as a PyTorch file under their original names."""
    import torch

    from wkvnp.checkpoints import open_checkpoint

    dtype = getattr(torch, form)
    tensors = open_checkpoint(source).tensors
    torch.save({name: torch.from_numpy(tensor.read().copy()).to(dtype) for name, tensor in tensors.items()}, path)


def prepare(path: Path, form: str, threads: int) -> Runner:
    """Load a model."""
    os.environ.update(RWKV_V7_ON="1", RWKV_JIT_ON="1", RWKV_CUDA_ON="0")
    import torch
    from rwkv.model import RWKV

    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    strategy = {"float32": "cpu fp32", "bfloat16": "cpu bf16"}[form]
    return Runner(RWKV(model=str(path.with_suffix("")), strategy=strategy))


class Runner:
    """A model and the state after what it was last given."""

    def __init__(self, model: Any) -> None:
        self.model, self.state = model, None

    def prefill(self, tokens: list[int]) -> np.ndarray:
        """Read a prompt from the beginning of a text; return the logits after it."""
        logits, self.state = self.model.forward(tokens, None)
        return logits.float().numpy()

    def decode(self, tokens: list[int]) -> np.ndarray:
        """Go on token by token; return the logits after the last."""
        for token in tokens:
            logits, self.state = self.model.forward([token], self.state)
        return logits.float().numpy()
