"""Folders as Hugging Face has them: ``config.json`` beside ``model.safetensors``."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from wkvnp.checkpoints import open_checkpoint, save_safetensors


def tensors_in(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a checkpoint by name."""
    return {name: tensor.read() for name, tensor in open_checkpoint(path).tensors.items()}


def fields_in(folder: Path) -> dict[str, Any]:
    """Return the fields of the configuration in a folder."""
    return dict(json.loads((folder / "config.json").read_text()))


def write_folder(folder: Path, arrays: dict[str, np.ndarray], fields: dict[str, Any]) -> Path:
    """Write both files, and return the folder."""
    folder.mkdir(exist_ok=True)
    save_safetensors(folder / "model.safetensors", arrays, {})
    (folder / "config.json").write_text(json.dumps(fields))
    return folder
