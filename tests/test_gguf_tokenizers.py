"""The vocabulary inside a GGUF file: what llama.cpp would make of it, which model gets it, and damaged ones."""

from __future__ import annotations

import itertools
import random
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from gguf_writer import Typed, write_gguf

import wkvnp
from wkvnp.cli import main
from wkvnp.errors import CheckpointError, MissingExtraError, TokenizerError
from wkvnp.tokenizers import Tokenizer, load_tokenizer
from wkvnp.tokenizers.gguf_splits import SPLITS
from wkvnp.tokenizers.patterns import linear

pytest.importorskip("tokenizers", reason="wkvnp[hf] is not installed: vocabularies of GGUF files are not checked")
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
WORDS = [
    "▁",
    "▁t",
    "he",
    "▁the",
    "er",
    "in",
    "▁a",
    "nd",
    "▁and",
    "▁▁",
    "▁▁▁▁",
    "t",
    "h",
    "e",
    "r",
    "i",
    "n",
    "a",
    "d",
    "é",
]


def llama(words: list[str] = WORDS, scores: list[float] | None = None, **more: Any) -> dict[str, Any]:
    """Return the metadata of a vocabulary of pieces: unknown, begin, end, bytes, words, a user's token, two unused."""
    tokens = ["<unk>", "<s>", "</s>", *BYTES, *words, "<|tool|>", "[PAD0]", "[PAD1]"]
    types = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256, *[NORMAL] * len(words), USER_DEFINED, UNUSED, UNUSED]
    scored = [0.0] * 259 + (scores or [float(-n) for n in range(len(words))]) + [0.0] * 3
    found = {"model": "llama", "tokens": tokens, "scores": scored, "token_type": [Typed(5, kind) for kind in types]}
    found |= {"bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0}
    return ggml(found | more)


def ggml(entries: dict[str, Any]) -> dict[str, Any]:
    return {f"tokenizer.ggml.{name}": value for name, value in entries.items() if value is not None}


def of(metadata: dict[str, Any], folder: Path) -> Tokenizer:
    (folder / "v.gguf").write_bytes(write_gguf(metadata, {}))
    return load_tokenizer(folder / "v.gguf")


def by_scores(text: str, words: list[str], scores: list[float]) -> list[str]:
    """The oracle: llama.cpp's merging, the neighbours of the highest score first, among equals the leftmost."""
    known, symbols = dict(zip(words, scores, strict=True)), list(text)
    while True:
        pairs = [(known[a + b], -n) for n, (a, b) in enumerate(itertools.pairwise(symbols)) if a + b in known]
        if not pairs:
            return symbols
        at = -max(pairs)[1]
        symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]


def ids_of(symbols: list[str], words: list[str]) -> list[int]:
    ids: list[int] = []
    for symbol in symbols:
        ids += [259 + words.index(symbol)] if symbol in words else [3 + byte for byte in symbol.encode()]
    return ids


@pytest.mark.parametrize("prefix", [True, False])
def test_pieces_merge_as_llama_cpp_does(prefix: bool, tmp_path: Path) -> None:
    ours = of(llama(add_space_prefix=prefix), tmp_path)
    scores = [float(-n) for n in range(len(WORDS))]
    for text in ("the other and in", " the", "a    and\n\n  the", "日本é and 🙂", "aaa nd<|tool|>the", "", "▁the x"):
        parts = text.split("<|tool|>")
        expected = [1]
        for n, part in enumerate(parts):
            expected += [259 + len(WORDS)] * (n > 0)
            symbols = by_scores("▁" * (prefix and bool(part)) + part.replace(" ", "▁"), WORDS, scores)
            expected += ids_of(symbols, WORDS)
        assert ours.begin(text).tolist() == expected, text
        assert ours.decode(ours.encode(text)) == text.replace("▁", " ")


