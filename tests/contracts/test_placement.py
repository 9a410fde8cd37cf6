"""The bits of a result do not depend on where in memory the arrays are.

A compiler checks whether arrays overlap before it runs a loop in vectors, and its check is cautious: arrays that are
only close to each other may count as overlapping. A loop that adds up while it stores then adds in another order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import wkvnp
from contracts.doors import WAYS, Door, parts
from wkvnp._jit import Kernel, interpreted

pytestmark = pytest.mark.skipif(interpreted(), reason="the order is the same in Python")
ROUNDS = 12


class CloseTogether:
    """Runs kernels on copies of their arrays that lie close to each other, in a random order."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def __call__(self, kernel: Kernel, *arguments: Any) -> None:
        arrays = {id(a): a for a in arguments if isinstance(a, np.ndarray) and a.size and a.flags.c_contiguous}
        memory = np.zeros(sum(a.nbytes + 64 for a in arrays.values()) + 64, np.uint8)
        at, copies = -memory.ctypes.data % 64, {}
        for key in self.rng.permutation(list(arrays)).tolist():
            array = arrays[key]
            at += -at % array.itemsize + array.itemsize * int(self.rng.integers(0, 2) * self.rng.integers(0, 8))
            copies[key] = memory[at : at + array.nbytes].view(array.dtype).reshape(array.shape)
            copies[key][...] = array
            at += array.nbytes
        kernel.serial(*(copies.get(id(a), a) if isinstance(a, np.ndarray) else a for a in arguments))
        for key, array in arrays.items():
            if array.flags.writeable:
                array[...] = copies[key]


def check(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a mechanism on arrays at usual places, then close to each other."""
    expected, state = call()
    for seed in range(ROUNDS):
        close = CloseTogether(seed)
        monkeypatch.setattr(Kernel, "sized", lambda kernel, steps, close=close: lambda *a: close(kernel, *a))
        y, after = call()
        np.testing.assert_array_equal(y, expected)
        for mine, theirs in zip(parts(after), parts(state), strict=True):
            np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("way", WAYS)
def test_bits_do_not_depend_on_where_arrays_are(way: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    check(Door(way, T=2, H=2, G=1, K=8, V=8, C=8), monkeypatch)


@pytest.mark.parametrize("name", ["rwkv5", "retnet"])
def test_nor_with_one_decay_a_head(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    door = Door(name, T=2, H=2, K=8, V=8)
    single = {label: array[:, 0] for label, array in door.inputs.items() if array.shape == (2, 8)}
    check(lambda: door(door.inputs | single), monkeypatch)


@pytest.mark.parametrize("architecture", ["rwkv4", "rwkv5.0", "rwkv6", "rwkv7", "mamba1", "mamba2", "transformer"])
def test_bits_of_models_do_not_depend_on_where_arrays_are(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = wkvnp.random_model(architecture, n_layer=1, n_embd=16, vocab_size=11, head_size=8, rng=0)
    expected, _ = model([1, 2, 3])
    for seed in range(ROUNDS):
        close = CloseTogether(seed)
        monkeypatch.setattr(Kernel, "sized", lambda kernel, steps, close=close: lambda *a: close(kernel, *a))
        np.testing.assert_array_equal(model([1, 2, 3])[0], expected)
