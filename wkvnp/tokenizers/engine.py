"""The `tokenizers` package behind one function: every failure in it, even a panic of Rust, is a TokenizerError."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import MissingExtraError, TokenizerError


class Engine:
    """A tokenizer of the package, made from a description as ``tokenizer.json`` holds one, that was checked.

    Parameters
    ----------
    described : dict
        The description.
    source : str
        What messages call it.

    Raises
    ------
    TokenizerError
        The package does not accept it.
    MissingExtraError
        The package is not installed.
    """

    def __init__(self, described: dict[str, Any], source: str) -> None:
        self.source = source
        self._marked = self._made(json.dumps(described | {"truncation": None, "padding": None}))
        self._plain: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_plain": None}  # it would lose its one setting

    def _made(self, text: str) -> Any:
        with guarded(f"{self.source}: not a tokenizer.json"):
            return package(self.source).Tokenizer.from_str(text)

    def ids(self, text: str, special: bool) -> npt.NDArray[np.int32]:
        """Return the ids of a text; without `special`, special tokens written out in it are text like any other."""
        with guarded(f"{self.source}: the text cannot be encoded"):
            return np.array(self._of(special).encode(text, add_special_tokens=False).ids, np.int32)

    def first(self) -> list[int]:
        """Return the ids that belong before a text."""
        with guarded(f"{self.source}: a text cannot be encoded"):
            found = self._marked.encode("a", add_special_tokens=True)
            added = found.special_tokens_mask
            return list(found.ids[: added.index(0) if 0 in added else len(added)])

    def vocabulary(self) -> tuple[dict[str, int], dict[int, Any]]:
        """Return the ids of all tokens by their text, and the added tokens by their ids."""
        with guarded(f"{self.source}: the vocabulary cannot be read"):
            return self._marked.get_vocab(with_added_tokens=True), self._marked.get_added_tokens_decoder()

    def _of(self, special: bool) -> Any:
        if special:
            return self._marked
        if self._plain is None:
            plain = self._made(self._marked.to_str())
            plain.encode_special_tokens = True
            self._plain = plain
        return self._plain


def package(source: str) -> Any:
    """Return the `tokenizers` package.

    Raises
    ------
    MissingExtraError
        It is not installed; the message says that `source` needs it.
    """
    try:
        import tokenizers
    except ImportError:
        raise MissingExtraError("tokenizers", "hf", f"reading {source}") from None
    return tokenizers


@contextmanager
def guarded(what: str) -> Iterator[None]:
    """Turn every failure of the package into a TokenizerError that begins with `what`.

    A panic is no `Exception` but a `BaseException` of a type that cannot be imported.
    """
    try:
        yield
    except (TokenizerError, MissingExtraError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        raise TokenizerError(f"{what}: {' '.join(str(error).split())[:200]}") from error
