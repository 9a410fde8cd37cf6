"""A network as a program: one token of every sequence in one launch.

Letters: B sequences, C channels, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..decoding import Program, Unsuitable
from .network import Network, Planned

Array = npt.NDArray[Any]

MOST = 64
"""Sequences that one call decodes at most; beyond that, decoding is bound by arithmetic, as prompts are."""


class Decoder:
    """What a network does with one token of each of up to `MOST` sequences.

    Raises
    ------
    Unsuitable
        If the network is none that can be decoded so.
    """

    def __init__(self, network: Network) -> None:
        self._layers: list[Planned] = []
        head = network.head
        self._vocabulary, channels = head.weight.shape
        program = self._program = Program(MOST)
        x, logits = program.slot(channels), program.slot(self._vocabulary)
        carry = None
        for layer in network.layers:
            if not isinstance(layer, Planned):
                raise Unsuitable
            self._layers.append(layer)
            carry = layer.plan(program, x, carry)
        program.phase()
        program.product(program.norm(x, head.scale, head.shift, head.eps), head.weight, logits)
        program.finish()

    def __call__(self, x: Array, state: tuple[Any, ...]) -> tuple[Array, tuple[Any, ...]]:
        """Return the logits (B, V) after embedded tokens x (B, C), which are overwritten, and the layers' states."""
        logits = np.empty((len(x), self._vocabulary), np.float32)
        slots, after, offsets = [x, logits], [], np.arange(len(x) + 1)
        for layer, before in zip(self._layers, state, strict=True):
            final, arrays = layer.advance(before, offsets)
            after.append(final)
            slots += arrays
        slots = [array if array.flags.c_contiguous else np.ascontiguousarray(array) for array in slots]
        self._program.run(len(x), [array.__array_interface__["data"][0] for array in slots])
        return logits, tuple(after)


def decoder_of(network: Network) -> Decoder | None:
    """Return the network's decoder, if it can have one."""
    try:
        return Decoder(network)
    except Unsuitable:
        return None
