"""Seeds of states: what models carry from call to call, and what they were tuned to start from."""

from __future__ import annotations

import functools
import random

import numpy as np
from safetensors_writer import write_safetensors
from torch_writer import weights_file

import wkvnp
from wkvnp.models.state import _FORMAT, _arrays

from . import array_edits, safetensors_edits, torch_edits
from .array_edits import Arrays
from .seed import Files, Seed

_OPTIONS = {"transformer": {"window": 3}}


@functools.cache
def model_of(name: str) -> wkvnp.Model:
    """Return the model that states of files called so belong to."""
    options = _OPTIONS.get(name, {})
    architecture = {"attention": "transformer"}.get(name, name)
    return wkvnp.random_model(architecture, n_layer=2, n_embd=16, vocab_size=37, head_size=8, rng=0, **options)


def states() -> list[Seed]:
    """Return states of one and two sequences of every kind of model."""
    seeds = []
    for name in ("rwkv4", "rwkv6", "rwkv7", "mamba1", "mamba2", "attention", "transformer", "hybrid", "qwen3_next"):
        for tokens in ([1, 2, 3, 4, 5], [[1, 2], [3, 4]]):
            model = model_of(name)
            _, state = model(tokens)
            metadata = {"format": _FORMAT, "model": model.fingerprint}
            seeds.append(_state(f"{name}.safetensors", _arrays(state.layers), metadata))
    return seeds


def _state(name: str, arrays: Arrays, metadata: dict[str, str]) -> Seed:
    data = write_safetensors(arrays, metadata)

    def mutate(rng: random.Random) -> Files:
        if rng.random() < 0.4:
            return {name: safetensors_edits.edited(data, rng)}
        return {name: write_safetensors(array_edits.edited(arrays, rng), metadata)}

    return Seed({name: data}, name, mutate)


def tuned_states() -> list[Seed]:
    """Return files of ``time_state`` tensors for the three models that can be tuned."""
    rng = np.random.default_rng(0)
    seeds = []
    for architecture in ("rwkv5.2", "rwkv6", "rwkv7"):
        arrays = {f"blocks.{n}.att.time_state": rng.standard_normal((2, 8, 8)).astype(np.float32) for n in range(2)}
        seeds.append(_tuned(f"{architecture}.pth", arrays))
    return seeds


def _tuned(name: str, arrays: Arrays) -> Seed:
    data = weights_file(arrays)

    def mutate(rng: random.Random) -> Files:
        if rng.random() < 0.7:
            return {name: torch_edits.edited(data, rng)}
        return {name: weights_file(array_edits.edited(arrays, rng))}

    return Seed({name: data}, name, mutate)
