"""`tokenizer.json` in the folder of a model: where a text begins and ends, blanks in pieces, and who finds the file."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import wkvnp
from wkvnp.cli import main
from wkvnp.errors import TokenizerError
from wkvnp.tokenizers import Tokenizer, load_tokenizer
from wkvnp.tokenizers.bpe import byte_alphabet

package = pytest.importorskip("tokenizers", reason="wkvnp[hf] is not installed: tokenizer.json is not checked")
GOLDEN = Path(__file__).parent / "golden" / "llama"
SPECIAL = {"<unk>": 0, "<s>": 1, "</s>": 2}
WORDS = ["▁", "t", "h", "e", "▁t", "th", "▁the", "o", "n", "▁o", "▁on", "x", "▁x"]
MERGES = [("▁", "t"), ("▁t", "h"), ("▁th", "e"), ("t", "h"), ("▁", "o"), ("▁o", "n"), ("▁", "x")]
TEXTS = ["the on", " the", "x\nthe", "", "  on", "é on", "on</s>the", "日本"]


def template(engine: Any) -> None:
    engine.post_processor = package.processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])


def pieces(bytes_too: bool = True) -> Any:
    """Return a vocabulary of pieces as LLaMA's: a blank is ▁, and what has no piece is written in bytes."""
    ids = dict(SPECIAL)
    for word in (f"<0x{byte:02X}>" for byte in range(256 if bytes_too else 0)):
        ids[word] = len(ids)
    for word in (*WORDS, "▁th"):
        ids[word] = len(ids)
    engine = package.Tokenizer(package.models.BPE(ids, MERGES, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    decoders = package.decoders
    engine.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    engine.add_special_tokens(list(SPECIAL))
    template(engine)
    return engine


def old_pieces() -> Any:
    engine, normalizers = pieces(), package.normalizers
    engine.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return engine


def new_pieces() -> Any:
    engine = pieces()
    engine.pre_tokenizer = package.pre_tokenizers.Metaspace("▁", prepend_scheme="first", split=False)
    return engine


def byte_level() -> Any:
    ids = SPECIAL | {char: n + 3 for n, char in enumerate(byte_alphabet())} | {"Ġt": 259}
    engine = package.Tokenizer(package.models.BPE(ids, [("Ġ", "t")]))
    engine.pre_tokenizer = package.pre_tokenizers.ByteLevel(add_prefix_space=False)
    engine.decoder = package.decoders.ByteLevel()
    engine.add_special_tokens(list(SPECIAL))
    template(engine)
    return engine


def byte_level_with_blank() -> Any:
    engine = byte_level()
    engine.pre_tokenizer = package.pre_tokenizers.Sequence(
        [package.pre_tokenizers.Digits(), package.pre_tokenizers.ByteLevel(add_prefix_space=True)]
    )
    engine.post_processor = package.processors.ByteLevel(trim_offsets=False)
    return engine


KINDS: dict[str, Callable[[], Any]] = {
    kind.__name__: kind for kind in (old_pieces, new_pieces, byte_level, byte_level_with_blank)
}


def write(folder: Path, engine: Any, **files: Any) -> Path:
    folder.mkdir(exist_ok=True)
    engine.save(str(folder / "tokenizer.json"))
    for name, value in files.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    return folder


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", TEXTS)
def test_a_text_begins_as_the_package_says_and_goes_on_as_it_is(kind: str, text: str, tmp_path: Path) -> None:
    engine = KINDS[kind]()
    ours = load_tokenizer(write(tmp_path / "m", engine))
    assert ours.begin(text).tolist() == engine.encode(text).ids and ours.begin(text).dtype == np.int32
    assert ours.decode(ours.encode(text)) == text  # no blank is added or lost
    if kind != "byte_level":
        assert ours.begin("the").tolist() == [*ours.begin(""), *ours.encode(" the")]
    decoder = ours.decoder()
    assert "".join([*(decoder.feed(id) for id in ours.encode(text)), decoder.flush()]) == text
    assert pickle.loads(pickle.dumps(ours)).begin(text).tolist() == ours.begin(text).tolist()


def test_pieces_and_bytes() -> None:
    ours = tokenizer_of(old_pieces())
    assert ours.begin("the").tolist() == [1, 265] and ours.token_bytes(265) == b" the"
    assert [ours.token_bytes(id) for id in (0, 1, 3, 258, 259, 260)] == [b"<unk>", b"<s>", b"\0", b"\xff", b" ", b"t"]
    assert ours.encode("é").tolist() == [3 + 0xC3, 3 + 0xA9]


def tokenizer_of(engine: Any, **files: Any) -> Tokenizer:
    with tempfile.TemporaryDirectory() as folder:
        return load_tokenizer(write(Path(folder), engine, **files))


def test_a_decoder_that_is_not_understood_is_refused(tmp_path: Path) -> None:
    engine = old_pieces()
    engine.decoder = package.decoders.Sequence([package.decoders.ByteFallback(), package.decoders.Fuse()])
    with pytest.raises(TokenizerError, match=r"the decoder must be ByteLevel, or take pieces with ▁ .* got Sequence"):
        load_tokenizer(write(tmp_path / "m", engine))
    engine.decoder = package.decoders.WordPiece()
    with pytest.raises(TokenizerError, match="got WordPiece"):
        load_tokenizer(write(tmp_path / "m", engine))


@pytest.mark.parametrize(
    ("files", "stop_tokens", "end_of_text"),
    [
        ({}, None, None),
        ({"config": {"eos_token_id": 2}}, (2,), 2),
        ({"config": {"eos_token_id": 2}, "generation_config": {"eos_token_id": [7, 2]}}, (7, 2), 7),
        ({"config": {"eos_token_id": [2, 9]}, "generation_config": {"eos_token_id": None}}, (2, 9), 2),
        ({"config": {"eos_token_id": None}}, None, None),
        ({"config": {"eos_token_id": [9, 2]}, "generation_config": {"eos_token_id": 7}}, (7, 9, 2), 7),
        ({"tokenizer_config": {"eos_token": "</s>"}}, (2,), 2),
        ({"tokenizer_config": {"eos_token": {"__type": "AddedToken", "content": "</s>", "lstrip": False}}}, (2,), 2),
        ({"config": {"eos_token_id": 7}, "tokenizer_config": {"eos_token": "</s>"}}, (7, 2), 7),
        ({"config": {"eos_token_id": 2}, "tokenizer_config": {"eos_token": "</s>"}}, (2,), 2),
        ({"config": {"eos_token_id": 7}, "tokenizer_config": {"eos_token": None}}, (7,), 7),
        ({"tokenizer_config": {"bos_token": "<s>"}}, None, None),
    ],
)
def test_what_ends_a_text(
    files: dict[str, Any], stop_tokens: tuple[int, ...] | None, end_of_text: int | None, tmp_path: Path
) -> None:
    ours = load_tokenizer(write(tmp_path / "m", old_pieces(), **files))
    assert ours.stop_tokens == stop_tokens and ours.end_of_text == end_of_text
    shutil.copy(tmp_path / "m" / "tokenizer.json", tmp_path / "m" / "other.json")
    assert load_tokenizer(tmp_path / "m" / "other.json").stop_tokens is None  # not the vocabulary of the folder's model
    assert load_tokenizer(tmp_path / "m" / "tokenizer.json").stop_tokens == stop_tokens


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ('{"eos_token_id": "</s>"}', r"config\.json: eos_token_id must be an id or a list of them; got '</s>'"),
        ('{"eos_token_id": [2, true]}', r"eos_token_id must be an id or a list of them; got \[2, True\]"),
        ('{"eos_token_id": -1}', "got -1"),
        ('{"eos_token_id": []}', r"got \[\]"),
        ("[2]", r"config\.json: must be a JSON object"),
        ("{", r"config\.json: cannot be read as JSON"),
        ("[" * 100_000, r"config\.json: cannot be read as JSON"),
    ],
)
def test_ends_that_are_none_are_refused(said: str, message: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "m", old_pieces())
    (folder / "config.json").write_text(said)
    with pytest.raises(TokenizerError, match=message):
        load_tokenizer(folder)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (
            '{"eos_token": 2}',
            r"tokenizer_config\.json: eos_token must be a token, or an object with its content; got 2",
        ),
        ('{"eos_token": ["</s>"]}', r"eos_token must be a token, or .*; got \['</s>'\]"),
        ('{"eos_token": {"id": 2}}', r"eos_token must be a token, or .*; got {'id': 2}"),
        ('{"eos_token": {"content": null}}', r"eos_token must be a token, or .*; got {'content': None}"),
        ('{"eos_token": "</end>"}', r"eos_token must be a token of the vocabulary; got '</end>'"),
        ('{"eos_token": "\\ud800"}', r"eos_token must be a token of the vocabulary; got '\\ud800'"),
        ("[]", r"tokenizer_config\.json: must be a JSON object"),
        ("{", r"tokenizer_config\.json: cannot be read as JSON"),
    ],
)
def test_a_last_token_that_is_none_is_refused(said: str, message: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "m", old_pieces())
    (folder / "tokenizer_config.json").write_text(said)
    with pytest.raises(TokenizerError, match=message):
        load_tokenizer(folder)


