"""The weights of a model as numbers that NumPy computes with, for every dtype that the model keeps them in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy.typing as npt

from .._dtypes import dtype_name, widen
from .._quantised import Quantised
from ..checkpoints.naming import flatten

Array = npt.NDArray[Any]


class Weights(Mapping[str, Array]):
    """The tensors of a model, or of a part of it, by attribute and by dotted name; read-only.

    float32, float64 and float16 are the model's own arrays. bfloat16 and quantised tensors become float32 each time
    they are asked for, and are not kept, so that a model of 16 bits does not grow to twice its size.

    Parameters
    ----------
    stored : dataclass
        The tensors as the model keeps them.

    Examples
    --------
    >>> import wkvnp
    >>> weights = wkvnp.random_model("rwkv7", n_layer=2, n_embd=64, vocab_size=256, rng=0, dtype="bfloat16").weights
    >>> weights.blocks[1].att.receptance.weight.dtype, weights["blocks.1.att.receptance.weight"].shape
    (dtype('float32'), (64, 64))
    >>> sorted(weights.blocks[0].ffn)
    ['key.weight', 'value.weight', 'x_k']
    """

    def __init__(self, stored: Any) -> None:
        self._stored = stored

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self._stored.__dataclass_fields__:
            parts = ", ".join(self._stored.__dataclass_fields__) if not name.startswith("_") else "no such names"
            raise AttributeError(f"weights: {name!r} must be one of {parts}")
        return _shown(getattr(self._stored, name))

    def __getitem__(self, name: str) -> Array:
        return numbers(flatten(self._stored)[name])

    def __iter__(self) -> Iterator[str]:
        return iter(flatten(self._stored))

    def __len__(self) -> int:
        return len(flatten(self._stored))

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._stored.__dataclass_fields__})

    def __repr__(self) -> str:
        return f"<weights: {len(self)} tensors>"


def numbers(tensor: Array | Quantised) -> Array:
    """Return a tensor as an array of NumPy's own floating dtypes: itself, or its values in float32, read-only."""
    if isinstance(tensor, Quantised):
        wide = tensor.widened()
    elif dtype_name(tensor.dtype) == "bfloat16":
        wide = widen(tensor)
    else:
        return tensor
    wide.flags.writeable = False
    return wide


def _shown(part: Any) -> Any:
    if part is None:
        return None
    if isinstance(part, tuple):
        return tuple(map(_shown, part))
    return Weights(part) if hasattr(part, "__dataclass_fields__") else numbers(part)
