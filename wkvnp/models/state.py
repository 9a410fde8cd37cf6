"""What a model carries from one call to the next.

A layer's state is a dataclass or a tuple of arrays with the batch axis first; the keys and values of an attention layer
are a `KVCache` in it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .._arguments import check_model, named
from .._tree import leaves, map_leaves
from ..checkpoints import open_checkpoint, save_safetensors
from ..errors import CheckpointError, StateError

if TYPE_CHECKING:
    from ..mechanisms.softmax_attention import KVCache
    from .language_model import Model

Array = npt.NDArray[Any]
_FORMAT = "wkvnp state 1"


@dataclass(frozen=True, eq=False)
class State:
    """The state of every layer for a batch of sequences, and the fingerprint of the model it belongs to.

    Examples
    --------
    >>> import numpy as np, wkvnp
    >>> model = wkvnp.random_model("rwkv7", n_layer=2, n_embd=64, vocab_size=256, rng=0)
    >>> state = model.initial_state(batch=3)
    >>> state.batch, state.layers[0].wkv.shape, state[1:].batch
    (3, (3, 1, 64, 64), 2)
    """

    fingerprint: str
    layers: tuple[Any, ...]

    @property
    def batch(self) -> int:
        """How many sequences the state holds."""
        return len(self._first)

    @property
    def dtype(self) -> np.dtype[Any]:
        """In what the model computes."""
        dtype: np.dtype[Any] = self._first.dtype
        return dtype

    @property
    def nbytes(self) -> int:
        """Bytes of all that the state holds."""
        return sum(leaf.nbytes for _, leaf in leaves(self.layers))

    @property
    def _first(self) -> Any:
        return next(leaves(self.layers))[1]

    def __getitem__(self, index: int | slice | Sequence[int]) -> State:
        """Return the state of some of the sequences, as a copy."""
        if isinstance(index, (int, np.integer)):
            if not -self.batch <= index < self.batch:
                raise StateError(f"state: sequence {index} is not one of the {self.batch}")
            index = [int(index)]
        chosen = index if isinstance(index, slice) else np.asarray(index)
        return State(self.fingerprint, map_leaves(lambda _, leaf: leaf[chosen].copy(), self.layers))

    def copy(self) -> State:
        """Return a state that shares no memory with this one."""
        return self[:]

    @staticmethod
    def join(states: Sequence[State]) -> State:
        """Return one state for the sequences of all `states`, in order.

        Raises
        ------
        StateError
            If the list is empty or the states belong to different models.
        """
        if not states:
            raise StateError("join: states must hold at least one state; got none")
        if len({state.fingerprint for state in states}) > 1:
            raise StateError("join: the states belong to different models")
        flat = [dict(leaves(state.layers)) for state in states]

        def join(name: str, leaf: Any) -> Any:
            parts = [part[name] for part in flat]
            return np.concatenate(parts) if isinstance(leaf, np.ndarray) else leaf.join(parts)

        return State(states[0].fingerprint, map_leaves(join, states[0].layers))

    def save(self, path: str | PathLike[str]) -> None:
        """Write the state to a safetensors file; the file is complete or absent, even after a failure.

        Raises
        ------
        StateError
            If `path` cannot be written, or something else than a regular file has this name.
        """
        try:
            save_safetensors(path, _arrays(self.layers), {"format": _FORMAT, "model": self.fingerprint})
        except CheckpointError as error:
            raise StateError(str(error)) from error

    @staticmethod
    @named
    def load(path: str | PathLike[str], model: Model) -> State:
        """Read a state that `State.save` wrote, or a state-tuned file of ``blocks.n.att.time_state`` tensors.

        Parameters
        ----------
        path : path
            The file.
        model : Model
            The model it belongs to.

        Returns
        -------
        State

        Raises
        ------
        StateError
            If the file holds no state, or that of another model.

        Examples
        --------
        >>> import tempfile, pathlib, wkvnp
        >>> model = wkvnp.random_model("rwkv6", n_layer=1, n_embd=64, vocab_size=256, rng=0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder) / "state.safetensors"
        ...     model([1, 2, 3])[1].save(path)
        ...     wkvnp.State.load(path, model).batch
        1
        """
        check_model("State.load", model, "the order is State.load(path, model)")
        try:
            container = open_checkpoint(path)
            tensors = {name: tensor.read() for name, tensor in container.tensors.items()}
        except CheckpointError as error:
            raise StateError(str(error)) from error
        if tensors and all(name.endswith(".att.time_state") for name in tensors):
            return model.tuned_state(tensors, str(path))
        if container.metadata.get("format") != _FORMAT:
            raise StateError(f"{path}: not a state of wkvnp: it has no 'format' entry that says {_FORMAT!r}")
        if container.metadata.get("model") != model.fingerprint:
            raise StateError(f"{path}: the state belongs to another model ({container.metadata.get('model')})")
        empty = model.initial_state(1)
        expected = _arrays(empty.layers)
        if tensors.keys() != expected.keys():
            odd = sorted(tensors.keys() ^ expected.keys())
            raise StateError(f"{path}: the state must hold {len(expected)} tensors; {odd[0]} is missing or left over")
        for name, tensor in tensors.items():
            if tensor.ndim != expected[name].ndim:
                raise StateError(f"{path}: {name} must have {expected[name].ndim} axes; got shape {tensor.shape}")
        batch = len(next(iter(tensors.values())))

        def restored(name: str, leaf: Any) -> Any:
            if isinstance(leaf, np.ndarray):
                return _fitting(f"{path}: {name}", tensors[name], (batch, *leaf.shape[1:]), leaf.dtype).copy()
            return _restored_past(f"{path}: {name}", {part: tensors[f"{name}.{part}"] for part in _PARTS}, leaf, batch)

        return State(model.fingerprint, map_leaves(restored, empty.layers, "layers"))


_PARTS = ("k", "v", "lengths")


def _arrays(layers: tuple[Any, ...]) -> dict[str, Array]:
    """Return all that the layers' states hold as plain arrays by name."""
    arrays: dict[str, Array] = {}
    for name, leaf in leaves(layers, "layers"):
        parts = {name: leaf} if isinstance(leaf, np.ndarray) else leaf.parts()._asdict()
        arrays |= parts if isinstance(leaf, np.ndarray) else {f"{name}.{part}": array for part, array in parts.items()}
    return arrays


