"""Text to token ids and back.

Three vocabularies cover the RWKV models: plain bytes, RWKV World (longest match in a byte trie) and the byte-level
BPE of the Pile models; a ``tokenizer.json`` in the folder of a model, or what is inside its GGUF file, covers others.
All of them turn ids into *bytes*; a character of several bytes may be spread over several tokens, so text that arrives
token by token goes through a `StreamDecoder`.
"""

from __future__ import annotations

import codecs
import operator
import os
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from .._arguments import named
from .._paths import hub_hint, local_path
from ..errors import TokenizerError

__all__ = ["StreamDecoder", "Tokenizer", "load_tokenizer"]

_BY_SIZE = {256: "bytes", 50277: "20b", 65536: "rwkv-world"}


class Tokenizer(Protocol):
    """What every tokenizer can do; your own needs these names only, and not `begin`, `stop_tokens` and ``special=``.

    Attributes
    ----------
    name : str
        What messages call it.
    vocab_size : int
        Width of the logits of a model that uses it; a few of the highest ids may stand for nothing.
    end_of_text : int or None
        The id that ends a document, if the vocabulary has one.
    stop_tokens : tuple of int or None
        The ids that end what a model writes, where they are not just `end_of_text`.
    """

    name: str
    vocab_size: int
    end_of_text: int | None
    stop_tokens: tuple[int, ...] | None = None

    def encode(self, text: str, special: bool = True) -> npt.NDArray[np.int32]:
        """Return the token ids of `text`, int32; nothing is added, so that it may go on from another.

        Control tokens that are written out in the text (``<|im_end|>``) become what they stand for, as in a prompt for
        `wkvnp.generate`. With ``special=False`` they stay text, as in what a user says in a conversation and in a
        document that is scored.
        """
        ...

    def begin(self, text: str, special: bool = True) -> npt.NDArray[np.int32]:
        """Return the token ids of a text from its beginning, where some vocabularies put a token or a blank first."""
        return self.encode(text, special)

    def token_bytes(self, id: int) -> bytes:
        """Return the bytes that one id stands for."""
        ...

    def decode_bytes(self, ids: npt.ArrayLike) -> bytes:
        """Return the bytes that a sequence of ids stands for."""
        ...

    def decode(self, ids: npt.ArrayLike) -> str:
        """Return the text of a sequence of ids; what is not UTF-8 becomes U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", "replace")

    def decoder(self) -> StreamDecoder:
        """Return a decoder for ids that arrive one at a time."""
        return StreamDecoder(self)

    def __repr__(self) -> str:
        return f"<tokenizer {self.name}: {self.vocab_size} ids>"


class StreamDecoder:
    """Turn ids that arrive one at a time into text that never shows half a character.

    Joining all that `feed` and the last `flush` return gives exactly ``tokenizer.decode(ids)``.

    Parameters
    ----------
    tokenizer : Tokenizer
        The tokenizer that the ids belong to.

    Examples
    --------
    >>> decoder = load_tokenizer("bytes").decoder()
    >>> [decoder.feed(id) for id in (104, 195, 169, 240, 159)], decoder.flush()
    (['h', '', 'é', '', ''], '\ufffd')
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._token_bytes = tokenizer.token_bytes
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, id: int) -> str:
        """Take one id; return the text that is now complete, often ``""`` inside a character."""
        return self._utf8.decode(self._token_bytes(id))

    def flush(self) -> str:
        """Return U+FFFD for a character that was cut off, else ``""``; the decoder is then as new."""
        rest = self._utf8.decode(b"", final=True)
        self._utf8.reset()
        return rest


