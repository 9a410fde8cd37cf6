"""GGUF: values of every type, the rules of the format, and files that are cut, bent or absurd."""

from __future__ import annotations

import random
import struct
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf_writer import ARRAY, STRING, Packed, Typed, directory_entry, entry, string, write_gguf
from hypothesis import given, settings
from hypothesis import strategies as st

from wkvnp._dtypes import BFLOAT16, narrow
from wkvnp.checkpoints import Container, open_checkpoint
from wkvnp.checkpoints.gguf import read_gguf
from wkvnp.errors import CheckpointError

NUMBERS = np.arange(24, dtype=np.float32)
ARRAYS: dict[str, Any] = {
    "f4": NUMBERS.reshape(4, 6),
    "bf16": narrow(NUMBERS[:15].reshape(3, 5), BFLOAT16),
    "f2": NUMBERS[:3].astype(np.float16),
    "four axes": NUMBERS.reshape(2, 3, 1, 4),
    "scalar": np.array(2.5, np.float32),
    "empty": np.zeros((0, 3), np.float32),
    "x" * 64: NUMBERS[:1],
}
METADATA: dict[str, Any] = {
    "general.architecture": "ß\n",
    **{f"type {kind}": Typed(kind, value) for kind, value in ((0, 255), (1, -128), (2, 65535), (3, -32768))},
    **{f"type {kind}": Typed(kind, value) for kind, value in ((4, 2**32 - 1), (5, -(2**31)), (10, 2**64 - 1))},
    **{f"type {kind}": Typed(kind, value) for kind, value in ((6, 0.5), (11, -(2**63)), (12, 0.1))},
    "yes": True,
    "no": False,
    "texts": ["a", "", "ä"],
    "numbers": [Typed(11, -5), Typed(11, 2**40)],
    "truths": [True, False],
    "none": [],
}


def parse(data: bytes) -> Container:
    return read_gguf(Path("test.gguf"), data)


def refuse(data: bytes, words: str) -> None:
    with pytest.raises(CheckpointError, match=words) as caught:
        parse(data)
    assert str(caught.value).startswith("test.gguf")
    assert len(str(caught.value)) < 1000


def same(got: np.ndarray, expected: np.ndarray) -> None:
    assert got.shape == expected.shape
    assert got.dtype == expected.dtype
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("alignment", [8, 32, 64])
def test_what_was_written_is_read(tmp_path: Path, version: int, alignment: int) -> None:
    metadata = METADATA | {"general.alignment": alignment}
    (tmp_path / "a.gguf").write_bytes(write_gguf(metadata, ARRAYS, version, alignment))
    container = open_checkpoint(tmp_path)
    assert container.path == tmp_path / "a.gguf"
    assert container.format == "gguf"
    plain = {key: value.value if isinstance(value, Typed) else value for key, value in metadata.items()}
    plain |= {"texts": ("a", "", "ä"), "numbers": (-5, 2**40), "truths": (True, False), "none": ()}
    assert container.extras == plain
    assert {key: type(value) for key, value in container.extras.items()} == {
        key: type(value) for key, value in plain.items()
    }
    assert list(container.tensors) == list(ARRAYS)
    for name, array in ARRAYS.items():
        got = container.tensors[name].read()
        same(got, array)
        assert container.tensors[name].stored is None
        assert not got.flags.writeable
        assert (got.view(np.uint16) if name == "bf16" else got).flags.aligned


