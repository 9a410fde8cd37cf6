"""Vocabularies that are meant to harm: vast ids, growing texts, endless expressions, panics, devices, odd names."""

from __future__ import annotations

import copy
import json
import os
import random
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import wkvnp
from wkvnp.checkpoints.strict_json import parse_object
from wkvnp.cli import main
from wkvnp.errors import CheckpointError, TokenizerError
from wkvnp.tokenizers import Tokenizer, load_tokenizer
from wkvnp.tokenizers.bpe import byte_alphabet
from wkvnp.tokenizers.patterns import linear

MARK = b"\xef\xbb\xbf"
IDS = {char: id for id, char in enumerate(byte_alphabet())} | {"Ġt": 256}
FLAGS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
DESCRIBED: dict[str, Any] = {
    "version": "1.0",
    "added_tokens": [{"id": 257, "content": "<end>", "special": True} | FLAGS],
    "normalizer": None,
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    "post_processor": None,
    "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    "model": {"type": "BPE", "vocab": IDS, "merges": [["Ġ", "t"]], "fuse_unk": False},
}


WHOLE = DESCRIBED["pre_tokenizer"] | {"use_regex": False}


def changed(**parts: Any) -> dict[str, Any]:
    """Return the description with some parts, or, as `model__vocab`, parts of parts, replaced."""
    described = copy.deepcopy(DESCRIBED)
    for name, value in parts.items():
        *path, last = name.split("__")
        place = described
        for step in path:
            place = place[step]
        place[last] = value
    return described