@named
def load_tokenizer(source: str | os.PathLike[str] | int | Any) -> Tokenizer:
    """Return a tokenizer by name, by file, or for a model.

    Parameters
    ----------
    source : str, path, int or model
        One of

        - ``"bytes"``: 256 ids, one per byte;
        - ``"rwkv-world"``: the vocabulary of the World and G1 models, read from the file that the environment
          variable ``WKVNP_WORLD_VOCAB`` names, else from the package that ``wkvnp[world]`` installs;
        - ``"20b"``: the vocabulary of the Pile models, read from the file ``20B_tokenizer.json`` that the environment
          variable ``WKVNP_20B_TOKENIZER`` names;
        - the path of a vocabulary in the format of ``rwkv_vocab_v20230424.txt``, or of a ``tokenizer.json``, or the
          folder of a model that has one of these, or a GGUF file with a vocabulary inside;
        - a model: its own vocabulary, in its GGUF file or in its folder. For an RWKV that has none, and for a plain
          number, the size of the vocabulary decides: 256, 65536 and 50277 are recognised; for another model without
          one, only 256, which are bytes.

    Returns
    -------
    Tokenizer
        With ``encode``, ``begin``, ``decode``, ``decode_bytes``, ``token_bytes``, ``decoder``.

    Raises
    ------
    TokenizerError
        `source` is none of these, or its file is not a vocabulary.
    MissingExtraError
        The package that carries the World vocabulary, or the one that reads ``tokenizer.json``, is not installed.

    Examples
    --------
    >>> plain = load_tokenizer("bytes")
    >>> plain.encode("wkv é")
    array([119, 107, 118,  32, 195, 169], dtype=int32)
    >>> plain.decode([119, 107, 118])
    'wkv'
    >>> load_tokenizer(256).name
    'bytes'
    """
    if not isinstance(source, str | os.PathLike):
        return _for_model(source)
    if source in _BY_SIZE.values():
        return _by_name(str(source))
    return _from_file(str(local_path(source, TokenizerError, "load_tokenizer: source")))


def _by_name(name: str) -> Tokenizer:
    if name == "bytes":
        from .byte import ByteTokenizer

        return ByteTokenizer()
    if name == "rwkv-world":
        from .vocabulary import installed_world_vocabulary

        return _from_file(_path_from("WKVNP_WORLD_VOCAB") or installed_world_vocabulary())
    path = _path_from("WKVNP_20B_TOKENIZER")
    if path is None:
        raise TokenizerError(
            "load_tokenizer: '20b' is read from a file: give the path of 20B_tokenizer.json instead, "
            "or set WKVNP_20B_TOKENIZER to it"
        )
    return _from_file(path)


def _path_from(variable: str) -> str | None:
    stated = os.environ.get(variable)
    if not stated:
        return None
    path = str(local_path(stated, TokenizerError, f"load_tokenizer: {variable}"))
    if not os.path.isfile(path):
        raise TokenizerError(f"load_tokenizer: {variable} must name a file; it names {path!r}")
    return path


def _for_model(source: Any) -> Tokenizer:
    """Return the vocabulary that a model has of its own, else, for RWKV, the one of its size."""
    config, path = getattr(source, "config", None), getattr(source, "source", None)
    if path is not None:
        from .inside import vocabulary_of

        found = vocabulary_of(Path(path))
        if found is not None:
            return found
    size, architecture = getattr(config, "vocab_size", source), getattr(config, "architecture", "rwkv")
    if not architecture.startswith("rwkv") and size != 256:
        raise TokenizerError(
            f"load_tokenizer: no vocabulary of its own comes with this model{f' ({path})' if path else ''}, and for a "
            f"{architecture} none is chosen by its size; give one by the path of its file, or by name ({_names()})"
        )
    return _by_name(_name_for_size(size, source))


def _name_for_size(size: Any, source: Any) -> str:
    try:
        size = operator.index(size)
    except TypeError:
        raise TokenizerError(
            f"load_tokenizer: source must be a name, a path, a vocabulary size or a model; got {source!r}"
        ) from None
    if size not in _BY_SIZE:
        raise TokenizerError(
            f"load_tokenizer: no vocabulary of {size} ids is known; give one by name ({_names()}) or by its path"
        )
    return _BY_SIZE[size]


def _from_file(path: str) -> Tokenizer:
    if os.path.isdir(path):
        from .folder import vocabulary_beside

        found = vocabulary_beside(Path(path))
        if found is None:
            raise TokenizerError(f"load_tokenizer: {path!r} is a folder without a vocabulary, as tokenizer.json")
        path = str(found)
    if not os.path.lexists(path):
        hint = hub_hint(Path(path))
        raise TokenizerError(f"load_tokenizer: {path!r:.100} is neither a known name ({_names()}) nor a file{hint}")
    from .files import open_vocabulary, whole

    buffer = open_vocabulary(path)
    if buffer[:4] == b"GGUF":
        from .inside import vocabulary_inside

        return vocabulary_inside(Path(path))
    text = whole(buffer, path)
    if text[:64].lstrip().startswith(b"{"):
        from .bpe import read_tokenizer_json

        return read_tokenizer_json(text, path)
    from .trie import world_tokenizer

    return world_tokenizer(text, path)


def _names() -> str:
    return ", ".join(repr(name) for name in _BY_SIZE.values())