def test_the_end_of_text_by_its_name_comes_before_those_of_the_folder(tmp_path: Path) -> None:
    engine = byte_level()
    engine.add_special_tokens(["<|endoftext|>"])
    ours = load_tokenizer(write(tmp_path / "m", engine, config={"eos_token_id": 2}))
    assert ours.end_of_text == 260 and ours.stop_tokens == (2,)


# Who begins a text


class Remembering:
    """A model of nothing: it notes what it is fed, and always wants token 2."""

    def __init__(self) -> None:
        self.config, self.fed = SimpleNamespace(vocab_size=300), list[list[int]]()

    def __call__(self, tokens: Any, state: Any = None, logits: str = "last") -> tuple[np.ndarray, Any]:
        tokens = np.asarray(tokens)
        self.fed.append(tokens.ravel().tolist())
        answer = np.zeros((*tokens.shape[: 2 if logits == "all" else 1], 300), np.float32)
        answer[..., 2] = 9
        return answer, wkvnp.State("nothing", (np.zeros((1, 1)),))


def test_only_the_beginning_of_a_text_gets_what_belongs_there() -> None:
    ours = tokenizer_of(old_pieces(), config={"eos_token_id": 2})
    model: Any = Remembering()
    last = list(wkvnp.generate(model, ours, "the", temperature=0))[-1]
    assert last.finish == "stop_token" and model.fed == [[1, 265]]
    list(wkvnp.generate(model, ours, "the", state=last.state, temperature=0))
    assert model.fed[1:] == [ours.encode("the").tolist()] and 1 not in model.fed[1]
    list(wkvnp.generate(model, ours, [5, 6], temperature=0))
    assert model.fed[2:] == [[5, 6]]
    list(wkvnp.generate(model, ours, "the", temperature=0, stop_tokens=(), max_tokens=3))
    assert model.fed[4:] == [[2], [2]]


