"""A network as a program: one token of every sequence in one launch.

Letters: B sequences, C channels, V vocabulary.
"""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .._jit import interpreted
from .._tree import leaves, map_leaves
from ..checkpoints.naming import build, flatten
from ..decoding import Program, Unsuitable
from ..operations.tokens import Tokens
from .architectures import module_of
from .network import Config, Growing, Network
from .state import State

Array = npt.NDArray[Any]

MOST_SEQUENCES = 64
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


@dataclass(frozen=True)
class _Leaf:
    """An array of fixed size in a state: its name, axes of one sequence in the order of memory, dtype, and where it is.

    `order` are these axes in the order of the state, the batch first; `begin` counts bytes for one sequence.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    order: tuple[int, ...]
    begin: int

    def view(self, memory: Array, batch: int) -> Array:
        """Return the array of `batch` sequences in memory, with its axes in the order of the state."""
        return np.ndarray((batch, *self.shape), self.dtype, memory, batch * self.begin).transpose(self.order)


class Decoder:
    """What a network does with one token of each of up to `MOST_SEQUENCES` sequences.

    Raises
    ------
    Unsuitable
        If the network cannot be decoded so.

    Attributes
    ----------
    program : Program
    """

    def __init__(self, network: Network) -> None:
        head, self._layers = network.head, network.layers
        self._vocabulary = head.weight.shape[0]
        self._kept: list[Array] = []
        program = self.program = Program(MOST_SEQUENCES)
        slot = program.memory.slot
        tokens, logits = slot("tokens", 1, 8), slot("logits", self._vocabulary)
        x, v_first = Tokens(program, {}).embed(tokens, network.embed.table, network.embed.norm, "x"), None
        self._starts = [layer.start(1) for layer in network.layers]
        self._growing = [(n, layer) for n, layer in enumerate(network.layers) if isinstance(layer, Growing)]
        self._leaves: list[list[_Leaf]] = []
        self._bytes = 0  # of a state's fixed part, for one sequence
        # Of every slot: in which array of a call it lies, and how many bytes from its beginning for each sequence. The
        # arrays are the state before and after, the tokens, the logits, and what layers that grow have given.
        self._places, others = [(2, 0), (3, 0)], itertools.count(4)
        for n, layer in enumerate(network.layers):
            leaves = [] if isinstance(layer, Growing) else self._fixed(self._starts[n])
            self._leaves.append(leaves)
            cells = {}
            for leaf in leaves:
                size, name = math.prod(leaf.shape), f"blocks.{n}.{leaf.name}"
                cells[leaf.name] = (
                    slot(f"{name} before", size, leaf.dtype.itemsize),
                    slot(name, size, leaf.dtype.itemsize),
                )
                self._places += [(0, leaf.begin), (1, leaf.begin)]
            executor = Tokens(program, cells, f"blocks.{n}.")
            x, v_first = layer(executor, x, v_first)
            self._places += [(next(others), 0) for _ in executor.grown]
        last = Tokens(program, {})
        last.logits(head.normalized(last, x), head.weight, logits)

    def _fixed(self, state: Any) -> list[_Leaf]:
        """Give the arrays of one sequence's state their places, behind those of earlier layers."""
        found = []
        for name, array in leaves(state):
            if not isinstance(array, np.ndarray):
                raise Unsuitable(f"{name} of the state is no array of fixed size")
            memory_order = sorted(range(1, array.ndim), key=lambda axis: -array.strides[axis])
            order = (0, *(1 + memory_order.index(axis) for axis in range(1, array.ndim)))
            found.append(
                _Leaf(name, tuple(array.shape[axis] for axis in memory_order), array.dtype, order, self._bytes)
            )
            self._bytes += -(-array.nbytes // _LINE) * _LINE
        return found

    def __call__(self, tokens: Array, state: State) -> tuple[Array, State]:
        """Return the logits (B, V) after tokens (B,), int64, and the state."""
        B = len(tokens)
        if isinstance(state, DecodedState) and state.decoder is self:
            memory, growing = state.memory, state.growing
        else:
            memory = self._packed(state, B)
            growing = {n: state.layers[n] for n, _ in self._growing}
        logits, final = np.empty((B, self._vocabulary), np.float32), _Memory(B * self._bytes, self._kept)
        arrays, grown, offsets = [np.ascontiguousarray(tokens), logits], {}, np.arange(B + 1)
        for n, layer in self._growing:
            grown[n], more = layer.advance(growing[n], offsets)
            arrays += more
        places = [memory.address, final.address, *map(_address, arrays)]
        slots = np.array([0, *[places[which] + B * place for which, place in self._places]], np.int64)
        self.program.run(B, slots)
        return logits, DecodedState(state.fingerprint, self, B, final, grown)

    def layers_of(self, memory: _Memory, batch: int, growing: _Growing) -> tuple[Any, ...]:
        """Return the states of all layers, as views of the memory that holds what does not grow."""
        everything = np.asarray(memory)

        def layer_of(n: int) -> Any:
            arrays = {leaf.name: leaf.view(everything, batch) for leaf in self._leaves[n]}
            return growing[n] if n in growing else map_leaves(lambda name, _: arrays[name], self._starts[n])

        return tuple(map(layer_of, range(len(self._layers))))

    def _packed(self, state: State, batch: int) -> _Memory:
        """Return the arrays of fixed size of any state behind each other."""
        memory = _Memory(batch * self._bytes, self._kept)
        everything = np.asarray(memory)
        for found, known in zip(self._leaves, state.layers, strict=True):
            arrays = dict(leaves(known)) if found else {}
            for leaf in found:
                leaf.view(everything, batch)[...] = arrays[leaf.name]
        return memory


def _address(array: Array) -> int:
    return int(array.__array_interface__["data"][0])


def decoder_of(network: Network) -> Decoder | str:
    """Return the network's decoder, or why it has none."""
    if interpreted():
        return "compiled code is needed, and NUMBA_DISABLE_JIT turns it off"
    if network.embed.dtype != np.float32:
        return f"activations are {network.embed.dtype}; programs compute in float32"
    try:
        decoder = Decoder(network)
    except Unsuitable as why:
        return str(why)
    decoder.program.finish()
    return decoder


def decoding_of(weights: Any, config: Config) -> str:
    """Say how a model decodes, from the shapes of its tensors alone: as a program, or why layer by layer.

    Parameters
    ----------
    weights : dataclass of LazyTensor
    config : Config
    """
    tensors = flatten(weights)
    if all(tensor.dtype == "float64" for tensor in tensors.values()):
        return "layer by layer: activations are float64; programs compute in float32"
    nothing = np.zeros((), np.float32)
    arrays = {name: np.broadcast_to(nothing, tensor.shape) for name, tensor in tensors.items()}
    network = module_of(config.architecture).network(build(type(weights), arrays), config, np.dtype(np.float32))
    try:
        phases = len(Decoder(network).program.phases)
    except Unsuitable as why:
        return f"layer by layer: {why}"
    return f"a program of {phases} phases"
