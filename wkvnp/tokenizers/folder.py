"""What a folder of a model has beside its weights: a vocabulary, the ids that end a text, and a chat template."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import TokenizerError
from .vocabulary import WORLD_FILE

TOKENIZER = "tokenizer.json"
_LARGEST_FILE = 1 << 24
_SURROGATE = re.compile("[\ud800-\udfff]")  # half a character, which is no text


def vocabulary_beside(model: Path) -> Path | None:
    """Return the vocabulary file in the folder of a model, or None.

    Parameters
    ----------
    model : path
        The folder, or a file in it; a file's neighbours count only if one of them is a ``config.json``.
    """
    return _first(model, TOKENIZER, WORLD_FILE)


def _first(model: Path, *names: str) -> Path | None:
    """Return the first of some files that is in the folder of a model."""
    folder = model if model.is_dir() else model.parent
    if folder is not model and not (folder / "config.json").is_file():
        return None
    return next((folder / name for name in names if (folder / name).is_file()), None)


def end_tokens(folder: Path, id_of: Callable[[str], int | None]) -> tuple[int, ...] | None:
    """Return the ids that end a text, by all files of a folder that name any; None if none does.

    Parameters
    ----------
    folder : path
        That of a model.
    id_of : callable
        Gives the id of a token, None if there is none.

    Raises
    ------
    TokenizerError
        A file is no JSON object, or what should be ids or a token in it is none.
    """
    ids: list[int] = []
    for name in ("generation_config.json", "config.json"):
        said = _read(folder / name).get("eos_token_id") if (folder / name).is_file() else None
        if said is not None:
            several = said if isinstance(said, list) else [said]
            if not several or any(type(id) is not int or id < 0 for id in several):
                raise TokenizerError(
                    f"{folder / name}: eos_token_id must be an id or a list of them; got {said!r:.100}"
                )
            ids += several
    path = folder / "tokenizer_config.json"
    said = _read(path).get("eos_token") if path.is_file() else None
    if said is not None:
        token = said.get("content") if isinstance(said, dict) else said
        if not isinstance(token, str):
            raise TokenizerError(f"{path}: eos_token must be a token, or an object with its content; got {said!r:.100}")
        id = None if _SURROGATE.search(token) else id_of(token)
        if id is None:
            raise TokenizerError(f"{path}: eos_token must be a token of the vocabulary; got {token!r:.100}")
        ids.append(id)
    return tuple(dict.fromkeys(ids)) or None


def has_chat_template(model: Path) -> bool:
    """Say whether the folder of a model has a program that writes down conversations; nothing here runs it."""
    if _first(model, "chat_template.jinja", "chat_template.json") is not None:
        return True
    config = _first(model, "tokenizer_config.json")
    return config is not None and _read(config).get("chat_template") is not None


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST_FILE + 1)
        value = json.loads(text) if len(text) <= _LARGEST_FILE else None
    except (OSError, ValueError, RecursionError) as error:
        raise TokenizerError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise TokenizerError(f"{path}: must be a JSON object of at most {_LARGEST_FILE} bytes")
    return value
