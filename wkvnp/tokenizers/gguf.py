"""The vocabulary inside a GGUF file: pieces with scores, byte-level BPE, or the tokens of RWKV World.

Meaning and defaults are those of llama.cpp, ``src/llama-vocab.cpp``. What a file calls its vocabulary
(``tokenizer.ggml.model``) and the way to split a text (``tokenizer.ggml.pre``) must be known: nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..errors import TokenizerError
from . import Tokenizer
from .gguf_entries import CONTROL, PREFIX, UNKNOWN, UNUSED, Entries, read_entries
from .trie import TrieTokenizer
from .vocabulary import check_tokens, literal_bytes

MODEL = PREFIX + "model"


def gguf_tokenizer(metadata: Mapping[str, object], path: str) -> Tokenizer:
    """Return the tokenizer that the metadata of a GGUF file describe.

    Raises
    ------
    TokenizerError
        They are damaged, or of a kind that is not known.
    MissingExtraError
        The package ``tokenizers`` is not installed, and the vocabulary is not that of an RWKV.
    """
    kind, kinds = metadata.get(MODEL), ("llama", "gpt2", "rwkv")
    if kind not in kinds:
        raise TokenizerError(
            f"{path}: {MODEL} must be one of {', '.join(kinds)}, which are read; got {kind!r:.60}; "
            "give another vocabulary by the path of its file"
        )
    if kind == "rwkv":
        return _world(read_entries(metadata, path))
    from .gguf_bpe import byte_level, pieces

    return (pieces if kind == "llama" else byte_level)(read_entries(metadata, path))


def _world(entries: Entries) -> Tokenizer:
    """Return a World tokenizer.

    Its ``tokenizer.ggml.eot_token_id`` is a blank line, for conversations, and ends no text here.
    """
    control, where = entries.of_type(CONTROL, UNKNOWN), f"{entries.source}: {PREFIX}tokens"
    tokens: list[bytes | None] = [b""]
    for id in range(1, len(entries.tokens)):
        text, kind = entries.tokens[id], entries.types[id]
        try:
            literal = text.encode() if kind in (CONTROL, UNKNOWN) else literal_bytes(text)
        except ValueError as error:
            raise TokenizerError(f"{where}, id {id}: {error}") from None
        tokens.append(None if kind == UNUSED else literal)
    check_tokens([b"" if id in control.values() else token or b"" for id, token in enumerate(tokens)], where, "id")
    return TrieTokenizer(Path(entries.source).stem, tokens, control=control)
