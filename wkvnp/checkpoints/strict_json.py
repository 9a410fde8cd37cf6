"""JSON from untrusted files: bounded depth, no duplicate keys, no NaN, and an object at the top."""

from __future__ import annotations

import json
import math
from typing import Any

from ..errors import CheckpointError
from .mapped_file import without_mark
from .tensors import quoted

_DEPTH = 16
_NOT_STRUCTURE = bytes(set(range(256)) - set(b'"[]{}'))


def parse_object(text: bytes, source: str, *, infinite: bool = False) -> dict[str, Any]:
    """Return the object that a JSON text holds; `source` is what an error calls it.

    `infinite` allows ``Infinity``, which no JSON has but some software writes into its configurations.

    Examples
    --------
    >>> parse_object(b'{"a": [1, 2]}', "example")
    {'a': [1, 2]}
    """
    text = without_mark(text)
    if not text.startswith(b"{"):
        raise CheckpointError(f"{source}: must be a JSON object that starts with '{{'; it starts with {text[:8]!r}")
    if _too_deep(text):
        raise CheckpointError(f"{source}: its JSON is broken or nested more than {_DEPTH} deep")
    try:
        value: dict[str, Any] = json.loads(
            text.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_infinity if infinite else _refuse_constant,
        )
    except CheckpointError as error:
        raise CheckpointError(f"{source}: {error}") from None
    except (ValueError, RecursionError) as error:  # bad UTF-8, bad JSON, an integer of thousands of digits
        raise CheckpointError(f"{source}: not valid JSON: {str(error)[:200]}") from error
    return value


def _too_deep(text: bytes) -> bool:
    """Peel off brackets from the inside, a level at a time, so that a deep text never reaches the recursive parser."""
    structure = text.replace(rb"\\", b"").replace(rb"\"", b"").translate(None, _NOT_STRUCTURE)
    brackets = b"".join(structure.split(b'"')[::2])
    for _ in range(_DEPTH):
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
        if not brackets:
            return False
    return True


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise CheckpointError(f"the key {quoted(twice)} appears twice in its JSON")
    return members


def _infinity(text: str) -> float:
    return math.inf if text == "Infinity" else _refuse_constant(text)


def _refuse_constant(text: str) -> float:
    raise CheckpointError(f"its JSON holds {text}, which is no number")
