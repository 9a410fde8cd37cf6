"""Whole models with random weights: tokens per second do not depend on what the numbers are."""

from __future__ import annotations

import numpy as np

import wkvnp

ARCHITECTURES = ["rwkv4", "rwkv5.0", "rwkv5.1", "rwkv5.2", "rwkv6", "rwkv7"]
PREFILL = 256


class Model:
    """A model of some ten million parameters: enough for its matrices to matter, little enough for any machine."""

    params = (ARCHITECTURES, ["float32", "bfloat16"])
    param_names = ("architecture", "dtype")
    timeout = 300

    def setup(self, architecture: str, dtype: str) -> None:
        self.model = wkvnp.init(architecture, n_layer=4, n_embd=384, vocab_size=4096, rng=0, dtype=dtype)
        self.tokens = np.random.default_rng(1).integers(0, 4096, PREFILL)
        _, self.state = self.model(self.tokens)
        self.time_decode_one_token(architecture, dtype)
        self.time_decode_batch_of_8(architecture, dtype)

    def time_decode_one_token(self, architecture: str, dtype: str) -> None:
        self.model(self.tokens[:1], self.state)

    def time_prefill(self, architecture: str, dtype: str) -> None:
        self.model(self.tokens)

    def time_decode_batch_of_8(self, architecture: str, dtype: str) -> None:
        self.model(self.tokens[:8, None])

    def peakmem_prefill(self, architecture: str, dtype: str) -> None:
        self.model(self.tokens)
