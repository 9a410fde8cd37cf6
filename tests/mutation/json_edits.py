"""Changes of a JSON value that leave it valid JSON, and a few of its text that do not."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Sequence
from typing import Any

from .byte_edits import NUMBERS
from .byte_edits import edited as edited_bytes

STRINGS = ("", " ", "\0", "a" * 300, "\u2581", "\ud800", "\U0010ffff", "\ufeff", "null", "-1", "1e999", "../x", "NaN")
VALUES = (None, True, False, -1, -(2**63), 0.5, -0.0, 1e-320, 1e308, [], {}, [[]], [None], {"a": None}, *NUMBERS)
VALUES += (10**30, 10**400)


def edited(value: Any, rng: random.Random, words: Sequence[Any] = ()) -> Any:
    """Return a copy with one to four changes; `words` are values that mean something in this format."""
    value = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 2, 4))):
        place = _place(value, rng)
        if place is None:
            break
        rng.choice(_EDITS)(*place, rng, (value, words))
    return value


def written(value: Any, rng: random.Random) -> bytes:
    """Return the text of a value; one of six is not quite JSON."""
    text = json.dumps(value).encode()
    if rng.random() < 5 / 6:
        return text
    if rng.random() < 0.3:
        return edited_bytes(text, rng)
    at = rng.randrange(len(text))
    piece = rng.choice(
        (b"NaN", b"Infinity", b"[" * 2000, b'{"a":' * 2000, b"\xff", b"9" * 5000, b'"', b"}", b",", b"\0")
    )
    return rng.choice((b"\xef\xbb\xbf" + text, text + piece, text[:at] + piece + text[at:], _repeated_key(text)))


def _repeated_key(text: bytes) -> bytes:
    """Say the first member of the object twice."""
    end = text.find(b",")
    return text[:end] + b"," + text[1:] if text[:1] == b"{" and end > 0 else text


def _place(value: Any, rng: random.Random) -> tuple[Any, Any] | None:
    """Return a (holder, key) in a value: first any object or list in it, so that long ones count as others do."""
    holders, todo = [], [value]
    while todo:
        holder = todo.pop()
        members = list(holder.values() if isinstance(holder, dict) else holder[:64])
        holders += [holder] if members else []
        todo += [member for member in members if isinstance(member, dict | list)]
    if not holders:
        return None
    holder = rng.choice(holders)
    return holder, rng.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))


def _replace(holder: Any, key: Any, rng: random.Random, known: Any) -> None:
    whole, words = known
    choice = rng.randrange(4)
    if choice == 0 and words:
        holder[key] = copy.deepcopy(rng.choice(words))
    elif choice == 1:
        holder[key] = rng.choice(STRINGS)
    elif choice == 2:
        source, where = _place(whole, rng) or (holder, key)
        holder[key] = copy.deepcopy(source[where])
    else:
        holder[key] = copy.deepcopy(rng.choice(VALUES))


def _nudge(holder: Any, key: Any, rng: random.Random, known: Any) -> None:
    """Change a value into one of its kind."""
    value = holder[key]
    if isinstance(value, bool):
        holder[key] = not value
    elif isinstance(value, int | float):
        other = float(value) if abs(value) < 1e300 else value
        holder[key] = rng.choice((value + 1, value - 1, value * 2, -value, value // 2, value // 3, other, str(value)))
    elif isinstance(value, str):
        at = rng.randrange(len(value) + 1)
        holder[key] = rng.choice(
            (value[:at], value[:at] + rng.choice(STRINGS) + value[at:], value.upper(), value * 2, [value])
        )
    elif isinstance(value, list):
        holder[key] = rng.choice((value + value, value[::-1], value[:-1], [value], sorted(value, key=repr), value[1:]))
    else:
        holder[key] = rng.choice(([value], list(value or ()), {"a": value}, str(value)))


def _drop(holder: Any, key: Any, rng: random.Random, known: Any) -> None:
    del holder[key]


def _rename(holder: Any, key: Any, rng: random.Random, known: Any) -> None:
    if isinstance(holder, dict):
        holder[rng.choice((str(key) + "x", str(key)[:-1], str(key).upper(), rng.choice(STRINGS)))] = holder.pop(key)
    else:
        holder.insert(rng.randrange(len(holder) + 1), copy.deepcopy(holder[key]))


def _swap(holder: Any, key: Any, rng: random.Random, known: Any) -> None:
    other = rng.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
    holder[key], holder[other] = holder[other], holder[key]


_EDITS = (_replace, _replace, _replace, _nudge, _nudge, _drop, _rename, _swap)
