"""Saving: only regular files are replaced, what cannot be written is refused first, and nothing is left half done."""

from __future__ import annotations

import io
import os
import re
import socket
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest

import wkvnp
from wkvnp._compile_cache import directory
from wkvnp.checkpoints import open_checkpoint, save_safetensors
from wkvnp.checkpoints.atomic_file import file_to_write, replacing
from wkvnp.cli import main
from wkvnp.errors import CheckpointError, StateError, WkvnpError

X = {"x": np.arange(6, dtype=np.float32)}
MODEL = wkvnp.random_model("rwkv7", n_layer=1, n_embd=64, vocab_size=256, rng=0)
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="named pipes, links and permissions of POSIX systems")
Program = Callable[..., CompletedProcess[str]]


@pytest.fixture
def short(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the current one, since the names of sockets are short."""
    folder = tmp_path_factory.mktemp("s")
    monkeypatch.chdir(folder)
    return folder


def make(kind: str, path: Path) -> None:
    if kind == "a named pipe":
        os.mkfifo(path)
    elif kind == "a socket":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path.name)
    elif kind == "a device":
        path.symlink_to("/dev/null")
    elif kind == "a folder":
        path.mkdir()
    else:
        path.symlink_to(path.name)


KINDS = ("a named pipe", "a socket", "a device", "a folder", "levels of symbolic links")


def saving(path: Any) -> dict[str, Callable[[], Any]]:
    """Every way to write a file, and a source for convert."""
    MODEL.save("source.safetensors")
    small = ["--layers", "1", "--width", "64"]
    common = ["generate", "--model", "source.safetensors", "-n", "1"]
    return {
        "state.save": lambda: MODEL.initial_state().save(path),
        "model.save": lambda: MODEL.save(path),
        "save_safetensors": lambda: save_safetensors(path, X),
        "convert": lambda: wkvnp.convert("source.safetensors", path),
        "wkvnp random-model": lambda: main(["random-model", str(path), "--force", *small]),
        "wkvnp convert": lambda: main(["convert", "source.safetensors", str(path), "--force"]),
        "wkvnp generate": lambda: main([*common, "a", "--save-state", str(path)]),
    }


@pytest.mark.parametrize("kind", KINDS)
def test_only_regular_files_are_replaced(short: Path, kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    target = short / "target"
    make(kind, target)
    before = os.lstat(target)
    for name, save in saving(target).items():
        if name.startswith("wkvnp"):
            assert save() == 1, name
            out, err = capfd.readouterr()
            assert out == "" and err.count("\n") == 1, name
        else:
            with pytest.raises(WkvnpError) as caught:
                save()
            assert isinstance(caught.value, StateError if name == "state.save" else CheckpointError)
            err = str(caught.value)
        assert "target: cannot be written: " in err and kind in err
        after = os.lstat(target)
        assert (after.st_mode, after.st_ino) == (before.st_mode, before.st_ino), name
        assert {path.name for path in short.iterdir()} == {"target", "source.safetensors"}


def test_a_symbolic_link_stays_and_its_target_is_replaced(short: Path) -> None:
    (short / "elsewhere").mkdir()
    old, link, link_to_link = short / "elsewhere" / "old", short / "link", short / "link2"
    link.symlink_to(Path("elsewhere", "old"))  # leads nowhere yet
    link_to_link.symlink_to("link")
    for save in saving(link_to_link).values():
        old.unlink(missing_ok=True)
        for _ in range(2):
            assert save() in (None, 0)
            assert link.is_symlink() and link_to_link.is_symlink() and old.is_file() and not old.is_symlink()
            assert open_checkpoint(old).tensors
        assert os.listdir(old.parent) == ["old"]


@pytest.mark.parametrize("length", [240, 247, 254, 255])
@pytest.mark.parametrize("letter", ["n", "é"])
def test_names_may_be_as_long_as_the_system_allows(short: Path, length: int, letter: str) -> None:
    name = letter * (length // len(letter.encode())) + "n" * (length % len(letter.encode()))
    for save in saving(short / name).values():
        assert save() in (None, 0)
        assert sorted(os.listdir()) == sorted([name, "source.safetensors"])
        os.unlink(name)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("n" * 256, "longer than the name of a file can be"),
        ("n/" * 3000 + "n", "longer than the name of a file can be"),
        ("a\0b", "without NUL"),
        ("a\ud800b", "without NUL and half characters"),
        ("", "got an empty one"),
        ("absent/a", "the folder .*absent does not exist"),
        ("absent/", "the name of a folder"),
        ("file/a", "Not a directory"),
    ],
)
def test_names_that_cannot_be_written(
    short: Path, name: str, words: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("file").touch()
    monkeypatch.setattr("wkvnp.models.load", lambda *_, **__: pytest.fail("loaded before the target was checked"))
    for way, save in saving(name).items():
        if way.startswith("wkvnp"):
            assert save() == 1
            err = capfd.readouterr().err
            assert err.count("\n") == 1 and "mistake" not in err
            assert re.search(words, err), err
        else:
            with pytest.raises(WkvnpError, match=words):
                save()
    assert sorted(os.listdir()) == ["file", "source.safetensors"]


def test_reading_takes_no_such_names_either(short: Path) -> None:
    for name in ("n" * 5000, "a\0b", "a\ud800b", "", 5, None):
        for read in (wkvnp.load_tokenizer, lambda path: wkvnp.State.load(path, MODEL), open_checkpoint):
            if name != 5 or read is not wkvnp.load_tokenizer:
                with pytest.raises(WkvnpError):
                    read(name)


def test_a_folder_or_file_without_permission_is_refused_first(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = short / "closed"
    folder.mkdir()
    (folder / "old").write_bytes(b"old")
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != folder and real(path, mode))  # root may do all
    for name in ("new", "old"):
        with pytest.raises(CheckpointError, match=r"no permission to write into the folder .*closed"):
            file_to_write(folder / name)
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "old" and real(path, mode))
    with pytest.raises(CheckpointError, match="old: cannot be written: the file is write-protected"):
        file_to_write(folder / "old")
    assert os.listdir(folder) == ["old"]


def test_the_permissions_of_a_replaced_file_stay(short: Path) -> None:
    path = short / "a"
    before = os.umask(0o022)
    try:
        save_safetensors(path, X)
        assert stat.S_IMODE(path.stat().st_mode) == 0o644
        for mode in (0o600, 0o664, 0o755):
            path.chmod(mode)
            with replacing(path) as file:
                # Nobody may read a private file while it is being written either.
                assert stat.S_IMODE(os.fstat(file.fileno()).st_mode) == mode
            assert stat.S_IMODE(path.stat().st_mode) == mode
        if os.geteuid() == 0:
            os.chown(path, 1234, 1234)
            save_safetensors(path, X)
            assert (path.stat().st_uid, path.stat().st_gid) == (1234, 1234)
    finally:
        os.umask(before)


def test_a_full_disk_leaves_the_old_file(program: Program, short: Path) -> None:
    save_safetensors(short / "a", X)
    done = program(
        f"""
        import resource, numpy as np
        from wkvnp.checkpoints import save_safetensors
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
        save_safetensors({str(short / "a")!r}, {{"x": np.zeros(1_000_000)}})
        """
    )
    assert done.stderr.strip().splitlines()[-1].endswith("a: cannot be written: File too large")
    assert os.listdir(short) == ["a"] and open_checkpoint(short / "a").tensors["x"].shape == (6,)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError("other"), SystemExit])
def test_what_happens_on_the_way_leaves_nothing(short: Path, error: Any) -> None:
    save_safetensors("a", X)

    def fail() -> None:
        with replacing(Path("a")) as file:
            file.write(b"half")
            raise error

    with pytest.raises(type(error) if isinstance(error, OSError) else error):
        fail()
    assert os.listdir() == ["a"] and open_checkpoint("a").tensors["x"].shape == (6,)


def test_a_saved_file_never_becomes_standard_output_or_error(program: Program, short: Path) -> None:
    done = program(
        f"""
        import os, sys
        os.close(1), os.close(2)
        from pathlib import Path
        from wkvnp.checkpoints.atomic_file import replacing
        with replacing(Path({str(short / "a")!r})) as file:
            for stream in (1, 2):
                try:
                    os.write(stream, b"a remark of some library")
                except OSError:
                    pass
            file.write(b"text")
        """
    )
    assert done.returncode == 0 and (short / "a").read_bytes() == b"text"


def test_a_tilde_is_the_home_folder_wherever_a_path_is_taken(
    short: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    home = short / "home"
    home.mkdir()
    kernels = directory()
    monkeypatch.setenv("HOME", str(home))
    MODEL.save("~/m.st")
    MODEL.initial_state().save(Path("~/s.st"))
    wkvnp.convert("~/m.st", "~/c.st")
    assert wkvnp.load("~/c.st").fingerprint == wkvnp.load(Path("~/m.st")).fingerprint
    assert wkvnp.State.load("~/s.st", MODEL).batch == 1
    lines = [*(f"{byte + 1} {bytes([byte])!r} 1\n" for byte in range(256))]
    (home / "v.txt").write_text("".join(lines))
    (home / "p.txt").write_text("Hi")
    assert wkvnp.load_tokenizer("~/v.txt").encode("A").tolist() == [66]
    monkeypatch.setenv("WKVNP_WORLD_VOCAB", "~/v.txt")
    assert wkvnp.load_tokenizer("rwkv-world").encode("A").tolist() == [66]
    monkeypatch.setenv("WKVNP_CACHE_DIR", "~/cache")
    assert directory() == home / "cache" / "jit"
    monkeypatch.setenv("WKVNP_CACHE_DIR", str(kernels.parent))
    for command in (
        "generate -m ~/m.st --tokenizer bytes --file ~/p.txt -n 1 --state ~/s.st --save-state ~/t.st",
        "tokenize --tokenizer ~/v.txt --file ~/p.txt",
        "tokenize -m ~/m.st --file ~/p.txt",
        "score -m ~/m.st --file ~/p.txt",
        "info ~/t.st",
        "info ~/m.st",
        "convert ~/m.st ~/d.st",
        "random-model ~/i.st --layers 1 --width 64",
        "chat -m ~/m.st --state ~/t.st",
    ):
        monkeypatch.setattr("sys.stdin", io.StringIO())
        assert main(command.split()) == 0, capfd.readouterr().err
    assert {"m.st", "s.st", "c.st", "t.st", "d.st", "i.st"} <= set(os.listdir(home))
    assert os.listdir(short) == ["home"]
    capfd.readouterr()
