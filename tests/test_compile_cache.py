"""Kernels on disk: found again, never stale, never in the way."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest

import wkvnp
from wkvnp import _compile_cache, _fingerprint

Program = Callable[..., CompletedProcess[str]]

HELPER = """
from numba.extending import overload

def change(x):
    raise NotImplementedError

@overload(change)
def _change(x):
    return lambda x: x + 1
"""
SAMPLE = """
import os
from numba import prange
from .._jit import jit, kernel
from .helper import change

FACTOR = int(os.environ.get("FACTOR", "1"))

@kernel
def plain(x, y):
    for i in range(x.size):
        y[i] = change(x[i]) * FACTOR

@kernel
def shared(x, y):
    for i in prange(x.size):
        y[i] = change(x[i])

@kernel
def reach(x, y):
    y[0] = x[x.size + 1]

def make(amount):
    @jit
    def count(n):  # calls itself twice, so LLVM cannot inline it: the call goes by its symbol
        if n < 1:
            return amount
        return count(n - 1) + count(n - 2)

    def loop(x, y):
        y[0] = count(x.size)

    return kernel(loop, name="count")

def apply(formula):
    f = jit(formula)

    def loop(x, y):
        for i in range(x.size):
            y[i] = f(x[i])

    return kernel(loop, name="formula")
