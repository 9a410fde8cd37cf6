"""Torch checkpoints: every layout against NumPy and torch, and files made to do harm."""

from __future__ import annotations

import gc
import os
import pickle
import random
import struct
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_writer import (
    ORDERED,
    STORAGE_OF,
    Call,
    Name,
    Persistent,
    Raw,
    archive,
    dump,
    emit,
    tensor,
    torch_file,
    weights_file,
)

from wkvnp._dtypes import BFLOAT16, narrow
from wkvnp.checkpoints import Container, open_checkpoint
from wkvnp.checkpoints.pickle_reader import PickleReader
from wkvnp.checkpoints.torch_zip import read_torch_zip
from wkvnp.errors import CheckpointError

NUMBERS = np.arange(24, dtype=np.float32)
FLOAT = Name("torch", "FloatStorage")


def parse(data: bytes) -> Container:
    return read_torch_zip(Path("test.pth"), data)


def refuse(data: bytes, words: str) -> None:
    with pytest.raises(CheckpointError, match=words) as caught:
        parse(data)
    assert str(caught.value).startswith("test.pth")


def one(description: object, storage: bytes = NUMBERS.tobytes()) -> bytes:
    return torch_file({"x": description}, {"0": storage})


@pytest.mark.parametrize("dtype", sorted(STORAGE_OF))
def test_dtypes(dtype: str) -> None:
    if dtype == "bfloat16":
        array = narrow(NUMBERS.reshape(4, 6) - 7, BFLOAT16)
    else:
        array = (NUMBERS.reshape(4, 6) % 2 if dtype in ("bool", "uint8") else NUMBERS.reshape(4, 6) - 7).astype(dtype)
    read = parse(weights_file({"pad": NUMBERS[:3].astype(np.uint8), "x": array})).tensors["x"]
    assert (read.shape, read.dtype, read.nbytes) == ((4, 6), dtype, array.nbytes)
    got = read.read()
    assert got.dtype == array.dtype
    assert got.flags.c_contiguous
    assert not got.flags.writeable
    np.testing.assert_array_equal(got, array)
    plain = got.view(np.uint16) if dtype == "bfloat16" else got
    assert plain.flags.aligned


def test_layouts_of_one_storage() -> None:
    layouts = {
        "whole": ((4, 6), (6, 1), 0),
        "transposed": ((6, 4), (1, 6), 0),
        "offset": ((2, 3), (3, 1), 18),
        "columns": ((4, 2), (6, 3), 1),
        "expanded": ((3, 2), (0, 1), 4),
        "scalar": ((), (), 23),
        "empty": ((0, 5), (5, 1), 0),
        "empty past the end": ((0,), (1,), 24),
        "axes of size 1 have any stride": ((1, 24, 1), (2**70, 1, 2**70), 0),
    }
    top = {name: tensor("0", "float32", 24, *layout[:2], offset=layout[2]) for name, layout in layouts.items()}
    container = parse(torch_file(top, {"0": NUMBERS.tobytes()}))
    assert list(container.tensors) == list(layouts)
    assert container.format == "torch-zip"
    for name, (shape, strides, offset) in layouts.items():
        strides = tuple(0 if size == 1 else stride for size, stride in zip(shape, strides, strict=True))
        expected = np.lib.stride_tricks.as_strided(NUMBERS[offset:], shape, [4 * stride for stride in strides])
        got = container.tensors[name].read()
        assert got.shape == shape
        np.testing.assert_array_equal(got, expected)


def test_aligned_storages_are_not_copied(tmp_path: Path) -> None:
    """Torch starts storages at multiples of 64 bytes by padding the local header; so does this file."""
    path = tmp_path / "a.pth"
    data = NUMBERS.repeat(2000)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a/data.pkl", dump({"x": tensor("0", "float32", data.size, (data.size,))}))
        info = zipfile.ZipInfo("a/data/0")
        assert file.fp is not None
        pad = -(file.fp.tell() + 30 + len(info.filename) + 4) % 64
        info.extra = b"FB" + struct.pack("<H", pad) + b"Z" * pad
        file.writestr(info, data.tobytes())
    x = open_checkpoint(path).tensors["x"]
    assert np.shares_memory(x.read(), x.read())
    np.testing.assert_array_equal(x.read(), data)