def test_generation_ends_at_the_token_that_only_the_tokenizer_names() -> None:
    ours = tokenizer_of(old_pieces(), config={"eos_token_id": 7}, tokenizer_config={"eos_token": "</s>"})
    model: Any = Remembering()
    assert list(wkvnp.generate(model, ours, "the", temperature=0))[-1].finish == "stop_token"


def test_a_conversation_begins_once() -> None:
    from wkvnp.generation import Chat

    ours, model = tokenizer_of(old_pieces(), config={"eos_token_id": 2}), Remembering()
    chat = Chat(model, ours, temperature=0)  # type: ignore[arg-type]
    for text in ("the", "on"):
        list(chat.say(text))
    fed = [id for tokens in model.fed for id in tokens]
    assert fed[0] == 1 and fed.count(1) == 1
    assert ours.decode(fed) == "<s> User: the\n\nAssistant:\n\nUser: on\n\nAssistant:"


def test_a_score_begins_as_the_text_does() -> None:
    ours = tokenizer_of(old_pieces(), config={"eos_token_id": 2})
    model = wkvnp.random_model("transformer", n_layer=1, n_embd=16, vocab_size=300, head_size=8, rng=0)
    score = wkvnp.score(model, ours, "the on")
    assert score.context == 1 and score.tokens.tolist() == ours.begin("the on")[1:].tolist()
    assert wkvnp.score(model, ours, "the on", bos=2).context == 2
    np.testing.assert_array_equal(wkvnp.score(model, ours, "the on", bos=2).tokens, score.tokens)
    assert wkvnp.score(model, ours, score.tokens).context == 1
    further = wkvnp.score(model, ours, "the on", bos=2, state=score.state)
    assert further.tokens.tolist() == ours.encode("the on").tolist() != score.tokens.tolist()
    plain = tokenizer_of(byte_level_with_blank(), config={"eos_token_id": 2})
    assert wkvnp.score(model, plain, "the").context == 2  # nothing stands before a text, so the end of the last does


