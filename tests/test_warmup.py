"""Warm-up, the one remark about compiling, and how few loops are compiled."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from subprocess import CompletedProcess

import numpy as np
import pytest
from numba import prange

import wkvnp
from wkvnp._jit import Compiling, Kernel, compiling, kernel
from wkvnp.cli import main

Program = Callable[..., CompletedProcess[str]]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    """Return a kernel that nobody has called, in a process that seems to have compiled nothing."""

    def fill(x, y):  # type: ignore[no-untyped-def]
        for i in prange(y.size):
            y[i] = x[i]

    monkeypatch.setattr(Compiling, "PATIENCE", 0.0)
    monkeypatch.setattr(compiling, "quiet", False)
    return kernel(fill)


def done() -> int:
    return compiling.kernels + compiling.loaded


def read_only(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array.flags.writeable = False
    return array


@pytest.mark.parametrize("first", [read_only, np.copy])
def test_read_only_arrays_share_machine_code_with_others(fresh: Kernel, first: Callable[..., np.ndarray]) -> None:
    x, y, before = np.arange(3.0), np.zeros((3, 3)), done()
    fresh.serial(first(x), y[0])
    fresh.serial(read_only(x), y[1])
    fresh.serial(x, y[2])
    np.testing.assert_array_equal(y, [x] * 3)
    assert done() == before + 1
    fresh.serial(x.astype(np.float32), y[0])
    assert done() == before + 2


def test_a_terminal_hears_once_that_something_is_compiled(fresh: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.delenv("WKVNP_CACHE", raising=False)
    y = np.zeros(3)
    for dtype in (np.float64, np.float32, np.int64):
        fresh.serial(np.zeros(3, dtype), y)
    assert stream.getvalue().count("\n") == 1
    assert re.search(r"wkvnp: compiling .*`wkvnp warmup` does it beforehand\)\n$", stream.getvalue())


def test_a_pipe_hears_nothing(fresh: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    fresh.serial(np.zeros(3), np.zeros(3))
    assert stream.getvalue() == ""


def test_patience_is_that_of_the_whole_process(fresh: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Compiling, "PATIENCE", 1e9)
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    fresh.serial(np.zeros(3), np.zeros(3))
    assert stream.getvalue() == ""
    monkeypatch.setattr(compiling, "seconds", 2e9)
    fresh.serial(np.zeros(3, np.float32), np.zeros(3))
    assert stream.getvalue() != ""


def test_small_and_large_work_are_compiled_at_once_in_a_warm_up(fresh: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wkvnp._threads.share", lambda: True)
    x, y, before = np.arange(3.0), np.zeros(3), done()
    monkeypatch.setattr(compiling, "any_size", True)
    fresh.sized(1)(x, y)
    np.testing.assert_array_equal(y, x)
    assert done() == before + 2
    monkeypatch.setattr(compiling, "any_size", False)
    fresh.sized(1)(x, y)
    fresh.sized(10**9)(x, y)
    assert done() == before + 2


@pytest.mark.parametrize("architecture", ["rwkv7", "transformer"])
def test_after_a_warm_up_nothing_has_to_be_compiled(architecture: str) -> None:
    model = wkvnp.random_model(architecture, n_layer=2, n_embd=64, vocab_size=256, rng=0)
    steps: list[tuple[int, int]] = []
    wkvnp.warmup(model, progress=lambda *step: steps.append(step))
    assert steps[0] == (0, 5) and steps[-1] == (5, 5)
    before = done()
    for length in (1, 2, 20, 33, 700, 1025):
        tokens = np.arange(length) % 256
        _, state = model(tokens)
        model(tokens, state, logits="all")
        model([1], state)
    for batch in (2, 40, 65):
        _, state = model(np.ones((batch, 3), int))
        model(np.ones((batch, 1), int), state)
    _, state = model([[1, 2, 3], [4], [5] * 40])
    model([[1], [2, 3], [4]], state)
    for _ in wkvnp.generate(model, wkvnp.load_tokenizer("bytes"), "Hi", max_tokens=3, rng=0):
        pass
    assert done() == before
    again = wkvnp.warmup(model)
    assert (again.compiled, again.loaded) == (0, 0)


def test_the_command_says_what_it_did(program: Program) -> None:
    text = """
        from wkvnp.cli import main
        main(["random-model", "tiny.safetensors", "--architecture", "rwkv4", "--layers=1", "--width=32", "--force"])
        raise SystemExit(main(["warmup", "--model", "tiny.safetensors"]))
    """
    first, second = (program(text) for _ in range(2))
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    kernels = re.fullmatch(r"compiled (\d+) kernels in [\d.]+ s; kept in .*cache.jit\n", first.stdout)
    assert kernels and int(kernels[1]) > 5
    assert second.stdout == "nothing to do: all that rwkv4 needs was compiled before\n"
    assert second.stderr.count("\n") == 1 and "random" in second.stderr


def test_the_command_needs_no_model(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wkvnp.cli.streams.remark._said", set())
    assert main(["warmup"]) == 0
    captured = capfd.readouterr()
    assert captured.out.startswith(("compiled ", "nothing to do"))
    assert captured.err.count("\n") == 1 and "demonstration model" in captured.err
