"""What a model carries from one call to the next."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .._tree import leaves, map_leaves
from ..checkpoints import open_checkpoint, save_safetensors
from ..errors import CheckpointError, StateError
from ..mechanisms.rwkv4 import WKVState

if TYPE_CHECKING:
    from .language_model import Model

Array = npt.NDArray[Any]
_FORMAT = "wkvnp state 1"


@dataclass(frozen=True, eq=False)
class LayerState:
    """The state of one layer; the batch axis comes first.

    Attributes
    ----------
    time_shift, channel_shift : ndarray, shape (B, C)
        The last output of the layer norm before the time mix and before the channel mix.
    wkv : ndarray, shape (B, H, K, V), or WKVState
        The state of the recurrence, key axis first; three vectors (B, C) in RWKV-4.
    """

    time_shift: Array
    wkv: Array | WKVState
    channel_shift: Array


@dataclass(frozen=True, eq=False)
class State:
    """The state of every layer for a batch of sequences, and the fingerprint of the model it belongs to.

    Examples
    --------
    >>> import numpy as np, wkvnp
    >>> model = wkvnp.init("rwkv7", n_layer=2, n_embd=64, vocab_size=256, rng=0)
    >>> state = model.initial_state(batch=3)
    >>> state.batch, state.layers[0].wkv.shape, state[1:].batch
    (3, (3, 1, 64, 64), 2)
    """

    fingerprint: str
    layers: tuple[LayerState, ...]

    @property
    def batch(self) -> int:
        """How many sequences the state holds."""
        return len(self.layers[0].time_shift)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(array.nbytes for _, array in leaves(self.layers))

    def __getitem__(self, index: int | slice | Sequence[int]) -> State:
        """Return the state of some of the sequences, as a copy."""
        if isinstance(index, (int, np.integer)):
            if not -self.batch <= index < self.batch:
                raise StateError(f"state: sequence {index} is not one of the {self.batch}")
            index = [int(index)]
        chosen = index if isinstance(index, slice) else np.asarray(index)
        return State(self.fingerprint, map_leaves(lambda _, array: array[chosen].copy(), self.layers))

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
        joined = {name: np.concatenate([part[name] for part in flat]) for name in flat[0]}
        return State(states[0].fingerprint, map_leaves(lambda name, _: joined[name], states[0].layers))

    def save(self, path: str | PathLike[str]) -> None:
        """Write the state to a safetensors file; the file is complete or absent, whatever happens."""
        metadata = {"format": _FORMAT, "model": self.fingerprint}
        save_safetensors(path, {f"layers.{name}": array for name, array in leaves(self.layers)}, metadata)


def load_state(path: str | PathLike[str], model: Model) -> State:
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
    >>> model = wkvnp.init("rwkv6", n_layer=1, n_embd=64, vocab_size=256, rng=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "state.safetensors"
    ...     model([1, 2, 3])[1].save(path)
    ...     wkvnp.load_state(path, model).batch
    1
    """
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
    expected = dict(leaves(empty.layers, "layers"))
    if tensors.keys() != expected.keys():
        odd = sorted(tensors.keys() ^ expected.keys())
        raise StateError(f"{path}: the state must hold {len(expected)} tensors; {odd[0]} is missing or left over")
    batch = len(next(iter(tensors.values())))
    for name, array in tensors.items():
        shape = (batch, *expected[name].shape[1:])
        if array.shape != shape or array.dtype != expected[name].dtype:
            raise StateError(
                f"{path}: {name} must be {expected[name].dtype} of shape {shape}; got {array.dtype} {array.shape}"
            )
    return State(model.fingerprint, map_leaves(lambda name, _: tensors[name].copy(), empty.layers, "layers"))


def fingerprint_of(architecture: str, arrays: dict[str, Array]) -> str:
    """Return a short text that differs between models: a hash of names, shapes and some of the numbers as stored."""
    digest = hashlib.sha256(architecture.encode())
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].shape}\n".encode())
    for name in ("ln_out.weight", "blocks.0.ln1.weight", "head.weight"):
        array = arrays[name]
        rows = array if array.ndim == 1 else array[:: max(1, len(array) // 7)]
        digest.update(np.ascontiguousarray(rows).tobytes())
    return f"{architecture} {digest.hexdigest()[:16]}"
