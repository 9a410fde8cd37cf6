"""The skeleton that all RWKV language models share: embedding, blocks, last norm, head.

Letters: M tokens of B packed sequences, C channels, L layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from types import ModuleType
from typing import Any, Literal, overload

import numpy as np
import numpy.typing as npt

from .._dtypes import widen
from ..checkpoints import save_safetensors
from ..checkpoints.naming import Norm, flatten
from ..errors import ShapeError, StateError
from ..mechanisms.rwkv4 import EMPTY_EXPONENT, WKVState
from ..primitives.linear_map import embedding, linear_map
from ..primitives.norm import layer_norm
from ..primitives.shift import shift
from .sequences import Restore, Tokens, pack, windows
from .state import LayerState, State, fingerprint_of

Array = npt.NDArray[Any]
Vectors = tuple[Array, Array]


@dataclass(frozen=True)
class Config:
    """Sizes of a model, all read from the shapes of its tensors.

    Attributes
    ----------
    architecture : str
        ``"rwkv4"``, ``"rwkv5.0"``, ``"rwkv5.1"``, ``"rwkv5.2"``, ``"rwkv6"`` or ``"rwkv7"``.
    n_layer, n_embd, n_att, n_ffn, vocab_size : int
        Layers, width of the residual stream, of the time mix and of the channel mix, and tokens.
    n_head, head_size : int
        Heads and their width; RWKV-4 has none: 0 heads of size 0.
    dtype : str
        In which the matrices are kept.
    ranks : dict of str to int
        Ranks of the low-rank factors.
    group_norm_eps : float
        Added to the variance of each head's output.
    """

    architecture: str
    n_layer: int
    n_embd: int
    n_att: int
    n_ffn: int
    vocab_size: int
    n_head: int = 0
    head_size: int = 0
    dtype: str = "float32"
    ranks: dict[str, int] = field(default_factory=dict)
    group_norm_eps: float = 64e-5


class Model:
    """A language model: a pure function of weights, tokens and state.

    Made by `wkvnp.load` and `wkvnp.init`.

    Attributes
    ----------
    config : Config
    weights : dataclass
        The tensors of the checkpoint, as stored; dotted names are those of the original authors.
    fingerprint : str
        What its states are recognised by.

    Examples
    --------
    >>> import wkvnp
    >>> model = wkvnp.init("rwkv7", n_layer=2, n_embd=64, vocab_size=256, rng=0)
    >>> logits, state = model([72, 101, 108])
    >>> logits.shape, logits.dtype
    ((256,), dtype('float32'))
    >>> model([108, 111], state=state, logits="all")[0].shape
    (2, 256)
    """

    def __init__(self, architecture: ModuleType, config: Config, weights: Any) -> None:
        self.config = config
        self.weights = weights
        self._architecture = architecture
        arrays = flatten(weights)
        self.fingerprint = fingerprint_of(config.architecture, arrays)
        self.nbytes = sum(array.nbytes for array in arrays.values())
        self.n_parameters = sum(array.size for array in arrays.values())
        self._dtype = np.dtype(np.float64 if arrays["emb.weight"].dtype == np.float64 else np.float32)
        self._layers = [architecture.prepare(block, config, self._vector) for block in weights.blocks]
        self._norms = [(self._norm(block.ln1), self._norm(block.ln2)) for block in weights.blocks]
        self._ln0, self._ln_out = self._norm(weights.blocks[0].ln0), self._norm(weights.ln_out)

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
        ShapeError
            If tokens are not whole numbers in [0, vocab), or a sequence is empty and logits is "last".
        StateError
            If the state belongs to another model or has another number of sequences.
        """
        if logits not in ("last", "all"):
            raise ShapeError(f"model: logits must be 'last' or 'all'; got {logits!r}")
        packed, offsets, restore = pack(tokens, self.config.vocab_size)
        layers = self._check_layers(hidden)
        if logits == "last" and (offsets[1:] == offsets[:-1]).any():
            raise ShapeError(
                "model: every sequence must have at least one token when logits is 'last'; got an empty one"
            )
        self._check_state(state, offsets.size - 1)
        streams = {layer: np.empty((packed.size, self.config.n_embd), self._dtype) for layer in layers}
        result = np.empty((packed.size, self.config.vocab_size), self._dtype) if logits == "all" else None
        last = np.empty((offsets.size - 1, self.config.n_embd), self._dtype)
        final = self.initial_state(offsets.size - 1) if state is None else state
        for where, window in windows(offsets):
            x, final = self._forward(packed[where], window, final, {n: (streams[n], where) for n in layers})
            ends = window[1:] > window[:-1]
            last[ends] = x[window[1:][ends] - 1]
            if result is not None:
                result[where] = self._head(x)
        if state is not None and final is state:
            final = state.copy()
        answer = restore(result) if result is not None else self._last(last, restore)
        if hidden is None:
            return answer, final
        return answer, final, {layer: restore(stream) for layer, stream in streams.items()}

    def initial_state(self, batch: int = 1) -> State:
        """Return the state at the start of `batch` texts: zeros, or what the checkpoint was tuned to start from."""
        names = {f"blocks.{n}.att.time_state": block.att for n, block in enumerate(self.weights.blocks)}
        states = {name: getattr(att, "time_state", None) for name, att in names.items()}
        tuned = {name: state for name, state in states.items() if state is not None}
        return self._starting_state(batch, tuned)

    def tuned_state(self, tensors: Mapping[str, Array], source: str = "tensors") -> State:
        """Return the initial state that ``blocks.n.att.time_state`` tensors (H, V, K) describe.

        Raises
        ------
        StateError
            If one is missing or has another shape.
        """
        c = self.config
        for n in range(c.n_layer):
            name, shape = f"blocks.{n}.att.time_state", (c.n_head, c.head_size, c.head_size)
            found = tensors[name].shape if name in tensors else "no such tensor"
            if c.n_head == 0 or found != shape:
                raise StateError(f"{source}: {name} must have shape {shape} for {c.architecture}; got {found}")
        if len(tensors) != c.n_layer:
            raise StateError(f"{source}: holds {len(tensors)} layers; the model has {c.n_layer}")
        return self._starting_state(1, tensors)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the weights as safetensors, under the original tensor names and in the dtypes they have."""
        metadata = {"architecture": self.config.architecture, "group_norm_eps": repr(self.config.group_norm_eps)}
        save_safetensors(path, flatten(self.weights), metadata)

    def _starting_state(self, batch: int, tuned: Mapping[str, Array]) -> State:
        c = self.config

        def zeros(*shape: int) -> Array:
            return np.zeros((batch, *shape), self._dtype)

        def wkv(n: int) -> Array | WKVState:
            if c.n_head == 0:
                return WKVState(zeros(c.n_att), zeros(c.n_att), np.full((batch, c.n_att), EMPTY_EXPONENT))
            start = zeros(c.n_head, c.head_size, c.head_size)
            if (name := f"blocks.{n}.att.time_state") in tuned:
                start += widen(tuned[name]).swapaxes(1, 2)
            return start

        return State(
            self.fingerprint, tuple(LayerState(zeros(c.n_embd), wkv(n), zeros(c.n_embd)) for n in range(c.n_layer))
        )

    def _forward(
        self, tokens: Array, offsets: Array, state: State, streams: Mapping[int, tuple[Array, Array]]
    ) -> tuple[Array, State]:
        """Run packed tokens through all layers; return the residual stream (M, C) and the new state."""
        x = layer_norm(embedding(self.weights.emb.weight, tokens), *self._ln0)
        layers, carry = [], None
        for n in range(self.config.n_layer):
            x, after, carry = self._block(n, x, state.layers[n], offsets, carry)
            layers.append(after)
            if n in streams:
                stream, where = streams[n]
                stream[where] = x
        return x, State(self.fingerprint, tuple(layers))

    def _block(self, n: int, x: Array, state: LayerState, offsets: Array, carry: Any) -> tuple[Array, LayerState, Any]:
        """Add the time mix and the channel mix of layer `n` to the residual stream; `carry` goes up the layers."""
        weights, layer, (ln1, ln2) = self.weights.blocks[n], self._layers[n], self._norms[n]
        z = layer_norm(x, *ln1)
        previous, time_shift = shift(z, state.time_shift, offsets)
        y, wkv, carry = self._architecture.time_mix(z, previous, weights.att, layer, state.wkv, offsets, carry)
        x = x + y
        z = layer_norm(x, *ln2)
        previous, channel_shift = shift(z, state.channel_shift, offsets)
        x = x + self._architecture.channel_mix(z, previous, weights.ffn, layer)
        return x, LayerState(time_shift, wkv, channel_shift), carry

    def _head(self, x: Array) -> Array:
        return linear_map(layer_norm(x, *self._ln_out), self.weights.head.weight)

    def _last(self, x: Array, restore: Restore) -> Array:
        logits = self._head(x)
        return logits[0] if restore.single else logits

    def _vector(self, array: Array) -> Array:
        """Return a parameter in the dtype of the activations."""
        return np.ascontiguousarray(widen(array), self._dtype)

    def _norm(self, norm: Norm) -> Vectors:
        return self._vector(norm.weight), self._vector(norm.bias)

    def _check_layers(self, hidden: Sequence[int] | None) -> list[int]:
        layers = list(hidden) if hidden is not None else []
        for layer in layers:
            if not 0 <= layer < self.config.n_layer:
                raise ShapeError(f"model: hidden must name layers 0 to {self.config.n_layer - 1}; got {layer}")
        return layers

    def _check_state(self, state: State | None, batch: int) -> None:
        if state is None:
            return
        if not isinstance(state, State):
            raise StateError(f"model: state must be a State that a model returned; got {type(state).__name__}")
        if state.fingerprint != self.fingerprint:
            raise StateError(f"model: state belongs to another model ({state.fingerprint}); this is {self.fingerprint}")
        if state.batch != batch:
            raise StateError(f"model: state must hold {batch} sequences, as tokens do; got {state.batch}")
        if state.layers[0].time_shift.dtype != self._dtype:
            raise StateError(f"model: state must be {self._dtype}, got {state.layers[0].time_shift.dtype}")