def test_plain_values_become_extras_and_the_rest_is_dropped() -> None:
    top = {
        "x": tensor("0", "float32", 24, (24,)),
        "_strategy": "cpu fp32",
        "_rescale_layer": 6,
        "loss": 0.5,
        "done": True,
        "nothing": None,
        "optimizer": {"lr": [0.1, (1, 2)], "dtype": Name("torch", "float32")},
        "half": Name("torch", "float16"),
    }
    container = parse(torch_file(top, {"0": NUMBERS.tobytes()}))
    assert list(container.tensors) == ["x"]
    extras = {"_strategy": "cpu fp32", "_rescale_layer": 6, "loss": 0.5, "done": True, "nothing": None}
    assert container.extras == extras


def test_state_dict_is_unwrapped_once() -> None:
    x = tensor("0", "float32", 24, (24,))
    container = parse(torch_file({"epoch": 3, "state_dict": {"x": x}}, {"0": NUMBERS.tobytes()}))
    assert list(container.tensors) == ["x"]
    assert container.extras == {"epoch": 3}
    refuse(torch_file({"state_dict": {"state_dict": {"x": x}}}, {"0": NUMBERS.tobytes()}), "no tensors.*'state_dict'")


def test_ordered_dicts_build_and_parameters() -> None:
    x = tensor("0", "float32", 24, (24,))
    parameter = Call(Name("torch._utils", "_rebuild_parameter"), (x, True, ORDERED))
    code = emit(ORDERED) + emit("x") + emit(parameter) + b"s" + emit({"_metadata": ORDERED}) + b"b"
    container = parse(torch_file(Raw(code), {"0": NUMBERS.tobytes()}))
    np.testing.assert_array_equal(container.tensors["x"].read(), NUMBERS)


def test_zip64(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 20)
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 1)
    data = weights_file({"x": NUMBERS, "y": NUMBERS[:1]})
    assert b"PK\6\6" in data
    container = parse(data)
    np.testing.assert_array_equal(container.tensors["x"].read(), NUMBERS)
    np.testing.assert_array_equal(container.tensors["y"].read(), NUMBERS[:1])
    at = data.rindex(b"PK\6\6")
    refuse(data[: at + 24] + b"\xff" + data[at + 25 :], "64-bit|several parts|contradict|does not fit")


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@settings(max_examples=100, deadline=None)
@given(
    value=st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**200), 2**200)
        | st.floats(allow_nan=False)
        | st.text(st.characters(exclude_categories=["Cs"])),
        lambda inner: st.lists(inner) | st.tuples(inner) | st.tuples(inner, inner, inner, inner)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), inner),
        max_leaves=20,
    )
)  # fmt: skip
def test_plain_pickles_mean_what_python_says(value: object, protocol: int) -> None:
    data = pickle.dumps([value, value], protocol)
    assert PickleReader(data, "a pickle").read() == [value, value]


