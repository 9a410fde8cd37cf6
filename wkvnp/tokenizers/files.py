"""The files of vocabularies: regular, of bounded size, read without a byte order mark."""

from __future__ import annotations

import os
from pathlib import Path

from ..checkpoints.mapped_file import Buffer, map_file, without_mark
from ..errors import CheckpointError, TokenizerError

# The largest published tokenizer.json has 33 MB.
LARGEST_FILE = 1 << 26


def open_vocabulary(path: str | os.PathLike[str]) -> Buffer:
    """Return the bytes of a file that may be a vocabulary, or hold one; large ones are mapped.

    Raises
    ------
    TokenizerError
        There is no such file, or it is no regular file.
    """
    try:
        return map_file(Path(path))
    except CheckpointError as error:
        raise TokenizerError(f"load_tokenizer: {error}") from error


def whole(buffer: Buffer, path: str) -> bytes:
    """Return the text of a vocabulary file.

    Raises
    ------
    TokenizerError
        It is too large.
    """
    if len(buffer) > LARGEST_FILE:
        raise TokenizerError(f"{path}: {len(buffer)} bytes are too many for a vocabulary (limit {LARGEST_FILE})")
    return without_mark(bytes(buffer[:]))
