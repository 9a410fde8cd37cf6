"""A checkpoint in several files beside each other, and the index that says which tensor is in which."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..errors import CheckpointError
from .mapped_file import Buffer, map_file
from .strict_json import parse_object
from .tensors import Container, LazyTensor, quoted


def read_sharded(path: Path, text: bytes, read: Callable[[Path, Buffer], Container]) -> Container:
    """Read an index, and with `read` what each shard says about its tensors.

    A tensor that the index lists and its shard has not is absent; if a weight needs it, it is missing.

    Raises
    ------
    CheckpointError
        If a shard lies elsewhere than beside the index, or has a tensor that the index does not list.
    """
    index = parse_object(text, f"{path}: index of shards")
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
        raise CheckpointError(f"{path}: an index of shards must have a weight_map of tensor name -> file name")
    tensors: dict[str, LazyTensor] = {}
    metadata: dict[str, str] = {}
    files, formats = [], set()
    for shard in dict.fromkeys(weight_map.values()):
        if shard in ("", ".", "..") or set(shard) & set("/\\:\0"):
            raise CheckpointError(f"{path}: the shard name {quoted(shard)} must be a plain file name beside the index")
        file = path.parent / shard
        buffer = map_file(file)
        files.append((file, buffer))
        found = read(file, buffer)
        formats.add(found.format)
        for name in found.tensors:
            if weight_map.get(name) != shard:
                raise CheckpointError(
                    f"{path}: the index and {shard!r} disagree about tensor {quoted(name)}, which only the shard has"
                )
        tensors.update(found.tensors)
        metadata.update(found.metadata)
    if len(formats) > 1:
        raise CheckpointError(f"{path}: all shards must be of one format; got {', '.join(sorted(formats))}")
    ordered = {name: tensors[name] for name in weight_map if name in tensors}
    return Container(path, formats.pop() if formats else "safetensors", ordered, metadata, files=tuple(files))
