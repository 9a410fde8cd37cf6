"""What a checkpoint holds, from names and shapes alone: no weight is read."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..checkpoints import Container, open_checkpoint
from ..checkpoints.opening import source_of

if TYPE_CHECKING:
    from ..models.network import Config


@dataclass(frozen=True)
class Header:
    """A model's configuration, the file that it was read from, and what was asked for: a file or a folder."""

    container: Container
    config: Config
    source: Path
    weights: Any

    @property
    def n_parameters(self) -> int:
        """How many numbers the file holds."""
        return sum(math.prod(tensor.shape) for tensor in self.container.tensors.values())

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors as the model keeps them in memory: as stored, or decoded from quantised blocks."""
        return sum(tensor.nbytes for tensor in self.container.tensors.values())

    @property
    def dtypes(self) -> dict[str, dict[str, int]]:
        """For every dtype the number of tensors and their bytes."""
        found: dict[str, dict[str, int]] = {}
        for tensor in self.container.tensors.values():
            kind = f"{tensor.dtype} from {tensor.stored}" if tensor.stored else tensor.dtype
            entry = found.setdefault(kind, {"tensors": 0, "bytes": 0})
            entry["tensors"] += 1
            entry["bytes"] += tensor.nbytes
        return found

    @property
    def decoding(self) -> str:
        """How the model decodes: as a program, or why layer by layer."""
        from ..models.decoder import decoding_of

        return decoding_of(self.weights, self.config)

    @property
    def state_bytes(self) -> int:
        """Bytes of the state of one sequence that do not grow."""
        return self.config.state_bytes


def read_header(path: str, ignore: Collection[str] = ()) -> Header:
    """Recognise the model in a checkpoint.

    Raises
    ------
    CheckpointError
        As `wkvnp.load` would, except for what only the numbers themselves can show.
    """
    from ..models import recognise

    container = open_checkpoint(path)
    weights, config = recognise(container, ignore=ignore)
    return Header(container, config, source_of(path, container), weights)