def split(expression: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": False}


def replaced(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def added(id: Any, content: Any = "<end>") -> list[Any]:
    return [{"id": id, "content": content, "special": True} | FLAGS]


def template(*, known: str) -> dict[str, Any]:
    single = [{"SpecialToken": {"id": "<end>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    tokens = {known: {"id": known, "ids": [4_000_000_000], "tokens": [known]}}
    return {"type": "TemplateProcessing", "single": single, "pair": single, "special_tokens": tokens}


def of(described: Any, folder: Path) -> Tokenizer:
    pytest.importorskip("tokenizers", reason="wkvnp[hf] is not installed: tokenizer.json is not checked")
    text = described if isinstance(described, str) else json.dumps(described)
    (folder / "t.json").write_bytes(text.encode("utf-8"))
    return load_tokenizer(folder / "t.json")


HOSTILE: dict[str, tuple[Any, str]] = {
    "a vast id": (changed(model__vocab=IDS | {"x" * 9: 2**32 - 1}), "below 65795, for 259 tokens; got 4294967295"),
    "a vast id that is added": (changed(added_tokens=added(2**32 - 1)), "got 4294967295"),
    "an id of many digits": (changed(model__vocab=IDS | {"zz": 10**400}), "must be below"),
    "a negative id": (changed(model__vocab=IDS | {"zz": -1}), "got -1"),
    "an id that is none": (changed(model__vocab=IDS | {"zz": True}), "got True"),
    "an id of two": (changed(model__vocab=IDS | {"zz": 5}), "has the id 5 of another token"),
    "an added id of another": (changed(added_tokens=added(5)), "has the id 5 of another token"),
    "an added token out of turn": (changed(added_tokens=added(300)), "id 300, which does not follow those before it"),
    "an added token of nothing": (changed(added_tokens=added(257, "")), "must be a list of tokens with content and id"),
    "an added token twice": (changed(added_tokens=added(257) * 2), "'<end>' appears twice"),
    "a merge of unknown tokens": (changed(model__merges=[["q", "zz"]]), "needs the token 'zz', which is not in the"),
    "a merge into nothing": (changed(model__merges=[["q", "q"]]), "needs the token 'qq', which is not in the vocab"),
    "a merge of three": (changed(model__merges=["a b c"]), "a merge must be of two tokens; got 'a b c'"),
    "a merge of numbers": (changed(model__merges=[[1, 2]]), "a merge must be of two tokens"),
    "a prefix that cuts characters": (changed(model__continuing_subword_prefix="é"), "subword_prefix .* absent"),
    "chance": (changed(model__dropout=0.5), "dropout of its model must be absent; got 0.5"),
    "another model": (changed(model={"type": "Unigram", "vocab": [], "unk_id": 2**40}), "must be of type BPE"),
    "a long token": (changed(model__vocab=IDS | {"x" * 20_000: 257}, added_tokens=[]), "has 20000 characters"),
    "a text that grows": (
        changed(normalizer={"type": "Sequence", "normalizers": [replaced({"String": "a"}, "aaaa")] * 9}),
        "make a text 2.62e[+]05 times as long; at most 8",
    ),
    "a text that grows at once": (changed(normalizer=replaced({"String": "a"}, "b" * 100)), "100 times as long"),
    "a text that grows everywhere": (changed(normalizer=replaced({"Regex": "b?"}, "c" * 100)), "200 times as long"),
    "a vast replacement": (changed(normalizer=replaced({"String": "a"}, "b" * 10**6)), "has 1000000 characters"),
    "a replacement for nothing": (changed(normalizer=replaced({"String": ""}, "b")), "must be a text or a regular"),
    "many decompositions": (
        changed(normalizer={"type": "Sequence", "normalizers": [{"type": "NFKD"}] * 3}), "NFKD more than once"
    ),
    "bytes of bytes": (
        changed(pre_tokenizer={"type": "Sequence", "pretokenizers": [DESCRIBED["pre_tokenizer"]] * 20}),
        "ByteLevel more than once",
    ),
    "many steps": (
        changed(pre_tokenizer={"type": "Sequence", "pretokenizers": [split("a")] * 40}), "has 40 steps"
    ),
    "an unknown step": (changed(normalizer={"type": "Precompiled", "precompiled_charsmap": ""}), "got .Precompiled."),
    "steps of no kind": (changed(pre_tokenizer=[1]), r"must be made of ByteLevel, .*; got \[1\]"),
    "pieces of no length": (changed(pre_tokenizer={"type": "FixedLength", "length": 0}), "at least 1; got 0"),
    "an expression of endless ways": (changed(pre_tokenizer=split("(a+)+$")), "'a.' in a group is endless"),
    "an expression of endless steps": (changed(normalizer=replaced({"Regex": "a+b"}, "")), "something must follow"),
    "a token that a template lacks": (changed(post_processor=template(known="other")), "that it does not describe"),
    "a vast id before a text": (changed(post_processor=template(known="<end>")), "with the unknown id 4000000000"),
    "deep lists": ("[" * 100_000, "vocabulary must be|must be an id"),
    "deep objects": ('{"model":' * 100_000, "nested more than 16 deep"),
    "a key twice": ('{"model": 1, "model": 2}', "the key 'model' appears twice"),
    "half of it": (json.dumps(DESCRIBED)[:-40], "not valid JSON|broken or nested"),
    "a lone surrogate": (changed(model__vocab=IDS | {"\ud800": 257}, added_tokens=[]), "not a tokenizer.json"),
    "not a number": ('{"model": NaN}', "its JSON holds NaN, which is no number"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_tokenizers_are_refused_at_once(case: str, tmp_path: Path) -> None:
    described, words = HOSTILE[case]
    begin = time.perf_counter()
    with pytest.raises(TokenizerError, match=words) as caught:
        of(described, tmp_path)
    assert time.perf_counter() - begin < 5
    assert len(str(caught.value)) < 1000 and "\n" not in str(caught.value)


def test_a_vast_id_takes_no_memory(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="no such limits on this system")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(TokenizerError):
        of(HOSTILE["a vast id"][0], tmp_path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kilobytes


def test_a_panic_is_our_error_whenever_it_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Panic(BaseException):
        """What a panic of Rust looks like."""

    class Panicking:
        def encode(self, *arguments: Any, **more: Any) -> Any:
            raise Panic("index out\nof bounds")

    ours: Any = of(DESCRIBED, tmp_path)
    monkeypatch.setattr(ours._engine, "_marked", Panicking())
    for call in (lambda: ours.encode("a"), lambda: ours.begin("a")):
        with pytest.raises(TokenizerError, match=r"t\.json: the text cannot be encoded: index out of bounds"):
            call()
    monkeypatch.setattr(ours._engine, "_marked", None)
    with pytest.raises(TokenizerError, match="the text cannot be encoded"):
        ours.encode("a")


def test_a_real_panic_is_our_error(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers", reason="wkvnp[hf] is not installed: tokenizer.json is not checked")
    from wkvnp.tokenizers.engine import Engine

    engine = Engine(changed(pre_tokenizer=split("(a+)+$")), "t.json")
    with pytest.raises(TokenizerError, match=r"t\.json: the text cannot be encoded: .*retry-limit"):
        engine.ids("a" * 40 + "b", True)


def test_interrupts_are_let_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted:
        def encode(self, *arguments: Any, **more: Any) -> Any:
            raise KeyboardInterrupt

    ours: Any = of(DESCRIBED, tmp_path)
    monkeypatch.setattr(ours._engine, "_marked", Interrupted())
    with pytest.raises(KeyboardInterrupt):
        ours.encode("a")


POOL: list[Any] = [0, 1, -1, 2**32 - 1, 2**64, 1e300, None, True, "", "a", "▁", "é", [], {}, [[]], {"Regex": "a*"}]
POOL += [{"type": "NFKD"}, {"type": "FixedLength", "length": 3}, {"type": "Whitespace"}, {"type": "Metaspace"}]


def test_bent_tokenizers_raise_nothing_else(tmp_path: Path) -> None:
    rng = random.Random(20)
    accepted = 0
    for _ in range(1000):
        described = changed()
        for _ in range(rng.choice((1, 1, 2))):
            place: Any = described
            while True:
                key = rng.choice(list(place) if isinstance(place, dict) else range(len(place)))
                if isinstance(place[key], (dict, list)) and place[key] and rng.random() < 0.7:
                    place = place[key]
                    continue
                place[key] = copy.deepcopy(rng.choice(POOL))
                break
        try:
            ours = of(described, tmp_path)
            ours.decode(ours.encode("the t<end>é"))
            ours.encode("<end>", special=False)
            accepted += 1
        except TokenizerError:
            pass
    assert 10 < accepted < 950


# Regular expressions


ACCEPTED = [
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    r"(?i:'s|'re|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{M}]*[\p{Ll}\p{M}]+(?i:'s)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{M}]+[\p{Ll}\p{M}]*(?i:'s)?|\p{N}",
    r"[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
    r" ?[^(\s|.,!?…。，、।۔،)]+", r"[\p{P}\$\+<=>\^~\|`]+", r"\s{512}(?!\S)|\s{1,2}(?!\S)|\s", r"(?=[A-Z])|_", r"\d",
]  # fmt: skip
REFUSED = [
    "(a+)+$", "a+b", "a*a*b", "(a|a)*", "(?:a?){30}a{30}", "a?" * 30 + "a" * 30, "(?:x{1,9}){1,9}", r"\s+$|x", r"(a)\1",
    r"(?<n>a)\g<n>", "a{2}{3}", "a{2}+", "[[a]b]", "[]a]", "[a&&b]", r"\X+", ".*foo", "(?=.*x)", "(?<!a+)b", "(?x) a",
    "(?i)a", r"\d{1,3}(?=(?:\d{3})*\b)", "a**", "a+*", "(?#x)", "(?~a)", "a{,}", "", "(", "(a", "a)", "((((((a))))))",
    "a" * 5000, ".*?x", r"\s+(?!\S)b", r"\s*[\r\n]+", r"\s*[\r\n]+|x?|\s+", "a*b+|x", "\\", "[", "[a", "{", "*a", r"\K",
    r"\k<a>", ".{1000}.{1000}.{1000}", "(?:a|b)" * 12,
]  # fmt: skip


@pytest.mark.parametrize("expression", ACCEPTED)
def test_expressions_of_published_vocabularies_are_run(expression: str) -> None:
    assert linear(expression) == expression


@pytest.mark.parametrize("expression", REFUSED)
def test_expressions_that_may_take_very_long_are_refused(expression: str) -> None:
    with pytest.raises(TokenizerError, match="may take very long"):
        linear(expression)


def test_blanks_at_the_end_of_a_line_are_found_in_another_way(tmp_path: Path) -> None:
    found = linear(r"\s+$")
    for text in ("a  b", "  a  ", "\n \n  x\n\n", " x", "", "\t\n\t x \n"):
        assert re.findall(found, text, re.MULTILINE) == re.findall(r"\s+$", text, re.MULTILINE)
    ours = of(
        changed(pre_tokenizer={"type": "Sequence", "pretokenizers": [split(r"\s+$"), DESCRIBED["pre_tokenizer"]]}),
        tmp_path,
    )
    begin = time.perf_counter()
    ours.encode(" " * 100_000 + "x")
    assert time.perf_counter() - begin < 5


@pytest.mark.parametrize("expression", ACCEPTED)
def test_accepted_expressions_take_time_in_proportion_to_the_text(expression: str, tmp_path: Path) -> None:
    ours = of(
        changed(
            pre_tokenizer={
                "type": "Sequence",
                "pretokenizers": [split(expression), WHOLE],
            }
        ),
        tmp_path,
    )
    for text in ("a" * 30_000, " " * 30_000 + "a", "A" * 30_000 + "1", "\n" * 30_000 + "a", "1" * 30_000, "'" * 30_000):
        begin = time.perf_counter()
        assert ours.decode(ours.encode(text)) == text
        assert time.perf_counter() - begin < 5


# Control tokens


def test_no_control_tokens_are_made_of_text(tmp_path: Path) -> None:
    ours = of(DESCRIBED, tmp_path)
    text = "a<end> the<end>"
    assert ours.encode(text).tolist().count(257) == 2
    assert 257 not in ours.encode(text, special=False) and 257 not in ours.begin(text, special=False)
    assert ours.decode(ours.encode(text, special=False)) == text


def test_tokens_that_end_a_text_are_none_of_it_whatever_their_file_calls_them(tmp_path: Path) -> None:
    """The end is no special token here, one is made by merges, and one is taken whole."""
    described = changed(
        added_tokens=[*added(258, "<e>"), {"id": 259, "content": "<stop>", "special": False} | FLAGS],
        model__vocab=IDS | {"<e": 257, "<e>": 258},
        model__merges=[["<", "e"], ["<e", ">"]],
        pre_tokenizer=WHOLE,
    )
    for whole in (False, True):
        described["model"]["ignore_merges"] = whole
        (tmp_path / "tokenizer.json").write_text(json.dumps(described))
        (tmp_path / "config.json").write_text('{"eos_token_id": 259}')
        ours = load_tokenizer(tmp_path / "tokenizer.json")
        for text in ("<e>", "<stop>", "a<e>b<stop>", "<e><e>"):
            ids = ours.encode(text, special=False)
            assert not {258, 259} & set(ids.tolist()) and ours.decode(ids) == text
        assert ours.encode("<e><stop>").tolist() == [258, 259]


def test_chat_and_score_take_text_as_text(tmp_path: Path) -> None:
    from wkvnp.generation import Chat

    ours = of(DESCRIBED, tmp_path)
    model = wkvnp.random_model("rwkv7", n_layer=1, n_embd=64, vocab_size=258, rng=0)
    fed: list[int] = []

    class Listening:
        config = model.config

        def __call__(self, tokens: Any, state: Any = None, **more: Any) -> Any:
            fed.extend(int(token) for row in tokens for token in row)
            return model(tokens, state, **more)

    chat = Chat(Listening(), ours, max_tokens=1, rng=0, system="<end>", ban=[257])  # type: ignore[arg-type]
    for _ in range(3):
        list(chat.say("Hi<end>"))
    assert chat.state is not None and len(fed) > 20 and 257 not in fed
    assert 257 not in wkvnp.score(model, ours, "a<end>b").tokens
    list(wkvnp.generate(Listening(), ours, "a<end>", max_tokens=1, rng=0))  # type: ignore[arg-type]
    assert fed[-1] == 257


def test_a_tokenizer_of_your_own_need_not_know_control_tokens() -> None:
    from wkvnp.generation import Chat

    plain = load_tokenizer("bytes")

    class Own:
        name, vocab_size, end_of_text = "own", 256, None
        token_bytes, decode_bytes, decode, decoder = plain.token_bytes, plain.decode_bytes, plain.decode, plain.decoder

        def encode(self, text: str) -> Any:
            return plain.encode(text)

    model = wkvnp.random_model("rwkv7", n_layer=1, n_embd=64, vocab_size=256, rng=0)
    assert len(list(Chat(model, Own(), max_tokens=2, rng=0).say("Hi"))) == 2  # type: ignore[arg-type]
    assert wkvnp.score(model, Own(), "Hello").n_bytes == 4  # type: ignore[arg-type]


# Files


def world_lines() -> bytes:
    return "".join(f"{id} {bytes([id - 1])!r} 1\n" for id in range(1, 257)).encode()


def test_no_file_but_a_regular_one_of_sensible_size_is_a_vocabulary(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "nowhere").symlink_to(tmp_path / "absent")
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(8 << 30)
    names = {
        "/dev/zero": "not a regular file",
        "/dev/stdin/x": "neither a known name .* nor a file",
        str(tmp_path / "pipe"): "pipe: not a regular file",
        str(tmp_path / "loop"): "loop: cannot be read",
        str(tmp_path / "nowhere"): "nowhere: no such file",
        str(tmp_path / "sparse"): "8589934592 bytes are too many for a vocabulary .limit 67108864.",
        "x" * 5000: "longer than the name of a file can be",
        "/" + "x/" * 3000: "longer than the name of a file can be",
        "a\0b": "must be the name of a file, without NUL",
        "": "must be the name of a file or folder; got an empty one",
    }
    for name, words in names.items():
        begin = time.perf_counter()
        with pytest.raises(TokenizerError, match=words) as caught:
            load_tokenizer(name)
        assert time.perf_counter() - begin < 5 and len(str(caught.value)) < 600


def test_a_vast_vocabulary_of_lines_is_refused(tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_bytes(world_lines() + b"257 '" + b"x" * (5 << 20) + b"' 5242880\n")
    with pytest.raises(TokenizerError, match=r"long\.txt: its tokens have 5243136 bytes; at most 4194304 are read"):
        load_tokenizer(tmp_path / "long.txt")
    (tmp_path / "many.txt").write_bytes(world_lines() * 4000)
    with pytest.raises(TokenizerError, match="bytes are too many for a vocabulary"):
        load_tokenizer(tmp_path / "many.txt")


@pytest.mark.parametrize("name", ["x" * 5000, "/" + "x/" * 3000, "a\0b"])
def test_odd_names_of_models_and_states_are_our_errors(name: str) -> None:
    model = wkvnp.random_model("rwkv7", n_layer=1, n_embd=64, vocab_size=256, rng=0)
    calls: list[Callable[[], Any]] = [lambda: wkvnp.load(name), lambda: wkvnp.State.load(name, model)]
    for call in calls:
        with pytest.raises((CheckpointError, wkvnp.errors.StateError), match="name of a file") as caught:
            call()
        assert len(str(caught.value)) < 300


def test_odd_names_in_an_index_are_our_errors(tmp_path: Path) -> None:
    for name in ("x" * 5000 + ".safetensors", "a\0b.safetensors"):
        index = {"metadata": {}, "weight_map": {"emb.weight": name}}
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
        with pytest.raises(CheckpointError):
            wkvnp.load(tmp_path)


def test_a_byte_order_mark_is_no_part_of_a_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "world.txt").write_bytes(MARK + world_lines())
    assert load_tokenizer(tmp_path / "world.txt").encode("a").tolist() == [98]
    pytest.importorskip("tokenizers", reason="wkvnp[hf] is not installed: tokenizer.json is not checked")
    (tmp_path / "t.json").write_bytes(MARK + b" \n" + json.dumps(DESCRIBED).encode())
    assert load_tokenizer(tmp_path / "t.json").encode(" t").tolist() == [256]
    (tmp_path / "prompt.txt").write_bytes(MARK + b"Hi")
    assert main(["tokenize", "--tokenizer", "bytes", "--file", str(tmp_path / "prompt.txt")]) == 0
    assert capsys.readouterr().out.split() == ["72", "105"]
    assert parse_object(MARK + b'{"a": 1}', "x") == {"a": 1}


def test_a_byte_order_mark_in_the_files_of_a_folder(tmp_path: Path) -> None:
    golden = Path(__file__).parent / "golden" / "llama"
    weights = "model.safetensors"
    names = dict.fromkeys(wkvnp.checkpoints.open_checkpoint(golden / weights).tensors, weights)
    (tmp_path / weights).write_bytes((golden / weights).read_bytes())
    (tmp_path / "config.json").write_bytes(MARK + (golden / "config.json").read_bytes())
    index = json.dumps({"metadata": {}, "weight_map": names}).encode()
    (tmp_path / "model.safetensors.index.json").write_bytes(MARK + index)
    for path in (tmp_path, tmp_path / "model.safetensors.index.json"):
        assert wkvnp.load(path).config.architecture == "transformer"


def test_a_byte_order_mark_before_a_chat_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO("\ufeff/help\n"))
    assert main(["chat", "-n", "2"]) == 0
    assert "forget everything that was said" in (found := capsys.readouterr()).err and found.out == ""
