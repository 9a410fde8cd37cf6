"""The vocabularies of GGUF files that the `tokenizers` package runs, described as a ``tokenizer.json`` would."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from ..errors import TokenizerError
from .bpe import BpeTokenizer, decoder_of_pieces
from .description import checked_description
from .engine import package
from .gguf_entries import CONTROL, NORMAL, PREFIX, UNKNOWN, USER_DEFINED, Entries
from .gguf_splits import SPLITS
from .merges import merges_of


def pieces(entries: Entries) -> BpeTokenizer:
    """Return a tokenizer of pieces: the neighbours that make the piece of the highest score become one, and so on.

    What has no piece is written in bytes.
    """
    package(entries.source)
    e = entries.ending(eos=2)
    scores = e.array("scores", float, int, each=True)
    if any(math.isnan(score) for score in scores):
        raise TokenizerError(f"{e.source}: {PREFIX}scores must be numbers; got nan")
    ids, unknown = e.ids(), e.token_id("unknown", 0)
    unknown_text = None if unknown is None else e.tokens[unknown]
    if unknown_text not in ids and any(f"<0x{byte:02X}>" not in ids for byte in range(256)):
        raise TokenizerError(f"{e.source}: its vocabulary has neither a token for every byte nor an unknown token")
    plain = (id for id, kind in enumerate(e.types) if kind in (NORMAL, USER_DEFINED))
    merges = merges_of(((e.tokens[id], scores[id]) for id in plain), e.source)
    blank = e.entry("add_space_prefix", bool, True)
    steps: list[dict[str, Any]] = [{"type": "Prepend", "prepend": "▁"}] if blank else []
    steps.append({"type": "Replace", "pattern": {"String": " "}, "content": "▁"})
    return _tokenizer(
        e,
        {
            "model": _model(ids, merges, unk_token=unknown_text, byte_fallback=True),
            "normalizer": {"type": "Sequence", "normalizers": steps},
            "decoder": decoder_of_pieces(blank),
        },
        e.token_id("bos", 1) if e.entry("add_bos_token", bool, True) else None,
    )


def byte_level(entries: Entries) -> BpeTokenizer:
    """Return a tokenizer of byte-level BPE, with the splits that the file names."""
    package(entries.source)
    e = entries.ending(eos=None)
    name = e.metadata.get(PREFIX + "pre")
    if not isinstance(name, str) or name not in SPLITS:
        raise TokenizerError(
            f"{e.source}: {PREFIX}pre must be one of {', '.join(SPLITS)}, which are read; got {name!r:.60}; "
            "give another vocabulary by the path of its file"
        )
    split = SPLITS[name]
    merges = [list(merge.partition(" ")[::2]) for merge in e.array("merges", str)]
    steps: list[dict[str, Any]] = [
        {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": False}
        for expression in split.expressions
    ]
    by_bytes = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return _tokenizer(
        e,
        {
            "model": _model(e.ids(), merges, ignore_merges=split.whole_words),
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*steps, by_bytes]},
            "decoder": by_bytes,
        },
        e.token_id("bos") if e.entry("add_bos_token", bool, split.begins) else None,
    )


def _model(ids: dict[str, int], merges: list[list[str]], **settings: Any) -> dict[str, Any]:
    return {"type": "BPE", "vocab": ids, "merges": merges, "fuse_unk": False} | settings


def _tokenizer(e: Entries, described: dict[str, Any], first: int | None) -> BpeTokenizer:
    """Return the tokenizer, with the tokens that are found before all others, and the one that begins a text."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    described["version"] = "1.0"
    described["added_tokens"] = [
        {"id": id, "content": text, "special": e.types[id] != USER_DEFINED} | flags
        for text, id in e.of_type(UNKNOWN, CONTROL, USER_DEFINED).items()
    ]
    if first is not None:
        text = e.tokens[first]
        template = [{"SpecialToken": {"id": text, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
        named = {text: {"id": text, "ids": [first], "tokens": [text]}}
        described["post_processor"] = {
            "type": "TemplateProcessing", "single": template, "pair": template, "special_tokens": named
        }  # fmt: skip
    checked = checked_description(described, e.source)
    return BpeTokenizer(checked, Path(e.source).stem, e.source, e.ends or None, size=len(e.tokens))