# Each is the pickle of something that no file of weights contains.
HOSTILE = {
    "calls os.system": (dump(Call(Name("os", "system"), ("touch HACKED",))), "calls 'os.system'.*nothing was run"),
    "calls eval": (dump({"x": Call(Name("builtins", "eval"), ("1/0",))}), r"calls 'builtins\.eval'"),
    "a name with dots": (b"\x80\x04" + emit("torch._utils") + emit("_rebuild_tensor_v2.x") + b"\x93)R.", "calls"),
    "calls a result": (b"\x80\x02" + emit("text") + b")R.", "calls something that is not a name"),
    "OrderedDict of a generator": (dump(Call(Name("collections", "OrderedDict"), (1,))), "calls 'collections.Ordered"),
    "NEWOBJ": (b"\x80\x02cos\nsystem\n)\x81.", "opcode 0x81"),
    "INST": (b"(S'true'\nios\nsystem\n.", "opcode"),
    "OBJ": (b"(cos\nsystem\nNo.", "opcode 0x6f"),
    "EXT1": (b"\x80\x02\x82\x01.", "opcode 0x82"),
    "BUILD on a name": (b"\x80\x02cos\nsystem\n}b.", "BUILD"),
    "BUILD on a tensor": (b"\x80\x02" + emit(tensor("0", "float32", 1, ())) + b"}b.", "BUILD"),
    "huge LONG": (b"\x80\x02\x8b\xff\xff\xff\x7f1.", "opcode 0x8b"),
    "LONG1 cut short": (b"\x80\x02\x8a\xff1.", "cut short"),
    "decimal LONG": (b"\x80\x02L" + b"9" * 100_000 + b"L\n.", "opcode"),
    "huge string": (b"\x80\x02X\xff\xff\xff\xff.", "string of 4294967295 bytes"),
    "huge string of 64 bits": (b"\x80\x04\x8d" + b"\xff" * 8 + b".", "string of"),
    "huge bytes": (b"\x80\x03B\xff\xff\xff\xff.", "cut short"),
    "not UTF-8": (b"\x80\x02X\1\0\0\0\xff.", "not UTF-8"),
    "deep marks": (b"\x80\x02" + b"(" * 100_000 + b".", "nested more than 64"),
    "huge memo index": (b"\x80\x02Nr\xff\xff\xff\xff.", "remembers more"),
    "recalls nothing": (b"\x80\x02h\7.", "never remembered"),
    "a tuple of nothing": (b"\x80\x02NN\x87.", "more from its stack"),
    "pops from nothing": (b"\x80\x02a.", "more from its stack"),
    "pops through a mark": (b"\x80\x02](a.", "more from its stack"),
    "no mark": (b"\x80\x02]e.", "never opened"),
    "odd SETITEMS": (b"\x80\x02}(Nu.", "without a value"),
    "SETITEM on a list": (b"\x80\x02]NNs.", "SETITEMS"),
    "APPEND on a tuple": (b"\x80\x02)Na.", "APPEND"),
    "same key twice": (b"\x80\x02}(" + (emit("a") + b"N") * 2 + b"u.", "'a' twice"),
    "endless name": (b"\x80\x02c" + b"a" * 1000, "without end"),
    "protocol 1": (b"\x80\x01N.", "protocol"),
    "protocol 0": (b"I1\n.", "opcode 0x49"),
    "after STOP": (dump({}) + b"N.", "end"),
    "two results": (b"\x80\x02NN.", "end"),
    "an open mark": (b"\x80\x02N(.", "end"),
    "no STOP": (b"\x80\x02N", "cut short"),
    "nothing": (b"", "cut short"),
    "persistent text": (dump(Persistent("storage")), "not a storage"),
    "persistent of 6": (dump(Persistent(("storage", FLOAT, "0", "cpu", 1, None))), "not a storage"),
    "storage of text": (dump(Persistent(("storage", "FloatStorage", "0", "cpu", 1))), "storage in an unknown way"),
    "negative storage": (dump(tensor("0", "float32", -1, ())), "storage in an unknown way"),
    "quantized": (dump(tensor("0", "QInt8Storage", 1, ())), "of type 'torch.QInt8Storage'"),
    "other module": (
        dump(Persistent(("storage", Name("evil", "FloatStorage"), "0", "cpu", 1))), "of type 'evil.FloatStorage'"
    ),
    "tensor v3": (dump(Call(Name("torch._utils", "_rebuild_tensor_v3"), ())), "calls .*_rebuild_tensor_v3"),
    "few arguments": (dump(Call(Name("torch._utils", "_rebuild_tensor_v2"), ())), "unknown way"),
    "shape of floats": (dump(tensor("0", "float32", 1, (1.0,), (1,))), "not integers"),
    "shape of bools": (dump(tensor("0", "float32", 1, (True,), (1,))), "not integers"),
    "more strides": (dump(tensor("0", "float32", 1, (1,), (1, 1))), "another number of strides"),
    "parameter of text": (dump(Call(Name("torch._utils", "_rebuild_parameter"), ("x",))), "without a tensor"),
    "a list": (dump([1, 2]), "holds a list"),
    "one tensor": (dump(tensor("0", "float32", 1, ())), "holds a single tensor"),
    "no tensors": (dump({"a": 1, "b": [2]}), "no tensors in it.*'a', 'b'"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_pickles(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, words = HOSTILE[case]
    begin = time.process_time()
    refuse(torch_file(code, {"0": NUMBERS.tobytes()}), words)
    assert time.process_time() - begin < 1
    assert not list(tmp_path.iterdir())


def test_bombs_cost_no_more_than_their_bytes() -> None:
    doubling = b"".join(b"](h" + bytes((n,)) + b"h" + bytes((n,)) + b"eq" + bytes((n + 1,)) for n in range(250))
    bombs = {
        "lists that double 250 times": b"\x80\x02(]q\0" + doubling + b"t.",
        "a tuple 1,000,000 deep": b"\x80\x02)" + b"\x85" * 1_000_000 + b".",
        "a list that holds itself": b"\x80\x02]q\0h\0a.",
        "a dict of a dict of itself": b"\x80\x02}q\0" + emit("a") + b"h\0s.",
        "keys that collide": b"\x80\x02}(" + b"".join(emit(n * (2**61 - 1)) + b"N" for n in range(40_000)) + b"u.",
    }
    gc.freeze()  # a million tuples have the collector walk over all that other tests left behind
    try:
        for name, code in bombs.items():
            begin = time.process_time()
            with pytest.raises(CheckpointError, match=r"holds a|no tensors"):
                parse(torch_file(code, {}))
            assert time.process_time() - begin < 5, name
    finally:
        gc.unfreeze()
    refuse(torch_file(b"\x80\x02" + b"N" * (5 << 20), {}), "its pickle has 5242882 bytes")
    refuse(torch_file(b"\x80\x02" + b"N" * (1 << 21), {}), "more than 1048576 operations")


TENSORS = {
    "beyond the storage": (tensor("0", "float32", 24, (25,)), "beyond the 24 numbers"),
    "beyond by offset": (tensor("0", "float32", 24, (24,), offset=1), "beyond"),
    "beyond by stride": (tensor("0", "float32", 24, (2, 2), (23, 1)), "beyond"),
    "storage beyond the entry": (tensor("0", "float32", 25, (1,)), "storage of 100 bytes; the file has 96"),
    "enormous storage": (tensor("0", "float64", 2**62, (1,)), "storage of"),
    "no storage": (tensor("7", "float32", 24, (1,)), "storage '7', which is not in the file"),
    "storage by a path": (tensor("../data.pkl", "uint8", 5, (1,)), "not in the file"),
    "negative offset": (tensor("0", "float32", 24, (1,), offset=-1), "negative offset"),
    "negative stride": (tensor("0", "float32", 24, (2,), (-1,), offset=3), "negative offset or stride"),
    "negative size": (tensor("0", "float32", 24, (-1,), (1,)), "negative size"),
    "overflow to 0": (tensor("0", "float32", 24, (2**32, 2**32), (0, 0)), "larger than any memory"),
    "wraps around": (tensor("0", "float32", 24, (2,), (2**62,)), "beyond"),
    "empty but vast": (tensor("0", "float32", 24, (0, 2**61, 2**61), (1, 1, 1)), "larger than any memory"),
    "expanded bomb": (tensor("0", "float32", 24, (10**9,), (0,)), "overlap so much"),
    "many axes": (tensor("0", "float32", 24, (1,) * 33), "33 axes"),
    "huge integers": (tensor("0", "float32", 24, (2**2000,), (2**2000,)), "larger than any memory"),
}


@pytest.mark.parametrize("case", TENSORS)
def test_tensors_that_do_not_fit(case: str) -> None:
    description, words = TENSORS[case]
    refuse(one(description), words)


def test_archives_that_are_refused() -> None:
    good = {"a/data.pkl": dump({"x": tensor("0", "float32", 24, (24,))}), "a/data/0": NUMBERS.tobytes()}
    parse(archive(good))
    refuse(archive(good, zipfile.ZIP_DEFLATED), "compressed or encrypted")
    refuse(archive({"x.npy": b""}), "npz")
    refuse(archive({"a/b.txt": b""}), "no data.pkl")
    refuse(archive({}), "no data.pkl")
    refuse(archive(good | {"b/data.pkl": dump({})}), "2 files data.pkl")
    refuse(archive(good | {"a/constants.pkl": b""}), "TorchScript")
    refuse(archive(good | {"a/code/__torch__.py": b""}), "TorchScript")
    refuse(archive(good | {"a/byteorder": b"big"}), "byte order is b'big'")
    refuse(archive(good | {"a/../../evil": b""}), "leads out")
    refuse(archive(good | {"/etc/passwd": b""}), "leads out")
    parse(archive(good | {"a/byteorder": b"little", "a/.data/serialization_id": b"1" * 40}))
    data = archive(good)
    refuse(data + b"tail", "bytes follow|end record")
    twice = archive({"a/data/0": b"1", "a/data/1": b"2"} | good).replace(b"a/data/1", b"a/data/0")
    refuse(twice, "same name")
    # Two entries of the table of contents that claim the same bytes.
    central = data.index(b"PK\1\2")
    second = data.index(b"PK\1\2", central + 4)
    refuse(data[: second + 42] + bytes(4) + data[second + 46 :], "overlaps|not where")
    encrypted = bytearray(data)
    encrypted[second + 8] |= 1
    refuse(bytes(encrypted), "encrypted")


SMALL = weights_file(
    {
        "emb.weight": NUMBERS.reshape(6, 4),
        "blocks.0.att.x_r": narrow(NUMBERS[:4].reshape(1, 1, 4), BFLOAT16),
        "head.weight": NUMBERS.astype(np.float16).reshape(6, 4),
    },
    byteorder=b"little",
)


def test_cut_anywhere() -> None:
    for length in range(len(SMALL)):
        with pytest.raises(CheckpointError):
            parse(SMALL[:length])


def survive(data: bytes) -> None:
    """Open and read whatever it is; only success and CheckpointError are allowed."""
    try:
        container = parse(data)
    except CheckpointError:
        return
    for lazy in container.tensors.values():
        assert lazy.read().shape == lazy.shape


def mutate(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(changed))
        kind = rng.randrange(5)
        if kind == 0:
            changed[at] = rng.randrange(256)
        elif kind == 1:
            changed[at] ^= 1 << rng.randrange(8)
        elif kind == 2:
            changed[at : at + rng.choice((1, 2, 4, 8))] = rng.choice((b"\0", b"\xff", b"\x7f")) * rng.choice(
                (1, 2, 4, 8)
            )
        elif kind == 3:
            start = rng.randrange(len(changed))
            changed[at:at] = changed[start : start + rng.randrange(1, 30)]
        else:
            del changed[at : at + rng.randrange(1, 30)]
    return bytes(changed) or b"\0"


def test_mutated_files() -> None:
    rng = random.Random(20250101)
    code = dump(
        {
            "a.weight": tensor("0", "float32", 24, (4, 6)),
            "b": tensor("0", "float32", 24, (6, 4), (1, 6)),
            "n": {"k": [1, 2.5, None, (True, "text")]},
        }
    )
    begin = time.process_time()
    for _ in range(6000):
        survive(mutate(SMALL, rng))
        survive(torch_file(mutate(code, rng), {"0": NUMBERS.tobytes()}))
    assert time.process_time() - begin < 60


def test_random_opcodes() -> None:
    """Programs made of valid pieces in random order reach deeper than flipped bits."""
    rng = random.Random(7)
    pieces = [
        *(bytes((code,)) for code in b"(}])N\x88tesuaRbQ\x85\x86\x87\x93\x94"),
        b"q\0", b"h\0", b"q\1", b"h\1", b"K\5", b"\x8a\1\xff",
        emit("x"), emit("storage"), emit(ORDERED), emit((2, 3)), emit(Name("torch._utils", "_rebuild_tensor_v2")),
        emit(FLOAT), emit(tensor("0", "float32", 24, (2, 3))),
        emit(Persistent(("storage", FLOAT, "0", "cpu", 24))),
    ]  # fmt: skip
    for _ in range(3000):
        code = b"".join(rng.choices(pieces, k=rng.randrange(1, 12)))
        survive(torch_file(b"\x80\x02" + code + b".", {"0": NUMBERS.tobytes()}))


def test_against_torch(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="the reader is compared with torch.save only where torch is installed")
    torch.manual_seed(0)
    base = torch.randn(7, 5)
    state = {
        "plain": base,
        "transposed": base.T,
        "slice": base[2:5, 1:4],
        "strided": base[::2, ::3],
        "expanded": base[:1].expand(3, 5),
        "scalar": torch.tensor(3.5),
        "empty": torch.zeros(0, 3),
        "bf16": torch.randn(3, 5).bfloat16(),
        "f16": torch.randn(9).half(),
        "f64": torch.randn(2, 2).double(),
        "i64": torch.arange(5),
        "i32": torch.arange(5).int(),
        "i16": torch.arange(5).short(),
        "i8": torch.arange(5).to(torch.int8),
        "u8": torch.arange(5).to(torch.uint8),
        "bool": torch.tensor([True, False, True]),
        "parameter": torch.nn.Parameter(torch.randn(4)),
        "large": torch.randn(300, 200),
        "_strategy": "cpu fp32",
    }
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.LayerNorm(2))
    for protocol in (2, 3, 4, 5):
        path = tmp_path / "état.pth"
        torch.save(state, path, pickle_protocol=protocol)
        container = open_checkpoint(path)
        assert container.extras == {"_strategy": "cpu fp32"}
        assert list(container.tensors) == [name for name in state if name != "_strategy"]
        for name, lazy in container.tensors.items():
            expected = state[name].detach()
            got = lazy.read()
            assert f"torch.{lazy.dtype}" == str(expected.dtype)
            if name == "bf16":
                got, expected = got.view(np.uint16), expected.view(torch.uint16)
            np.testing.assert_array_equal(got, expected.numpy())
        assert np.shares_memory(container.tensors["large"].read(), container.tensors["large"].read())
    for value in (module.state_dict(), {"state_dict": module.state_dict(), "epoch": 1}):
        torch.save(value, path)
        assert list(open_checkpoint(path).tensors) == list(module.state_dict())
    torch.save(module, path)
    with pytest.raises(CheckpointError, match=r"opcode|calls"):
        open_checkpoint(path)
    torch.save(state, path, _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match=r"before version 1\.6"):
        open_checkpoint(path)
    torch.save({"a": torch.zeros(3).to(torch.float8_e4m3fn)}, path)
    with pytest.raises(CheckpointError, match=r"_rebuild_tensor_v3|UntypedStorage|of type"):
        open_checkpoint(path)


@pytest.mark.parametrize("name", ["tiny-rwkv4-660k", "tiny-rwkv5.0-730k", "tiny-rwkv7-834k"])
def test_published_files(name: str) -> None:
    folder = os.environ.get("WKVNP_TEST_DATA")
    if not folder:
        pytest.skip("WKVNP_TEST_DATA is not set: published checkpoints are not read")
    container = open_checkpoint(Path(folder, "tiny-rwkv", name + ".pth"))
    assert not container.extras
    assert container.tensors["emb.weight"].shape == container.tensors["head.weight"].shape
    for lazy in container.tensors.values():
        assert lazy.dtype == "float32"
        assert np.isfinite(lazy.read()).all()
