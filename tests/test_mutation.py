"""Damaged files of every format are read or refused, and the campaign that says so can fail."""

from __future__ import annotations

import itertools
import os
import random
import sys
import time
from pathlib import Path

import pytest
from mutation.campaign import run
from mutation.formats import FORMATS
from mutation.seed import Format, Seed, made

import wkvnp
from wkvnp.errors import CheckpointError

INPUTS = 2000


@pytest.mark.parametrize("name", FORMATS)
def test_damaged_files(name: str) -> None:
    if name == "tokenizer-json":
        pytest.importorskip("tokenizers", reason="wkvnp[hf] is not installed: tokenizer.json is not checked")
    report = run(FORMATS[name], 0, range(INPUTS))
    assert [str(failure) for failure in report.failures] == []
    assert report.inputs == INPUTS
    assert 0 < report.accepted < INPUTS


@pytest.mark.parametrize("name", FORMATS)
def test_an_input_is_known_by_its_number(name: str) -> None:
    first, second = FORMATS[name].seeds(), FORMATS[name].seeds()
    inputs = [made(first, name, 7, number) for number in range(20)]
    assert [made(second, name, 7, number) for number in reversed(range(20))] == inputs[::-1]
    assert any(files != made(first, name, 8, number)[0] for number, (files, _) in enumerate(inputs))


class Panic(BaseException):
    """As what a Rust package raises."""


def _numbers() -> list[Seed]:
    """Return a seed whose inputs are numbers from 0 to 9, the valid one being 0."""
    return [Seed({"n": b"0"}, "n", lambda rng: {"n": str(rng.randrange(10)).encode()})]


def _read_badly(path: Path) -> bool:
    """Do what a reader must not do, as the number says."""
    number = int(path.read_text())
    if number == 1:
        raise CheckpointError("refused")
    if number == 2:
        raise TypeError("foreign")
    if number == 3:
        raise Panic("unwrap")
    if number == 4:
        os.abort()
    if number == 5:
        time.sleep(60)
    return True


def _read_greedily(path: Path) -> bool:
    """Take 600 MB for number 1, and more than there is for number 2."""
    number = int(path.read_text())
    bytearray(b"x") * ((600 << 20) if number == 1 else (1 << 44) if number == 2 else 1)
    return True


def _refuse(path: Path) -> bool:
    raise CheckpointError("refused")


def _contents(name: str, wanted: str) -> dict[int, str]:
    """Return numbers of inputs, in this order, with these contents."""
    found: dict[int, str] = {}
    for content in wanted:
        number = next(n for n in itertools.count() if n not in found and _content(name, n) == content)
        found[number] = content
    return found


def _content(name: str, number: int) -> str:
    return made(_numbers(), name, 0, number)[0]["n"].decode()


def test_a_campaign_sees_exceptions_crashes_and_hangs_and_goes_on() -> None:
    name, kinds = "bad", {"2": "exception", "3": "exception", "4": "crash", "5": "hang"}
    contents = _contents(name, "0123451024")
    report = run(Format(name, _numbers, _read_badly), 0, list(contents), limit=1.0)
    assert {failure.number: failure.kind for failure in report.failures} == {
        number: kinds[content] for number, content in contents.items() if content in kinds
    }
    assert (report.inputs, report.accepted) == (10, 2)
    details = " ".join(failure.detail for failure in report.failures)
    assert "TypeError: foreign" in details and "Panic: unwrap" in details and "_read_badly" in details
    assert os.name != "posix" or "SIGABRT" in details
    first = report.failures[0]
    assert str(first).endswith(f"    python -m tests.mutation --format bad --seed 0 --only {first.number}")
    assert sorted(map(len, report.alike())) == [1, 1, 2, 2]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the size of a process is not told elsewhere")
def test_a_campaign_sees_growth() -> None:
    contents = _contents("greedy", "01203")
    report = run(Format("greedy", _numbers, _read_greedily), 0, list(contents))
    numbers = list(contents)
    assert [(f.number, f.kind) for f in report.failures] == [(numbers[1], "growth"), (numbers[2], "exception")]
    assert "MemoryError" in report.failures[1].detail
    assert report.inputs == 5


def test_a_campaign_refuses_seeds_that_are_not_accepted() -> None:
    report = run(Format("none", _numbers, _refuse), 0, range(5))
    assert [failure.kind for failure in report.failures] == ["seed"] and report.inputs == 0


def test_tensors_from_outside_the_file_are_seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import numpy as np
    from mutation import readers

    path = tmp_path / "m"
    wkvnp.random_model("rwkv7", n_layer=1, n_embd=16, vocab_size=11, head_size=16, rng=0).save(path)
    assert readers.read_model(path)
    elsewhere = memoryview(bytes(1 << 20))
    read = wkvnp.checkpoints.LazyTensor.read
    monkeypatch.setattr(
        wkvnp.checkpoints.LazyTensor, "read", lambda tensor: np.ndarray(tensor.shape, read(tensor).dtype, elsewhere)
    )
    with pytest.raises(AssertionError, match="from outside the file"):
        readers.read_model(path)


def test_byte_edits_take_anything() -> None:
    from mutation import byte_edits

    rng = random.Random(0)
    for size in (0, 1, 2, 7, 30):
        for _ in range(300):
            byte_edits.edited(bytes(size), rng, [(0, 8), (50, 60)])
