"""Seeds of vocabularies and of the configurations beside weights."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from . import byte_edits, json_edits, vocabulary_edits
from .configuration_values import CONFIGURED
from .seed import Files, Seed, one_file

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


def world_vocabularies() -> list[Seed]:
    """Return the 256 bytes and a few words, as text and as bytes."""
    tokens: list[str | bytes] = [chr(byte) if byte < 128 else bytes((byte,)) for byte in range(256)]
    tokens += [" the", " then", "then", "日本", b"\xe6\x97", "\n\n", "'\"", "é"]
    lines = [
        f"{n} {token!r} {len(token.encode() if isinstance(token, str) else token)}" for n, token in enumerate(tokens, 1)
    ]
    return [one_file("rwkv_vocab_v20230424.txt", "\n".join(lines + [""]).encode(), vocabulary_edits.edited)]


def _added(id: int, content: str, special: bool = True) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": special}
    return {"id": id, "content": content, **flags}


def _in_pieces() -> dict[str, Any]:
    words = [
        "<unk>",
        "<s>",
        "</s>",
        "<0x0A>",
        "<0xC3>",
        "<0xA9>",
        "▁",
        "t",
        "h",
        "e",
        "▁t",
        "th",
        "▁th",
        "▁the",
        "o",
        "n",
    ]
    template = [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    model = {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None}
    model |= {"end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False}
    decoders = [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    normalizers = [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added(n, word) for n, word in enumerate(words[:3])],
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": template,
            "pair": [*template, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [*decoders, {"type": "Strip", "content": " ", "start": 1, "stop": 0}],
        },
        "model": model
        | {
            "vocab": {word: n for n, word in enumerate(words)},
            "merges": [["▁", "t"], ["▁t", "h"], ["▁th", "e"], ["t", "h"]],
        },
    }


def _byte_level() -> dict[str, Any]:
    words = ["<|endoftext|>", *"abcdefghijklmnopqrst", "Ġ", "Ċ", "Ã", "©", "ab", "Ġt", "Ġth"]
    split = {"type": "Split", "pattern": {"Regex": "'s|\\p{L}+|\\s+"}, "behavior": "Isolated", "invert": False}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 9, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 4}, "direction": "Right", "pad_id": 0, "pad_type_id": 0, "pad_token": "a"}
        | {"pad_to_multiple_of": None},
        "added_tokens": [_added(0, "<|endoftext|>"), _added(len(words), "  ", special=False)],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": byte_level,
        "decoder": byte_level,
        "model": {"type": "BPE", "vocab": {word: n for n, word in enumerate(words)}, "merges": ["a b", "Ġ t", "Ġt h"]},
    }


_GROWING = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 1000}
_PARTS: dict[str, tuple[Any, ...]] = {
    "normalizer": (
        {"type": "NFKC"}, {"type": "Lowercase"}, {"type": "StripAccents"}, {"type": "Nmt"}, {"type": "ByteLevel"},
        {"type": "Strip", "strip_left": True, "strip_right": True}, {"type": "Sequence", "normalizers": []}, _GROWING,
        {"type": "Sequence", "normalizers": [_GROWING] * 4}, {"type": "Prepend", "prepend": "x" * 1000},
        {"type": "Replace", "pattern": {"Regex": "(a|a)*$"}, "content": "aa" * 500}, {"type": "Prepend", "prepend": ""},
        {"type": "Replace", "pattern": {"String": ""}, "content": "x"},
        {"type": "Replace", "pattern": {"Regex": ""}, "content": "x"},
        {"type": "Precompiled", "precompiled_charsmap": "AAAA"}, {"type": "Precompiled", "precompiled_charsmap": ""},
        {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None,
         "lowercase": True},
    ),
    "pre_tokenizer": (
        {"type": "Whitespace"}, {"type": "WhitespaceSplit"}, {"type": "BertPreTokenizer"}, {"type": "UnicodeScripts"},
        {"type": "Digits", "individual_digits": True}, {"type": "Punctuation", "behavior": "Isolated"},
        {"type": "CharDelimiterSplit", "delimiter": "a"}, {"type": "Sequence", "pretokenizers": []},
        {"type": "Split", "pattern": {"Regex": "((a+)+)+b"}, "behavior": "Removed", "invert": True},
        {"type": "Split", "pattern": {"Regex": "(a|aa)+$"}, "behavior": "Isolated", "invert": False},
        {"type": "Split", "pattern": {"Regex": "(?=(a*)*b)"}, "behavior": "Contiguous", "invert": False},
        {"type": "Split", "pattern": {"String": ""}, "behavior": "MergedWithNext", "invert": False},
        {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
        {"type": "Metaspace", "replacement": "", "add_prefix_space": True},
        {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    ),
    "post_processor": (
        {"type": "Sequence", "processors": []}, {"type": "BertProcessing", "sep": ["a", 1], "cls": ["b", 2**31]},
        {"type": "RobertaProcessing", "sep": ["a", 1], "cls": ["b", 2], "trim_offsets": True, "add_prefix_space": True},
        {"type": "TemplateProcessing", "single": [], "pair": [], "special_tokens": {}},
        {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}] * 3,
         "pair": [], "special_tokens": {}},
    ),
    "decoder": (
        {"type": "WordPiece", "prefix": "##", "cleanup": True}, {"type": "BPEDecoder", "suffix": "</w>"},
        {"type": "CTC", "pad_token": "a", "word_delimiter_token": "|", "cleanup": True},
        {"type": "Sequence", "decoders": []}, {"type": "ByteLevel"}, {"type": "Fuse"}, {"type": "ByteFallback"},
        {"type": "Strip", "content": "a", "start": 2**31, "stop": 2**63}, {"type": "Metaspace", "replacement": "▁"},
    ),
    "model": (
        {"type": "BPE", "vocab": {}, "merges": []}, {"type": "BPE", "vocab": {"a": 2**32 - 1}, "merges": []},
        {"type": "BPE", "vocab": {"a": 5, "b": 5, "ab": 7}, "merges": [["a", "b"]]},
        {"type": "BPE", "vocab": {"": 0}, "merges": []},
        {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"},
        {"type": "Unigram", "vocab": [["a", 0.0]], "unk_id": 0},
        {"type": "Unigram", "vocab": [["a", -1.0]], "unk_id": 5, "byte_fallback": True},
        {"type": "WordPiece", "vocab": {"a": 0}, "unk_token": "a", "continuing_subword_prefix": "##"},
    ),
    "added_tokens": (
        [], [_added(2**32 - 1, "zz")], [_added(5, "")], [_added(5, "th")], [_added(1, "a"), _added(1, "a")],
        [_added(2**31, "a", special=False)], [_added(0, "é" * 100)], [_added(99, "\0")],
    ),
}  # fmt: skip
"""What may stand in the fields of a ``tokenizer.json``."""
_WORDS = tuple(part for parts in _PARTS.values() for part in parts)
_WORDS += ({"Regex": "("}, {"Regex": "(?i)a{1000}{1000}"}, {"String": ""}, {"id": "B", "type_id": 0}, "BPE")
_WORDS += ("ByteLevel", "▁", "Ġ", "a", "<s>", ["a", "b"], ["", ""], "a b", "a  b", _added(5, "th"), 0.5, 2.0)


def tokenizer_files() -> list[Seed]:
    """Return a vocabulary in pieces and a byte-level one."""
    return [
        Seed(
            {"tokenizer.json": json.dumps(value).encode()},
            "tokenizer.json",
            lambda rng, value=value: _described(value, rng),
        )
        for value in (_in_pieces(), _byte_level())
    ]


def _described(value: dict[str, Any], rng: random.Random) -> Files:
    if rng.random() < 0.3:
        value = _with_part(value, rng)
        if rng.random() < 0.7:
            return {"tokenizer.json": json.dumps(value).encode()}
    return {"tokenizer.json": json_edits.written(json_edits.edited(value, rng, _WORDS), rng)}


def _with_part(value: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """Return a description with another part in one of its fields, or beside what is there."""
    field = rng.choice(list(_PARTS))
    part, before = rng.choice(_PARTS[field]), value[field]
    lists = {"normalizer": "normalizers", "pre_tokenizer": "pretokenizers", "post_processor": "processors"}
    lists |= {"decoder": "decoders"}
    if field == "added_tokens":
        part = before + part
    elif field in lists and before is not None and rng.random() < 0.5:
        part = {"type": "Sequence", lists[field]: rng.choice(([before, part], [part, before]))}
    elif field == "model" and rng.random() < 0.5:
        part = before | part
    return value | {field: part}


def config_folders() -> list[Seed]:
    """Return the tiny models of the golden folders, with what else a folder has."""
    return [
        _folder(GOLDEN / name) for name in ("llama", "mistral", "qwen2", "qwen3", "mamba1", "mamba2_codestral", "rwkv")
    ] + [_folder(GOLDEN / "qwen3_next_experts")]


def _folder(golden: Path) -> Seed:
    values: dict[str, Any] = {
        "config.json": json.loads((golden / "config.json").read_text()),
        "generation_config.json": {"_from_model_config": True, "bos_token_id": 1, "eos_token_id": [2, 3], "top_p": 0.9},
        "tokenizer_config.json": {
            "add_bos_token": True,
            "added_tokens_decoder": {str(n): _added(n, word) for n, word in enumerate(("<unk>", "<s>", "</s>"))},
            "bos_token": "<s>",
            "eos_token": {"__type": "AddedToken", **_added(2, "</s>")},
            "chat_template": "{{ messages }}",
            "model_max_length": 10**30,
            "tokenizer_class": "LlamaTokenizer",
        },
    }
    files = {name: json.dumps(value).encode() for name, value in values.items()}
    files["model.safetensors"] = (golden / "model.safetensors").read_bytes()
    files["tokenizer.json"] = json.dumps(_in_pieces()).encode()

    def mutate(rng: random.Random) -> Files:
        name = rng.choice(("config.json", "config.json", "config.json", *values))
        if rng.random() < 0.05:
            return {**files, name: byte_edits.edited(files[name], rng)}
        return {**files, name: json_edits.written(json_edits.edited(values[name], rng, CONFIGURED), rng)}

    return Seed(files, "", mutate)
