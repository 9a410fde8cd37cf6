"""Whole models with random weights: what a token costs does not depend on what the numbers are.

A decoded token is compared with reading its weights once, a prompt with the matrix products in it at the rate of sgemm.
"""

from __future__ import annotations

import numpy as np

import wkvnp
from wkvnp.checkpoints.naming import flatten
from wkvnp.errors import ArgumentError
from wkvnp.models import ARCHITECTURES

from .calibration import read_gigabytes_per_second, sgemm_gflops, times

VOCABULARY, BATCH, PREFILL = 8192, 32, 512
DTYPES = ["float32", "bfloat16", "int8", "int4"]
LAYERS = {"rwkv7 0.1B": 12, "mamba1": 10, "mamba2": 10}
"""Where they are not six: layers of Mamba are about half as large."""


def drawn(architecture: str, dtype: str) -> wkvnp.Model:
    """Make a model of some 30 million parameters, or, of RWKV-7, of the size of the smallest published one."""
    name, _, published = architecture.partition(" ")
    width, vocabulary = (768, 65536) if published else (512, VOCABULARY)
    n_layer = LAYERS.get(architecture, 8 if name == "qwen3_next" else 6)
    try:
        return wkvnp.random_model(name, n_layer=n_layer, n_embd=width, vocab_size=vocabulary, rng=0, dtype=dtype)
    except ArgumentError as error:  # a dtype that this version does not have
        raise NotImplementedError(str(error)) from None


def sizes(model: wkvnp.Model) -> tuple[int, int, int]:
    """Return the bytes that a token reads, the multiplications of one in the layers, and those of the head."""
    arrays = flatten(model.stored)
    table = next(array for name, array in arrays.items() if "emb" in name and array.ndim == 2)
    heads = [array for array in arrays.values() if array.shape == table.shape]  # one: the table is the head too
    layers = sum(array.size for array in arrays.values() if array.ndim >= 2) - len(heads) * table.size
    return model.nbytes - (len(heads) - 1) * table.nbytes, layers, table.size


class Model:
    """Every architecture and dtype."""

    params = ([*ARCHITECTURES, "rwkv7 0.1B"], DTYPES)
    param_names = ("architecture", "dtype")
    timeout = 600
    rounds = 1  # every row is a process; the ratio, which is what is read, has rounds of its own

    def setup(self, architecture: str, dtype: str) -> None:
        self.model = drawn(architecture, dtype)
        self.tokens = np.random.default_rng(1).integers(0, VOCABULARY, max(PREFILL, BATCH))
        _, self.state = self.model(self.tokens[:1])

    def decode(self) -> None:
        self.model(self.tokens[:1], self.state)

    def time_decode(self, architecture: str, dtype: str) -> None:
        self.decode()

    def track_decode(self, architecture: str, dtype: str) -> float:
        read = sizes(self.model)[0] * 1e-9
        return times(self.decode, lambda: read / read_gigabytes_per_second(), repeats=15)

    track_decode.unit = "times reading"  # type: ignore[attr-defined]

    def track_decode_batch(self, architecture: str, dtype: str) -> float:
        """Compare 32 sequences in one call with 32 calls."""
        rows = self.tokens[:BATCH, None]
        _, state = self.model(rows)
        batch = times(lambda: self.model(rows, state), lambda: 1.0)
        return batch / times(self.decode, lambda: 1.0, repeats=15) / BATCH

    track_decode_batch.unit = "times single"  # type: ignore[attr-defined]

    def track_prefill(self, architecture: str, dtype: str) -> float:
        _, layers, head = sizes(self.model)
        products = 2e-9 * (layers * PREFILL + head)
        return times(lambda: self.model(self.tokens[:PREFILL]), lambda: products / sgemm_gflops())

    track_prefill.unit = "times sgemm"  # type: ignore[attr-defined]


class Memory:
    """The most memory of a process that decodes and reads a prompt."""

    params = Model.params
    param_names = Model.param_names
    timeout = 600

    def setup(self, architecture: str, dtype: str) -> None:
        self.model = drawn(architecture, dtype)

    def peakmem_decode(self, architecture: str, dtype: str) -> None:
        self.model([1])

    def peakmem_prefill(self, architecture: str, dtype: str) -> None:
        self.model(np.arange(PREFILL))