def test_pieces_of_any_vocabulary_merge_as_llama_cpp_does(tmp_path: Path) -> None:
    rng = random.Random(5)
    for _ in range(60):
        words = list("abc▁") + list({"".join(rng.choices("abc▁", k=rng.randrange(2, 5))) for _ in range(12)})
        rng.shuffle(words)
        # A word that no two words make is never reached; of two ways to make one, which is first can only matter in
        # runs of one character, and there the leftmost is.
        scores = [float(-n) for n in range(len(words))]
        ours = of(llama(words, add_space_prefix=False), tmp_path)
        for _ in range(20):
            text = "".join(rng.choices("abc ", k=rng.randrange(1, 30)))
            expected = ids_of(by_scores(text.replace(" ", "▁"), words, scores), words)
            assert ours.encode(text).tolist() == expected


def test_what_the_metadata_of_pieces_say(tmp_path: Path) -> None:
    ours = of(llama(), tmp_path)
    assert (ours.name, ours.vocab_size, ours.end_of_text, ours.stop_tokens) == ("v", 262 + len(WORDS), 2, (2,))
    assert ours.token_bytes(259) == b" " and ours.token_bytes(3 + 0xFF) == b"\xff" and ours.token_bytes(1) == b"<s>"
    for unused in (ours.vocab_size - 1, ours.vocab_size - 2):
        with pytest.raises(TokenizerError, match="is not in the vocabulary"):
            ours.token_bytes(unused)
    assert of(llama(add_bos_token=False), tmp_path).begin("the")[0] != 1
    assert of(llama(bos_token_id=2), tmp_path).begin("the")[0] == 2
    assert of(llama(eot_token_id=5), tmp_path).stop_tokens == (2, 5)
    plain = of(llama(bos_token_id=None, eos_token_id=None), tmp_path)
    assert plain.begin("the")[0] == 1 and plain.stop_tokens == (2,)


