"""What a ``tokenizer.json`` may do with a text before it looks for tokens: known steps of little time and room."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..errors import TokenizerError
from .patterns import linear

# How many times as many characters a text may have after all replacements.
_GROWTH = 8
_STEPS = 32
_LONGEST = 256
NORMALIZERS = ("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Strip", "StripAccents", "Nmt", "Prepend", "Replace")
PRE_TOKENIZERS = (
    "ByteLevel", "Metaspace", "Split", "Digits", "Punctuation", "Whitespace", "WhitespaceSplit", "UnicodeScripts",
    "CharDelimiterSplit", "BertPreTokenizer", "FixedLength",
)  # fmt: skip
_PARTS = {"normalizer": ("normalizers", NORMALIZERS), "pre_tokenizer": ("pretokenizers", PRE_TOKENIZERS)}


def checked_steps(described: dict[str, Any]) -> dict[str, Any]:
    """Return a description with the regular expressions to run, after a look at its normalizer and pre-tokenizer.

    Raises
    ------
    TokenizerError
        A step is not known, makes the text much longer, or may take very long.
    """
    changed = {name: _checked(described.get(name), name, 0) for name in _PARTS}
    steps = [step for name, part in changed.items() for step in _flat(part, _PARTS[name][0])]
    if len(steps) > _STEPS:
        raise TokenizerError(f"it has {len(steps)} steps before tokens are looked for, more than {_STEPS}")
    for kind in ("ByteLevel", "NFKC", "NFKD", "NFD", "Prepend"):
        if sum(step["type"] == kind for step in steps) > 1:
            raise TokenizerError(f"it has {kind} more than once")
    growth = 1.0
    for step in steps:
        if step["type"] == "Replace":
            taken = len(step["pattern"]["String"]) if "String" in step["pattern"] else 1 / 2  # may find nothing
            growth *= max(1.0, len(step["content"]) / taken)
    if growth > _GROWTH:
        raise TokenizerError(f"its replacements make a text {growth:.3g} times as long; at most {_GROWTH} is read")
    return described | changed


def _checked(part: Any, name: str, depth: int) -> Any:
    """Return a normalizer or pre-tokenizer with the expressions to run."""
    if part is None and depth == 0:
        return None
    several, known = _PARTS[name]
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "Sequence" and isinstance(part.get(several), list) and depth < 4:
        return part | {several: [_checked(step, name, depth + 1) for step in part[several]]}
    if not isinstance(kind, str) or kind not in known:
        raise TokenizerError(f"its {name} must be made of {', '.join(known)}; got {kind or part!r:.60}")
    for field, value in part.items():
        if isinstance(value, str) and len(value) > _LONGEST:
            raise TokenizerError(
                f"{field} of its {name} {kind} has {len(value)} characters; at most {_LONGEST} are read"
            )
    if kind == "Replace" and not isinstance(part.get("content"), str):
        raise TokenizerError(f"content of its {name} Replace must be a text; got {part.get('content')!r:.60}")
    if kind == "FixedLength" and not (type(part.get("length")) is int and part["length"] > 0):
        raise TokenizerError(f"length of its {name} FixedLength must be at least 1; got {part.get('length')!r:.60}")
    if kind in ("Replace", "Split"):
        return part | {"pattern": _pattern(part.get("pattern"), f"its {name} {kind}")}
    return part


def _pattern(pattern: Any, what: str) -> dict[str, str]:
    match pattern:
        case {"String": str(text)} if len(pattern) == 1 and 0 < len(text) <= _LONGEST:
            return {"String": text}
        case {"Regex": str(text)} if len(pattern) == 1:
            try:
                return {"Regex": linear(text)}
            except TokenizerError as error:
                raise TokenizerError(f"the regular expression of {what}, {error}") from None
    raise TokenizerError(f"pattern of {what} must be a text or a regular expression; got {pattern!r:.60}")


def _flat(part: Any, several: str) -> Iterator[dict[str, Any]]:
    if part is not None and part["type"] == "Sequence":
        for step in part[several]:
            yield from _flat(step, several)
    elif part is not None:
        yield part