def test_large_files_are_mapped(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(write_gguf({}, {"x": np.arange(50000, dtype=np.float32)}))
    x = open_checkpoint(tmp_path / "a.gguf").tensors["x"]
    assert np.shares_memory(x.read(), x.read())
    same(x.read(), np.arange(50000, dtype=np.float32))


def test_quantised_tensors_are_decoded_when_they_are_read() -> None:
    blocks = b"".join(np.float16(scale).tobytes() + np.arange(-16, 16, dtype=np.int8).tobytes() for scale in (1, 0.5))
    tensor = parse(write_gguf({}, {"q": Packed("Q8_0", (1, 2, 32), blocks)})).tensors["q"]
    assert (tensor.dtype, tensor.stored, tensor.nbytes) == ("float32", "Q8_0", 256)
    same(tensor.read(), np.float32([[np.arange(-16, 16), np.arange(-8, 8, 0.5)]]))


def test_long_arrays_stay_in_the_file(tmp_path: Path) -> None:
    words = [f"word {number}" for number in range(200_000)]
    metadata = {"words": words, "scores": [float(number) for number in range(2000)], "flags": [True] * 1999 + [False]}
    data = write_gguf(metadata, ARRAYS)
    (tmp_path / "a.gguf").write_bytes(data)
    tracemalloc.start()
    begin = time.perf_counter()
    container = open_checkpoint(tmp_path / "a.gguf")
    seconds, peak = time.perf_counter() - begin, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < len(data)
    assert seconds < 5
    got: Any = container.extras["words"]
    assert len(got) == 200_000
    assert (got[0], got[-1], got[7:9]) == ("word 0", "word 199999", ("word 7", "word 8"))
    assert list(got) == words
    assert got.index("word 5") == 5
    assert repr(got) == "<200000 elements: 'word 0', 'word 1', 'word 2', ...>"
    with pytest.raises(IndexError):
        got[200_000]
    assert container.extras["scores"][1999] == 1999.0
    assert container.extras["flags"][-2:] == (True, False)
    assert type(container.extras["flags"][0]) is bool
    same(container.tensors["f4"].read(), ARRAYS["f4"])


def test_a_long_array_of_broken_text_fails_where_it_is_read() -> None:
    words: Any = parse(write_gguf({"words": ["a"] * 2000 + [b"\xff"]}, {})).extras["words"]
    assert words[1999] == "a"
    with pytest.raises(CheckpointError, match="'words': element 2000 is not valid UTF-8"):
        words[2000]


def test_against_the_gguf_package(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf", reason="our reader is compared with the package of llama.cpp")
    writer = gguf.GGUFWriter(tmp_path / "theirs.gguf", "rwkv7")
    writer.add_uint32("a", 3)
    writer.add_array("words", ["x", "yy"])
    writer.add_float32("e", 1e-5)
    writer.add_tensor("f4", NUMBERS.reshape(4, 6))
    writer.add_tensor("f2", NUMBERS.astype(np.float16))
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    container = open_checkpoint(tmp_path / "theirs.gguf")
    expected = {"general.architecture": "rwkv7", "a": 3, "words": ("x", "yy"), "e": float(np.float32(1e-5))}
    assert container.extras == expected
    same(container.tensors["f4"].read(), NUMBERS.reshape(4, 6))
    same(container.tensors["f2"].read(), NUMBERS.astype(np.float16))
    plain = {name: array for name, array in ARRAYS.items() if array.size and array.ndim}
    (tmp_path / "ours.gguf").write_bytes(write_gguf(METADATA, plain))
    reader = gguf.GGUFReader(tmp_path / "ours.gguf")
    assert [tensor.name for tensor in reader.tensors] == list(plain)
    for tensor in reader.tensors:
        assert tensor.data.tobytes() == plain[tensor.name].tobytes()
        assert tuple(tensor.shape) == plain[tensor.name].shape[::-1]
    assert reader.fields["texts"].contents() == ["a", "", "ä"]


def start(n_tensors: int = 0, n_entries: int = 0, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, n_tensors, n_entries)


def with_entry(kind: int, data: bytes, key: bytes = b"k") -> bytes:
    return start(0, 1) + string(key) + struct.pack("<I", kind) + data + bytes(64)


def with_tensors(*parts: bytes, data: int = 256, alignment: int | None = None) -> bytes:
    head = start(len(parts), alignment is not None)
    if alignment is not None:
        head += entry("general.alignment", alignment)
    head += b"".join(parts)
    return head + bytes(-len(head) % 32) + bytes(data)


def tensor(name: str | bytes = "x", shape: tuple[int, ...] = (2,), kind: Any = "F32", offset: int = 0) -> bytes:
    return directory_entry(name, Packed(kind, shape, b""), offset)


VAST = 2**60
RULES = {
    "cut in the magic number": (b"GGU", "cut short"),
    "cut in the version": (b"GGUF\3\0", "the version needs 4 bytes"),
    "cut in the counts": (b"GGUF\3\0\0\0\x7b\0\0\0", "the number of tensors needs 8 bytes .* has 12 "),
    "version 1": (start(version=1), "of version 1; readable are 2 and 3"),
    "version 4": (start(version=4), "of version 4"),
    "version 0": (start(version=0), "of version 0"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
    "vast number of tensors": (start(VAST) + bytes(1000), "promises 1152921504606846976 tensors"),
    "many tensors": (start(200_000) + bytes(24 * 200_000), "more than the 131072"),
    "more tensors than bytes": (start(100) + bytes(1000), "promises 100 tensors"),
    "vast number of entries": (start(0, 2**64 - 1), "promises 18446744073709551615 metadata entries"),
    "many entries": (start(0, 70_000) + bytes(13 * 70_000), "more than the 65536"),
    "more entries than bytes": (start(0, 100) + bytes(1000), "promises 100 metadata entries"),
    "a vast key": (start(0, 1) + struct.pack("<Q", VAST) + bytes(100), "name of a metadata entry has 11529.* bytes"),
    "a key beyond the file": (start(0, 1) + struct.pack("<Q", 500) + bytes(100), "needs 500 bytes at byte 32"),
    "a key that is no text": (with_entry(0, b"\0", b"\xff"), "not valid UTF-8"),
    "a key twice": (start(0, 2) + 2 * entry("k", 1), "'k' appears twice"),
    "unknown type": (with_entry(13, bytes(8)), "'k' has the unknown type 13"),
    "vast type": (with_entry(2**32 - 1, bytes(8)), "unknown type 4294967295"),
    "a truth of 2": (with_entry(7, b"\2"), "'k' must be true .1. or false .0.; got 2"),
    "a vast string": (with_entry(STRING, struct.pack("<Q", VAST)), "'k' has 1152921504606846976 bytes"),
    "a string beyond the file": (with_entry(STRING, struct.pack("<Q", 1000)), "'k' needs 1000 bytes"),
    "a string that is no text": (with_entry(STRING, string(b"\xc3")), "'k' at byte .* not valid UTF-8"),
    "a vast array": (with_entry(ARRAY, struct.pack("<IQ", 0, VAST)), "'k' needs 1152921504606846976 bytes"),
    "an overflowing array": (with_entry(ARRAY, struct.pack("<IQ", 12, 2**61)), "needs 18446744073709551616 bytes"),
    "an array beyond the file": (with_entry(ARRAY, struct.pack("<IQ", 4, 100)), "'k' needs 400 bytes"),
    "vast array of strings": (with_entry(ARRAY, struct.pack("<IQ", 8, VAST)), "'k' needs 9223372036854775808 bytes"),
    "long string in an array": (
        with_entry(ARRAY, struct.pack("<IQQ", 8, 1, VAST)), "'k' needs 1152921504606846976 bytes"
    ),
    "an array of arrays": (with_entry(ARRAY, struct.pack("<IQ", 9, 1)), "'k' is an array of arrays"),
    "many arrays of arrays": (with_entry(ARRAY, struct.pack("<IQ", 9, 1) * 10_000), "array of arrays"),
    "an array of unknown type": (with_entry(ARRAY, struct.pack("<IQ", 77, 1)), "array of the unknown type 77"),
    "an array of truths of 3": (with_entry(ARRAY, struct.pack("<IQ", 7, 3) + b"\0\3\1"), "'k' must hold true"),
    "broken text in an array": (with_entry(ARRAY, struct.pack("<IQ", 8, 1) + string(b"\xff")), "not valid UTF-8"),
    "alignment 0": (write_gguf({"general.alignment": 0}, {}), "a power of two and a multiple of 8; got 0"),
    "alignment 24": (write_gguf({"general.alignment": 24}, {}), "a power of two and a multiple of 8; got 24"),
    "negative alignment": (write_gguf({"general.alignment": -32}, {}), "a power of two and a multiple of 8; got -32"),
    "alignment of text": (write_gguf({"general.alignment": "32"}, {}), "a power of two and a multiple of 8; got '32'"),
    "alignment of truth": (write_gguf({"general.alignment": True}, {}), "a power of two and a multiple of 8; got True"),
    "alignment 4": (write_gguf({"general.alignment": 4}, {}), "a power of two and a multiple of 8; got 4"),
    "alignment beyond the file": (with_tensors(tensor(), alignment=2**31), "has 8 bytes at byte 2147483648"),
    "a part of a model": (write_gguf({"split.count": Typed(2, 3), "split.no": 0}, {}), "one of 3 parts.*--merge"),
    "a vast name": (with_tensors(struct.pack("<Q", VAST) + bytes(90)), "name of a tensor has 1152921504606846976"),
    "a name of 65 bytes": (with_tensors(tensor("x" * 65)), "name of a tensor has 65 bytes .* at most 64"),
    "a name that is no text": (with_tensors(tensor(b"\xff")), "not valid UTF-8"),
    "a name twice": (with_tensors(tensor(), tensor(offset=32)), "two tensors have the name 'x'"),
    "five axes": (with_tensors(tensor(shape=(1, 1, 1, 1, 2))), "'x' has 5 axes"),
    "vast number of axes": (
        with_tensors(string("x") + struct.pack("<I", 2**32 - 1) + bytes(64)), "4294967295 axes"
    ),
    "vast axis": (with_tensors(tensor(shape=(2**63,))), "larger than any memory"),
    "overflowing shape": (with_tensors(tensor(shape=(2**32, 2**32))), "larger than any memory"),
    "overflowing to the size": (with_tensors(tensor(shape=(2**62 + 1, 4))), "larger than any memory"),
    "vast but empty": (with_tensors(tensor(shape=(0, 2**62, 2**62))), "larger than any memory"),
    "removed type": (with_tensors(tensor(kind=4)), "'x' is stored in the type Q4_2; readable are F32, .*, Q6_K"),
    "Q2_K": (with_tensors(tensor(kind=10, shape=(256,))), "type Q2_K; readable are"),
    "IQ4_XS": (with_tensors(tensor(kind=23, shape=(256,))), "type IQ4_XS; readable are"),
    "integers": (with_tensors(tensor(kind=26)), "type I32; readable are"),
    "unknown tensor type": (with_tensors(tensor(kind=99)), "type number 99; readable are"),
    "vast tensor type": (with_tensors(tensor(kind=2**32 - 1)), "type number 4294967295"),
    "rows that are no blocks": (
        with_tensors(tensor(kind="Q4_0", shape=(64, 1))), "rows of 1 numbers, no multiple of the 32 in a Q4_0 block"
    ),
    "rows shorter than a block": (with_tensors(tensor(kind="Q6_K", shape=(2, 128))), "rows of 128 numbers"),
    "a quantised scalar": (with_tensors(tensor(kind="Q8_0", shape=())), "rows of 1 numbers"),
    "vast quantised": (with_tensors(tensor(kind="Q4_0", shape=(2**40, 2**20))), "has 648518346341351424 bytes"),
    "offset not aligned": (with_tensors(tensor(offset=4)), "must begin at byte 0 of the data.* it begins at 4"),
    "offset not aligned to 64": (with_tensors(tensor(offset=32), alignment=64), "at byte 0 .* alignment 64; .* at 32"),
    "offset beyond the file": (with_tensors(tensor(offset=256)), "has 8 bytes at byte 320, but the file has 320"),
    "vast offset": (with_tensors(tensor(offset=2**64 - 32)), "bytes at byte 18446744073709551648"),
    "data beyond the file": (with_tensors(tensor(shape=(65,))), "has 260 bytes at byte 64, but the file has 320"),
    "an overlap": (with_tensors(tensor("x", (9,)), tensor("y", offset=32)), "'y' must begin at byte 64 .* at 32"),
    "an overlap of quantised ones": (
        with_tensors(tensor("x", (64,), "Q8_0"), tensor("y", offset=64)), "'y' must begin at byte 96 .* at 64"
    ),
    "one range twice": (with_tensors(tensor("x"), tensor("y")), "'y' must begin at byte 32 .* at 0"),
    "a gap": (with_tensors(tensor("x"), tensor("y", offset=64)), "'y' must begin at byte 32 .* at 64: a type"),
    "another order": (with_tensors(tensor("x", offset=32), tensor("y")), "'x' must begin at byte 0"),
    "bytes behind the last": (with_tensors(tensor(), data=64), "end after 8 bytes of data.* but the file has 64"),
    "cut in the directory": (with_tensors(tensor())[:50], "cut short"),
}  # fmt: skip


@pytest.mark.parametrize("case", RULES)
def test_rules_of_the_format(case: str) -> None:
    data, words = RULES[case]
    refuse(data, words)
    tracemalloc.start()
    begin = time.perf_counter()
    with pytest.raises(CheckpointError):
        parse(data)
    seconds, peak = time.perf_counter() - begin, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seconds < 0.5
    assert peak < 200_000


def test_valid_oddities() -> None:
    assert not parse(start()).tensors
    assert parse(start(version=2) + bytes(7)).extras == {}
    empty = parse(with_tensors(tensor(shape=(0, 2**60)), tensor("y"), tensor("z", (3, 0), "Q8_0", 32), data=32))
    assert empty.tensors["x"].read().shape == (0, 2**60)
    assert empty.tensors["z"].read().shape == (3, 0)
    assert parse(write_gguf({"split.count": Typed(2, 1)}, {})).extras["split.count"] == 1


def relabelled(kind: int, *, of: str, last: bool) -> bytes:
    """Return a file with one tensor under the label of another type, which takes fewer bytes."""
    others = {"other": NUMBERS} if not last else {}
    data = write_gguf({}, {"x": Packed(of, (64, 64), bytes(64 * 64 * 4 if of == "F32" else 64 * 64 * 2))} | others)
    at = data.index(string("x")) + 9 + 4 + 16
    return data[:at] + struct.pack("<I", kind) + data[at + 4 :]


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(("of", "kind"), [("F32", 1), ("F32", 8), ("F16", 8), ("F16", 2)])
def test_a_type_under_a_smaller_label_is_refused(of: str, kind: int, last: bool) -> None:
    refuse(relabelled(kind, of=of, last=last), "a type, a shape or general.alignment is wrong")


@pytest.mark.parametrize("written", [8, 16, 32, 64, 128])
@pytest.mark.parametrize("stated", [8, 16, 32, 64, 128])
def test_an_alignment_that_does_not_fit_the_file_reads_no_noise(written: int, stated: int) -> None:
    for length in range(8):  # of a name, which moves the beginning of the data
        arrays = {"x" * (8 * length + 1): np.arange(1, 257, dtype=np.float32).reshape(16, 16), "y": NUMBERS[1:2]}
        data = write_gguf({"general.alignment": stated}, arrays, alignment=written)
        try:
            container = parse(data)
        except CheckpointError:
            refuse(data, "general.alignment is wrong|cut short")
            continue
        for name, array in arrays.items():
            same(container.tensors[name].read(), array)


SMALL = write_gguf(
    {"general.architecture": "rwkv7", "general.alignment": 32, "e": 0.5, "t": ["a", "bb"], "n": [1, 2], "b": True},
    {
        "x.weight": NUMBERS[:6].reshape(2, 3),
        "q": Packed("Q4_1", (32,), bytes(range(20))),
        "h": NUMBERS[:4].astype(np.float16).reshape(1, 1, 4),
    },
)


def test_cut_anywhere() -> None:
    assert len(parse(SMALL).tensors) == 3
    last = 8 + 24  # what follows the data of the last tensor is padding
    for length in range(len(SMALL) - last + 8):
        with pytest.raises(CheckpointError):
            parse(SMALL[:length])


def bend(data: bytes, rng: random.Random) -> bytes:
    """Change a few bytes or numbers, mostly of the header."""
    bent = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(bent) - 8 if rng.random() < 0.2 else 300)
        kind = rng.randrange(5)
        if kind == 0:
            bent[at] = rng.randrange(256)
        elif kind == 1:
            bent[at] ^= 1 << rng.randrange(8)
        elif kind == 2:
            number = rng.choice((0, 1, 2, 3, 8, 9, 31, 32, 63, 2**16, 2**31, 2**32 - 1, 2**60, 2**63, 2**64 - 1))
            bent[at : at + 8] = number.to_bytes(8, "little")
        elif kind == 3:
            source = rng.randrange(300)
            bent[at:at] = bent[source : source + rng.randrange(1, 40)]
        else:
            del bent[at : at + rng.randrange(1, 10)]
    return bytes(bent)


def test_bent_files() -> None:
    rng = random.Random(20250103)
    accepted = 0
    begin = time.perf_counter()
    for _ in range(6000):
        try:
            container = parse(bend(SMALL, rng))
        except CheckpointError:
            continue
        accepted += 1
        for lazy in container.tensors.values():
            assert lazy.read().shape == lazy.shape
    assert 300 < accepted < 5700
    assert time.perf_counter() - begin < 60


VALUES = st.one_of(
    st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(width=32, allow_nan=False), st.text(max_size=20),
    st.lists(st.integers(0, 2**32 - 1), max_size=9), st.lists(st.text(max_size=9), max_size=9),
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.text(min_size=1, max_size=30), VALUES, max_size=6), st.integers(0, 2**32))
def test_any_metadata_and_any_shapes(metadata: dict[str, Any], seed: int) -> None:
    rng = np.random.default_rng(seed)
    arrays = {
        f"tensor {number}": rng.standard_normal(tuple(rng.integers(0, 5, rng.integers(0, 5)))).astype(np.float32)
        for number in range(rng.integers(0, 5))
    }
    container = parse(write_gguf({"k." + key: value for key, value in metadata.items()}, arrays))
    assert container.extras == {
        "k." + key: tuple(value) if isinstance(value, list) else value for key, value in metadata.items()
    }
    for name, array in arrays.items():
        same(container.tensors[name].read(), array)