def test_a_vocabulary_that_the_package_of_llama_cpp_wrote(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf", reason="our reader is compared with the package of llama.cpp")
    metadata = llama()
    writer = gguf.GGUFWriter(tmp_path / "theirs.gguf", "llama")
    writer.add_tokenizer_model("llama")
    writer.add_token_list(metadata["tokenizer.ggml.tokens"])
    writer.add_token_scores(metadata["tokenizer.ggml.scores"])
    writer.add_token_types([typed.value for typed in metadata["tokenizer.ggml.token_type"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(True)
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    theirs, ours = load_tokenizer(tmp_path / "theirs.gguf"), of(metadata, tmp_path)
    for text in ("the other é and", "</s>the<|tool|>in"):
        assert theirs.begin(text).tolist() == ours.begin(text).tolist()
    assert theirs.stop_tokens == ours.stop_tokens == (2,)
    assert 2 in theirs.encode("</s>") and 2 not in theirs.encode("</s>", special=False)
    assert 259 + len(WORDS) in theirs.encode("<|tool|>", special=False)  # a user's token is no control token


def byte_level(pre: str | None = "gpt-2", **more: Any) -> dict[str, Any]:
    from wkvnp.tokenizers.bpe import byte_alphabet

    tokens = [*byte_alphabet(), "Ġt", "Ġth", "Ġthe", "12", "<|im_start|>", "<|im_end|>", "[PAD0]"]
    types = [NORMAL] * 260 + [CONTROL, NORMAL, UNUSED]
    found = {"model": "gpt2", "pre": pre, "tokens": tokens, "token_type": [Typed(5, kind) for kind in types]}
    found |= {"merges": ["Ġ t", "Ġt h", "Ġth e", "1 2"], "eos_token_id": 261}
    return ggml(found | more)


def words(ours: Tokenizer, text: str) -> list[str]:
    return [ours.token_bytes(id).decode("utf-8", "replace") for id in ours.encode(text)]


def test_byte_level_bpe(tmp_path: Path) -> None:
    ours = of(byte_level(), tmp_path)
    assert words(ours, "a the<|im_start|>12 é") == [*"a", " the", "<|im_start|>", "12", " ", "\ufffd", "\ufffd"]
    assert (ours.vocab_size, ours.end_of_text, ours.stop_tokens) == (263, 261, (261,))
    text = "<|im_start|>a<|im_end|>"  # the second is of a normal type in the file, but known to end a turn
    assert ours.encode(text)[[0, -1]].tolist() == [260, 261] and ours.decode(ours.encode(text, special=False)) == text
    assert not {260, 261} & {*ours.encode(text, special=False).tolist(), *ours.begin(text, special=False).tolist()}
    assert words(of(byte_level("qwen2"), tmp_path), "12 the") == ["1", "2", " the"]  # digits one by one
    assert words(of(byte_level("starcoder"), tmp_path), "12 the") == ["1", "2", " the"]
    assert words(of(byte_level("llama-bpe", bos_token_id=260), tmp_path), "12 the") == ["12", " the"]
    assert of(byte_level("llama-bpe", bos_token_id=260), tmp_path).begin("the")[0] == 260
    assert of(byte_level("llama-bpe", bos_token_id=260, add_bos_token=False), tmp_path).begin("t").size == 1
    assert of(byte_level("gpt-2", bos_token_id=260, add_bos_token=True), tmp_path).begin("t")[0] == 260


@pytest.mark.parametrize("pre", SPLITS)
def test_every_split_is_quick_and_loses_nothing(pre: str, tmp_path: Path) -> None:
    for expression in SPLITS[pre].expressions:
        assert linear(expression) == expression
    text = "It's 1234567 o'clock, DON'T\r\n\r\n  été ÉTÉ 日本語 \t\t !?!? \u0301x  "
    ours = of(byte_level(pre, bos_token_id=260), tmp_path)
    assert ours.decode(ours.encode(text)) == text


def test_words_that_are_tokens_are_taken_whole_where_llama_cpp_does(tmp_path: Path) -> None:
    from wkvnp.tokenizers.bpe import byte_alphabet

    more = {"tokens": [*byte_alphabet(), "abc"], "token_type": None, "merges": [], "eos_token_id": None}
    assert words(of(byte_level("llama-bpe", bos_token_id=0, **more), tmp_path), "abc") == ["abc"]
    assert words(of(byte_level("gpt-2", **more), tmp_path), "abc") == ["a", "b", "c"]


def world(**more: Any) -> dict[str, Any]:
    """Return the vocabulary of an RWKV: every byte, a few words, and what fills it up."""
    texts = [repr(bytes([byte]))[2:-1] for byte in range(256)] + [r"the", r" the", r"\n\n", r"\xe6\x97", "it's"]
    tokens = ["<s>", *texts, "[PAD262]", "[PAD263]"]
    types = [CONTROL, *[NORMAL] * len(texts), UNUSED, UNUSED]
    found = {"model": "rwkv", "tokens": tokens, "token_type": [Typed(5, kind) for kind in types], "eot_token_id": 259}
    return ggml(found | more)


def test_world(tmp_path: Path) -> None:
    ours = of(world(), tmp_path)
    assert (ours.vocab_size, ours.end_of_text, ours.stop_tokens) == (264, 0, None)
    assert ours.encode("the the\n\n日it's'").tolist() == [257, 258, 259, 260, 0xA5 + 1, 261, ord("'") + 1]
    assert ours.decode(ours.encode("the <s>日\0")) == "the 日\0"
    assert ours.encode("<s>a").tolist() == [0, 98] and ours.token_bytes(0) == b""
    assert ours.encode("<s>a", special=False).tolist() == [*(byte + 1 for byte in b"<s>a")]
    assert ours.encode("<s>").tolist() == [0] and ours.encode("").tolist() == []
    with pytest.raises(TokenizerError, match="token id 263 is not in the vocabulary"):
        ours.decode([263])


# Which model gets it


def tiny_llama(folder: Path, metadata: dict[str, Any], size: int, name: str = "model.gguf") -> Path:
    """Write a Transformer of one layer whose vocabulary is inside."""
    rng = np.random.default_rng(0)
    shapes = {"attn_norm": (8,), "attn_q": (8, 8), "attn_k": (8, 8), "attn_v": (8, 8), "attn_output": (8, 8)}
    shapes |= {"ffn_norm": (8,), "ffn_gate": (16, 8), "ffn_up": (16, 8), "ffn_down": (8, 16)}
    tensors = {"token_embd.weight": (size, 8), "output_norm.weight": (8,)}
    tensors |= {f"blk.0.{name}.weight": shape for name, shape in shapes.items()}
    facts = {"context_length": 64, "embedding_length": 8, "block_count": 1, "feed_forward_length": 16}
    facts |= {"attention.head_count": 2, "attention.head_count_kv": 2, "attention.layer_norm_rms_epsilon": 1e-5}
    facts |= {"rope.dimension_count": 4, "rope.freq_base": 10000.0, "vocab_size": size}
    entries = {"general.architecture": "llama"} | {f"llama.{name}": value for name, value in facts.items()}
    arrays = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in tensors.items()}
    (folder / name).write_bytes(write_gguf(entries | metadata, arrays))
    return folder / name


def test_a_llama_of_65536_tokens_is_not_given_the_vocabulary_of_rwkv(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metadata = llama()
    fill = 65536 - len(metadata["tokenizer.ggml.tokens"])
    metadata["tokenizer.ggml.tokens"] += [f"[PAD{n}]" for n in range(2, fill + 2)]
    metadata["tokenizer.ggml.token_type"] += [Typed(5, UNUSED)] * fill
    metadata["tokenizer.ggml.scores"] += [0.0] * fill
    path = tiny_llama(tmp_path, metadata, 65536)
    ours = of(metadata, tmp_path)
    (tmp_path / "v.gguf").unlink()
    model = wkvnp.load(path)
    expected = ours.begin("the other").tolist()
    assert load_tokenizer(model).begin("the other").tolist() == expected
    assert load_tokenizer(wkvnp.load(tmp_path)).begin("the other").tolist() == expected
    for where in (path, tmp_path):
        assert main(["tokenize", "--model", str(where), "the other"]) == 0
        assert capsys.readouterr().out.split() == [str(id) for id in ours.encode("the other")]
    assert main(["info", str(path), "--json"]) == 0
    assert '"tokenizer": "model"' in capsys.readouterr().out
    assert main(["generate", "--model", str(path), "the", "-n", "2"]) == 0


def test_the_size_of_other_models_chooses_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tiny_llama(tmp_path, {}, 65536)
    model = wkvnp.load(path)
    for source in (model, SimpleNamespace(config=model.config)):
        with pytest.raises(TokenizerError, match="for a transformer none is chosen by its size; give one by the path"):
            load_tokenizer(source)
    assert main(["generate", "--model", str(path), "the"]) == 1
    assert "none is chosen by its size" in capsys.readouterr().err
    with pytest.raises(TokenizerError, match=r"model\.gguf' has no vocabulary inside"):
        load_tokenizer(path)


def test_an_unknown_vocabulary_inside_is_named_not_passed_over(tmp_path: Path) -> None:
    path = tiny_llama(tmp_path, ggml({"model": "t5"}), 65536)
    with pytest.raises(TokenizerError, match="model must be one of llama, gpt2, rwkv, which are read; got 't5'"):
        load_tokenizer(wkvnp.load(path))


def test_a_model_knows_the_vocabulary_in_its_folder(tmp_path: Path) -> None:
    tiny_llama(tmp_path, llama(), 262 + len(WORDS))
    model = wkvnp.load(tmp_path)
    assert model.source == tmp_path and load_tokenizer(model).name == "model"
    assert wkvnp.load(tmp_path / "model.gguf").source == tmp_path / "model.gguf"
    (tmp_path / "model.gguf").unlink()
    with pytest.raises(TokenizerError, match="none is chosen by its size"):
        load_tokenizer(model)
    assert wkvnp.load().source is None and load_tokenizer(wkvnp.load()).name == "bytes"


def test_without_the_package_the_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    for metadata in (llama(), byte_level()):
        with pytest.raises(
            MissingExtraError, match=r"v\.gguf needs the package 'tokenizers'.*pip install 'wkvnp\[hf\]'"
        ):
            of(metadata, tmp_path)
    assert of(world(), tmp_path).encode("the").tolist() == [257]


# Damaged ones


DAMAGES: dict[str, tuple[dict[str, Any], str]] = {
    "another model": (ggml({"model": "bert"}), "must be one of llama, gpt2, rwkv, which are read; got 'bert'"),
    "a model of no text": (ggml({"model": 3}), "got 3"),
    "no tokens": (llama(tokens=None), "tokens must be an array; got None"),
    "tokens of another kind": (llama(tokens=[1, 2]), "tokens must be an array of str; got 1"),
    "tokens that are one text": (llama(tokens="abc"), "tokens must be an array; got 'abc'"),
    "an empty vocabulary": (llama(tokens=[]), "tokens must hold at least one token"),
    "fewer scores": (llama(scores=[0.0]), "scores must have|scores: "),
    "no scores": (ggml({"model": "llama", "tokens": ["a"]}), "scores must be an array; got None"),
    "fewer types": (llama(token_type=[Typed(5, 1)]), r"token_type must have 282 elements, as many .*; got 1"),
    "types of another kind": (llama(token_type=[1.0] * 282), "token_type must be an array of int; got 1.0"),
    "an unknown type": (llama(token_type=[Typed(5, 9)] * 282), "token_type must hold numbers from 0 to 6; got 9 to 9"),
    "a token twice": (llama(WORDS[:-1] + ["t"]), "tokens has 't' twice, as 270 and 278"),
    "a vast token": (llama(WORDS[:-1] + ["x" * 20000]), "holds a token of 20000 characters"),
    "an end beyond": (llama(eos_token_id=282), "eos_token_id must be below 282, the number of tokens; got 282"),
    "an end of text": (llama(eos_token_id="</s>"), "eos_token_id must be of type int; got '</s>'"),
    "a vast end": (llama(eos_token_id=2**32 - 1), "got 4294967295"),
    "a truth that is none": (llama(add_bos_token=1), "add_bos_token must be of type bool; got 1"),
    "no number": (llama(WORDS, [float("nan")] * len(WORDS)), "scores must be numbers; got nan"),
    "no split": (byte_level(None), "pre must be one of default, .*, which are read; got None"),
    "an unknown split": (byte_level("superbpe"), "pre must be one of .*; got 'superbpe'; give another vocabulary by"),
    "no merges": (byte_level(merges=None), "merges must be an array; got None"),
    "a merge of one": (byte_level(merges=["Ġt"]), "a merge must be of two tokens; got .'Ġt', ''."),
    "a merge of nothing known": (byte_level(merges=["日 本"]), "needs the token '日', which is not in the vocab"),
    "a token of no bytes": (
        byte_level(tokens=["a", "日"], token_type=None, merges=[], eos_token_id=None), "not byte-level"
    ),
    "a World of few bytes": (
        ggml({"model": "rwkv", "tokens": ["<s>", "a", "b"]}), "id 2: the vocabulary ends without 254 of the 256"
    ),
    "a World of no literals": (ggml({"model": "rwkv", "tokens": ["<s>", "é"]}), "id 1: a bytes literal must be ASCII"),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGES)
def test_damaged_vocabularies_are_refused_by_name(case: str, tmp_path: Path) -> None:
    metadata, words = DAMAGES[case]
    if case == "fewer scores":
        metadata = metadata | {"tokenizer.ggml.scores": [0.0] * 3}
    with pytest.raises(TokenizerError, match=words) as caught:
        of(metadata, tmp_path)
    assert "v.gguf" in str(caught.value) and len(str(caught.value)) < 1200


def test_bent_vocabularies_raise_nothing_else(tmp_path: Path) -> None:
    rng = random.Random(3)
    whole = [write_gguf(metadata, {}) for metadata in (llama(WORDS[:9]), byte_level(), world())]
    accepted = 0
    for _ in range(150):
        bent = bytearray(rng.choice(whole))
        for _ in range(rng.choice((1, 2, 4))):
            bent[rng.randrange(24, len(bent))] = rng.randrange(256)
        (tmp_path / "v.gguf").write_bytes(bent)
        try:
            ours = load_tokenizer(tmp_path / "v.gguf")
            assert ours.decode(ours.encode("the t"))
            accepted += 1
        except (TokenizerError, CheckpointError):
            pass
    assert 0 < accepted < 150
