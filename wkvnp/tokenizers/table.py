"""What the tokenizers share: ids that index a list of byte strings."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import TokenizerError
from . import Tokenizer


class TableTokenizer(Tokenizer):
    """Decode by looking ids up in a table; `encode` is left to the subclass.

    Parameters
    ----------
    name : str
        What messages call it.
    tokens : sequence of (bytes or None)
        The bytes of every id; None for an id that stands for nothing.
    end_of_text : int or None
        The id that ends a document.

    Attributes
    ----------
    reach : int or None
        How many bytes the choice of a token depends on, from its first one; None if there is no bound.
    sizes : array of int64
        Bytes of every id.
    """

    reach: int | None = None

    def __init__(self, name: str, tokens: Sequence[bytes | None], end_of_text: int | None = None) -> None:
        self.name = name
        self.vocab_size = len(tokens)
        self.end_of_text = end_of_text
        # An array of objects: NumPy looks many ids up three times faster than a loop over a list does.
        self._tokens = np.array(tokens, dtype=object)
        self.sizes = np.array([len(token or b"") for token in tokens], np.int64)

    def token_bytes(self, id: int) -> bytes:
        """Return the bytes of one id."""
        try:
            index = operator.index(id)
        except TypeError:
            raise TokenizerError(f"{self.name}: a token id must be an integer; got {id!r}") from None
        token: bytes | None = self._tokens[index] if 0 <= index < self.vocab_size else None
        if token is None:
            raise TokenizerError(
                f"{self.name}: token id {index} is not in the vocabulary (vocab_size {self.vocab_size})"
            )
        return token

    def decode_bytes(self, ids: npt.ArrayLike) -> bytes:
        """Return the bytes of a sequence of ids."""
        array = self._integers(ids)
        if array.size == 0:
            return b""
        if array.min() >= 0 and array.max() < self.vocab_size:
            try:
                return b"".join(self._tokens[array].tolist())
            except TypeError:  # an id that stands for nothing
                pass
        return b"".join(map(self.token_bytes, array.tolist()))  # says which

    def _integers(self, ids: npt.ArrayLike) -> npt.NDArray[Any]:
        try:
            array = np.asarray(ids)
        except (TypeError, ValueError) as error:
            raise TokenizerError(f"{self.name}: ids must be a sequence of integers: {error}") from None
        empty = array.ndim == 1 and array.size == 0
        if not empty and (array.ndim != 1 or array.dtype.kind not in "iu"):
            raise TokenizerError(
                f"{self.name}: ids must be a sequence of integers; got {array.dtype} values in shape {array.shape}"
            )
        return array

    def _utf8(self, text: str) -> bytes:
        """Return the UTF-8 bytes of `text`, or say where it is not Unicode text."""
        if not isinstance(text, str):
            raise TokenizerError(f"{self.name}: text must be a str; got {type(text).__name__}")
        try:
            return text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise TokenizerError(
                f"{self.name}: text must be whole Unicode characters; it has the lone surrogate "
                f"{text[error.start]!r} at position {error.start}"
            ) from None
