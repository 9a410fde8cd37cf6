"""What every architecture hands to the skeleton: its configuration, and the layers that its weights make.

Letters: M tokens of B packed sequences, C channels, V vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt

from .._dtypes import widen
from ..checkpoints.naming import Matrix
from ..operations import Operations, Prompts, Value
from ..primitives.linear_map import embedding, linear_map
from ..primitives.norm import layer_norm

Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Config(ABC):
    """Sizes that every model has.

    Attributes
    ----------
    architecture : str
        One of `wkvnp.models.ARCHITECTURES`.
    n_layer, n_embd, vocab_size : int
        Layers, width of the residual stream, and tokens.
    dtype : str
        In which the matrices are kept.
    """

    architecture: str
    n_layer: int
    n_embd: int
    vocab_size: int
    dtype: str = "float32"

    def kept_in(self, dtype: str) -> Self:
        """Return the configuration of the same model with its matrices in another dtype."""
        return replace(self, dtype=dtype)

    @property
    @abstractmethod
    def state_bytes(self) -> int:
        """Bytes of the state of one sequence that do not grow."""

    @property
    def state_bytes_per_token(self) -> int:
        """Bytes that every token adds to the state, up to the window if there is one."""
        return 0

    @abstractmethod
    def metadata(self) -> dict[str, str]:
        """Return what a safetensors file must say besides the tensors, so that it can be loaded."""


class Layer(Protocol):
    """One residual layer of a model, with its weights; any executor runs it."""

    def start(self, batch: int) -> Any:
        """Return the layer's state at the start of `batch` texts: a dataclass of arrays."""

    def __call__(self, o: Operations, x: Value, v_first: Value) -> tuple[Value, Value]:
        """Return the residual stream after the layer, and `v_first`: the first layer's values in RWKV-7, else None."""


@runtime_checkable
class Growing(Protocol):
    """A layer whose state grows with the text."""

    def advance(self, state: Any, offsets: Array) -> tuple[Any, list[Array]]:
        """Return the state with room for one more token of each sequence, and the arrays for `Tokens.grown`.

        `offsets` (B + 1,), the same array for all layers, are those of sequences of one token.
        """


@dataclass(frozen=True, eq=False)
class Embedding:
    """The way from tokens (M,) to the residual stream (M, C): rows of a table, and in RWKV a layer norm.

    Attributes
    ----------
    table : ndarray (V, C)
        As stored.
    dtype : dtype
        Of the residual stream.
    norm : tuple or None
        Scale (C,), shift (C,) and eps.
    """

    table: Array
    dtype: np.dtype[Any]
    norm: tuple[Array, Array, float] | None = None

    def __call__(self, tokens: Array) -> Array:
        """Return the residual stream (M, C)."""
        x = np.asarray(embedding(self.table, tokens), self.dtype)
        return x if self.norm is None else layer_norm(x, *self.norm)


@dataclass(frozen=True, eq=False)
class Head:
    """The way from the residual stream (M, C) to logits (M, V): the last norm, and a matrix.

    Attributes
    ----------
    weight : ndarray (V, C)
        As stored.
    scale : ndarray (C,)
    shift : ndarray (C,) or None
        None: an RMS norm, else a layer norm.
    eps : float
    """

    weight: Array
    scale: Array
    shift: Array | None
    eps: float

    def normalized(self, o: Operations, x: Value) -> Value:
        """Return the last norm of x."""
        if self.shift is None:
            return o.rms_norm("z", x, self.scale, self.eps)
        return o.layer_norm("z", x, self.scale, self.shift, self.eps)

    def __call__(self, x: Array) -> Array:
        """Return the logits (M, V) of x (M, C)."""
        return linear_map(self.normalized(Prompts(None, np.zeros(1, np.int64)), x), self.weight)


@dataclass(frozen=True, eq=False)
class Network:
    """A model's way from tokens (M,) to the residual stream (M, C), through its layers, and to logits (M, V)."""

    embed: Embedding
    layers: tuple[Layer, ...]
    head: Head


def rms_network(embedded: Matrix, layers: tuple[Layer, ...], norm: Array, eps: float, head: Matrix | None) -> Network:
    """Return a network that ends in an RMS norm and a head; without one, the embedding is the head."""
    table = embedded.weight
    return Network(
        embed=Embedding(table, norm.dtype),
        layers=layers,
        head=Head(table if head is None else head.weight, norm, None, eps),
    )


def vector(array: Array, dtype: np.dtype[Any]) -> Array:
    """Return a small parameter in the dtype of the activations."""
    return np.ascontiguousarray(widen(array), dtype)


def activations_dtype(arrays: Mapping[str, Array]) -> np.dtype[Any]:
    """Return in what a model with these weights computes: float64 if they all are, else float32."""
    double = all(array.dtype == np.float64 for array in arrays.values())
    return np.dtype(np.float64 if double else np.float32)
