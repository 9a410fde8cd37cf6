"""Tokenizers: published ids, longest match against an oracle, streams, vocabulary files and their faults."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import pickle
import random
import subprocess
import sys
import unicodedata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wkvnp.errors import MissingExtraError, TokenizerError
from wkvnp.tokenizers import StreamDecoder, Tokenizer, load_tokenizer, trie, vocabulary
from wkvnp.tokenizers.pieces import encode_pieces

SINGLE = [bytes((byte,)) for byte in range(256)]
# Words, pieces of characters, tokens that go nowhere halfway ("abcdef" without "abcde"), and quotes of every kind.
WORDS = [
    *(
        b"ab",
        b"abc",
        b"abcdef",
        b"the",
        b" the",
        b"there",
        b"  ",
        b"    ",
        b"\n\n",
        b"'s",
        b'"',
        b"\\n",
        b"\"'\\",
        b"a" * 40,
    ),
    *("é".encode(), "我".encode(), "我们".encode(), "🙂".encode(), "é🙂".encode(), "\x85".encode(), "\u2028".encode()),
    *(b"\xc3", b"\xe6\x88", b"\x88\x91", b"\xf0\x9f", b"\x00\x00", b"\xff\xfe", b" " + "é".encode()),
]
TOKENS = [b"", *SINGLE, *[word for word in WORDS if len(word) > 1]]

WORLD_IDS = {
    "Hello world": [33155, 40213],
    "User: hi\n\nAssistant:": [24281, 59, 4571, 261, 5585, 41693, 59],
    "\nElon Musk has": [11, 994, 2098, 29435, 21800],
    "我们发现": [12605, 10402, 10997, 14446],
    "The quick brown fox": [6699, 39418, 37917, 21704],
    "  indented\n\tcode": [267, 41621, 1843, 260, 25036],
    "é🙂": [2503, 3319, 2417],
    " 2024年1月": [3493, 644, 12201, 50, 13190],
    "a\r\nb": [98, 263, 99],
    "\x00": [1],
    "\n\n": [261],
    "User: xxx\n\nAssistant: <think": [24281, 59, 22790, 261, 5585, 41693, 59, 295, 35762],
}
PILE_IDS = {
    "Hello world": [12092, 1533],
    "\nIn a shocking finding": [187, 688, 247, 29103, 4560],
    "\n\n": [535],
    "User: hi\n\nAssistant:": [6989, 27, 14260, 187, 187, 6717, 5567, 27],
    "The quick   brown fox": [510, 3158, 50275, 33167, 30013],
    "é🙂 我们": [860, 14931, 18713, 209, 31486],
}


def write_vocabulary(path: Path, tokens: list[bytes], newline: str = "\n") -> str:
    lines = []
    for id, token in enumerate(tokens[1:], 1):
        try:
            literal = repr(token.decode("utf-8"))
        except UnicodeDecodeError:
            literal = repr(token)
        lines.append(f"{id} {literal} {len(token)}{newline}")
    path.write_bytes("".join(lines).encode("utf-8"))
    return str(path)


def longest_match(tokens: list[bytes], data: bytes) -> list[int]:
    """The oracle: try every length, longest first."""
    known = {token: id for id, token in enumerate(tokens) if token}
    longest = max(map(len, known))
    ids, here = [], 0
    while here < len(data):
        length = next(n for n in range(longest, 0, -1) if data[here : here + n] in known and here + n <= len(data))
        ids.append(known[data[here : here + length]])
        here += length
    return ids


def data_file(name: str) -> Path:
    folder = os.environ.get("WKVNP_TEST_DATA")
    if not folder:
        pytest.skip(f"WKVNP_TEST_DATA is not set: not checked against {name}")
    return Path(folder) / name


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return load_tokenizer(write_vocabulary(tmp_path_factory.mktemp("vocabulary") / "small.txt", TOKENS))


@pytest.fixture(scope="module")
def world_path() -> str:
    if os.environ.get("WKVNP_TEST_DATA"):
        return str(data_file(vocabulary.WORLD_FILE))
    try:
        return vocabulary.installed_world_vocabulary()
    except MissingExtraError:
        pytest.skip("neither WKVNP_TEST_DATA nor wkvnp[world]: the World vocabulary is not checked")


@pytest.fixture(scope="module")
def world(world_path: str) -> Tokenizer:
    return load_tokenizer(world_path)


@pytest.fixture(scope="module")
def pile() -> Tokenizer:
    pytest.importorskip("tokenizers", reason="wkvnp[hf] is not installed: the Pile vocabulary is not checked")
    return load_tokenizer(data_file("20B_tokenizer.json"))


@pytest.fixture(scope="module")
def tiny_bpe(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """A byte-level BPE of 256 bytes, two merges and two added tokens, made on the spot."""
    engine_of = pytest.importorskip("tokenizers", reason="wkvnp[hf] is not installed: BPE is not checked")
    from wkvnp.tokenizers.bpe import byte_alphabet

    ids = byte_alphabet() | {"Ġt": 256, "Ã©": 257}
    engine = engine_of.Tokenizer(engine_of.models.BPE(ids, [("Ġ", "t"), ("Ã", "©")]))
    engine.pre_tokenizer = engine_of.pre_tokenizers.ByteLevel(add_prefix_space=False)
    engine.decoder = engine_of.decoders.ByteLevel()
    engine.add_special_tokens(["<|endoftext|>"])
    engine.add_tokens(["ünï code"])
    engine.enable_truncation(3)
    path = tmp_path_factory.mktemp("bpe") / "tokenizer.json"
    engine.save(str(path))
    return load_tokenizer(path)


pieces = st.lists(st.one_of(st.sampled_from(TOKENS), st.binary(max_size=3)), max_size=30).map(b"".join)


# --- longest match ---------------------------------------------------------------------------------------------------


@pytest.mark.interpreted
@settings(deadline=None)
@given(pieces)
def test_trie_equals_the_oracle_on_bytes(small: Any, data: bytes) -> None:
    ids = small.encode_bytes(data)
    assert ids.dtype == np.int32
    assert ids.tolist() == longest_match(TOKENS, data)
    assert small.decode_bytes(ids) == data


@settings(deadline=None)
@given(st.text())
def test_text_survives(small: Tokenizer, text: str) -> None:
    plain = load_tokenizer("bytes")
    assert small.decode(small.encode(text)) == text
    assert plain.decode(plain.encode(text)) == text


@settings(max_examples=40, deadline=None)
@given(
    st.sets(st.binary(min_size=2, max_size=9).map(lambda data: bytes(b % 5 for b in data)), max_size=60), st.binary()
)
def test_any_vocabulary_packs(tmp_path_factory: pytest.TempPathFactory, words: set[bytes], data: bytes) -> None:
    tokens = [b"", *SINGLE, *sorted(words)]
    path = write_vocabulary(tmp_path_factory.getbasetemp() / "any.txt", tokens)
    data = bytes(byte % 6 for byte in data) + b"".join(words)
    assert load_tokenizer(path).encode_bytes(data).tolist() == longest_match(tokens, data)  # type: ignore[attr-defined]


@settings(max_examples=200, deadline=None)
@given(
    st.sets(st.binary(min_size=2, max_size=9).map(lambda data: bytes(97 + b % 3 for b in data)), max_size=30),
    st.lists(st.text("abc", max_size=12), max_size=8),
)
def test_pieces_give_the_tokens_of_the_whole(
    tmp_path_factory: pytest.TempPathFactory, words: set[bytes], pieces: list[str]
) -> None:
    path = write_vocabulary(tmp_path_factory.getbasetemp() / "any.txt", [b"", *SINGLE, *sorted(words)])
    for any_tokenizer in (load_tokenizer(path), load_tokenizer("bytes")):
        ids = [id for part in encode_pieces(any_tokenizer, pieces) for id in part.tolist()]
        assert ids == any_tokenizer.encode("".join(pieces)).tolist()


def test_pieces_of_the_world_and_of_bpe(world: Tokenizer, tiny_bpe: Tokenizer) -> None:
    text = "the there 我们 é🙂 abcdeabcdef" * 50 + " " * 500 + "\n" * 300 + "<|endoftext|>" + "\r\n\r\n ünï code"
    for any_tokenizer in (world, tiny_bpe, load_tokenizer("bytes")):
        for size in (1, 3, 50, 130, 1000):
            cut = [text[begin : begin + size] for begin in range(0, len(text), size)]
            parts = [part.tolist() for part in encode_pieces(any_tokenizer, cut)]
            assert [id for part in parts for id in part] == any_tokenizer.encode(text).tolist()
            assert any_tokenizer is tiny_bpe or size > 500 or len(parts) > 2


def test_crowded_trie_grows() -> None:
    # 256 nodes of 60 scattered children each: no two fit into one block of slots, which the first guess assumes.
    draw = random.Random(0)
    tokens = [b"", *SINGLE, *(bytes((a, b)) for a in range(256) for b in draw.sample(range(256), 60))]
    slots = trie.pack_trie(tokens)
    assert slots.size > 2 * sum(map(len, tokens)) and not slots.flags.writeable
    cursor, ids = np.zeros(2, np.int64), np.empty(len(tokens), np.int32)
    data = np.frombuffer(b"".join(tokens[257:]), np.uint8)
    trie.match_longest.serial(data, slots, ids, cursor)
    assert cursor.tolist() == [data.size, len(tokens) - 257]
    assert ids[: cursor[1]].tolist() == list(range(257, len(tokens)))


@pytest.mark.interpreted
def test_long_text_goes_in_several_launches(small: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "the there 我们 é🙂 abcdeabcdef" * 5
    expected = small.encode(text).tolist()
    monkeypatch.setattr(trie, "_LAUNCH", 7)
    assert small.encode(text).tolist() == expected == longest_match(TOKENS, text.encode())


def test_empty_text_is_no_tokens(small: Tokenizer) -> None:
    for each in (small, load_tokenizer("bytes")):
        assert each.encode("").shape == (0,) and each.encode("").dtype == np.int32
        assert each.decode([]) == "" and each.decode(np.empty(0, np.int32)) == ""


def test_what_a_vocabulary_file_says(small: Tokenizer) -> None:
    assert (small.name, small.vocab_size, small.end_of_text) == ("small", len(TOKENS), 0)
    assert repr(small) == f"<tokenizer small: {len(TOKENS)} ids>"
    assert [small.token_bytes(id) for id in range(small.vocab_size)] == TOKENS
    assert small.decode([0]) == "" and small.decode([0, 98, 0]) == "a"
    again = pickle.loads(pickle.dumps(small))
    assert again.encode("there é").tolist() == small.encode("there é").tolist()


# --- the World vocabulary --------------------------------------------------------------------------------------------


def test_world_ids_as_published(world: Tokenizer) -> None:
    assert (world.name, world.vocab_size, world.end_of_text) == ("rwkv-world", 65536, 0)
    for text, ids in WORLD_IDS.items():
        assert world.encode(text).tolist() == ids, text
        assert world.decode(ids) == text


def test_world_literals_mean_what_python_says(world_path: str) -> None:
    tokens = vocabulary.read_vocabulary(Path(world_path).read_bytes(), world_path)
    lines = Path(world_path).read_bytes().decode("utf-8").split("\n")[:-1]
    assert len(tokens) == len(lines) + 1 == 65530
    for line, token in zip(lines, tokens[1:], strict=True):
        literal = ast.literal_eval(line[line.index(" ") + 1 : line.rindex(" ")])
        assert token == (literal.encode("utf-8") if isinstance(literal, str) else literal)


def test_world_in_both_line_endings(world: Tokenizer, world_path: str, tmp_path: Path) -> None:
    data = Path(world_path).read_bytes().replace(b"\r\n", b"\n")
    (tmp_path / "dos.txt").write_bytes(data.replace(b"\n", b"\r\n"))
    tokens = vocabulary.read_vocabulary((tmp_path / "dos.txt").read_bytes(), "dos.txt")
    assert tokens == [world.token_bytes(id) for id in range(65530)]


def test_world_equals_the_oracle(world: Any, world_path: str) -> None:
    draw = random.Random(7)
    tokens = vocabulary.read_vocabulary(Path(world_path).read_bytes(), world_path)
    samples = [draw.randbytes(4000), b"".join(draw.choices(tokens, k=2000)), b"".join(draw.choices(tokens[-9:], k=9))]
    for top in (0x80, 0x800, 0x3100, 0xA000, 0x20000):
        points = (draw.randrange(top) for _ in range(2000))
        samples.append("".join(chr(p) for p in points if not 0xD800 <= p < 0xE000).encode("utf-8"))
    for data in samples:
        ids = world.encode_bytes(data)
        assert ids.tolist() == longest_match(tokens, data)
        assert world.decode_bytes(ids) == data


def test_world_equals_pyrwkv_tokenizer(world: Tokenizer) -> None:
    peer = pytest.importorskip("pyrwkv_tokenizer", reason="pyrwkv-tokenizer is not installed: no second witness")
    other = peer.RWKVTokenizer()
    draw = random.Random(8)
    points = [draw.randrange(draw.choice((0x80, 0x800, 0xA000, 0x20000))) for _ in range(100_000)]
    text = "".join(chr(p) for p in points if not 0xD800 <= p < 0xE000)
    assert world.encode(text).tolist() == other.encode(text)
    lambada = data_file("text/lambada_test.jsonl").read_text(encoding="utf-8")
    text = "\n".join(json.loads(line)["text"] for line in lambada.split("\n") if line)
    assert world.encode(text).tolist() == other.encode(text)
    assert world.decode(world.encode(text)) == text


def test_world_ids_beyond_the_file_stand_for_nothing(world: Tokenizer) -> None:
    assert world.token_bytes(65529) != b""
    for id in (65530, 65535, 65536, -1):
        with pytest.raises(TokenizerError, match=rf"rwkv-world: token id {id} is not in .*vocab_size 65536"):
            world.decode([33155, id])
        with pytest.raises(TokenizerError, match=f"token id {id} "):
            world.token_bytes(id)


# --- BPE -------------------------------------------------------------------------------------------------------------


def test_pile_ids_as_published(pile: Tokenizer) -> None:
    assert (pile.name, pile.vocab_size, pile.end_of_text) == ("20b", 50277, 0)
    for text, ids in PILE_IDS.items():
        assert pile.encode(text).tolist() == ids, text
        assert pile.decode(ids) == text
    assert pile.token_bytes(0) == b"<|endoftext|>" and pile.token_bytes(50254) == b" " * 24
    assert [pile.token_bytes(id) for id in (860, 14931, 18713)] == ["é".encode(), b"\xf0\x9f", b"\x99\x82"]


@settings(max_examples=50, deadline=None)
@given(st.text(st.characters(min_codepoint=1, max_codepoint=0x2FFF)))
def test_pile_decodes_to_composed_text(pile: Tokenizer, text: str) -> None:
    text = unicodedata.normalize("NFC", text)
    assert pile.decode(pile.encode(text)) == text


def test_small_bpe(tiny_bpe: Tokenizer) -> None:
    assert tiny_bpe.vocab_size == 260 and tiny_bpe.end_of_text == 258 and tiny_bpe.name == "tokenizer"
    text = "the then\n\0é<|endoftext|>ünï code"
    ids = tiny_bpe.encode(text)
    assert ids.dtype == np.int32  # and not cut to the three tokens that the file asks for
    assert ids.tolist() == [*b"the", 256, *b"hen\n\0", 257, 258, 259]
    assert tiny_bpe.decode(ids) == text and tiny_bpe.token_bytes(259) == "ünï code".encode()
    assert [tiny_bpe.token_bytes(byte) for byte in range(256)] == SINGLE
    assert pickle.loads(pickle.dumps(tiny_bpe)).encode(text).tolist() == ids.tolist()
    with pytest.raises(TokenizerError, match="token id 260 is not in the vocabulary"):
        tiny_bpe.decode([260])


def test_bpe_refuses_what_has_no_bytes(tmp_path: Path) -> None:
    engine_of = pytest.importorskip("tokenizers", reason="wkvnp[hf] is not installed: BPE is not checked")
    path = tmp_path / "words.json"
    engine_of.Tokenizer(engine_of.models.WordLevel({"日本": 0}, unk_token="日本")).save(str(path))
    with pytest.raises(TokenizerError, match=r"words\.json: .* its model must be of type BPE; got 'WordLevel'"):
        load_tokenizer(path)
    engine = engine_of.Tokenizer(engine_of.models.BPE({"日本": 0}, []))
    engine.save(str(path))
    with pytest.raises(TokenizerError, match=r"words\.json: the decoder must be ByteLevel.*got none"):
        load_tokenizer(path)
    engine.decoder = engine_of.decoders.ByteLevel()
    engine.save(str(path))
    with pytest.raises(TokenizerError, match=r"token '日本' \(id 0\) is not byte-level: '日' stands for no byte"):
        load_tokenizer(path)
    path.write_text('{"version": 1}')
    with pytest.raises(TokenizerError, match=r"words\.json: not a tokenizer\.json"):
        load_tokenizer(path)


# --- streams ---------------------------------------------------------------------------------------------------------


def stream(decoder: StreamDecoder, ids: Any) -> list[str]:
    return [*(decoder.feed(id) for id in ids), decoder.flush()]


@settings(deadline=None)
@given(pieces)
def test_stream_joins_to_the_whole_text(small: Any, data: bytes) -> None:
    plain: Any = load_tokenizer("bytes")
    for each in (small, plain):
        ids = each.encode_bytes(data)
        assert "".join(stream(each.decoder(), ids)) == each.decode(ids) == data.decode("utf-8", "replace")


def test_stream_cut_anywhere() -> None:
    data = "aé我🙂".encode() + b"\xff\xf0\x9fz\xe6\x88"
    decoder = load_tokenizer("bytes").decoder()
    for cut in range(len(data) + 1):  # flush makes a decoder new, so one serves for both parts
        for part in (data[:cut], data[cut:]):
            assert "".join(stream(decoder, part)) == part.decode("utf-8", "replace")


def test_stream_holds_back_part_of_a_character() -> None:
    assert stream(load_tokenizer("bytes").decoder(), "é🙂!".encode()) == ["", "é", "", "", "", "🙂", "!", ""]
    assert stream(load_tokenizer("bytes").decoder(), b"\xf0\x9f") == ["", "", "\ufffd"]
    assert stream(load_tokenizer("bytes").decoder(), b"\xffa") == ["\ufffd", "a", ""]


# --- what is refused -------------------------------------------------------------------------------------------------


def test_lone_surrogates_are_named(small: Tokenizer, tiny_bpe: Tokenizer) -> None:
    for each in (small, load_tokenizer("bytes"), tiny_bpe):
        with pytest.raises(TokenizerError, match=rf"{each.name}: .*lone surrogate '\\ud83d' at position 3"):
            each.encode("abc\ud83d")
        with pytest.raises(TokenizerError, match="text must be a str; got bytes"):
            each.encode(b"abc")  # type: ignore[arg-type]


@pytest.mark.parametrize("ids", [[0.5], [[1, 2]], 7, "abc", [2**70], [True], [[1], [2, 3]], None])
def test_ids_must_be_integers(ids: Any) -> None:
    with pytest.raises(TokenizerError, match="bytes: ids must be a sequence of integers"):
        load_tokenizer("bytes").decode(ids)


@pytest.mark.parametrize("kind", [list, tuple, np.array, lambda ids: np.array(ids, np.uint64)])
def test_ids_may_be_any_integers(kind: Any) -> None:
    assert load_tokenizer("bytes").decode(kind([104, 105])) == "hi"
    with pytest.raises(TokenizerError, match=r"bytes: token id 256 is not in the vocabulary \(vocab_size 256\)"):
        load_tokenizer("bytes").decode(kind([104, 256]))
    with pytest.raises(TokenizerError, match=f"token id {2**64 - 1} is not in"):
        load_tokenizer("bytes").decode(np.array([2**64 - 1], np.uint64))


def test_one_id_must_be_an_integer() -> None:
    assert load_tokenizer("bytes").token_bytes(np.int64(65)) == b"A"  # type: ignore[arg-type]
    with pytest.raises(TokenizerError, match=r"a token id must be an integer; got 1\.5"):
        load_tokenizer("bytes").decoder().feed(1.5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"", "must be an id"),
        (b"3 'ab' x", "must be an id"),
        (b"3 'a'b' 3", "must be an id"),
        (b"3 'a' 'b' 2", "must be an id"),
        (b"3 \"ab' 2", "must be an id"),
        (b"3 'ab\\' 2", "must be an id"),
        (b"3 ab 2", "must be an id"),
        (b"3 __import__('os') 2", "must be an id"),
        (b" 3 'ab' 2", "must be an id"),
        (b"3  'ab' 2", "must be an id"),
        (b"4 'ab' 2", "expected 3, got 4"),
        (b"3 'ab' 3", "that of the token, 2 bytes, and not 0; got 3"),
        (b"3 '' 0", "that of the token, 0 bytes, and not 0; got 0"),
        (b"3 '\xc3\xa9' 1", "2 bytes"),
        (b"3 b'\xc3\xa9' 2", "must be ASCII"),
        (b"3 'a\xff' 2", "must be UTF-8 text"),
        (b"3 'a\\q' 2", r"escape \\q must be one of"),
        (b"3 'a\\x4' 2", r"escape \\x must be one of"),
        (b"3 b'a\\u0041' 2", r"escape \\u must be one of"),
        (b"3 '\\ud800' 3", "surrogates not allowed"),
        (b"3 '\\U00110000' 4", r"chr\(\) arg"),
        (b"3 '\\x01' 1", r"b'\\x01' is already on line 2"),
    ],
)
def test_faulty_lines_are_named(tmp_path: Path, line: bytes, message: str) -> None:
    path = Path(write_vocabulary(tmp_path / "bad.txt", TOKENS))
    lines = path.read_bytes().split(b"\n")
    lines[2] = line
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(TokenizerError, match=rf"bad\.txt, line 3: .*{message}"):
        load_tokenizer(path)


@pytest.mark.parametrize(
    ("count", "message"), [(200, "line 200: .* 56 of the 256 .*b'\\\\xc8'"), (0, "line 0: .* 256 of")]
)
def test_vocabulary_must_hold_every_byte(tmp_path: Path, count: int, message: str) -> None:
    path = write_vocabulary(tmp_path / "short.txt", TOKENS[: count + 1])
    with pytest.raises(TokenizerError, match=rf"short\.txt, {message}"):
        load_tokenizer(path)


def test_lines_may_end_either_way(tmp_path: Path, small: Tokenizer) -> None:
    path = Path(write_vocabulary(tmp_path / "dos.txt", TOKENS, "\r\n"))
    assert vocabulary.read_vocabulary(path.read_bytes(), str(path)) == TOKENS
    path.write_bytes(path.read_bytes().removesuffix(b"\r\n"))
    assert vocabulary.read_vocabulary(path.read_bytes(), str(path)) == TOKENS


# --- choosing --------------------------------------------------------------------------------------------------------


def test_choosing_by_size_or_model(world_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = SimpleNamespace(config=SimpleNamespace(vocab_size=256))
    assert load_tokenizer(256).name == load_tokenizer(np.int64(256)).name == load_tokenizer(model).name == "bytes"
    monkeypatch.setenv("WKVNP_WORLD_VOCAB", world_path)
    assert load_tokenizer(65536).name == load_tokenizer("rwkv-world").name == "rwkv-world"
    with pytest.raises(TokenizerError, match=r"no vocabulary of 1000 ids is known; give one by name .'bytes', '20b'"):
        load_tokenizer(1000)
    for nonsense in (None, 2.5, object(), model.config):
        with pytest.raises(TokenizerError, match="must be a name, a path, a vocabulary size or a model; got"):
            load_tokenizer(nonsense)


def test_choosing_the_pile_vocabulary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_bpe: Tokenizer) -> None:
    monkeypatch.delenv("WKVNP_20B_TOKENIZER", raising=False)
    for source in ("20b", 50277):
        with pytest.raises(TokenizerError, match=r"the path of 20B_tokenizer\.json.* or set WKVNP_20B_TOKENIZER"):
            load_tokenizer(source)
    monkeypatch.setenv("WKVNP_20B_TOKENIZER", str(tmp_path / "absent.json"))
    with pytest.raises(TokenizerError, match=r"WKVNP_20B_TOKENIZER must name a file; it names .*absent\.json"):
        load_tokenizer("20b")


def test_pile_vocabulary_from_the_environment(monkeypatch: pytest.MonkeyPatch, pile: Tokenizer) -> None:
    monkeypatch.setenv("WKVNP_20B_TOKENIZER", str(data_file("20B_tokenizer.json")))
    assert load_tokenizer("20b").encode("Hello world").tolist() == [12092, 1533]


def test_unknown_names_and_files(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"'word' is neither a known name .*'rwkv-world'.* nor a file"):
        load_tokenizer("word")
    with pytest.raises(TokenizerError, match=r"is a folder without a vocabulary, as tokenizer\.json"):
        load_tokenizer(tmp_path)


def test_world_is_found_in_an_installed_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "rwkv"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    write_vocabulary(package / vocabulary.WORLD_FILE, TOKENS)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    importlib.invalidate_caches()
    monkeypatch.delenv("WKVNP_WORLD_VOCAB", raising=False)
    monkeypatch.delitem(sys.modules, "rwkv", raising=False)
    monkeypatch.setitem(sys.modules, "pyrwkv_tokenizer", None)
    assert load_tokenizer("rwkv-world").encode("there").tolist() == [TOKENS.index(b"there")]


def test_missing_packages_name_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("WKVNP_WORLD_VOCAB", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"WKVNP_WORLD_VOCAB.*pip install 'wkvnp\[world\]'"):
        load_tokenizer("rwkv-world")
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    (tmp_path / "t.json").write_text("{}")
    with pytest.raises(MissingExtraError, match=r"t\.json needs the package 'tokenizers'.*pip install 'wkvnp\[hf\]'"):
        load_tokenizer(tmp_path / "t.json")


def test_import_is_light() -> None:
    code = (
        "import sys, wkvnp.tokenizers as t; t.load_tokenizer('bytes').decoder().feed(65)\n"
        "assert not {'numba', 'scipy', 'tokenizers', 'pyrwkv_tokenizer'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
