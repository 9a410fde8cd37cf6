"""Open a checkpoint file by its first bytes; its encoding is known here, its model is not.

Nothing in a file is ever executed. Any bytes give either a `Container` or one `CheckpointError`, in time and memory
proportional to the file.
"""

from __future__ import annotations

from .opening import open_checkpoint
from .safetensors import save_safetensors
from .tensors import Container, LazyTensor

__all__ = ["Container", "LazyTensor", "open_checkpoint", "save_safetensors"]