"""
# Prints the results and, for each dispatcher, how often it was loaded and compiled.
CALL = """
    import sys, warnings
    import numpy as np
    from wkvnp.kernels import sample
    x, y = np.arange(3.0), np.zeros(3)
    def call(kernel):
        kernel.serial(x, y)
        stats = kernel._serial.stats
        print(int(y[0]), sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Return a copy of the floor of the package with two small modules of kernels."""
    copy = tmp_path / "copy" / "wkvnp"
    (copy / "kernels").mkdir(parents=True)
    for source in Path(wkvnp.__file__).parent.glob("*.py"):
        shutil.copy(source, copy)
    (copy / "kernels" / "__init__.py").touch()
    (copy / "kernels" / "helper.py").write_text(HELPER)
    (copy / "kernels" / "sample.py").write_text(SAMPLE)
    return copy


@pytest.fixture
def lines(program: Program, package: Path) -> Callable[..., list[str]]:
    """Return a function that runs CALL and more lines against the copy, and returns what they print."""

    def run(text: str, **variables: str) -> list[str]:
        done = program(CALL + text, PYTHONPATH=str(package.parent), **variables)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines() + done.stderr.splitlines()

    return run


def kernels_in(cache: Path) -> list[Path]:
    return sorted(cache.glob("jit/*/*.kernel"))


def test_a_second_process_loads_what_the_first_compiled(lines: Callable[..., list[str]], tmp_path: Path) -> None:
    call = "    call(sample.plain); print('scipy.linalg' in sys.modules)"
    assert lines(call)[0] == "1 0 1"
    (kept,) = kernels_in(tmp_path / "cache")
    # Compiling needs all that numba knows, scipy.linalg included; loading must not.
    assert lines(call) == ["1 1 0", "False"]
    assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(kept.parent.parent.stat().st_mode) == 0o700


def test_parallel_and_serial_twins_are_kept_apart(lines: Callable[..., list[str]], tmp_path: Path) -> None:
    call = """
    sample.shared(x, y); print(sum(sample.shared._parallel.stats.cache_hits.values())); call(sample.shared)
"""
    assert lines(call) == ["0", "1 0 1"]
    assert lines(call) == ["1", "1 1 0"]
    assert len(kernels_in(tmp_path / "cache")) == 2


def test_bits_do_not_depend_on_what_was_compiled_before(program: Program) -> None:
    text = """
import numpy as np
from wkvnp._jit import set_num_threads
from wkvnp.kernels.scan import scan
x, loss = (np.random.default_rng(n).standard_normal((2000, 256), np.float32) for n in (0, 1))
for threads in {threads}:
    set_num_threads(threads)
    print(*scan(-np.abs(loss), x, None, np.array([0, 2000]), "one")[0][-1].view(np.int32).ravel())
"""
    assert program(text.format(threads=[1])).returncode == 0
    done = program(text.format(threads=[2, 1]))  # loads the one, compiles the other
    assert done.returncode == 0, done.stderr
    one, two = done.stdout.splitlines()
    assert one == two


def test_an_edited_helper_is_noticed(lines: Callable[..., list[str]], package: Path) -> None:
    assert lines("    call(sample.plain)") == ["1 0 1"]
    helper = package / "kernels" / "helper.py"
    before = helper.stat()
    helper.write_text(HELPER.replace("x + 1", "x + 7"))
    os.utime(helper, ns=(before.st_atime_ns, before.st_mtime_ns))  # same size and time: only the bytes differ
    assert lines("    call(sample.plain)") == ["7 0 1"]
    helper.write_text(HELPER)
    assert lines("    call(sample.plain)") == ["1 1 0"]


def test_an_edited_formula_outside_the_kernels_is_noticed(lines: Callable[..., list[str]], package: Path) -> None:
    model = package / "models" / "model.py"
    model.parent.mkdir()
    call = "    from wkvnp.models import model; call(sample.apply(model.formula))"
    model.write_text("AMOUNT = 4\ndef formula(x):\n    return x + AMOUNT\n")
    (package / "models" / "other.py").touch()
    assert lines(call)[0] == "4 0 1"
    (package / "models" / "other.py").write_text("# edited")
    assert lines(call)[0] == "4 1 0"
    model.write_text(model.read_text() + "# edited\n")
    assert lines(call)[0] == "4 0 1"


def test_a_constant_from_the_environment_is_noticed(lines: Callable[..., list[str]]) -> None:
    assert lines("    call(sample.plain)", FACTOR="5") == ["5 0 1"]
    assert lines("    call(sample.plain)", FACTOR="6") == ["6 0 1"]
    assert lines("    call(sample.plain)", FACTOR="5") == ["5 1 0"]


def test_functions_of_one_factory_are_not_mistaken_for_each_other(lines: Callable[..., list[str]]) -> None:
    # Compiled first in their processes, both would get the same number from Numba, hence the same symbol.
    assert lines("    call(sample.make(2))") == ["10 0 1"]
    assert lines("    call(sample.make(3))") == ["15 0 1"]
    assert lines("    call(sample.make(2)); call(sample.make(3))") == ["10 1 0", "15 1 0"]


def test_damaged_files_are_replaced(lines: Callable[..., list[str]], tmp_path: Path) -> None:
    call = "    [call(sample.make(n)) for n in range(5)]"
    assert [line.split()[1:] for line in lines(call)] == [["0", "1"]] * 5
    empty, short, garbage, flipped, exchanged = kernels_in(tmp_path / "cache")
    content = exchanged.read_bytes()
    exchanged.write_bytes(flipped.read_bytes())  # whole, but another kernel's
    empty.write_bytes(b"")
    short.write_bytes(short.read_bytes()[:-100])
    garbage.write_bytes(os.urandom(5000))
    flipped.write_bytes(content[:2000] + bytes([content[2000] ^ 1]) + content[2001:])
    assert lines(call) == [f"{5 * n} 0 1" for n in range(5)]
    assert lines(call) == [f"{5 * n} 1 0" for n in range(5)]


def test_code_without_bounds_checks_is_not_served_to_who_wants_them(program: Program, package: Path) -> None:
    text = CALL + "    sample.reach.serial(x, y)"
    assert program(text, PYTHONPATH=str(package.parent)).returncode == 0
    checked = program(text, PYTHONPATH=str(package.parent), NUMBA_BOUNDSCHECK="1")
    assert "IndexError" in checked.stderr


def test_a_folder_that_cannot_be_used_is_one_warning(lines: Callable[..., list[str]], tmp_path: Path) -> None:
    call = "    call(sample.plain); call(sample.shared)"
    (tmp_path / "a file").touch()
    results = lines(call, WKVNP_CACHE_DIR=str(tmp_path / "a file"))
    assert results[:2] == ["1 0 1", "1 0 1"]
    assert sum("RuntimeWarning" in line for line in results) == 1
    assert "WKVNP_CACHE=0" in "".join(results)
    (tmp_path / "open" / "jit").mkdir(parents=True)
    (tmp_path / "open" / "jit").chmod(0o777)
    results = lines(call, WKVNP_CACHE_DIR=str(tmp_path / "open"))
    assert results[:2] == ["1 0 1", "1 0 1"]
    assert sum("others may write" in line for line in results) == 1
    assert kernels_in(tmp_path / "open") == []


def test_a_full_disk_is_one_warning(lines: Callable[..., list[str]], tmp_path: Path) -> None:
    results = lines("""
    import builtins, errno, os
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")
    os.replace = full
    call(sample.plain); call(sample.shared)
""")
    assert results[:2] == ["1 0 1", "1 0 1"]
    assert sum("No space left on device" in line for line in results) == 1
    assert list((tmp_path / "cache").rglob("*.*")) == []


def test_it_can_be_switched_off(lines: Callable[..., list[str]], tmp_path: Path) -> None:
    assert lines("    call(sample.plain)", WKVNP_CACHE="0") == ["1 0 1"]
    assert not (tmp_path / "cache").exists()


# In this process


def test_the_folder_is_where_users_expect_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WKVNP_CACHE", "WKVNP_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("sys.platform", "linux")
    assert _compile_cache.directory() == tmp_path / ".cache" / "wkvnp" / "jit"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # must be ignored, says the specification
    assert _compile_cache.directory() == tmp_path / ".cache" / "wkvnp" / "jit"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    assert _compile_cache.directory() == tmp_path / "elsewhere" / "wkvnp" / "jit"
    monkeypatch.setattr("sys.platform", "darwin")
    assert _compile_cache.directory() == tmp_path / "Library" / "Caches" / "wkvnp" / "jit"
    monkeypatch.setenv("WKVNP_CACHE_DIR", str(tmp_path / "mine"))
    assert _compile_cache.directory() == tmp_path / "mine" / "jit"
    monkeypatch.setenv("WKVNP_CACHE", "0")
    assert _compile_cache.directory() is None


def test_another_users_folder_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    tmp_path.chmod(0o755)
    if tmp_path.stat().st_uid == 0:
        _compile_cache._make_private(tmp_path)  # root's may be used
        os.chown(tmp_path, 54321, -1)
    with pytest.raises(PermissionError, match="another user"):
        _compile_cache._make_private(tmp_path)


def test_old_stamps_are_swept_and_nothing_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for age in range(4):
        folder = tmp_path / f"{age:032x}"
        folder.mkdir()
        (folder / "a.kernel").touch()
        os.utime(folder, (1e9 - age, 1e9 - age))
    (tmp_path / f"{3:032x}" / "foreign.txt").touch()
    (tmp_path / "foreign").mkdir()
    os.utime(tmp_path / f"{3:032x}", (1e9 - 3, 1e9 - 3))
    new = _compile_cache._open_folder(tmp_path)
    assert new is not None
    assert {path.name for path in tmp_path.iterdir()} == {
        new.name,
        f"{0:032x}",
        f"{1:032x}",
        f"{3:032x}",  # holds a file that is not ours
        "foreign",
    }
    assert [path.name for path in (tmp_path / f"{3:032x}").iterdir()] == ["foreign.txt"]


def test_contents_are_counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WKVNP_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("WKVNP_CACHE", "1")
    root = tmp_path / "jit"
    for stamp, size in ((_compile_cache._stamp(), 10), ("0" * 32, 5)):
        (root / stamp).mkdir(parents=True)
        (root / stamp / "a.kernel").write_bytes(bytes(size))
    counted = {"kernel cache": str(root), "cached kernels": 1, "kernel cache bytes": 15}
    assert _compile_cache.contents() == counted
    monkeypatch.setenv("WKVNP_CACHE", "0")
    assert _compile_cache.contents() == {"kernel cache": "off"}


def test_nothing_is_kept_once_a_source_has_changed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = tmp_path / "source.py"
    source.write_text("before")
    monkeypatch.setattr(_fingerprint, "FILES", _fingerprint.survey(str(tmp_path)))
    assert list(_fingerprint.FILES) == [str(source)]
    assert not _fingerprint.edited()
    text = _fingerprint.FILES[str(source)]
    assert text == _fingerprint.Text(text.time, 6, text.digest, shared=True)
    source.write_text("after it")
    assert _fingerprint.edited()
    source.unlink()
    assert _fingerprint.edited()
    pretend_to_be_of_the_package(monkeypatch)
    assert _compile_cache.KernelCache(closing_over(1), "")._entry((), None) is None


def test_the_survey_covers_what_compiled_code_comes_from(tmp_path: Path) -> None:
    for name in ("a.py", "kernels/b.py", "kernels/b.txt", "models/c.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    before = _fingerprint.survey(str(tmp_path))
    shared = {os.path.relpath(path, tmp_path): text.shared for path, text in before.items()}
    assert shared == {"a.py": True, "kernels/b.py": True, "models/c.py": False}
    (tmp_path / "kernels" / "b.py").rename(tmp_path / "kernels" / "d.py")
    digests = [text.digest for text in before.values()]
    assert [text.digest for text in _fingerprint.survey(str(tmp_path)).values()] != digests


def pretend_to_be_of_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    status = os.stat(__file__)
    text = _fingerprint.Text(status.st_mtime_ns, status.st_size, "digest", shared=False)
    monkeypatch.setitem(_fingerprint.FILES, __file__, text)


def closing_over(value: Any) -> Any:
    def function() -> Any:
        return value

    return function


def test_a_fingerprint_tells_constants_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_to_be_of_the_package(monkeypatch)
    values = [1, 1.0, True, "1", None, (1,), (1, 2), np.float32(1), np.arange(2), np.arange(2.0), np.dtype("f4")]
    values += [np.exp, np.log, closing_over(1), closing_over(2)]
    prints = [_fingerprint.fingerprint(closing_over(value)) for value in values]
    assert None not in prints
    assert len(set(prints)) == len(values)
    assert prints == [_fingerprint.fingerprint(closing_over(value)) for value in values]


def test_what_is_not_of_the_package_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _fingerprint.fingerprint(closing_over(1)) is None
    pretend_to_be_of_the_package(monkeypatch)
    assert _fingerprint.fingerprint(closing_over(1)) is not None
    assert _fingerprint.fingerprint(closing_over(len)) is not None
    assert _fingerprint.fingerprint(closing_over(shutil.copy)) is None  # code that the stamp does not cover
    assert _fingerprint.fingerprint(closing_over(object())) is None
