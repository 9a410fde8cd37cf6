"""The entries ``tokenizer.ggml.*`` of a GGUF file: arrays of one length, and ids below it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..errors import TokenizerError

PREFIX = "tokenizer.ggml."
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
_MOST_TOKENS = 1 << 21
_LONGEST_TOKEN = 1 << 14
# Texts of tokens that end a turn or a text, of any type in the file.
_ENDS = frozenset(
    ("<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|end_of_text|>", "<|eom_id|>",
     "<EOT>", "_<EOT>", "<｜end▁of▁sentence｜>")
)  # fmt: skip


@dataclass(frozen=True)
class Entries:
    """What a file says about its vocabulary.

    Attributes
    ----------
    metadata : mapping
        All entries of the file.
    source : str
        The file.
    tokens : list of str
        The text of every id.
    types : list of int
        What every id is: `NORMAL`, `UNKNOWN`, ...
    ends : tuple of int
        The ids that end a text, that of a document first.
    """

    metadata: Mapping[str, object]
    source: str
    tokens: list[str]
    types: list[int]
    ends: tuple[int, ...] = ()

    def entry(self, name: str, kind: type, default: Any) -> Any:
        """Return one entry, or say what it must be."""
        value = self.metadata.get(PREFIX + name)
        if value is None:
            return default
        if type(value) is not kind:
            raise TokenizerError(f"{self.source}: {PREFIX}{name} must be of type {kind.__name__}; got {value!r:.60}")
        return value

    def token_id(self, name: str, default: int | None = None) -> int | None:
        """Return the id that an entry names, if any."""
        id: int | None = self.entry(f"{name}_token_id", int, None)
        size = len(self.tokens)
        if id is None:
            return default if default is not None and default < size else None
        if not 0 <= id < size:
            raise TokenizerError(
                f"{self.source}: {PREFIX}{name}_token_id must be below {size}, the number of tokens; got {id}"
            )
        return id

    def array(self, name: str, *kinds: type, each: bool = False) -> list[Any]:
        """Return an array; with `each` it has one element for each token."""
        return _array(self.metadata, name, kinds, len(self.tokens) if each else None, self.source)

    def ids(self) -> dict[str, int]:
        """Return the id of every text, without the ids that are not used."""
        ids: dict[str, int] = {}
        for id, text in enumerate(self.tokens):
            if self.types[id] != UNUSED and ids.setdefault(text, id) != id:
                raise TokenizerError(f"{self.source}: {PREFIX}tokens has {text!r:.60} twice, as {ids[text]} and {id}")
        return ids

    def of_type(self, *types: int) -> dict[str, int]:
        """Return the ids of the tokens of some types by their text."""
        return {text: id for id, text in enumerate(self.tokens) if text and self.types[id] in types}

    def ending(self, eos: int | None) -> Entries:
        """Return entries that know what ends a text, `eos` if the file says nothing; such tokens are control tokens."""
        named = [self.token_id("eos", eos), self.token_id("eot"), self.token_id("eom")]
        named += [id for id, text in enumerate(self.tokens) if text in _ENDS and self.types[id] != UNUSED]
        ends = tuple(dict.fromkeys(id for id in named if id is not None))
        types = [CONTROL if id in ends else kind for id, kind in enumerate(self.types)]
        return replace(self, types=types, ends=ends)


def read_entries(metadata: Mapping[str, object], path: str) -> Entries:
    """Return the entries that every kind of vocabulary has.

    Raises
    ------
    TokenizerError
        They are damaged.
    """
    tokens = _array(metadata, "tokens", (str,), None, path)
    if not tokens:
        raise TokenizerError(f"{path}: {PREFIX}tokens must hold at least one token")
    longest = max(tokens, key=len)
    if len(longest) > _LONGEST_TOKEN:
        raise TokenizerError(f"{path}: {PREFIX}tokens holds a token of {len(longest)} characters; got {longest!r:.60}")
    if PREFIX + "token_type" not in metadata:
        return Entries(metadata, path, tokens, [NORMAL] * len(tokens))
    types = _array(metadata, "token_type", (int,), len(tokens), path)
    if not 0 <= min(types) <= max(types) <= BYTE:
        raise TokenizerError(
            f"{path}: {PREFIX}token_type must hold numbers from 0 to {BYTE}; got {min(types)} to {max(types)}"
        )
    return Entries(metadata, path, tokens, types)


def _array(
    metadata: Mapping[str, object], name: str, kinds: tuple[type, ...], size: int | None, path: str
) -> list[Any]:
    what, values = f"{path}: {PREFIX}{name}", metadata.get(PREFIX + name)
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise TokenizerError(f"{what} must be an array; got {values!r:.60}")
    if size is not None and len(values) != size:
        raise TokenizerError(f"{what} must have {size} elements, as many as there are tokens; got {len(values)}")
    if len(values) > _MOST_TOKENS:
        raise TokenizerError(f"{what} has {len(values)} elements; at most {_MOST_TOKENS} are read")
    found = list(values[:])
    wrong = next((value for value in found if type(value) not in kinds), None)
    if wrong is not None:
        raise TokenizerError(f"{what} must be an array of {kinds[0].__name__}; got {wrong!r:.60}")
    return found
