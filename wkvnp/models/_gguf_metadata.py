"""The metadata of a GGUF file that describe its model: read as settings, and compared with the tensors."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..checkpoints import Container, LazyTensor
from ..checkpoints.tensors import quoted
from ..errors import CheckpointError
from .settings import Settings


def architecture_of(container: Container) -> str:
    """Return what a GGUF file says its architecture is.

    Raises
    ------
    CheckpointError
        If it says nothing, or is no model but an adapter or another addition to one.
    """
    kind = container.extras.get("general.type", "model")
    if kind != "model":
        raise CheckpointError(f"{container.path}: general.type must be 'model'; got {quoted(kind)}")
    architecture = container.extras.get("general.architecture")
    if not isinstance(architecture, str):
        found = "no such entry" if architecture is None else quoted(architecture)
        raise CheckpointError(f"{container.path}: general.architecture must be the name of one; got {found}")
    return architecture


def settings_of(container: Container, architecture: str) -> Settings:
    """Return the entries about an architecture, without its name in front.

    Single-precision numbers become the shortest decimal that rounds to them, which is what was stored: 1e-05.
    """
    prefix = architecture + "."
    fields = {
        name.removeprefix(prefix): _decimal(value) if isinstance(value, float) else value
        for name, value in container.extras.items()
        if name.startswith(prefix)
    }
    return Settings(fields, f"{container.path}: metadata {prefix}*", prefix)


def _decimal(value: float) -> float:
    with np.errstate(over="ignore"):
        single = np.float32(value)
    return float(str(single)) if single == value else value


def check_layers(container: Container, settings: Settings) -> int:
    """Return the number of layers, which the metadata and the tensors must agree on.

    Raises
    ------
    CheckpointError
        If they do not.
    """
    stated = settings.integer("block_count")
    found = {name.split(".")[1] for name in container.tensors if name.startswith("blk.")}
    if len(found) != stated or any(str(number) not in found for number in range(stated)):
        raise settings.fault("block_count", f"the number of layers, of which the file has {len(found)}")
    return stated


def check_sizes(
    settings: Settings, tensors: Mapping[str, LazyTensor], sizes: Mapping[str, tuple[str, int]]
) -> None:  # fmt: skip
    """Compare entries that state a size with the tensor and the axis that have it; either may be absent.

    Raises
    ------
    CheckpointError
        If they differ.
    """
    for name, (tensor, axis) in sizes.items():
        if name not in settings:
            continue
        stated = settings.integer(name)
        shape = tensors[tensor].shape if tensor in tensors else ()
        if -len(shape) <= axis < len(shape) and shape[axis] != stated:
            raise settings.fault(name, f"{shape[axis]}, for {tensor} has the shape {shape}")
