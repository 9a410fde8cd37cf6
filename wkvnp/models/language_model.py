"""The skeleton that all language models share: tokens in, layers, logits and states out.

Letters: M tokens of B packed sequences, C channels, L layers.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import numpy.typing as npt

from .._arguments import named
from ..checkpoints import save_safetensors
from ..checkpoints.naming import flatten
from ..checkpoints.quantised_tensors import parts
from ..decoding import Program
from ..errors import ArgumentError, StateError
from ..operations import Prompts
from .decoder import MOST_SEQUENCES, Decoder, decoder_of
from .network import Config, Network, activations_dtype
from .rwkv_layer import tuned_start
from .sequences import Restore, Tokens, pack, windows
from .state import State, fingerprint_of
from .weights import Weights

Array = npt.NDArray[Any]


class Model:
    """A language model: a pure function of weights, tokens and state.

    Made by `wkvnp.load` and `wkvnp.random_model`.

    Attributes
    ----------
    config : Config
    weights : Weights
        The tensors of the checkpoint as numbers that NumPy computes with, under the names of the original authors.
    stored : dataclass
        The same as the model keeps them, for writing files: bfloat16 in a dtype that NumPy refuses to convert, and
        quantised matrices.
    fingerprint : str
        What its states are recognised by.
    source : Path or None
        What it was loaded from: a file, or a folder.

    Examples
    --------
    >>> import wkvnp
    >>> model = wkvnp.random_model("rwkv7", n_layer=2, n_embd=64, vocab_size=256, rng=0)
    >>> logits, state = model([72, 101, 108])
    >>> logits.shape, logits.dtype
    ((256,), dtype('float32'))
    >>> model([108, 111], state=state, logits="all")[0].shape
    (2, 256)
    """

    def __init__(self, config: Config, weights: Any, network: Callable[[Any, Any, np.dtype[Any]], Network]) -> None:
        self.config = config
        self.stored = weights
        self.weights = Weights(weights)
        self.source: Path | None = None
        arrays = flatten(weights)
        self.fingerprint = fingerprint_of(config.metadata(), parts(arrays)[0])
        self.nbytes = sum(array.nbytes for array in arrays.values())
        self.n_parameters = sum(array.size for array in arrays.values())
        self._dtype = activations_dtype(arrays)
        self.network = network(weights, config, self._dtype)
        self._decoder: Decoder | str | None = None  # made when it is first needed; a text says why there is none

    def __repr__(self) -> str:
        c = self.config
        return f"<{c.architecture}: {c.n_layer} layers of {c.n_embd}, {c.vocab_size} tokens, {c.dtype}>"

    @overload
    def __call__(
        self, tokens: Tokens, state: State | None = None, logits: Literal["last", "all"] = "last", hidden: None = None
    ) -> tuple[Any, State]: ...
    @overload
    def __call__(
        self, tokens: Tokens, state: State | None = None, logits: Literal["last", "all"] = "last", *,
        hidden: Sequence[int],
    ) -> tuple[Any, State, dict[int, Any]]: ...  # fmt: skip
    @named
    def __call__(
        self,
        tokens: Tokens,
        state: State | None = None,
        logits: Literal["last", "all"] = "last",
        hidden: Sequence[int] | None = None,
    ) -> Any:
        """Feed tokens and return the logits of what comes next, and the state after them.

        Parameters
        ----------
        tokens : array_like of int
            One sequence (T,), a batch (B, T), or a list of B sequences of unequal length.
        state : State, optional
            Where the sequences continue; None is the start of a text. It is not changed.
        logits : {"last", "all"}
            After the last token of each sequence, or after every token.
        hidden : sequence of int, optional
            Layers (from 0) whose residual stream, after the layer, is returned too.

        Returns
        -------
        logits : ndarray
            float32 (float64 for float64 weights). "last": (vocab,) for one sequence, else (B, vocab). "all":
            (T, vocab), (B, T, vocab), or a list of (T_b, vocab).
        state : State
        hidden : dict of int to ndarray
            Only if asked for; shaped like "all" logits, with n_embd in place of vocab.

        Raises
        ------
        ArgumentError
            If tokens are not whole numbers in [0, vocab), or a sequence is empty and logits is "last".
        StateError
            If the state belongs to another model or has another number of sequences.
        """
        if logits not in ("last", "all"):
            raise ArgumentError(f"model: logits must be 'last' or 'all'; got {logits!r}")
        packed, offsets, restore = pack(tokens, self.config.vocab_size)
        layers = self._check_layers(hidden)
        if logits == "last" and (offsets[1:] == offsets[:-1]).any():
            raise ArgumentError(
                "model: every sequence must have at least one token when logits is 'last'; got an empty one"
            )
        self._check_state(state, offsets.size - 1)
        if hidden is None and restore.shape and restore.shape[-1] == 1 and self._decodes(packed.size):
            return self._decode(packed, state, restore, logits)
        streams = {layer: np.empty((packed.size, self.config.n_embd), self._dtype) for layer in layers}
        result = np.empty((packed.size, self.config.vocab_size), self._dtype) if logits == "all" else None
        last = np.empty((offsets.size - 1, self.config.n_embd), self._dtype)
        final = self.initial_state(offsets.size - 1) if state is None else state
        for where, window in windows(offsets):
            x, final = self._forward(packed[where], window, final, {n: (streams[n], where) for n in layers})
            ends = window[1:] > window[:-1]
            last[ends] = x[window[1:][ends] - 1]
            if result is not None:
                result[where] = self.network.head(x)
        if state is not None and final is state:
            final = state.copy()
        answer = restore(result) if result is not None else self._last(last, restore)
        if hidden is None:
            return answer, final
        return answer, final, {layer: restore(stream) for layer, stream in streams.items()}

    def initial_state(self, batch: int = 1) -> State:
        """Return the state at the start of `batch` texts: zeros, or what the checkpoint was tuned to start from."""
        return State(self.fingerprint, tuple(layer.start(batch) for layer in self.network.layers))

    def tuned_state(self, tensors: Mapping[str, Array], source: str = "tensors") -> State:
        """Return the initial state that ``blocks.n.att.time_state`` tensors (H, V, K) describe.

        Raises
        ------
        StateError
            If one is missing or has another shape, or the model is none of RWKV-5 to 7.
        """
        return State(self.fingerprint, tuned_start(self.network.layers, tensors, source))

    def save(self, path: str | PathLike[str]) -> None:
        """Write the weights as safetensors, under the original tensor names and in the dtypes they have.

        Raises
        ------
        CheckpointError
            If `path` cannot be written, or something else than a regular file has this name.
        """
        arrays, more = parts(flatten(self.stored))
        save_safetensors(path, arrays, self.config.metadata() | more)

    @property
    def program(self) -> Program | str:
        """What one token of every sequence runs, or why tokens go layer by layer.

        Examples
        --------
        >>> import wkvnp
        >>> model = wkvnp.random_model("rwkv7", n_layer=1, n_embd=64, vocab_size=256, rng=0)
        >>> len(model.program.phases)
        7
        >>> wkvnp.random_model("rwkv7", n_layer=1, n_embd=40, head_size=8, vocab_size=256, rng=0).program
        'blocks.0.att.x has 40 numbers; a whole number of vectors of 16 is needed'
        """
        if self._decoder is None:
            self._decoder = decoder_of(self.network)
        return self._decoder if isinstance(self._decoder, str) else self._decoder.program

    def _decodes(self, batch: int) -> bool:
        """Whether one token of `batch` sequences can be run as a program."""
        return 0 < batch <= MOST_SEQUENCES and not isinstance(self.program, str)

    def _decode(self, tokens: Array, state: State | None, restore: Restore, logits: str) -> tuple[Any, State]:
        """Feed one token of every sequence."""
        assert isinstance(self._decoder, Decoder)
        before = self.initial_state(tokens.size) if state is None else state
        result, after = self._decoder(tokens, before)
        if logits == "all":
            return restore(result), after
        return result[0] if restore.single else result, after

    def _forward(
        self, tokens: Array, offsets: Array, state: State, streams: Mapping[int, tuple[Array, Array]]
    ) -> tuple[Array, State]:
        """Run packed tokens through all layers; return the residual stream (M, C) and the new state."""
        x = self.network.embed(tokens)
        after, v_first = [], None
        for n, layer in enumerate(self.network.layers):
            executor = Prompts(state.layers[n], offsets)
            x, v_first = layer(executor, x, v_first)
            after.append(executor.state)
            if n in streams:
                stream, where = streams[n]
                stream[where] = x
        return x, State(self.fingerprint, tuple(after))

    def _last(self, x: Array, restore: Restore) -> Array:
        logits = self.network.head(x)
        return logits[0] if restore.single else logits

    def _check_layers(self, hidden: Sequence[int] | None) -> list[int]:
        last = self.config.n_layer - 1
        try:
            layers = [] if hidden is None else [operator.index(layer) for layer in hidden]
            if all(0 <= layer <= last for layer in layers):
                return layers
        except TypeError:
            pass
        raise ArgumentError(
            f"model: hidden must be a list of layers from 0 to {last}, as [{last}], or range({last + 1}) for "
            f"all; got {hidden!r:.80}"
        )

    def _check_state(self, state: State | None, batch: int) -> None:
        if state is None:
            return
        if not isinstance(state, State):
            raise StateError(f"model: state must be a State that a model returned; got {type(state).__name__}")
        if state.fingerprint != self.fingerprint:
            raise StateError(f"model: state belongs to another model ({state.fingerprint}); this is {self.fingerprint}")
        if state.batch != batch:
            raise StateError(f"model: state must hold {batch} sequences, as tokens do; got {state.batch}")
        if state.dtype != self._dtype:
            raise StateError(f"model: state must be {self._dtype}, got {state.dtype}")