def _fitting(what: str, array: Array, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    if array.shape != shape or array.dtype != dtype:
        raise StateError(f"{what} must be {dtype} of shape {shape}; got {array.dtype} {array.shape}")
    return array


def _restored_past(what: str, parts: dict[str, Array], empty: KVCache, batch: int) -> KVCache:
    """Return the keys and values of `batch` sequences."""
    lengths = _fitting(f"{what}.lengths", parts["lengths"], (batch,), np.dtype(np.int64))
    longest = int(lengths.max(initial=0))
    if (lengths < 0).any():
        raise StateError(f"{what}.lengths must be at least 0; got {lengths.tolist()}")
    for name, like in (("k", empty.parts().k), ("v", empty.parts().v)):
        _fitting(f"{what}.{name}", parts[name], (batch, longest, *like.shape[2:]), like.dtype)
    return type(empty).of(**parts)


def fingerprint_of(metadata: dict[str, str], arrays: dict[str, Array]) -> str:
    """Return a short text that differs between models: a hash of names, shapes and some of the numbers as stored."""
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].shape}\n".encode())
    names = list(arrays)
    for name in names[:: max(1, len(names) // 7)] + names[-3:]:
        array = arrays[name]
        rows = array if array.ndim == 1 else array[:: max(1, len(array) // 7)]
        digest.update(np.ascontiguousarray(rows).tobytes())
    return f"{metadata['architecture']} {digest.hexdigest()[:16]}"
