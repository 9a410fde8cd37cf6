"""BPE from a ``tokenizer.json``: byte-level as of the Pile, LLaMA 3 and Qwen, or in pieces as of LLaMA and Mistral."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..errors import MissingExtraError, TokenizerError
from .folder import TOKENIZER, end_tokens
from .table import TableTokenizer

if TYPE_CHECKING:
    import tokenizers

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
    path : str
        A ``tokenizer.json`` whose decoder is ``ByteLevel``, or takes pieces with ``▁`` for a blank and byte fallback.

    Attributes
    ----------
    stop_tokens : tuple of int or None
        What ends a text, by the ``generation_config.json``, ``config.json`` and ``tokenizer_config.json`` beside a
        ``tokenizer.json``.

    Raises
    ------
    TokenizerError
        The file is not a tokenizer, or its tokens have no bytes of their own.
    MissingExtraError
        The package ``tokenizers`` is not installed.

    Notes
    -----
    The file decides what happens before matching. That of the Pile models brings text to Unicode form NFC, so
    decoding gives back the composed text. Special tokens written out in a text become the special ids. The program
    that may come with a vocabulary to write down conversations (its chat template) is never run.
    """

    def __init__(self, path: str) -> None:
        try:
            import tokenizers
        except ImportError:
            raise MissingExtraError("tokenizers", "hf", f"reading {path}") from None
        try:
            text = Path(path).read_text("utf-8")
            described = json.loads(text)
            engine = tokenizers.Tokenizer.from_str(text)
        except Exception as error:  # the package raises nothing more precise
            raise TokenizerError(f"{path}: not a tokenizer.json: {error}") from error
        tokens = _read_tokens(engine, described.get("decoder"), path)
        beside = Path(path).name == TOKENIZER
        self.stop_tokens = end_tokens(Path(path).parent, engine.token_to_id) if beside else None
        end = engine.token_to_id(END_OF_TEXT)
        if end is None and self.stop_tokens:
            end = self.stop_tokens[0]
        super().__init__("20b" if len(tokens) == _PILE_SIZE else Path(path).stem, tokens, end_of_text=end)
        continuing = {part: _without_blank(described.get(part)) for part in ("normalizer", "pre_tokenizer")}
        self._from_start = self._engine = _quiet(engine)
        if any(described.get(part) != changed for part, changed in continuing.items()):
            self._engine = _quiet(tokenizers.Tokenizer.from_str(json.dumps(described | continuing)))
        first = engine.encode("a", add_special_tokens=True)
        added = first.special_tokens_mask
        self._first = first.ids[: added.index(0) if 0 in added else len(added)]

    def encode(self, text: str) -> npt.NDArray[np.int32]:
        """Return the token ids of `text`, int32; nothing is added at either end."""
        self._utf8(text)
        return np.array(self._engine.encode(text, add_special_tokens=False).ids, np.int32)

    def begin(self, text: str) -> npt.NDArray[np.int32]:
        """Return the token ids of a text from its beginning, int32: with the token and the blank that belong there."""
        self._utf8(text)
        return np.array([*self._first, *self._from_start.encode(text, add_special_tokens=False).ids], np.int32)


def _quiet(engine: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """Return an engine that gives all tokens of a text and no others, whatever its file says."""
    engine.no_truncation()
    engine.no_padding()
    return engine


def _read_tokens(engine: tokenizers.Tokenizer, decoder: Any, path: str) -> list[bytes | None]:
    """Return the bytes of every id, which the decoder says how to read."""
    kind = decoder.get("type") if isinstance(decoder, dict) else None
    in_pieces = kind == "Sequence" and decoder.get("decoders") in (_PIECES, _PIECES[:-1])
    if kind != "ByteLevel" and not in_pieces:
        raise TokenizerError(
            f"{path}: the decoder must be ByteLevel, or take pieces with ▁ and byte fallback as LLaMA's does, so that "
            f"every token has bytes of its own; got {kind or 'none'}"
        )
    alphabet = byte_alphabet()
    added = {id: token.content for id, token in engine.get_added_tokens_decoder().items()}
    vocabulary = engine.get_vocab(with_added_tokens=True)
    tokens: list[bytes | None] = [None] * (max(vocabulary.values(), default=-1) + 1)
    for token, id in vocabulary.items():
        if id in added:
            tokens[id] = added[id].encode("utf-8")
        elif in_pieces:
            byte = _BYTE.fullmatch(token)
            tokens[id] = bytes([int(byte[1], 16)]) if byte else token.replace(_BLANK, " ").encode("utf-8")
        else:
            try:
                tokens[id] = bytes([alphabet[char] for char in token])
            except KeyError as error:
                raise TokenizerError(
                    f"{path}: token {token!r} (id {id}) is not byte-level: {error.args[0]!r} stands for no byte"
                ) from None
    return tokens


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


def byte_alphabet() -> dict[str, int]:
    """Return the character that byte-level vocabularies write for each byte: itself if it prints, else U+0100 up.

    >>> alphabet = byte_alphabet()
    >>> alphabet["A"], alphabet["Ġ"], alphabet["Ċ"], len(alphabet)
    (65, 32, 10, 256)
    """
    printing = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    silent = [byte for byte in range(256) if byte not in printing]
    return {chr(byte): byte for byte in printing} | {chr(256 + n): byte for n, byte in enumerate(silent)}