# Who finds the file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder of a tiny model with a vocabulary as large as the model's."""
    shutil.copytree(GOLDEN, tmp_path / "model")
    (tmp_path / "model" / "expected.safetensors").unlink()
    engine = pieces(bytes_too=False)
    engine.pre_tokenizer = package.pre_tokenizers.Metaspace("▁", prepend_scheme="first", split=False)
    return write(tmp_path / "model", engine)


def test_commands_find_the_vocabulary(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, ours = wkvnp.load(folder), load_tokenizer(folder)
    assert ours.vocab_size < model.config.vocab_size == 53 and ours.end_of_text == 2
    pieces = wkvnp.generate(model, ours, "the on", max_tokens=12, temperature=0)
    expected = "".join(piece.text for piece in pieces)
    for where in (folder, folder / "model.safetensors"):
        assert main(["generate", "--model", str(where), "the on", "-n", "12", "--temperature", "0"]) == 0
        assert capsys.readouterr().out == expected != ""
    assert main(["score", "--model", str(folder), "the on x", "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["nats"] == wkvnp.score(model, ours, "the on x").nats and found["tokens"] == 3
    assert main(["tokenize", "--model", str(folder), " the on"]) == 0
    assert capsys.readouterr().out.split() == [str(id) for id in ours.encode(" the on")]
    assert main(["info", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tokenizer"] == "tokenizer"


def test_a_file_without_a_configuration_has_no_neighbours(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wkvnp.load(folder).save(folder / "alone.safetensors")
    (folder / "config.json").unlink()
    assert main(["generate", "--model", str(folder / "alone.safetensors"), "the"]) == 1
    assert "for a transformer none is chosen by its size" in capsys.readouterr().err


def test_the_vocabulary_of_rwkv_world_may_lie_in_the_folder(tmp_path: Path) -> None:
    from wkvnp.tokenizers.vocabulary import WORLD_FILE

    lines = [f"{id} {bytes([id - 1])!r} 1" for id in range(1, 257)]
    (tmp_path / WORLD_FILE).write_text("\n".join(lines) + "\n")
    assert load_tokenizer(tmp_path).encode("a").tolist() == [98]
    assert load_tokenizer(tmp_path).stop_tokens is None and load_tokenizer(tmp_path).end_of_text == 0
    (tmp_path / "config.json").write_text('{"eos_token_id": 3}')
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "a"}')
    assert load_tokenizer(tmp_path).stop_tokens == (0, 3, 98) and load_tokenizer(tmp_path).end_of_text == 0
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<|rwkv_tokenizer_end_of_text|>"}')
    assert load_tokenizer(tmp_path).stop_tokens == (0, 3)  # the file does not name id 0
    (tmp_path / "config.json").write_text('{"eos_token_id": "a"}')
    with pytest.raises(TokenizerError, match=r"config\.json: eos_token_id must be an id or a list of them; got 'a'"):
        load_tokenizer(tmp_path)


def test_without_the_package_the_error_names_the_extra(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    assert main(["generate", "--model", str(folder), "the"]) == 1
    assert "tokenizer.json needs the package 'tokenizers'" in (err := capsys.readouterr().err)
    assert "pip install 'wkvnp[hf]'" in err


@pytest.mark.parametrize("place", [None, "chat_template.jinja", "tokenizer_config.json"])
def test_a_chat_template_is_not_run_and_chat_says_so(
    folder: Path, place: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 8}')
    if place is not None:
        (folder / place).write_text('{"chat_template": "{{ 1 / 0 }}"}')
    monkeypatch.setattr("sys.stdin", None)
    assert main(["chat", "--model", str(folder), "--form", "raven"]) == 0
    note = "comes with a chat template, which is a program and is not run; turns are written in the form 'raven'"
    assert (note in capsys.readouterr().err) == (place is not None)
