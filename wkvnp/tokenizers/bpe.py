"""BPE from a ``tokenizer.json``: byte-level as of the Pile, LLaMA 3 and Qwen, or in pieces as of LLaMA and Mistral."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import TokenizerError
from .description import read_description
from .engine import Engine, package
from .folder import TOKENIZER, end_tokens
from .table import TableTokenizer

END_OF_TEXT = "<|endoftext|>"
_PILE_SIZE = 50277
_BLANK = "▁"
# What turns pieces into text: ▁ is a blank, <0xE3> a byte, and a first blank was put there by the encoder.
_PIECES = [{"type": "Replace", "pattern": {"String": _BLANK}, "content": " "}, {"type": "ByteFallback"}]
_PIECES += [{"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]
_BYTE = re.compile("<0x([0-9A-F]{2})>")


class BpeTokenizer(TableTokenizer):
    """A vocabulary run by the ``tokenizers`` package, of tokens that have bytes of their own.

    Parameters
    ----------
    described : dict
        What a ``tokenizer.json`` says, checked (`wkvnp.tokenizers.description`). Its decoder is ``ByteLevel``, or takes
        pieces with ``▁`` for a blank and byte fallback.
    name, source : str
        What messages call it, and where it comes from.
    ends : tuple of int or None
        The ids that end a text, the first being that of a document.
    size : int
        How many ids there are at least; some of the highest may stand for nothing.

    Attributes
    ----------
    stop_tokens : tuple of int or None
        What ends a text, by the ``generation_config.json``, ``config.json`` and ``tokenizer_config.json`` beside a
        ``tokenizer.json``.

    Raises
    ------
    TokenizerError
        The package does not accept it, or its tokens have no bytes of their own.
    MissingExtraError
        The package ``tokenizers`` is not installed.

    Notes
    -----
    The file decides what happens before matching. That of the Pile models brings text to Unicode form NFC, so
    decoding gives back the composed text. Special tokens written out in a text become the special ids, or, with
    ``special=False``, stay text. The program that may come with a vocabulary to write down conversations (its chat
    template) is never run.
    """

    def __init__(
        self, described: dict[str, Any], name: str, source: str, ends: tuple[int, ...] | None = None, size: int = 0
    ) -> None:
        engine = Engine(described, source)
        tokens, added = _read_tokens(engine, described, source)
        tokens += [None] * (size - len(tokens))
        self.stop_tokens = ends
        end = next((id for id, token in added.items() if token.content == END_OF_TEXT), ends[0] if ends else None)
        super().__init__("20b" if len(tokens) == _PILE_SIZE else name, tokens, end_of_text=end)
        continuing = {part: _without_blank(described.get(part)) for part in ("normalizer", "pre_tokenizer")}
        self._from_start = self._engine = engine
        if any(described.get(part) != changed for part, changed in continuing.items()):
            self._engine = Engine(described | continuing, source)
        unknown = described["model"].get("unk_token")
        marks = (id for id, token in added.items() if token.special or id in (ends or ()))
        self._control = np.array([id for id in marks if added[id].content != unknown], np.int32)
        self._first = np.array(engine.first(), np.int64)
        if self._first.size and not 0 <= self._first.min() <= self._first.max() < len(tokens):
            raise TokenizerError(f"{source}: its post_processor begins texts with the unknown id {self._first.max()}")

    def encode(self, text: str, special: bool = True) -> npt.NDArray[np.int32]:
        """Return the token ids of `text`, int32; nothing is added at either end."""
        self._utf8(text)
        return self._ids(self._engine, text, special)

    def begin(self, text: str, special: bool = True) -> npt.NDArray[np.int32]:
        """Return the token ids of a text from its beginning, int32: with the token and the blank that belong there."""
        self._utf8(text)
        return np.concatenate([self._first.astype(np.int32), self._ids(self._from_start, text, special)])

    def _ids(self, engine: Engine, text: str, special: bool) -> npt.NDArray[np.int32]:
        ids = engine.ids(text, special)
        if special or not np.isin(ids, self._control).any():
            return ids
        # What is not marked as special in the file, or what merges lead to: written a character at a time.
        return np.concatenate([self._spelt(id) if id in self._control else np.array([id], np.int32) for id in ids])

    def _spelt(self, id: int) -> npt.NDArray[np.int32]:
        text = self.token_bytes(id).decode("utf-8", "replace")
        ids = np.concatenate([self._engine.ids(char, False) for char in text])
        if np.isin(ids, self._control).any():
            raise TokenizerError(f"{self.name}: the text {text!r} is a control token (id {id}) and has no other tokens")
        return ids


def read_tokenizer_json(text: bytes, path: str) -> BpeTokenizer:
    """Return the tokenizer that a ``tokenizer.json`` describes.

    Raises
    ------
    TokenizerError
        It is damaged, none that is read, or asks for what would take very much memory or time.
    """
    package(path)
    described = read_description(text, path)
    ids = described["model"]["vocab"] | {token["content"]: token["id"] for token in described.get("added_tokens") or []}
    ends = end_tokens(Path(path).parent, ids.get) if Path(path).name == TOKENIZER else None
    return BpeTokenizer(described, Path(path).stem, path, ends)


def _read_tokens(engine: Engine, described: dict[str, Any], path: str) -> tuple[list[bytes | None], dict[int, Any]]:
    """Return the bytes of every id, which the decoder says how to read, and the added tokens."""
    decoder = described.get("decoder")
    kind = decoder.get("type") if isinstance(decoder, dict) else None
    in_pieces = isinstance(decoder, dict) and kind == "Sequence" and decoder.get("decoders") in (_PIECES, _PIECES[:-1])
    if kind != "ByteLevel" and not in_pieces:
        raise TokenizerError(
            f"{path}: the decoder must be ByteLevel, or take pieces with ▁ and byte fallback as LLaMA's does, so that "
            f"every token has bytes of its own; got {kind or 'none'}"
        )
    alphabet = byte_alphabet()
    vocabulary, added = engine.vocabulary()
    for token in described.get("added_tokens") or ():
        if token["content"] not in described["model"]["vocab"] and vocabulary.get(token["content"]) != token["id"]:
            raise TokenizerError(
                f"{path}: the added token {token['content']!r:.60} has the id {token['id']}, which does not follow "
                "those before it"
            )
    tokens: list[bytes | None] = [None] * (max(vocabulary.values(), default=-1) + 1)
    for token, id in vocabulary.items():
        if id in added:
            tokens[id] = added[id].content.encode("utf-8")
        elif in_pieces:
            byte = _BYTE.fullmatch(token)
            tokens[id] = bytes([int(byte[1], 16)]) if byte else token.replace(_BLANK, " ").encode("utf-8")
        else:
            try:
                tokens[id] = bytes([alphabet[char] for char in token])
            except KeyError as error:
                raise TokenizerError(
                    f"{path}: token {token!r:.60} (id {id}) is not byte-level: {error.args[0]!r} stands for no byte"
                ) from None
    return tokens, added


def _without_blank(part: Any) -> Any:
    """Return a normalizer or pre-tokenizer as a file describes it, without what puts a blank before a text."""
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "Prepend":
        return None
    if kind == "Metaspace":
        return {name: value for name, value in part.items() if name != "add_prefix_space"} | {"prepend_scheme": "never"}
    if kind == "ByteLevel":
        return part | {"add_prefix_space": False}
    if kind == "Sequence":
        for name in part.keys() & {"normalizers", "pretokenizers"}:
            part = part | {name: [left for left in map(_without_blank, part[name]) if left is not None]}
    return part


def decoder_of_pieces(blank_first: bool) -> dict[str, Any]:
    """Return what a ``tokenizer.json`` says of a vocabulary of pieces, where the encoder may put a blank first."""
    return {"type": "Sequence", "decoders": _PIECES if blank_first else _PIECES[:-1]}


def byte_alphabet() -> dict[str, int]:
    """Return the character that byte-level vocabularies write for each byte: itself if it prints, else U+0100 up.

    >>> alphabet = byte_alphabet()
    >>> alphabet["A"], alphabet["Ġ"], alphabet["Ċ"], len(alphabet)
    (65, 32, 10, 256)
    """
    printing = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    silent = [byte for byte in range(256) if byte not in printing]
    return {chr(byte): byte for byte in printing} | {chr(256 + n): byte for n, byte in enumerate(silent)}
