"""Byte-level BPE from a ``tokenizer.json``: the tokenizer of the Pile models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..errors import MissingExtraError, TokenizerError
from .table import TableTokenizer

if TYPE_CHECKING:
    import tokenizers

END_OF_TEXT = "<|endoftext|>"
_PILE_SIZE = 50277


class BpeTokenizer(TableTokenizer):
    """A byte-level vocabulary run by the ``tokenizers`` package.

    Parameters
    ----------
    path : str
        A ``tokenizer.json`` whose decoder is ``ByteLevel``.

    Raises
    ------
    TokenizerError
        The file is not a tokenizer, or its tokens are not byte-level.
    MissingExtraError
        The package ``tokenizers`` is not installed.

    Notes
    -----
    The file decides what happens before matching. That of the Pile models brings text to Unicode form NFC, so
    decoding gives back the composed text; their special tokens written out in a text become the special ids.
    """

    def __init__(self, path: str) -> None:
        try:
            import tokenizers
        except ImportError:
            raise MissingExtraError("tokenizers", "hf", f"reading {path}") from None
        try:
            engine = tokenizers.Tokenizer.from_file(path)
        except Exception as error:  # the package raises nothing more precise
            raise TokenizerError(f"{path}: not a tokenizer.json: {error}") from error
        if not isinstance(engine.decoder, tokenizers.decoders.ByteLevel):
            raise TokenizerError(
                f"{path}: the decoder must be ByteLevel, where every token has bytes of its own; "
                f"got {type(engine.decoder).__name__}"
            )
        engine.no_truncation()
        engine.no_padding()
        tokens = self._read_tokens(engine, path)
        name = "20b" if len(tokens) == _PILE_SIZE else Path(path).stem
        super().__init__(name, tokens, end_of_text=engine.token_to_id(END_OF_TEXT))
        self._engine = engine

    @staticmethod
    def _read_tokens(engine: tokenizers.Tokenizer, path: str) -> list[bytes | None]:
        alphabet = byte_alphabet()
        added = {id: token.content for id, token in engine.get_added_tokens_decoder().items()}
        vocabulary = engine.get_vocab(with_added_tokens=True)
        tokens: list[bytes | None] = [None] * (max(vocabulary.values(), default=-1) + 1)
        for token, id in vocabulary.items():
            try:
                tokens[id] = added[id].encode("utf-8") if id in added else bytes([alphabet[char] for char in token])
            except KeyError as error:
                raise TokenizerError(
                    f"{path}: token {token!r} (id {id}) is not byte-level: {error.args[0]!r} stands for no byte"
                ) from None
        return tokens

    def encode(self, text: str) -> npt.NDArray[np.int32]:
        """Return the token ids of `text`, int32; nothing is added at either end."""
        self._utf8(text)
        return np.array(self._engine.encode(text, add_special_tokens=False).ids, np.int32)


def byte_alphabet() -> dict[str, int]:
    """Return the character that byte-level vocabularies write for each byte: itself if it prints, else U+0100 up.

    >>> alphabet = byte_alphabet()
    >>> alphabet["A"], alphabet["Ġ"], alphabet["Ċ"], len(alphabet)
    (65, 32, 10, 256)
    """
    printing = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    silent = [byte for byte in range(256) if byte not in printing]
    return {chr(byte): byte for byte in printing} | {chr(256 + n): byte for n, byte in enumerate(silent)}
