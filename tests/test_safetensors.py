"""safetensors: round trips, the rules of the format, shards, and files that are cut, bent or killed while written."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wkvnp._dtypes import BFLOAT16, narrow
from wkvnp.checkpoints import Container, LazyTensor, open_checkpoint, save_safetensors
from wkvnp.checkpoints.atomic_file import _prefix
from wkvnp.checkpoints.safetensors import read_safetensors
from wkvnp.errors import CheckpointError

NUMBERS = np.arange(24, dtype=np.float32)
ARRAYS: dict[str, Any] = {
    "f4": NUMBERS.reshape(4, 6),
    "transposed": NUMBERS.reshape(4, 6).T,
    "bf16": narrow(NUMBERS[:15].reshape(3, 5), BFLOAT16),
    "f2": NUMBERS[:3].astype(np.float16),
    "f8": NUMBERS[:2].astype(np.float64),
    "scalar": np.array(2.5, np.float32),
    "empty": np.zeros((0, 3), np.float32),
    "bool": np.array([True, False, True]),
    "big-endian": NUMBERS[:5].astype(">f4"),
    **{f"{kind}{bits}": np.arange(3).astype(f"{kind}{bits}") for kind in ("int", "uint") for bits in (8, 16, 32, 64)},
}


def parse(data: bytes) -> Container:
    return read_safetensors(Path("test.safetensors"), data)


def pack(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8), **more: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets, **more}


def refuse(data: bytes, words: str) -> None:
    with pytest.raises(CheckpointError, match=words) as caught:
        parse(data)
    assert str(caught.value).startswith("test.safetensors")
    assert len(str(caught.value)) < 1000


def same(got: np.ndarray, expected: np.ndarray) -> None:
    assert got.shape == expected.shape
    np.testing.assert_array_equal(got, expected)


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_safetensors(path, ARRAYS, {"architecture": "rwkv7", "ß": "ä\n"})
    container = open_checkpoint(path)
    assert container.format == "safetensors"
    assert container.path == path
    assert container.metadata == {"architecture": "rwkv7", "ß": "ä\n"}
    assert container.extras == {}
    assert container.tensors.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        lazy = container.tensors[name]
        got = lazy.read()
        same(got, array)
        assert lazy.nbytes == array.nbytes
        assert got.dtype.isnative
        assert got.flags.c_contiguous
        assert not got.flags.writeable
        assert (got.view(np.uint16) if lazy.dtype == "bfloat16" else got).flags.aligned
    assert list(tmp_path.iterdir()) == [path]


def test_the_same_tensors_give_the_same_bytes(tmp_path: Path) -> None:
    save_safetensors(tmp_path / "a", ARRAYS)
    save_safetensors(tmp_path / "b", dict(reversed(ARRAYS.items())))
    data = (tmp_path / "a").read_bytes()
    assert data == (tmp_path / "b").read_bytes()
    assert (8 + int.from_bytes(data[:8], "little")) % 64 == 0
    save_safetensors(tmp_path / "c", open_checkpoint(tmp_path / "a").tensors)
    assert data == (tmp_path / "c").read_bytes()


def test_large_files_are_mapped_and_can_be_replaced_while_in_use(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_safetensors(path, {"x": np.arange(50000, dtype=np.float32)})
    x = open_checkpoint(path).tensors["x"]
    first = x.read()
    assert np.shares_memory(first, x.read())
    save_safetensors(path, {"x": np.zeros(3)})
    same(first, np.arange(50000, dtype=np.float32))
    same(open_checkpoint(path).tensors["x"].read(), np.zeros(3))


def test_misaligned_tensors_are_copied() -> None:
    data = pack({"b": entry("U8", (1,), (0, 1)), "x": entry("F32", (2,), (1, 9)), "y": entry("BF16", (2,), (9, 13))},
                b"\x07" + NUMBERS[:2].tobytes() + narrow(NUMBERS[:2], BFLOAT16).tobytes())  # fmt: skip
    tensors = parse(data).tensors
    same(tensors["x"].read(), NUMBERS[:2])
    assert tensors["x"].read().flags.aligned
    assert tensors["y"].read().view(np.uint16).flags.aligned


def test_against_the_official_library(tmp_path: Path) -> None:
    official = pytest.importorskip("safetensors", reason="our files are compared with the official library")
    arrays = {name: array for name, array in ARRAYS.items() if name != "big-endian"}
    path = tmp_path / "a.safetensors"
    save_safetensors(path, arrays, {"by": "wkvnp"})
    theirs = dict(official.deserialize(path.read_bytes()))
    assert theirs.keys() == arrays.keys()
    for name, array in arrays.items():
        assert tuple(theirs[name]["shape"]) == array.shape
        assert bytes(theirs[name]["data"]) == array.tobytes()
    from safetensors.numpy import save

    ours = parse(save({"x": NUMBERS.reshape(4, 6), "y": NUMBERS[:1].astype(np.int64)}, {"by": "them"}))
    same(ours.tensors["x"].read(), NUMBERS.reshape(4, 6))
    same(ours.tensors["y"].read(), np.zeros(1, np.int64))
    assert ours.metadata == {"by": "them"}
    rng = random.Random(3)
    accepted = 0
    for _ in range(2000):
        data = bend(SMALL, rng)
        try:
            container = parse(data)
        except CheckpointError:
            continue
        accepted += 1
        theirs = dict(official.deserialize(data))
        assert {name: bytes(tensor["data"]) for name, tensor in theirs.items() if tensor["dtype"] != "BOOL"} == {
            name: lazy.read().tobytes() for name, lazy in container.tensors.items() if lazy.dtype != "bool"
        }
    assert accepted > 100


RULES = {
    "cut in the length": (b"\2\0\0", "at least 8 bytes"),
    "a header of 17 MB": (pack(b"{" + b" " * (17 << 20) + b"}"), "at most 16777216 are read"),
    "header beyond the file": (pack({})[:-1], "cut short"),
    "vast header": (b"\xff" * 8 + b"{}", "18446744073709551615 bytes"),
    "no object": (pack([1]), "must be a JSON object"),
    "leading space": (pack(b" {}"), "must be a JSON object"),
    "no JSON": (pack(b"{'a': 1}"), "not valid JSON|broken"),
    "not UTF-8": (pack(b'{"\xff": 1}'), "not valid JSON"),
    "two objects": (pack(b"{}{}"), "not valid JSON"),
    "NaN": (pack(b'{"x": NaN}'), "NaN"),
    "Infinity": (pack(b'{"x": -Infinity}'), "Infinity"),
    "deep": (pack(b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"), "nested more than"),
    "deep and open": (pack(b"{" * 100_000), "nested more than"),
    "escapes and open quotes": (pack(b"{" + b'"a\\' * 300_000), "broken"),
    "long integer": (pack(b'{"x":' + b"9" * 10_000 + b"}"), "not valid JSON"),
    "a key twice": (pack(b'{"x": 1, "y": 2, "x": 3}'), "'x' appears twice"),
    "an inner key twice": (pack(b'{"x": {"dtype": "F32", "dtype": "F32"}}'), "'dtype' appears twice"),
    "entry without shape": (pack({"x": {"dtype": "F32", "data_offsets": [0, 0]}}), "must have a dtype"),
    "entry of text": (pack({"x": "F32"}), "must have a dtype"),
    "float8": (pack({"x": entry("F8_E4M3")}, bytes(8)), "'F8_E4M3'; readable are BOOL"),
    "dtype of a list": (pack({"x": entry(["F32"])}, bytes(8)), "readable are"),
    "shape of floats": (pack({"x": entry(shape=[2.0])}, bytes(8)), "integers"),
    "shape of bools": (pack({"x": entry(shape=[True], offsets=[0, 4])}, bytes(4)), "integers"),
    "negative size": (pack({"x": entry(shape=[-2])}, bytes(8)), "integers"),
    "shape of a number": (pack({"x": entry(shape=2)}, bytes(8)), "lists of integers"),
    "three offsets": (pack({"x": entry(offsets=[0, 4, 8])}, bytes(8)), "data_offsets"),
    "one offset": (pack({"x": entry(offsets=[8])}, bytes(8)), "data_offsets"),
    "reversed offsets": (pack({"x": entry(offsets=[8, 0])}, bytes(8)), "data_offsets"),
    "size differs": (pack({"x": entry(shape=[3])}, bytes(8)), r"12 bytes by its shape \(3,\)"),
    "overflowing shape": (pack({"x": entry(shape=[2**32, 2**32])}, bytes(8)), "larger than any memory"),
    "overflowing to the size": (pack({"x": entry(shape=[2**62 + 1, 4, 2])}, bytes(8)), "larger than any memory"),
    "vast but empty": (pack({"x": entry(shape=[0, 2**62, 2**62], offsets=[0, 0])}), "larger than any memory"),
    "many axes": (pack({"x": entry(shape=[1] * 40, offsets=[0, 4])}, bytes(4)), "40 axes"),
    "far away": (pack({"x": entry(offsets=[10**4000, 10**4000 + 8])}, bytes(8)), "data_offsets"),
    "a hole at the start": (pack({"x": entry(offsets=[1, 9])}, bytes(9)), "must begin at 0"),
    "a hole": (pack({"x": entry(), "y": entry(offsets=[9, 17])}, bytes(17)), "must begin at 8"),
    "an overlap": (pack({"x": entry(), "y": entry(offsets=[4, 12])}, bytes(12)), "must begin at 8"),
    "one range twice": (pack({"x": entry(), "y": entry()}, bytes(8)), "must begin at 8"),
    "cut in the data": (pack({"x": entry()}, bytes(7)), "cut short"),
    "longer data": (pack({"x": entry()}, bytes(9)), "something was appended"),
    "metadata of numbers": (pack({"__metadata__": {"a": 1}}), "strings to strings"),
    "metadata of a list": (pack({"__metadata__": ["a"]}), "strings to strings"),
    "half a character": (pack(b'{"\\ud800": {}}'), "not valid Unicode"),
    "a very long name": (pack({"x" * 100_000: 1}), "must have a dtype"),
}


@pytest.mark.parametrize("case", RULES)
def test_rules_of_the_format(case: str) -> None:
    data, words = RULES[case]
    begin = time.perf_counter()
    refuse(data, words)
    assert time.perf_counter() - begin < 2


def test_valid_oddities() -> None:
    assert not parse(pack({})).tensors
    assert parse(pack(b"{}     ")).metadata == {}
    assert parse(pack({"x": entry(extra=1)}, bytes(8))).tensors["x"].shape == (2,)
    assert parse(pack({"x": entry(shape=[0, 7], offsets=[0, 0]), "y": entry()}, bytes(8))).tensors["x"].nbytes == 0
    for shape in ([0, 2**60], [2**60, 0, 1]):
        lazy = parse(pack({"x": entry(shape=shape, offsets=[0, 0])})).tensors["x"]
        assert lazy.read().shape == tuple(shape)
    same(parse(pack({"x": entry("BOOL", [3], [0, 3])}, b"\0\1\7")).tensors["x"].read(), np.array([False, True, True]))


def small() -> bytes:
    header = {
        "__metadata__": {"by": "wkvnp"},
        "a.weight": entry("F32", [2, 3], [0, 24]),
        "b": entry("BF16", [1, 1, 4], [24, 32]),
        "c": entry("BOOL", [3], [32, 35]),
    }
    return pack(header, bytes(range(35)))


SMALL = small()


def bend(data: bytes, rng: random.Random) -> bytes:
    """Change a few bytes, mostly of the header, and sometimes make the length fit again."""
    length = int.from_bytes(data[:8], "little")
    head, tail = bytearray(data[8 : 8 + length]), bytearray(data[8 + length :])
    for _ in range(rng.choice((1, 1, 2, 4))):
        part = head if rng.random() < 0.7 else tail
        at = rng.randrange(len(part))
        kind = rng.randrange(4)
        if kind == 0:
            part[at] = rng.choice(b'0123456789[]{},:"\\-.eE \0\xff' if part is head else bytes(range(256)))
        elif kind == 1:
            part[at] ^= 1 << rng.randrange(8)
        elif kind == 2 and part is head:
            start = rng.randrange(len(part))
            part[at:at] = part[start : start + rng.randrange(1, 40)]
        elif len(part) > 40:
            del part[at : at + rng.randrange(1, 10)]
    return (len(head) if rng.random() < 0.9 else length).to_bytes(8, "little") + bytes(head + tail)


def test_cut_anywhere() -> None:
    for length in range(len(SMALL)):
        with pytest.raises(CheckpointError):
            parse(SMALL[:length])


def test_bent_files() -> None:
    rng = random.Random(20250102)
    begin = time.perf_counter()
    for _ in range(6000):
        try:
            container = parse(bend(SMALL, rng))
        except CheckpointError:
            continue
        for lazy in container.tensors.values():
            assert lazy.read().shape == lazy.shape
    assert time.perf_counter() - begin < 60


# Shards.


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    save_safetensors(tmp_path / "one.safetensors", {"a": NUMBERS[:2], "b": NUMBERS[:3]}, {"by": "wkvnp"})
    save_safetensors(tmp_path / "two.safetensors", {"c": NUMBERS[:4]})
    write_index(tmp_path, {"c": "two.safetensors", "a": "one.safetensors", "b": "one.safetensors"})
    return tmp_path / "model.safetensors.index.json"


def write_index(folder: Path, weight_map: Any) -> None:
    index = {"metadata": {"total_size": 36}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def test_shards(shards: Path) -> None:
    for path in (shards, shards.parent):
        container = open_checkpoint(path)
        assert container.path == shards
        assert list(container.tensors) == ["c", "a", "b"]
        assert container.metadata == {"by": "wkvnp"}
        same(container.tensors["b"].read(), NUMBERS[:3])


@pytest.mark.parametrize(
    ("weight_map", "words"),
    [
        ({"a": "../one.safetensors"}, "plain file name beside the index"),
        ({"a": "/etc/passwd"}, "plain file name"),
        ({"a": "..\\one.safetensors"}, "plain file name"),
        ({"a": "C:one.safetensors"}, "plain file name"),
        ({"a": ".."}, "plain file name"),
        ({"a": ""}, "plain file name"),
        ({"a": "one\0.safetensors"}, "plain file name"),
        ({"a": "three.safetensors"}, "three.safetensors: no such file"),
        ({"a": "model.safetensors.index.json"}, "safetensors"),
        ({"a": "one.safetensors"}, "disagree about tensor 'b', which only the shard has"),
        ({"a": "one.safetensors", "b": "two.safetensors", "c": "two.safetensors"}, "disagree about tensor 'b'"),
        ({"a": 1}, "weight_map"),
        (["one.safetensors"], "weight_map"),
        (None, "weight_map"),
    ],
)
def test_shards_that_are_refused(shards: Path, weight_map: Any, words: str) -> None:
    write_index(shards.parent, weight_map)
    with pytest.raises(CheckpointError, match=words):
        open_checkpoint(shards)


# Opening by first bytes.


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "the file is empty"),
        (b"GGUF\3\0\0\0\x7b\0\0\0", "GGUF header, but the file has 12 .*cut short"),
        (b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\x2e\x80", "before version 1.6; re-save"),
        (b"\x80\x04\x95\0\0\0\0\0\0\0\0.", "bare pickle"),
        (b"a/" + bytes(255) + b"ustar\x0000", "tar archive"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"\n <html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"\x93NUMPY\1\0", "NumPy array"),
        (b"\x1f\x8b\x08", "gzip"),
        (bytes(1000), "begins with zeros"),
        (b"hello, world; no model", "not a checkpoint.*begins with b'hello, world'"),
        (b"{}", "weight_map"),
        (b'{"weight_map"', "broken|JSON"),
    ],
)
def test_other_files_are_named(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=words) as caught:
        open_checkpoint(path)
    assert str(caught.value).startswith(str(path))


def test_a_header_of_123_bytes_is_no_index(tmp_path: Path) -> None:
    header = json.dumps({"x": entry()}).encode()
    path = tmp_path / "a"
    path.write_bytes(pack(header + b" " * (123 - len(header)), bytes(8)))
    assert path.read_bytes()[:1] == b"{"
    assert open_checkpoint(path).tensors["x"].shape == (2,)


def test_folders(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint in this folder"):
        open_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match="no such file"):
        open_checkpoint(tmp_path / "absent.pth")
    (tmp_path / "README.md").write_text("hello")
    save_safetensors(tmp_path / "rwkv.st", {"x": NUMBERS})
    assert open_checkpoint(str(tmp_path)).path == tmp_path / "rwkv.st"
    save_safetensors(tmp_path / "other.pth", {"y": NUMBERS})
    with pytest.raises(CheckpointError, match=r"holds 2 checkpoints; name one of them: other\.pth, rwkv\.st"):
        open_checkpoint(tmp_path)
    save_safetensors(tmp_path / "model.safetensors", {"z": NUMBERS})
    assert list(open_checkpoint(tmp_path).tensors) == ["z"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes exist only on POSIX systems")
def test_a_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CheckpointError, match="not a regular file"):
        open_checkpoint(tmp_path / "pipe")
    with pytest.raises(CheckpointError, match="not a regular file"):
        open_checkpoint(os.devnull)


# Saving.


def test_what_cannot_be_saved(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for tensors, words in (
        ({"x": np.zeros(2, np.complex64)}, "complex64; safetensors can hold"),
        ({"x": np.array(["a"])}, "safetensors can hold"),
        ({"__metadata__": NUMBERS}, "cannot be the name"),
    ):
        with pytest.raises(CheckpointError, match=words):
            save_safetensors(path, tensors)
    with pytest.raises(CheckpointError, match="strings to strings"):
        save_safetensors(path, {}, {"a": 1})  # type: ignore[dict-item]
    with pytest.raises(CheckpointError, match=r"a: cannot be written: the folder .*absent does not exist"):
        save_safetensors(tmp_path / "absent" / "a", {"x": NUMBERS})
    assert not list(tmp_path.iterdir())


def test_ml_dtypes(tmp_path: Path) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="its bfloat16 is accepted only where it is installed")
    save_safetensors(tmp_path / "a", {"x": NUMBERS.astype(ml_dtypes.bfloat16)})
    same(open_checkpoint(tmp_path / "a").tensors["x"].read(), narrow(NUMBERS, BFLOAT16))


def test_a_failure_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    save_safetensors(path, {"x": NUMBERS})

    def explode() -> np.ndarray:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_safetensors(path, {"x": NUMBERS * 2, "y": LazyTensor("y", (3,), "float32", explode)})
    same(open_checkpoint(path).tensors["x"].read(), NUMBERS)
    assert list(tmp_path.iterdir()) == [path]


def test_only_stale_leftovers_are_swept(tmp_path: Path) -> None:
    a, b = (_prefix(tmp_path / name) for name in "ab")
    old, fresh, other = (tmp_path / name for name in (f"{a}0.partial", f"{a}1.partial", f"{b}0.partial"))
    for file in (old, fresh, other):
        file.write_bytes(b"half")
    for file in (old, other):
        os.utime(file, (time.time() - 7200,) * 2)
    save_safetensors(tmp_path / "a", {"x": NUMBERS})
    assert sorted(tmp_path.iterdir()) == sorted([fresh, other, tmp_path / "a"])


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="processes are killed like this only on POSIX systems")
def test_killed_while_saving(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    program = (
        "import itertools, sys, numpy as np\n"
        "from wkvnp.checkpoints import save_safetensors\n"
        "for n in itertools.count():\n"
        "    save_safetensors(sys.argv[1], {str(i): np.full(20000, n, np.float32) for i in range(50)})\n"
        "    if n == 0: print('started', flush=True)\n"
    )
    rng = random.Random(5)
    for _ in range(4):
        with subprocess.Popen([sys.executable, "-c", program, path], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(rng.uniform(0, 0.2))
            process.kill()
        values = {float(number) for lazy in open_checkpoint(path).tensors.values() for number in lazy.read()[[0, -1]]}
        assert len(values) == 1


def test_checkpoints_import_neither_numba_nor_scipy() -> None:
    program = "import sys, wkvnp.checkpoints; sys.exit(any(name in sys.modules for name in ('numba', 'scipy')))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
