"""What every architecture hands to the skeleton: its configuration, and the layers that its weights make.

Letters: M tokens of B packed sequences, C channels, V vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt

from .._dtypes import widen
from ..checkpoints.naming import Matrix
from ..primitives.linear_map import embedding, linear_map
from ..primitives.norm import layer_norm, rms_norm

if TYPE_CHECKING:
    from ..decoding import Place, Program

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
    """One residual layer of a model, with its weights.

    A layer that also has the methods of `Planned` decodes as a list of steps.
    """

    def start(self, batch: int) -> Any:
        """Return the layer's state at the start of `batch` texts."""

    def __call__(self, x: Array, state: Any, offsets: Array, carry: Any) -> tuple[Array, Any, Any]:
        """Return the residual stream x (M, C) after the layer, its state, and what goes up the layers beside x."""


@runtime_checkable
class Planned(Protocol):
    """A layer that can say what it does with one token of every sequence."""

    def plan(self, program: Program, x: Place, carry: Any) -> Any:
        """Add the layer's steps, which change x (M, C), to a program; return what goes up the layers beside x.

        Its first slots are the arrays of the state before, then those of the state after.
        """


@runtime_checkable
class Fixed(Planned, Protocol):
    """One whose state is a few arrays that do not grow."""

    def arrays(self, state: Any) -> list[Array]:
        """Return the arrays of a state, the batch axis first, in the order of the slots."""

    def state_of(self, arrays: list[Array]) -> Any:
        """Return the state of such arrays."""


@runtime_checkable
class Growing(Planned, Protocol):
    """One whose state grows in place."""

    def advance(self, state: Any, offsets: Array) -> tuple[Any, list[Array]]:
        """Return the state after one more token of each sequence, and the arrays for the slots of `plan`.

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

    def __call__(self, x: Array) -> Array:
        """Return the logits (M, V) of x (M, C)."""
        if self.shift is None:
            return linear_map(rms_norm(x, self.scale, self.eps), self.weight)
        return linear_map(layer_norm(x, self.scale, self.shift, self.eps), self.weight)


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
