"""Everything that a model needs, compiled before it is needed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .._arguments import check_model, named
from .._jit import compiling
from ..primitives.linear_map import FEW_ROWS
from .decoder import MOST_SEQUENCES
from .language_model import Model


@dataclass(frozen=True)
class Warmup:
    """What a warm-up did.

    Attributes
    ----------
    compiled, loaded : int
        Kernels compiled now, and found compiled on disk.
    seconds : float
        What it took in all.
    """

    compiled: int
    loaded: int
    seconds: float


@named
def warmup(model: Model, *, progress: Callable[[int, int], None] | None = None) -> Warmup:
    """Compile, or load from disk, every kernel that prompts and decoding, single and batched, of this model need.

    It runs a few calls, so it needs the memory of a prompt of 33 tokens and of 64 sequences. What was compiled is kept
    on disk: the next process only loads it.

    Parameters
    ----------
    model : Model
    progress : callable, optional
        Called with the steps done and the steps in all.

    Returns
    -------
    Warmup
        How many kernels were compiled and loaded, and how long it took.

    Examples
    --------
    >>> import wkvnp
    >>> model = wkvnp.random_model("rwkv7", n_layer=2, n_embd=64, vocab_size=256, rng=0)
    >>> done = wkvnp.warmup(model)
    >>> wkvnp.warmup(model).compiled
    0
    """
    check_model("warmup", model, "wkvnp.load makes one of a file")
    began, compiled, loaded = time.perf_counter(), compiling.kernels, compiling.loaded
    # One row goes through the loops for prompts too, as what a long prompt leaves over, and arrays of one row may count
    # as contiguous where others do not.
    prompts = [(1, [0]), (2, None), (FEW_ROWS + 1, None)]
    batches = [1, MOST_SEQUENCES]
    steps = len(prompts) + len(batches)
    quiet, compiling.quiet = compiling.quiet, True
    try:
        for n, (length, hidden) in enumerate(prompts):
            _tell(progress, n, steps)
            compiling.any_size = True
            tokens = np.zeros(length, np.int64)
            state = model(tokens, hidden=hidden)[1] if hidden else model(tokens)[1]
            model(tokens, state, hidden=[0])
            compiling.any_size = False
        for n, batch in enumerate(batches, len(prompts)):
            _tell(progress, n, steps)
            tokens = np.zeros((batch, 1), np.int64)
            model(tokens, model(tokens)[1])
    finally:
        compiling.any_size, compiling.quiet = False, quiet
    _tell(progress, steps, steps)
    return Warmup(compiling.kernels - compiled, compiling.loaded - loaded, time.perf_counter() - began)


def _tell(progress: Callable[[int, int], None] | None, done: int, total: int) -> None:
    if progress is not None:
        progress(done, total)
