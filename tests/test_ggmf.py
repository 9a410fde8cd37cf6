"""rwkv.cpp files: every type against the format's own words, every version against its original, and files that lie."""

from __future__ import annotations

import random
import re
import struct
import time
from pathlib import Path

import numpy as np
import pytest
from ggmf_writer import TYPES, as_stored, encode, header, model_file, parameter

import wkvnp
from wkvnp._dtypes import BFLOAT16, narrow
from wkvnp.checkpoints import Container, LazyTensor, open_checkpoint
from wkvnp.checkpoints.ggmf import read_ggmf
from wkvnp.checkpoints.naming import Logarithm, declare, flatten
from wkvnp.errors import CheckpointError
from wkvnp.models._ggmf_names import original_tensors
from wkvnp.models.architectures import weights_of

RNG = np.random.default_rng(11)
NUMBERS = RNG.standard_normal((3, 64)).astype(np.float32)
VERSIONS = ("rwkv4", "rwkv5.0", "rwkv5.1", "rwkv5.2", "rwkv6", "rwkv7")
QUANTISED = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0")


def parse(data: bytes) -> Container:
    return read_ggmf(Path("test.bin"), data)


def refuse(data: bytes, words: str) -> None:
    with pytest.raises(CheckpointError, match=words) as caught:
        parse(data)
    assert str(caught.value).startswith("test.bin: ")
    assert len(str(caught.value)) < 500


# The container.


def test_plain_types_shapes_and_order() -> None:
    arrays = {"a": NUMBERS, "bc": NUMBERS[0, :5], "é": NUMBERS.reshape(4, 6, 8)}
    data = header(7, 8, 9, version=100)
    for name, array in arrays.items():
        data += parameter(name, array.shape, TYPES["FP32"], encode("FP32", array))
    data += parameter("half", (64, 3), TYPES["FP16"], encode("FP16", NUMBERS.T))
    container = parse(data)
    assert container.format == "ggmf"
    assert container.extras == {"n_vocab": 7, "n_embed": 8, "n_layer": 9}
    assert list(container.tensors) == [*arrays, "half"]
    for name, array in arrays.items():
        assert (container.tensors[name].shape, container.tensors[name].dtype) == (array.shape, "float32")
        got = container.tensors[name].read()
        np.testing.assert_array_equal(got, array)
        assert got.flags.aligned and not got.flags.writeable
    assert container.tensors["half"].dtype == "float16"
    np.testing.assert_array_equal(container.tensors["half"].read(), NUMBERS.T.astype(np.float16))


def test_numbers_are_used_where_they_lie_if_they_are_aligned(tmp_path: Path) -> None:
    numbers = RNG.standard_normal(50000).astype(np.float32)
    path = tmp_path / "a.bin"
    path.write_bytes(header() + parameter("abcd", (50000,), 0, numbers.tobytes()))
    tensor = open_checkpoint(path).tensors["abcd"]
    assert np.shares_memory(tensor.read(), tensor.read())
    np.testing.assert_array_equal(tensor.read(), numbers)


def decoded(kind: str, block: bytes) -> list[float]:
    """Decode one block by the table of the format, element by element; every product is exact in float64."""
    scale, *rest = struct.unpack_from("<e" + ("e" if kind.endswith("_1") else ""), block)
    shift, at = (rest[0], 4) if rest else (0.0, 2)
    if kind == "Q8_0":
        return [scale * q for q in struct.unpack_from("<32b", block, at)]
    high = struct.unpack_from("<I", block, at)[0] if kind[:2] == "Q5" else 0
    nibbles = block[-16:]
    middle = {"Q4_0": 8, "Q5_0": 16}.get(kind, 0)
    numbers = []
    for j in range(32):
        q = nibbles[j % 16] & 15 if j < 16 else nibbles[j % 16] >> 4
        numbers.append(scale * (q + 16 * (high >> j & 1) - middle) + shift)
    return numbers


