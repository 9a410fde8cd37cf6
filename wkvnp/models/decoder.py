"""A network as a program: one token of every sequence in one launch.

Letters: B sequences, C channels, V vocabulary.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

import numpy as np
import numpy.typing as npt

from .._jit import interpreted
from ..decoding import Program, Unsuitable
from .network import Fixed, Growing, Network
from .state import State

Array = npt.NDArray[Any]

MOST = 64
"""Sequences that one call decodes at most; beyond that, decoding is bound by arithmetic, as prompts are."""
_Growing = dict[int, Any]
_LINE = 64
"""Bytes of a cache line."""


class _Memory:
    """Bytes from the beginning of a cache line on, for NumPy, and where that is.

    Memory that the system gives is empty page by page: filling that of many states took as long as a layer. So when the
    last array of this memory is gone, the next state gets it; one piece at most is kept for that.
    """

    def __init__(self, size: int, kept: list[Array]) -> None:
        self._kept, self._room = kept, kept.pop() if kept else np.empty(0, np.uint8)
        if not size <= self._room.size - _LINE <= 2 * size:
            self._room = np.empty(size + _LINE, np.uint8)
        self.address = _address(self._room) + -_address(self._room) % _LINE
        self.__array_interface__ = {"data": (self.address, False), "shape": (size,), "typestr": "|u1", "version": 3}

    def __del__(self) -> None:
        self._kept[:] = [self._room]


class DecodedState(State):
    """A state whose arrays of fixed size lie behind each other in one piece of memory; layers are made when asked for.

    The next token needs the address of that piece only, not those of a hundred arrays.
    """

    def __init__(self, fingerprint: str, decoder: Decoder, batch: int, memory: _Memory, growing: _Growing) -> None:
        vars(self).update(fingerprint=fingerprint, decoder=decoder, memory=memory, growing=growing, _batch=batch)

    memory: _Memory
    growing: _Growing
    decoder: Decoder
    _batch: int

    def __reduce__(self) -> tuple[Any, ...]:
        return State, (self.fingerprint, self.layers)

    @functools.cached_property
    def layers(self) -> tuple[Any, ...]:
        """The state of every layer."""
        return self.decoder.layers_of(self.memory, self._batch, self.growing)

    @property
    def batch(self) -> int:
        """How many sequences the state holds."""
        return self._batch

    @property
    def dtype(self) -> np.dtype[Any]:
        """In what the model computes."""
        return np.dtype(np.float32)


class Decoder:
    """What a network does with one token of each of up to `MOST` sequences.

    Raises
    ------
    Unsuitable
        If the network is none that can be decoded so.
    """

    def __init__(self, network: Network) -> None:
        embed, head, self._layers = network.embed, network.head, network.layers
        self._vocabulary, channels = head.weight.shape
        program = self._program = Program(MOST)
        tokens, logits, x = program.slot(1), program.slot(self._vocabulary), program.shared("x", channels)
        program.phase()
        program.embed(tokens, embed.table, embed.norm, x)
        self._leaves: list[list[tuple[tuple[int, ...], np.dtype[Any], int]]] = []  # of a layer: shape, dtype, place
        self._growing: list[tuple[int, Growing]] = []
        self._kept: list[Array] = []
        self._bytes, carry = 0, None  # of a state's fixed part, for one sequence
        # Of every slot: in which array of a call it lies, and how many bytes from its beginning for each sequence. The
        # arrays are the state before and after, the tokens, the logits, and what layers that grow have given.
        self._places, others = [(2, 0), (3, 0)], itertools.count(4)
        for n, layer in enumerate(network.layers):
            if not isinstance(layer, Fixed | Growing):
                raise Unsuitable
            first, leaves = program.slots, []
            carry = layer.plan(program, x, carry)
            if isinstance(layer, Fixed):
                for leaf in layer.arrays(layer.start(1)):
                    leaves.append((leaf.shape[1:], leaf.dtype, self._bytes))
                    self._bytes += -(-leaf.nbytes // _LINE) * _LINE
                self._places += [(which, place) for which in (0, 1) for _, _, place in leaves]
            else:
                self._growing.append((n, layer))
                self._places += [(next(others), 0) for _ in range(program.slots - first)]
            self._leaves.append(leaves)
        program.phase()
        program.product(program.norm(x, head.scale, head.shift, head.eps), head.weight, logits)
        program.finish()

    def __call__(self, tokens: Array, state: State) -> tuple[Array, State]:
        """Return the logits (B, V) after tokens (B,), int64, and the state."""
        B = len(tokens)
        if isinstance(state, DecodedState) and state.decoder is self:
            memory, growing = state.memory, state.growing
        else:
            memory, growing = self._packed(state, B), dict(enumerate(state.layers))
        logits, final = np.empty((B, self._vocabulary), np.float32), _Memory(B * self._bytes, self._kept)
        arrays, grown, offsets = [np.ascontiguousarray(tokens), logits], {}, np.arange(B + 1)
        for n, layer in self._growing:
            grown[n], more = layer.advance(growing[n], offsets)
            arrays += more
        places = [memory.address, final.address, *map(_address, arrays)]
        slots = np.array([0, *[places[which] + B * place for which, place in self._places]], np.int64)
        self._program.run(B, slots)
        return logits, DecodedState(state.fingerprint, self, B, final, grown)

    def layers_of(self, memory: _Memory, batch: int, growing: _Growing) -> tuple[Any, ...]:
        """Return the states of all layers, as views of the memory that holds what does not grow."""
        layers, everything = [], np.asarray(memory)
        for n, layer in enumerate(self._layers):
            if isinstance(layer, Fixed):
                arrays = [
                    np.ndarray((batch, *shape), dtype, everything, batch * place)
                    for shape, dtype, place in self._leaves[n]
                ]
                layers.append(layer.state_of(arrays))
            else:
                layers.append(growing[n])
        return tuple(layers)

    def _packed(self, state: State, batch: int) -> _Memory:
        """Return the arrays of fixed size of any state behind each other."""
        memory = _Memory(batch * self._bytes, self._kept)
        everything = np.asarray(memory)
        for layer, leaves, known in zip(self._layers, self._leaves, state.layers, strict=True):
            if isinstance(layer, Fixed):
                for (shape, dtype, place), array in zip(leaves, layer.arrays(known), strict=True):
                    np.ndarray((batch, *shape), dtype, everything, batch * place)[...] = array
        return memory


def _address(array: Array) -> int:
    return int(array.__array_interface__["data"][0])


def decoder_of(network: Network) -> Decoder | None:
    """Return the network's decoder, if it can have one; addresses mean nothing to Python."""
    try:
        return None if interpreted() else Decoder(network)
    except Unsuitable:
        return None
