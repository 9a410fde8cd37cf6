"""The vocabulary that belongs to a model: the one in its GGUF file, else a file in its folder."""

from __future__ import annotations

import os
from pathlib import Path

from ..checkpoints import Container, open_checkpoint
from ..errors import CheckpointError, TokenizerError
from . import Tokenizer, load_tokenizer
from .folder import vocabulary_beside
from .gguf import MODEL, gguf_tokenizer


def vocabulary_of(model: Path) -> Tokenizer | None:
    """Return the vocabulary of the model in a file or a folder, or None if it has none of its own.

    Raises
    ------
    TokenizerError
        It has one that cannot be read.
    """
    container = _gguf(model)
    if container is not None and MODEL in container.extras:
        return gguf_tokenizer(container.extras, str(container.path))
    found = vocabulary_beside(model)
    return None if found is None else load_tokenizer(found)


def vocabulary_inside(path: Path) -> Tokenizer:
    """Return the vocabulary in a GGUF file.

    Raises
    ------
    TokenizerError
        It has none, or is damaged.
    """
    container = _gguf(path)
    if container is None or MODEL not in container.extras:
        raise TokenizerError(f"load_tokenizer: {str(path)!r} has no vocabulary inside (no {MODEL})")
    return gguf_tokenizer(container.extras, str(container.path))


def _gguf(model: Path) -> Container | None:
    """Return the GGUF file that a path names, or the one in the folder that it names, if it is still there."""
    if not os.path.exists(model):
        return None
    if os.path.isdir(model) and not any(name.endswith(".gguf") for name in os.listdir(model)):
        return None
    if os.path.isfile(model):
        with open(model, "rb") as file:
            if file.read(4) != b"GGUF":
                return None
    try:
        container = open_checkpoint(model)
    except CheckpointError as error:
        if os.path.isdir(model):
            return None
        raise TokenizerError(f"load_tokenizer: {error}") from error
    return container if container.format == "gguf" else None