@pytest.mark.parametrize("kind", QUANTISED)
def test_quantised_types_by_the_table(kind: str) -> None:
    size = {"Q4_0": 18, "Q4_1": 20, "Q5_0": 22, "Q5_1": 24, "Q8_0": 34}[kind]
    blocks = []
    for _ in range(6):
        block = bytearray(RNG.bytes(size))
        block[:2] = np.float16(RNG.uniform(-2, 2)).tobytes()
        if kind.endswith("_1"):
            block[2:4] = np.float16(RNG.uniform(-2, 2)).tobytes()
        blocks.append(bytes(block))
    data = header(kind=TYPES[kind]) + parameter("x", (3, 64), TYPES[kind], b"".join(blocks))
    tensor = parse(data).tensors["x"]
    assert (tensor.shape, tensor.dtype, tensor.stored) == ((3, 64), "float32", kind)
    expected = np.array([decoded(kind, block) for block in blocks]).reshape(3, 64).astype(np.float32)
    np.testing.assert_array_equal(tensor.read(), expected)
    coarse = {"Q4": 0.3, "Q5": 0.15, "Q8": 0.02}[kind[:2]]
    again = parse(header() + parameter("x", (3, 64), TYPES[kind], encode(kind, NUMBERS))).tensors["x"]
    assert np.abs(again.read() - NUMBERS).max() < coarse


