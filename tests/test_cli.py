"""The command line: what goes where, exit codes, one-line errors; mostly in this process, a little in real ones."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

import wkvnp.cli
from wkvnp.cli import main
from wkvnp.cli.interrupt import Deferred, leave_at_once, raise_interrupts
from wkvnp.cli.options import unescape
from wkvnp.cli.progress import Bar
from wkvnp.cli.streams import complete_streams
from wkvnp.models import ARCHITECTURES

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("model") / "tiny.safetensors")
    assert main(["random-model", path, "--layers", "2", "--width", "64", "--seed", "3"]) == 0
    return path


@pytest.fixture
def run(capfd, monkeypatch):
    """Run one command; returns exit code, standard output, standard error."""

    def call(*arguments, stdin=None):
        monkeypatch.setattr("wkvnp.cli.streams.remark._said", set())
        data = io.BytesIO((stdin or "").encode())
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(data, encoding="utf-8"))
        if stdin is None:
            monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
        status = main([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        return status, captured.out, captured.err

    return call


def process(*arguments, **options):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "-m", "wkvnp", *arguments], env=environment, **options)


def test_without_a_model_the_bundled_one_writes_and_says_what_it_is(run):
    status, out, err = run("generate", "The for statement", "--max-tokens", 40, "--temperature", 0)
    assert status == 0 and len(out) == 40 and out.isascii()
    assert err.count("\n") == 1
    assert re.search(r"demonstration model.*documentation of Python.*--model PATH", err)
    status, out, err = run("score", "A list is a sequence of items.", "--format", "json")
    assert status == 0 and json.loads(out)["bits_per_byte"] < 3 and "demonstration model" in err


def test_init_says_that_the_weights_are_random_and_replaces_nothing(run, tmp_path):
    path = tmp_path / "new.safetensors"
    status, out, err = run("random-model", path, "--architecture", "rwkv4", "--layers", 1, "--width", 32)
    assert (status, out) == (0, "")
    assert re.search(r"rwkv4 with 1 layers of 32 and [\d,]+ parameters; the weights are random", err)
    before = path.read_bytes()
    status, out, err = run("random-model", path)
    assert status == 2 and "exists; --force replaces it" in err and path.read_bytes() == before
    assert run("random-model", path, "--layers", 1, "--force")[0] == 0
    assert path.read_bytes() != before
    status, _, err = run("random-model", tmp_path / "other", "--width", 100)
    assert status == 1 and "head_size must divide n_embd=100" in err


def test_init_makes_a_hybrid_of_a_pattern(run, tmp_path):
    path = tmp_path / "mixed.safetensors"
    common = ("--layers", 3, "--width", 64, "--pattern", "4as")
    status, _, err = run("random-model", path, "--architecture", "hybrid", *common, "--window", 4)
    assert status == 0 and "hybrid with 3 layers of 64" in err
    facts = json.loads(run("info", path, "--json")[1])
    assert facts["pattern"] == "4as" and "fields" not in facts
    assert run("generate", "--model", path, "-n", 3, "Hi")[0] == 0
    status, _, err = run("random-model", tmp_path / "other", *common)
    assert status == 1 and "rwkv7 has no option 'pattern'" in err


def test_generate_writes_only_text_and_repeats_itself(run, model):
    status, out, err = run("generate", "--model", model, "Hello", "-n", 20, "--seed", 1)
    assert status == 0 and err == "" and out
    assert run("generate", "--model", model, "Hello", "-n", 20, "--seed", 1)[1] == out
    assert run("generate", "--model", model, "Hello", "-n", 20, "--seed", 1, "--echo")[1] == "Hello" + out


def test_json_is_one_object_per_token(run, model):
    text = run("generate", "--model", model, "Hello", "-n", 20, "--seed", 1)[1]
    lines = run("generate", "--model", model, "Hello", "-n", 20, "--seed", 1, "--json")[1].splitlines()
    facts = [json.loads(line) for line in lines]
    assert "".join(fact["text"] for fact in facts) == text
    assert [fact["finish"] for fact in facts] == [None] * 19 + ["length"]
    assert all(fact["logprob"] < 0 and 0 <= fact["token"] < 256 for fact in facts)


def test_the_prompt_comes_from_an_argument_a_file_or_a_pipe(run, model, tmp_path):
    path = tmp_path / "prompt.txt"
    path.write_text("Grüße\n", encoding="utf-8")
    common = ["--model", model, "-n", 8, "--temperature", 0]
    expected = run("generate", "Grüße", *common)[1]
    assert run("generate", "--file", path, *common)[1] == expected
    assert run("generate", *common, stdin="Grüße\n")[1] == expected
    assert run("generate", "--file", "-", *common, stdin="Grüße\r\n")[1] == expected
    assert run("generate", r"Gr\u00fc\\n\n", "-e", "--echo", *common)[1].startswith("Gr\\u00fc\\n\n")


def test_stop_and_ban_arrive(run, model):
    common = ["generate", "--model", model, "Hello", "-n", 30, "--seed", 1]
    text = run(*common)[1]
    stop = next(char for char in text if char.isascii() and char.isprintable())
    assert run(*common, "--stop", stop)[1] == text[: text.index(stop)]
    banned = ",".join(map(str, range(128, 256)))
    assert run(*common, "--ban", banned)[1].isascii()


def test_a_saved_state_continues(run, model, tmp_path):
    state = tmp_path / "s.state"
    common = ["generate", "--model", model, "--temperature", 0, "-n"]
    whole = run(*common, 12, "One two three")[1]
    assert run(*common, 0, "One two", "--save-state", state)[:2] == (0, "")
    assert run(*common, 12, " three", "--state", state)[1] == whole
    status, out, _ = run("info", state, "--json")
    assert json.loads(out)["sequences"] == 1
    status, _, err = run(*common, 1, "a", "--save-state", tmp_path / "no" / "where")
    assert status == 1 and "does not exist" in err


def test_score_as_text_json_and_csv(run, model):
    text = "Hello, wörld\n"
    data = text.encode()
    summary = json.loads(run("score", "--model", model, text, "--format", "json", "--per-token")[1])
    assert summary["tokens"] == summary["bytes"] == len(data) - 1
    assert summary["nats"] == pytest.approx(-sum(row["logprob"] for row in summary["per_token"]))
    assert summary["perplexity"] == pytest.approx(np.exp(summary["nats"] / summary["tokens"]))
    assert [row["token"] for row in summary["per_token"]] == list(data[1:])
    rows = list(csv.DictReader(io.StringIO(run("score", "--model", model, text, "--format", "csv", "--per-token")[1])))
    assert [float(row["logprob"]) for row in rows] == [row["logprob"] for row in summary["per_token"]]
    total = list(csv.DictReader(io.StringIO(run("score", "--model", model, "--format", "csv", stdin=text)[1])))
    assert len(total) == 1 and float(total[0]["bits_per_byte"]) == summary["bits_per_byte"]
    out = run("score", "--model", model, "--per-token", "--bos", 10, text)[1]
    assert f"bytes          {len(data)}\n" in out and "'H'" in out and "perplexity" in out
    assert run("score", "--model", model, "a")[0] == 1


def test_tokenize_there_and_back(run, model):
    assert run("tokenize", "--tokenizer", "bytes", "Hé")[1] == "72 195 169\n"
    assert run("tokenize", "--model", model, stdin="Hé\n")[1] == "72 195 169 10\n"
    table = json.loads(run("tokenize", "--tokenizer", "bytes", "Hé", "--json")[1])
    assert table[0] == {"id": 72, "text": "H", "bytes": "48"} and table[1]["bytes"] == "c3"
    assert run("tokenize", "--tokenizer", "bytes", "--decode", "72 195,169")[1] == "Hé"
    assert run("tokenize", "--tokenizer", "bytes", "--decode", "--json", stdin="[72, 195, 169]\n")[1] == '"Hé"\n'
    assert run("tokenize", "--tokenizer", "bytes", "--decode", "72 x")[::2] == (
        1, "wkvnp: error: --decode: TEXT must be token ids; got 'x'\n",
    )  # fmt: skip


def test_info_reads_no_weights(run, model, monkeypatch):
    def refuse(self):
        raise AssertionError(f"{self.name} was read")

    monkeypatch.setattr("wkvnp.checkpoints.tensors.LazyTensor.read", refuse)
    facts = json.loads(run("info", model, "--json")[1])
    assert facts["architecture"] == "rwkv7" and facts["format"] == "safetensors" and facts["tokenizer"] == "bytes"
    assert facts["n_layer"] == 2 and facts["n_embd"] == 64 and facts["vocab_size"] == 256
    out = run("info", model)[1]
    assert re.search(r"^parameters +[\d,]+$", out, re.M) and re.search(r"^dtypes +float32 \(\d+ tensors, ", out, re.M)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_info_agrees_with_the_loaded_model(run, tmp_path, architecture):
    import wkvnp

    path = tmp_path / "m.safetensors"
    made = wkvnp.random_model(architecture, n_layer=2, n_embd=64, vocab_size=300, head_size=32, rng=0, dtype="bfloat16")
    made.save(path)
    facts = json.loads(run("info", path, "--json")[1])
    names = {"architecture", "n_layer", "n_embd", "n_att", "n_ffn", "n_head", "head_size", "dtype", "ranks"}
    known = names & set(dir(made.config))
    assert known <= facts.keys() and {"architecture", "n_layer", "n_embd", "dtype"} <= known
    for name in known:
        assert facts[name] == getattr(made.config, name)
    assert facts["parameters"] == made.n_parameters
    memory, empty, after = facts["memory"], made.initial_state().nbytes, made([1, 2, 3])[1].nbytes
    assert (memory["weights"], memory["state per sequence"]) == (made.nbytes, empty)
    assert after - empty == 3 * memory.get("state per token", 0)
    assert facts["tokenizer"].startswith("none at hand (load_tokenizer: no vocabulary of ")
    program = made.program
    wanted = f"layer by layer: {program}" if isinstance(program, str) else f"a program of {len(program.phases)} phases"
    assert facts["decoding"] == wanted
    assert run("info", path, "--program")[1] == f"{program}\n"


def test_info_about_the_machine(run):
    status, out, _ = run("info", "--system")
    assert status == 0 and re.search(r"^numpy +\d", out, re.M)
    assert json.loads(run("info", "--system", "--json")[1])["wkvnp"] == wkvnp.__version__
    assert run("info")[0] == 2
    assert run("info", "--program")[0] == 2


def test_chat_keeps_its_state_and_obeys(run, model, tmp_path):
    saved = tmp_path / "talk.state"
    common = ["chat", "--model", model, "-n", 12, "--temperature", 0, "--ban", ",".join(map(str, range(32)))]
    status, out, err = run(*common, stdin=f"Hello!\n/save {saved}\nAnd now?\n")
    assert (status, err) == (0, "")
    first, second = out.splitlines()
    assert run(*common, "--state", saved, stdin="And now?")[1].splitlines() == [second]
    assert run(*common, stdin=f"Other\n/load {saved}\nAnd now?\n")[1].splitlines()[1:] == [second]
    assert run(*common, stdin="Hello!\n\n/reset\nHello!\n/quit\nnever\n")[1].splitlines() == [first, first]
    assert run(*common, stdin="/help\n")[2].startswith("Within the conversation:\n  /reset")
    assert run(*common, "--form", "g1-no-think", stdin="Hi\n")[1].startswith("<think></think")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("/nonsense", "unknown command /nonsense; /help"),
        ("/save", "/save needs the name"),
        ("/save x", "nothing was said"),
    ],
)
def test_chat_errors_end_a_pipe_but_not_a_terminal(run, model, monkeypatch, capfd, line, words):
    status, _, err = run("chat", "--model", model, stdin=line + "\n")
    assert status == 2 and words in err
    lines = iter([line, "/quit"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))
    status, _, err = run("chat", "--model", model)
    assert status == 0 and words in err


def test_interrupting_a_turn_on_a_terminal_ends_only_the_turn(run, model, monkeypatch):
    import wkvnp.generation

    def interrupted(self, text):
        yield from real(self, text, 3)
        raise KeyboardInterrupt

    def real(self, text, count):
        pieces = say(self, text)
        for _ in range(count):
            yield next(pieces)
        pieces.close()

    say = wkvnp.generation.Chat.say
    monkeypatch.setattr(wkvnp.generation.Chat, "say", interrupted)
    lines = iter(["Hello!", "/quit"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))
    status, out, _ = run("chat", "--model", model)
    assert status == 0 and out.endswith("\n")
    assert run("chat", "--model", model, stdin="Hello!\n")[0] == 130


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        ([], 2, "required: COMMAND"),
        (["nonsense"], 2, "invalid choice"),
        (["generate", "-m", "MODEL"], 2, "no PROMPT given: pass it as an argument, with --file, or through a pipe"),
        (["generate", "-m", "MODEL", "Hi", "--file", "x"], 2, "not both"),
        (["generate", "-m", "MODEL", "Hi", "--ban", "a"], 2, "must be token ids, as 0,11,261; got 'a'"),
        (["generate", "-m", "MODEL", "Hi", "--seed", "-1"], 2, "--seed must be at least 0; got -1"),
        (["generate", "-m", "MODEL", ""], 1, "prompt must not be empty"),
        (["generate", "-m", "MODEL", "Hi", "--temperature", "-1"], 1, "temperature must be .* got -1.0"),
        (["generate", "-m", "MODEL", "--file", "absent.txt"], 1, "absent.txt: No such file or directory"),
        (["generate", "-m", "absent.pth", "Hi"], 1, "absent.pth: no such file"),
        (["generate", "-m", "MODEL", "Hi", "--state", "MODEL"], 1, "not a state"),
        (["score", "-m", "MODEL", ""], 1, "at least one token"),
        (["info", "README"], 1, "README"),
        (["tokenize", "--tokenizer", "klingon", "Hi"], 1, "klingon"),
    ],
)
def test_errors_are_one_line_that_says_what_is_wrong(run, model, monkeypatch, tmp_path, arguments, status, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "README").write_text("not a checkpoint")
    code, out, err = run(*[model if argument == "MODEL" else argument for argument in arguments])
    assert (code, out) == (status, "")
    assert re.search(words, err) and "Traceback" not in err
    assert err.startswith("usage:") or err.count("\n") == 1


def test_text_must_be_utf8(run, model, tmp_path):
    path = tmp_path / "latin.txt"
    path.write_bytes(b"Gr\xfc\xdfe")
    status, _, err = run("generate", "--model", model, "--file", path)
    assert status == 1 and "text must be UTF-8; byte 0xfc at position 2 is not" in err


def test_a_mistake_of_ours_is_one_line_too_and_debugging_shows_it(run, monkeypatch):
    monkeypatch.setattr("wkvnp.cli.tokenize._ids", lambda text: 1 / 0)
    command = ["tokenize", "--tokenizer", "bytes", "--decode", "1"]
    status, _, err = run(*command)
    assert status == 1 and err.count("\n") == 1 and "WKVNP_DEBUG=1" in err
    monkeypatch.setenv("WKVNP_DEBUG", "1")
    assert "Traceback" in run(*command)[2]


def test_every_help_has_examples(run):
    for command in wkvnp.cli.COMMANDS:
        status, out, _ = run(command, "--help")
        assert status == 0 and f"examples:\n  wkvnp {command}" in out
    assert run("--version")[1] == f"wkvnp {wkvnp.__version__}\n"


def test_tokenize_needs_no_model(run):
    assert run("tokenize", "Hi é")[:2] == (0, "72 105 32 195 169\n")
    assert run("tokenize", "--decode", "72 105 32 195 169")[:2] == (0, "Hi é")
    assert run("tokenize", "--json", "H")[1] == '[{"id": 72, "text": "H", "bytes": "48"}]\n'
    assert run("tokenize", "--model", "a", "--tokenizer", "bytes", "a")[0] == 2


TEXTS = ("", "a", "\n", "Grüße, 你好 😀 " * 40, '"quoted\\" [1, 2]\n' * 50, "x" * 700)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1 << 18])
def test_tokenize_reads_and_writes_in_pieces(run, monkeypatch, size):
    monkeypatch.setattr("wkvnp.cli.options._PIECE", size)
    for text in TEXTS:
        ids = list(text.encode())
        assert run("tokenize", "--tokenizer", "bytes", stdin=text)[1] == " ".join(map(str, ids)) + "\n"
        assert [
            row["id"] for row in json.loads(run("tokenize", "--tokenizer", "bytes", "--json", stdin=text)[1])
        ] == ids
        for written in (" ".join(map(str, ids)), json.dumps(ids), ",".join(map(str, ids)) + "\n"):
            command = ("tokenize", "--tokenizer", "bytes", "--decode")
            assert run(*command, stdin=written)[1] == text
            assert json.loads(run(*command, "--json", stdin=written)[1]) == text
    status, _, err = run("tokenize", "--decode", "--tokenizer", "bytes", stdin="72 \u00b2 105")
    assert status == 1 and "must be token ids; got '²'" in err
    for number in ("9" * 50_000, "1" * 30, "-1"):
        status, _, err = run("tokenize", "--decode", "--tokenizer", "bytes", stdin=f"72 {number} 105")
        assert status == 1 and err.count("\n") == 1 and len(err) < 200 and "mistake" not in err


@pytest.mark.parametrize("size", [1, 4, 1 << 18])
@pytest.mark.parametrize("cut", [False, True])
def test_tokenize_says_where_a_text_is_not_utf8(run, monkeypatch, tmp_path, size, cut):
    monkeypatch.setattr("wkvnp.cli.options._PIECE", size)
    path = tmp_path / "t"
    path.write_bytes("Grüße".encode() + (b"\xe4\xbd" if cut else b"\xff..."))
    status, _, err = run("tokenize", "--file", path, "--tokenizer", "bytes")
    assert status == 1 and f"t: text must be UTF-8; byte {'0xe4' if cut else '0xff'} at position 7 is not" in err
    path.write_bytes(b"\xef\xbb\xbfab\xef\xbb\xbf")
    assert run("tokenize", "--file", path, "--tokenizer", "bytes")[1] == "97 98 239 187 191\n"


@pytest.mark.skipif(sys.platform == "win32", reason="limits the memory of a process")
def test_a_large_text_streams_through_tokenize(program, tmp_path):
    done = program(f"""
        import resource, sys
        from wkvnp.cli import main
        from wkvnp.tokenizers import load_tokenizer, trie
        path = {str(tmp_path / "large.txt")!r}
        vocabulary = {str(tmp_path / "v.txt")!r}
        with open(vocabulary, "w") as file:
            file.writelines(f"{{n + 1}} {{bytes([n])!r}} 1\\n" for n in range(256))
            file.write("257 'a large' 7\\n")
        with open(path, "w") as file:
            file.writelines("this is a large text, line after line\\n" * 1000 for _ in range(1000))
        sys.stdout = open({os.devnull!r}, "w")
        main(["tokenize", "--tokenizer", vocabulary, "warm"])
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        status = main(["tokenize", "--tokenizer", vocabulary, "--file", path])
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        print(status, grown < 100_000, grown, file=sys.stderr)
    """)
    assert done.stderr.startswith("0 True"), done.stderr


def test_unescape():
    assert unescape(r"a\n\t\\n\x") == "a\n\t\\n\\x"


def test_the_bar_appears_only_on_a_terminal_and_leaves_no_trace(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    bar = Bar("prompt")
    bar._due = 0
    bar(1, 2)
    assert stream.getvalue() == ""
    stream.isatty = lambda: True
    bar = Bar("prompt")
    bar._due = 0
    bar(1, 2)
    bar(2, 2)
    assert stream.getvalue() == "\rprompt [###############...............] 1/2 tokens\r\x1b[K"


def test_the_command_line_imports_nothing_heavy():
    code = "import sys, wkvnp.cli; wkvnp.cli.build_parser(); print({'numba', 'scipy', 'numpy'} & set(sys.modules))"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_a_pipe_in_and_a_reader_that_leaves(model):
    child = process(
        "generate", "--model", model, "-n", "100000", "--top-p", "1",
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    child.stdin.write("Grüße".encode())
    child.stdin.close()
    assert child.stdout.read(10)
    child.stdout.close()
    assert child.wait(timeout=60) == 0
    assert child.stderr.read() == b""
    child.stderr.close()


@pytest.mark.skipif(sys.platform == "win32", reason="closes streams as a POSIX shell does")
@pytest.mark.parametrize(
    ("command", "streams", "status", "out", "err"),
    [
        ("generate -m MODEL hi -n 2 --temperature 0", ">&-", 0, "", ""),
        ("generate hi -n 2 --temperature 0", ">&-", 0, "", "wkvnp: demonstration model"),
        ("generate hi -n 2 --temperature 0", "2>&-", 0, "..", ""),
        ("generate hi -n 2 --temperature 0", "<&-", 0, "..", "wkvnp: demonstration model"),
        ("generate hi -n 2 --temperature 0", "<&- >&- 2>&-", 0, "", ""),
        ("generate -m MODEL -n 2", "<&-", 1, "", "wkvnp: error: generate: prompt must not be empty"),
        ("generate -m absent hi", "2>&-", 1, "", ""),
        ("generate -m absent hi", ">&- 2>&-", 1, "", ""),
        ("info MODEL", ">&-", 0, "", ""),
        ("info --system", ">&- <&-", 0, "", ""),
        ("tokenize -m MODEL hi", ">&-", 0, "", ""),
        ("score -m MODEL hello --format csv", ">&-", 0, "", ""),
        ("warmup -m MODEL", ">&-", 0, "", ""),
        ("chat -m MODEL", "<&-", 0, "", ""),
        ("chat -m MODEL", "<&- >&- 2>&-", 0, "", ""),
        ("random-model OUT --layers 1 --width 64", "<&- >&- 2>&-", 0, "", ""),
        ("convert MODEL OUT", "<&- >&- 2>&-", 0, "", ""),
        ("nonsense", "2>&-", 2, "", ""),
        ("--version", ">&-", 0, "", ""),
        ("info MODEL", ">/dev/full", 1, "", "wkvnp: error: No space left on device"),
        ("generate -m MODEL hi -n 2", ">/dev/full", 1, "", "wkvnp: error: No space left on device"),
        ("info absent", "2>/dev/full", 1, "", ""),
    ],
)
def test_a_missing_stream_is_the_null_device(model, tmp_path, command, streams, status, out, err):
    if "/dev/full" in streams and not Path("/dev/full").exists():
        pytest.skip("this system has no device that is always full")
    target = tmp_path / "out.safetensors"
    command = command.replace("MODEL", model).replace("OUT", str(target))
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m wkvnp {command} {streams}"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert (done.returncode, len(done.stdout)) == (status, len(out)), done
    assert done.stderr.startswith(err) and done.stderr.count("\n") == bool(err)
    if target.name in command:
        assert wkvnp.load(target).config.architecture == "rwkv7"


def test_missing_streams_stay_missing_for_others(monkeypatch):
    monkeypatch.setattr("sys.stdout", None)
    monkeypatch.setattr("sys.stdin", None)
    with complete_streams(numbers=False):
        sys.stdout.write("nobody reads this")
        assert sys.stdin.read() == ""
    assert sys.stdout is None and sys.stdin is None


@pytest.mark.skipif(sys.platform == "win32", reason="closes file descriptors")
def test_no_file_that_is_opened_later_becomes_a_standard_stream(program):
    done = program("""
        import os, sys
        from wkvnp.cli.streams import complete_streams
        for number in range(3):
            os.close(number)
        with complete_streams(numbers=True):
            assert [os.open(os.devnull, os.O_RDONLY) for _ in range(2)] == [3, 4]
        os._exit(0)
    """)
    assert done.returncode == 0


def test_the_demonstration_is_said_in_one_line_once_a_process(run, monkeypatch):
    said = []
    for command in (["generate", "a", "-n", 1], ["tokenize", "a"], ["score", "abc"], ["warmup"]):
        err = run(*command)[2]
        said.append(err)
        assert err.count("\n") == 1 and len(err.rstrip("\n")) <= 80 and "demonstration model" in err
        monkeypatch.setattr("wkvnp.cli.streams.remark._said", {err.rstrip("\n")})
        assert main([*map(str, command)]) == 0
    assert len(set(said)) == 1
    monkeypatch.undo()


def test_quiet_commands_make_no_remarks(run, model, monkeypatch, tmp_path):
    target = tmp_path / "quiet.safetensors"
    for command in (
        ["generate", "a", "-n", 1],
        ["tokenize", "a"],
        ["score", "abc"],
        ["warmup"],
        ["random-model", target, "--layers", 1, "--width", 64],
        ["convert", model, target, "--force"],
        ["chat", "-m", model],
    ):
        for option in ("--quiet", "-q"):
            target.unlink(missing_ok=True)
            status, _, err = run(*command, option, stdin="" if command[0] == "chat" else None)
            assert (status, err) == (0, "")
    monkeypatch.setattr("wkvnp.cli.info._describe", lambda *_: {"a": warnings.warn("a warning", stacklevel=1)})
    assert "a warning" in run("info", model)[2]
    assert run("info", model, "-q")[2] == ""
    assert run("generate", "-m", "absent", "a", "-q")[2].startswith("wkvnp: error: absent: no such file")


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT to a process")
def test_ctrl_c_ends_quietly_and_soon(model):
    child = process(
        "generate", "--model", model, "Hello", "-n", "100000", stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert child.stdout.read(10)
    start = time.monotonic()
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=30)
    assert (child.returncode, err) == (130, b"")
    assert time.monotonic() - start < 2.0  # 0.2 s on an idle machine


def test_an_interrupt_waits_for_a_file_to_be_written():
    before = signal.getsignal(signal.SIGINT)
    with Deferred() as interrupt:
        interrupt.check()
        signal.raise_signal(signal.SIGINT)
        assert interrupt.asked
    assert signal.getsignal(signal.SIGINT) is before
    with pytest.raises(KeyboardInterrupt):
        interrupt.check()


def test_where_interrupts_are_ignored_they_stay_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        leave_at_once()
        with Deferred():
            signal.raise_signal(signal.SIGINT)
        raise_interrupts()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.skipif("WKVNP_TEST_DATA" not in os.environ, reason="WKVNP_TEST_DATA does not name the shared test data")
def test_a_trained_model_beats_a_random_one(run, model):
    trained = Path(os.environ["WKVNP_TEST_DATA"]) / "tiny-rwkv" / "tiny-rwkv7-834k.pth"
    text = "The quick brown fox jumps over the lazy dog, and the dog does not mind at all."
    bits = [
        json.loads(run("score", "--model", path, text, "--format", "json")[1])["bits_per_byte"]
        for path in (trained, model)
    ]
    assert bits[0] < 6 < 7 < bits[1]


def test_control_characters_do_not_reach_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from wkvnp.cli.screen import write

    text = "a\x1b[31m\n\tb\x07\x7f\x9bé\x00"
    write(text)
    assert capsys.readouterr().out == text
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    write(text)
    assert capsys.readouterr().out == "a␛[31m\n\tb␇␡\ufffdé␀"
