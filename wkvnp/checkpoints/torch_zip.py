"""Read torch checkpoints (``.pth``, ``.pt``): a zip archive of storages and a pickle that says how tensors lie in them.

Only the zip form that torch writes since version 1.6 is read. Storages are used where they lie in the file.
"""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from .mapped_file import Buffer
from .pickle_reader import PICKLE_LIMIT, PickleReader, StoredTensor
from .tensors import DTYPES, Container, LazyTensor, quoted, shape_fault, strided_view
from .wrappers import KEYS
from .zip_directory import Entry, locate, read_directory

# Tensors may share a storage (tied weights) or repeat it (strides of 0); together they may not grow beyond this many
# times the file.
_EXPANSION_LIMIT = 16


def read_torch_zip(path: Path, buffer: Buffer) -> Container:
    """Read what a torch zip checkpoint says about its tensors, and check it; the numbers stay in the file.

    Raises
    ------
    CheckpointError
        If the file is damaged, is another kind of zip archive, or its pickle needs more than weights do.
    """
    entries, limit = read_directory(path, buffer)
    folder = _find_folder(path, entries)
    places = locate(path, buffer, entries, limit)
    if folder + b"byteorder" in places:
        order = _entry_bytes(buffer, places[folder + b"byteorder"], 16)
        if order != b"little":
            raise CheckpointError(f"{path}: its byte order is {quoted(order)}; only little-endian files are readable")
    start, size = places[folder + b"data.pkl"]
    if size > PICKLE_LIMIT:
        raise CheckpointError(f"{path}: its pickle has {size} bytes; at most {PICKLE_LIMIT} are read")
    top = PickleReader(bytes(buffer[start : start + size]), str(path)).read()
    weights, extras = _split(path, top)
    tensors = {}
    total = 0
    for name, tensor in weights.items():
        tensors[name] = _place(path, name, tensor, buffer, places.get(folder + b"data/" + tensor.storage.key.encode()))
        total += tensors[name].nbytes
    if total > _EXPANSION_LIMIT * len(buffer):
        raise CheckpointError(f"{path}: its tensors overlap so much that {len(buffer)} bytes would become {total}")
    return Container(path, "torch-zip", tensors, extras=extras)


def _find_folder(path: Path, entries: list[Entry]) -> bytes:
    """Return the folder of the archive that holds ``data.pkl``, or say what kind of zip file this is instead."""
    names = {entry.name for entry in entries}
    folders = [name[: -len(b"data.pkl")] for name in names if name.endswith(b"/data.pkl") and name.count(b"/") == 1]
    if any(name.endswith(b".npy") for name in names) and not folders:
        raise CheckpointError(f"{path}: this is a NumPy .npz archive, not a checkpoint; save it as safetensors instead")
    if any(name.endswith(b"/constants.pkl") or b"/code/" in name for name in names):
        raise CheckpointError(
            f"{path}: this is a TorchScript program, not a file of weights; "
            "load it with torch.jit.load and save its state_dict with torch.save"
        )
    if len(folders) != 1:
        found = "no data.pkl" if not folders else f"{len(folders)} files data.pkl"
        raise CheckpointError(f"{path}: this zip archive has {found}; torch.save writes exactly one")
    return folders[0]


def _entry_bytes(buffer: Buffer, place: tuple[int, int], limit: int) -> bytes:
    return bytes(buffer[place[0] : place[0] + min(place[1], limit)])


def _split(path: Path, top: Any) -> tuple[dict[str, StoredTensor], dict[str, object]]:
    """Part the top-level dict, or the dict of weights in it, into tensors and plain values."""
    if not isinstance(top, dict):
        raise CheckpointError(f"{path}: a checkpoint must hold a dict of tensors; this file holds {_kind(top)}")
    weights, extras = _tensors_of(top), _plain_values_of(top)
    inside = {key: top[key] for key in KEYS if isinstance(top.get(key), dict) and _tensors_of(top[key])}
    if len(inside) > 1:
        names = " and ".join(map(quoted, inside))
        raise CheckpointError(f"{path}: there are weights under {names}; save the ones to be read alone")
    for inner in inside.values():
        # Beside weights in a dict of their own, tensors are those of an optimizer or of a random generator.
        weights = _tensors_of(inner)
        extras |= _plain_values_of(inner)
    if not weights:
        keys = ", ".join(quoted(key, 40) for key in list(top)[:5])
        raise CheckpointError(f"{path}: there are no tensors in it; its top level has the keys: {keys or 'none'}")
    return weights, extras


def _tensors_of(values: dict[str, Any]) -> dict[str, StoredTensor]:
    return {key: value for key, value in values.items() if isinstance(value, StoredTensor)}


def _plain_values_of(values: dict[str, Any]) -> dict[str, object]:
    return {key: value for key, value in values.items() if value is None or type(value) in (str, int, float, bool)}


def _kind(value: Any) -> str:
    return "a single tensor" if isinstance(value, StoredTensor) else f"a {type(value).__name__}"


def _place(
    path: Path, name: str, tensor: StoredTensor, buffer: Buffer, place: tuple[int, int] | None
) -> LazyTensor:  # fmt: skip
    """Check that a tensor lies inside its storage, and the storage inside its entry, before anything is allocated."""
    storage, where = tensor.storage, f"{path}: tensor {quoted(name)}"
    itemsize = DTYPES[storage.dtype].itemsize
    if place is None:
        raise CheckpointError(f"{where} needs the storage {quoted(storage.key)}, which is not in the file")
    start, size = place
    if storage.count * itemsize > size:
        raise CheckpointError(f"{where} needs a storage of {storage.count * itemsize} bytes; the file has {size}")
    if fault := shape_fault(tensor.shape, itemsize):
        raise CheckpointError(f"{where} {fault}")
    if tensor.offset < 0 or min(tensor.strides, default=0) < 0:
        raise CheckpointError(f"{where} has a negative offset or stride")
    # The stride of an axis of size 1 means nothing and may be any number.
    strides = tuple(
        stride if length > 1 else 0 for length, stride in zip(tensor.shape, tensor.strides, strict=True)
    )  # fmt: skip
    last = tensor.offset + sum((length - 1) * stride for length, stride in zip(tensor.shape, strides, strict=True))
    if math.prod(tensor.shape) and last >= storage.count:
        raise CheckpointError(f"{where} reaches beyond the {storage.count} numbers of its storage")
    bytewise = tuple(stride * itemsize for stride in strides)
    at = start + tensor.offset * itemsize
    return LazyTensor(
        name, tensor.shape, storage.dtype, partial(strided_view, buffer, storage.dtype, tensor.shape, at, bytewise)
    )