GOOD = parameter("x", (2,), 0, bytes(8))
HOSTILE = {
    "no header": (header()[:23], "at least 24 bytes; this one has 23"),
    "version 99": (header(version=99) + GOOD, "version must be 100 or 101; got 99"),
    "version 102": (header(version=102) + GOOD, "version must be 100 or 101; got 102"),
    "a removed type in the header": (header(kind=4), "its header has the type Q4_1_O; readable are FP32, FP16, Q4_0"),
    "an unknown type in the header": (header(kind=4_000_000_000), "its header has the type of number 4000000000"),
    "old blocks": (header(kind=2, version=100), "Q4_0 in a file of version 100, .*quantise the model anew"),
    "an old block": (header(version=100) + parameter("x", (32,), 9, bytes(34)), "'x' is Q8_0 in a file of version 100"),
    "no axes": (header() + parameter("x", (), 0, bytes(4)), "byte 24 must have 1 to 3 axes; got 0"),
    "four axes": (header() + parameter("x", (1, 1, 1, 1), 0, bytes(4)), "1 to 3 axes; got 4"),
    "very many axes": (header() + struct.pack("<3I", 2**32 - 1, 1, 0), "1 to 3 axes; got 4294967295"),
    "no name": (header() + parameter("", (1,), 0, bytes(4)), "name of 1 to 256 bytes; got 0"),
    "a huge name": (header() + struct.pack("<3I", 1, 2**32 - 1, 0) + bytes(99), "1 to 256 bytes; got 4294967295"),
    "not UTF-8": (header() + parameter(b"\xff", (1,), 0, bytes(4)), r"name in UTF-8; got b'\\xff'"),
    "an empty axis": (header() + parameter("x", (2, 0), 0, b""), r"'x' has an axis of size 0; its shape is \(2, 0\)"),
    "a huge shape": (header() + parameter("x", (2**32 - 1,) * 3, 0, bytes(64)), "'x' is larger than any memory"),
    "a large shape": (header() + parameter("x", (2**30, 2**30), 0, bytes(64)), "has 4611686018427387904 bytes"),
    "a long row": (header() + parameter("x", (2**20, 32), 2, bytes(18)), "has 18874368 bytes by its shape .*Q4_0;"),
    "one byte short": (header() + parameter("x", (2,), 0, bytes(7)), "has 8 bytes by its shape .*ends after 7"),
    "a row of 33": (header() + parameter("x", (3, 33), 2, bytes(99)), "rows of 33 numbers, no multiple of the 32"),
    "a row of 8": (header() + parameter("x", (4, 8), 9, bytes(34)), "rows of 8 numbers, no multiple of the 32"),
    "Q4_2": (header() + parameter("x", (32,), 5, bytes(99)), "'x' has the type Q4_2; readable are"),
    "Q8_1": (header() + parameter("x", (32,), 10, bytes(99)), "'x' has the type Q8_1; readable are"),
    "Q4_K": (header() + parameter("x", (256,), 13, bytes(199)), "'x' has the type Q4_K; readable are"),
    "type 17": (header() + parameter("x", (32,), 17, bytes(99)), "'x' has the type of number 17; readable are"),
    "twice": (header() + GOOD + GOOD, "two tensors have the name 'x'"),
    "appended bytes": (header() + GOOD + b"\1\2\3", "cut short within the tensor at byte 49"),
    "zeros appended": (header() + GOOD + bytes(64), "1 to 3 axes; got 0"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_are_refused_at_once(case: str) -> None:
    data, words = HOSTILE[case]
    start = time.perf_counter()
    refuse(data, words)
    assert time.perf_counter() - start < 0.1


def test_a_file_of_nothing_but_tiny_tensors() -> None:
    data = header() + b"".join(parameter(f"{n:05}", (1,), 0, bytes(4)) for n in range(20000))
    start = time.perf_counter()
    refuse(data, "more than 16384 tensors")
    assert time.perf_counter() - start < 2


def test_cut_anywhere() -> None:
    whole = header() + GOOD + parameter("y", (2, 32), 2, bytes(36)) + parameter("z", (1, 2, 3), 1, bytes(12))
    ends = {24, 24 + len(GOOD), len(whole) - 37, len(whole)}
    for length in range(len(whole) + 1):
        if length in ends:
            parse(whole[:length])
        else:
            with pytest.raises(CheckpointError):
                parse(whole[:length])


def test_bent_files_give_tensors_or_one_error() -> None:
    whole = header() + GOOD + parameter("y", (2, 32), 2, bytes(36)) + parameter("z", (1, 2, 3), 1, bytes(12))
    rng = random.Random(4)
    accepted = 0
    for _ in range(3000):
        data = bytearray(whole)
        for _ in range(rng.choice((1, 1, 2, 4))):
            data[rng.randrange(4, len(data))] = rng.choice((0, 1, 2, 9, 127, 255, rng.randrange(256)))
        try:
            container = parse(bytes(data))
        except CheckpointError:
            continue
        accepted += 1
        for tensor in container.tensors.values():
            assert tensor.read().shape == tensor.shape
    assert 100 < accepted < 2900


def test_other_files_of_the_family_say_what_they_are(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    for magic, words in ((b"ggmf", "of a big-endian machine"), (b"lmgg", "a ggml file"), (b"tjgg", "a ggjt file")):
        path.write_bytes(magic + bytes(40))
        with pytest.raises(CheckpointError, match=words):
            open_checkpoint(path)


def test_a_folder_with_one_among_other_bins(tmp_path: Path) -> None:
    (tmp_path / "training_args.bin").write_bytes(b"PK\3\4")
    with pytest.raises(CheckpointError, match=r"no checkpoint in this folder .*ggmf \.bin"):
        open_checkpoint(tmp_path)
    (tmp_path / "a.bin").write_bytes(header() + GOOD)
    assert open_checkpoint(tmp_path).path == tmp_path / "a.bin"
    (tmp_path / "b.bin").write_bytes(header() + GOOD)
    with pytest.raises(CheckpointError, match=r"2 checkpoints; name one of them: a\.bin, b\.bin"):
        open_checkpoint(tmp_path)


# From what is stored to what the authors had.

# No two axes share a length.
SIZES = {"V": 11, "C": 10, "A": 12, "H": 3, "N": 4, "F": 17, "R": 2, "D": 5, "Dw": 2, "Da": 3, "Dv": 6, "Dg": 7}
COMPUTED = ("time_decay", "time_first")


def weights(architecture: str, **sizes: int) -> dict[str, np.ndarray]:
    def wanted(name: str) -> bool:
        return name.startswith("blocks.0.ln0") or "att.v" in name or name.endswith("time_first") or faaaa(name)

    def faaaa(name: str) -> bool:
        return name.endswith("time_faaaa") and architecture in ("rwkv5.1", "rwkv5.2")

    shapes = declare(weights_of(architecture), SIZES | sizes, 2, wanted)
    if architecture in ("rwkv5.1", "rwkv5.2"):
        shapes = {name: shape for name, shape in shapes.items() if not name.endswith("time_first")}
    return {name: RNG.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def original(data: bytes) -> dict[str, LazyTensor]:
    return dict(original_tensors(parse(data)))


@pytest.mark.parametrize("architecture", VERSIONS)
@pytest.mark.parametrize("heads", [3, 1])
def test_every_version_reads_back_as_the_original(architecture: str, heads: int) -> None:
    arrays = weights(architecture, H=heads, N=12 // heads)
    found = original(model_file(arrays, architecture))
    assert found.keys() == arrays.keys()
    exact = architecture in ("rwkv6", "rwkv7")
    for name, array in arrays.items():
        assert found[name].shape == array.shape, name
        got = found[name].read()
        if exact or not name.endswith(COMPUTED):
            np.testing.assert_array_equal(got, array, err_msg=name)
        else:
            assert got.dtype == np.float32
            assert np.abs(got - array).max() < 3e-6, name


def test_rwkv5_0_with_the_later_bonus_and_rwkv6_of_the_first_converter() -> None:
    arrays = {name.replace("time_first", "time_faaaa"): array for name, array in weights("rwkv5.0").items()}
    found = original(model_file(arrays, "rwkv5.0"))
    np.testing.assert_array_equal(found["blocks.1.att.time_faaaa"].read(), arrays["blocks.1.att.time_faaaa"])
    arrays = weights("rwkv6")
    flat = as_stored(arrays, "rwkv6")
    data = header(11, 10, 2)
    for name, array in flat.items():
        array = array.reshape(-1) if name.endswith("time_decay") else array
        data += parameter(name, array.shape, 0, array.tobytes())
    found = original(data)
    np.testing.assert_array_equal(found["blocks.1.att.time_decay"].read(), arrays["blocks.1.att.time_decay"])


@pytest.mark.parametrize("stored", ["exp(x)", "-exp(x)", "exp(-exp(x))"])
def test_logarithms_are_rounded_once(stored: str) -> None:
    x = np.linspace(-3, 2, 1000)
    forward = {"exp(x)": np.exp, "-exp(x)": lambda x: -np.exp(x), "exp(-exp(x))": lambda x: np.exp(-np.exp(x))}[stored]
    step = Logarithm(stored)  # type: ignore[arg-type]
    y = forward(x).astype(np.float32)
    wide = y.astype(np.longdouble)
    inverse = {"exp(x)": np.log, "-exp(x)": lambda y: np.log(-y), "exp(-exp(x))": lambda y: np.log(-np.log(y))}[stored]
    got = step.apply(y)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, inverse(wide).astype(np.float32))
    np.testing.assert_allclose(forward(got.astype(np.float64)), y, rtol=1e-6)
    assert step.apply(y.astype(np.float64)).dtype == np.float64
    assert step.apply(narrow(y, BFLOAT16)).dtype == BFLOAT16


def test_numbers_at_the_end_of_their_range_come_back() -> None:
    ends = {"exp(x)": [0.0], "-exp(x)": [-0.0, -np.inf], "exp(-exp(x))": [0.0, 1.0]}
    for stored, numbers in ends.items():
        x = Logarithm(stored).apply(np.array(numbers, np.float32))  # type: ignore[arg-type]
        assert np.isinf(x).all()
        forward = {"exp(x)": np.exp(x), "-exp(x)": -np.exp(x), "exp(-exp(x))": np.exp(-np.exp(x))}[stored]
        np.testing.assert_array_equal(forward, numbers)


@pytest.mark.parametrize(
    ("architecture", "part", "number", "words"),
    [
        ("rwkv4", "time_decay", 0.5, r"-exp\(x\), within -inf and 0; got 0\.5"),
        ("rwkv5.2", "time_decay", -0.25, r"exp\(-exp\(x\)\), within 0 and 1; got -0\.25"),
        ("rwkv5.2", "time_decay", 1.5, r"within 0 and 1; got 1\.5"),
        ("rwkv5.0", "time_first", -1.0, r"exp\(x\), within 0 and inf; got -1"),
        ("rwkv4", "time_decay", np.nan, "got nan"),
    ],
)
def test_decays_that_no_exponential_gives_are_refused(
    architecture: str, part: str, number: float, words: str, tmp_path: Path
) -> None:
    arrays = as_stored(weights(architecture), architecture)
    arrays[f"blocks.1.att.{part}"] = np.full_like(arrays[f"blocks.1.att.{part}"], number)
    data = header(11, 10, 2)
    for name, array in arrays.items():
        data += parameter(name, array.shape, 0, array.astype(np.float32).tobytes())
    path = tmp_path / "a.bin"
    path.write_bytes(data)
    with pytest.raises(
        CheckpointError, match=rf"a\.bin \(rwkv\.cpp.*: tensor 'blocks\.1\.att\.{part}' must be .*{words}"
    ):
        wkvnp.load(path)


def test_a_header_of_another_model(tmp_path: Path) -> None:
    data = model_file(weights("rwkv7"), "rwkv7")
    for at, name in ((8, "n_vocab"), (12, "n_embed"), (16, "n_layer")):
        bent = data[:at] + struct.pack("<I", 3) + data[at + 4 :]
        with pytest.raises(CheckpointError, match=rf"its header says .*'{name}': 3.* its tensors are those of"):
            original(bent)


def test_what_is_no_model() -> None:
    with pytest.raises(CheckpointError, match=r"test\.bin: not a known RWKV"):
        original(header() + GOOD)
    arrays = weights("rwkv7")
    arrays["blocks.0.att.x_extra"] = arrays.pop("blocks.0.att.r_k")
    with pytest.raises(CheckpointError, match="not a known RWKV"):
        original(model_file(arrays, "none"))
    data = model_file(weights("rwkv7"), "rwkv7").replace(b"att.x_rwkvag", b"att.x_rwkvaX")
    assert "blocks.0.att.x_rwkvaX" in original(data)


# Whole models.


def saved(tmp_path: Path, architecture: str) -> tuple[wkvnp.Model, dict[str, np.ndarray]]:
    model = wkvnp.random_model(architecture, n_layer=2, n_embd=96, vocab_size=59, head_size=32, rng=5)
    return model, flatten(model.stored)


def loaded(tmp_path: Path, data: bytes, **options: float) -> wkvnp.Model:
    path = tmp_path / f"{len(list(tmp_path.iterdir()))}.bin"  # those before it are still mapped
    path.write_bytes(data)
    return wkvnp.load(path, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("architecture", VERSIONS)
def test_logits(architecture: str, tmp_path: Path) -> None:
    model, arrays = saved(tmp_path, architecture)
    ours = loaded(tmp_path, model_file(arrays, architecture, version=100), group_norm_eps=64e-5)
    assert ours.config == model.config
    tokens = RNG.integers(0, 59, 40)
    expected, got = model(tokens, logits="all")[0], ours(tokens, logits="all")[0]
    if architecture in ("rwkv6", "rwkv7"):
        np.testing.assert_array_equal(got, expected)
    else:
        assert np.abs(got - expected).max() <= 1e-5


@pytest.mark.parametrize("architecture", VERSIONS)
@pytest.mark.parametrize("kind", ["FP16", "Q5_1"])
def test_smaller_types_are_the_rounded_model(architecture: str, kind: str, tmp_path: Path) -> None:
    """The model whose matrices went through the same rounding has the same logits."""
    _, arrays = saved(tmp_path, architecture)
    data = model_file(arrays, architecture, kind)
    ours = loaded(tmp_path, data)
    assert ours.config.dtype == ("float16" if kind == "FP16" else "float32")
    assert {tensor.stored for tensor in parse(data).tensors.values()} == {None, None if kind == "FP16" else kind}
    rounded = {name: array.astype(np.float32) for name, array in flatten(ours.stored).items()}
    again = loaded(tmp_path, model_file(rounded, architecture))
    tokens = RNG.integers(0, 59, 9)
    assert np.abs(ours(tokens)[0] - again(tokens)[0]).max() <= 1e-5
    apart = {name for name in arrays if not np.array_equal(rounded[name], arrays[name])}
    assert "blocks.0.ffn.key.weight" in apart
    assert ("emb.weight" in apart) == (kind == "FP16")


def test_the_epsilon_of_rwkv_cpp(tmp_path: Path) -> None:
    for architecture, eps in (
        ("rwkv5.0", 1e-5),
        ("rwkv5.1", 1e-5),
        ("rwkv5.2", 1e-5),
        ("rwkv6", 64e-5),
        ("rwkv7", 64e-5),
    ):
        _, arrays = saved(tmp_path, architecture)
        data = model_file(arrays, architecture)
        assert loaded(tmp_path, data).config.group_norm_eps == eps
        assert loaded(tmp_path, data, group_norm_eps=3e-5).config.group_norm_eps == 3e-5


def test_decays_rounded_to_0_and_1_do_no_harm(tmp_path: Path) -> None:
    for architecture in ("rwkv4", "rwkv5.0", "rwkv5.2"):
        _, arrays = saved(tmp_path, architecture)
        for name in arrays:
            if name.endswith("time_decay"):
                arrays[name] = np.where(np.arange(arrays[name].size).reshape(arrays[name].shape) % 2, 200.0, -200.0)
        with np.errstate(over="ignore"):
            ours = loaded(tmp_path, model_file(arrays, architecture))
        logits, state = ours(RNG.integers(0, 59, 40))
        again, _ = ours([1], state=state)
        assert np.isfinite(logits).all() and np.isfinite(again).all()


# The trained models of rwkv.cpp itself.

TRAINED = ("tiny-rwkv4-660k", "tiny-rwkv5.0-730k", "tiny-rwkv7-834k")


@pytest.mark.parametrize("name", TRAINED)
def test_trained_models_give_their_published_logits(shared_data: Path, name: str) -> None:
    folder = shared_data / "tiny-rwkv"
    expected = np.fromfile(folder / f"{name}.expected-logits.f32", "<f4")
    model = wkvnp.load(folder / f"{name}.ggmf.bin")
    state = None
    for token in b'"in':
        logits, state = model([token], state=state)
    assert np.abs(logits - expected).max() <= 1e-5
    assert np.abs(model(list(b'"in'))[0] - expected).max() <= 1e-5


@pytest.mark.parametrize("name", TRAINED)
def test_trained_models_equal_their_torch_twins(shared_data: Path, name: str) -> None:
    folder = shared_data / "tiny-rwkv"
    ours = wkvnp.load(folder / f"{name}.ggmf.bin")
    twin = wkvnp.load(folder / f"{name}.pth", group_norm_eps=1e-5 if "5.0" in name else None)
    left, right = flatten(ours.stored), flatten(twin.stored)
    assert left.keys() == right.keys()
    for tensor, array in left.items():
        if re.search(r"time_decay|time_first", tensor):
            assert np.abs(array - right[tensor]).max() <= 1e-6, tensor
        else:
            np.testing.assert_array_equal(array, right[tensor], err_msg=tensor)
    got, expected = ours(list(b'"in'))[0], twin(list(b'"in'))[0]
    assert np.abs(got - expected).max() <= (0 if "rwkv7" in name else 1e-5)


@pytest.mark.parametrize(("name", "apart"), list(zip(TRAINED, (0.13, 1.8, 0.004), strict=True)))
def test_quantised_trained_models_stay_near(shared_data: Path, name: str, apart: float) -> None:
    """How far Q5_0 takes these three away when nothing else is rounded."""
    folder = shared_data / "tiny-rwkv"
    expected = np.fromfile(folder / f"{name}.expected-logits.f32", "<f4")
    logits, _ = wkvnp.load(folder / f"{name}-q5_0.ggmf.bin")(list(b'"in'))
    assert apart / 2 < np.abs(logits - expected).max() < apart


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(("of", "stated"), [(0, 1), (0, 12), (0, 2), (1, 2)])
def test_a_type_under_a_smaller_label_is_refused(of: int, stated: int, last: bool) -> None:
    """Nothing is aligned here, so what is left over must be the next parameter, and is none."""
    size = 4 if of == 0 else 2
    data = header() + parameter("a", (3, 64), stated, NUMBERS.astype(f"f{size}").tobytes())
    if not last:
        data += parameter("b", (3, 64), 0, NUMBERS.tobytes())
    with pytest.raises(CheckpointError):
        parse(data)
