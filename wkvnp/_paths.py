"""The names of files and folders as people give them: the one place where ``~`` becomes a home folder."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from typing import Any

from .errors import CheckpointError, WkvnpError

_FILES = re.compile(r".*\.(?:pth?|safetensors|st|gguf|bin|json|txt|state)", re.IGNORECASE)


def local_path(given: Any, error: type[WkvnpError] = CheckpointError, name: str = "path") -> Path:
    """Return the path that a person named, with ``~`` and ``~user`` replaced by the home folder.

    Parameters
    ----------
    given : str or path
        What was given; the file need not exist.
    error : class, optional
        Of what is raised.
    name : str, optional
        What messages call it.

    Raises
    ------
    WkvnpError
        If no file can have such a name: it is empty, too long, not text, or has a NUL.
    """
    try:
        text = os.path.expanduser(os.fsdecode(given))
    except TypeError:
        raise error(f"{name} must be the name of a file or folder; got {given!r:.100}") from None
    if not text:
        raise error(f"{name} must be the name of a file or folder; got an empty one")
    try:
        os.stat(text)
    except OSError as fault:
        if fault.errno == errno.ENAMETOOLONG:
            raise error(
                f"{name} is longer than the name of a file can be; got {len(text)} letters: {text:.40}..."
            ) from None
    except ValueError:  # NUL, or half of a character
        raise error(f"{name} must be the name of a file, without NUL and half characters; got {text!r:.100}") from None
    return Path(text)


def hub_hint(path: Path) -> str:
    """Return what to say more about a path that does not exist if it looks like the name of a model on a hub."""
    owner, *rest = path.parts
    if len(rest) != 1 or path.is_absolute() or _FILES.fullmatch(rest[0]) or os.path.exists(owner):
        return ""
    return (
        "; models are not loaded by their name on a hub: download the files, as with "
        f"`hf download {owner}/{rest[0]} --local-dir FOLDER`, and give the folder"
    )
