"""Matrices of 8 and 4 bits: rounding, products of whole numbers, files, and what they cost models that were trained."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import wkvnp
from wkvnp import set_num_threads
from wkvnp._dtypes import BFLOAT16, narrow, widen
from wkvnp._matrix_unit import available
from wkvnp._quantised import GROUP, QUANTISED, Quantised, packed
from wkvnp.checkpoints import open_checkpoint, save_safetensors
from wkvnp.checkpoints.naming import flatten
from wkvnp.checkpoints.quantised_tensors import FORMS, KEY
from wkvnp.cli import main
from wkvnp.decoding import Program, run
from wkvnp.decoding.integer_dots import INSTRUCTIONS
from wkvnp.decoding.integer_product import INTEGER_PRODUCT, integer_product
from wkvnp.errors import ArgumentError, CheckpointError
from wkvnp.models import ARCHITECTURES, BUNDLED
from wkvnp.operations.tokens import Tokens
from wkvnp.primitives.linear_map import FEW_ROWS, linear_map
from wkvnp.primitives.quantise import quantise

RNG = np.random.default_rng(0)
DATA = Path(__file__).parent / "data"
both = pytest.mark.parametrize("dtype", QUANTISED)
RANGES = {"int8": (-127, 127), "int4": (-8, 7)}


def matrix(outputs: int, inputs: int, dtype: str, scales: Any = None) -> tuple[Quantised, np.ndarray]:
    """Return a matrix of random codes of the full range that a file can hold, and its codes."""
    low, high = (-128, 127) if dtype == "int8" else (-8, 7)
    codes = RNG.integers(low, high + 1, (outputs, inputs)).astype(np.int8)
    if scales is None:
        scales = RNG.uniform(-2, 2, (outputs, inputs // GROUP)).astype(np.float32)
    return Quantised(codes if dtype == "int8" else packed(codes), narrow(scales, BFLOAT16)), codes


# Rounding.


def nearest(row: np.ndarray, scale: float, dtype: str) -> np.ndarray:
    """Return the least error that each weight can have under a scale, by trying every code."""
    low, high = RANGES[dtype]
    return np.abs(row[:, None] - scale * np.arange(low, high + 1)).min(axis=1)


@both
@pytest.mark.parametrize("stored", ["float32", "float16", "bfloat16", "float64"])
def test_every_weight_becomes_the_nearest_that_its_group_has(dtype: str, stored: str) -> None:
    weight = narrow(RNG.standard_normal((5, 96)) * 10.0 ** RNG.uniform(-3, 1, (5, 1)), stored)
    exact = widen(weight).astype(np.float64).reshape(-1, GROUP)
    found = quantise(weight, dtype)
    assert (found.shape, found.dtype, found.size) == ((5, 96), dtype, 480)
    assert found.nbytes == 5 * (96 if dtype == "int8" else 48) + 5 * 3 * 2
    error = np.abs(found.widened().astype(np.float64).reshape(-1, GROUP) - exact)
    scales = widen(found.scales).astype(np.float64).reshape(-1)
    for row, scale, mine in zip(exact, scales, error, strict=True):
        np.testing.assert_allclose(mine, nearest(row, scale, dtype), atol=1e-6 * np.abs(row).max())
        if dtype == "int8":
            assert abs(scale / (np.abs(row).max() / 127) - 1) <= 2.0**-8
            assert mine.max() <= abs(scale) / 2 * (1 + 1e-5)
        else:  # the usual rule: the weight of the largest size becomes -8
            usual = row[np.abs(row).argmax()] / -8
            assert (mine**2).sum() <= (nearest(row, usual, dtype) ** 2).sum() * (1 + 1e-3)


@both
def test_groups_of_any_size(dtype: str) -> None:
    sizes = np.array([0, 1e-45, 1e-39, 1e-20, 1.0, 1e30], np.float32)
    weight = sizes[:, None] * np.linspace(-1, 1, GROUP, dtype=np.float32)
    found = quantise(weight, dtype).widened()
    assert np.isfinite(found).all()
    assert (np.abs(found - weight) <= sizes[:, None] * (0.005 if dtype == "int8" else 0.1) + 1e-38).all()
    assert (found[0] == 0).all()
    for number in (np.inf, np.nan, 2e36):
        weight[2, 3] = number
        with pytest.raises(ValueError, match="weights must be finite"):
            quantise(weight, dtype)


def test_half_bytes() -> None:
    codes = RNG.integers(-8, 8, (2, 64)).astype(np.int8)
    stored = packed(codes)
    for o in range(2):
        for g in range(2):
            for j in range(16):
                byte = int(stored[o, 16 * g + j])
                assert byte % 16 - 8 == codes[o, GROUP * g + j]
                assert byte // 16 - 8 == codes[o, GROUP * g + 16 + j]
    some = Quantised(stored, narrow(np.ones((2, 2), np.float32), BFLOAT16))
    np.testing.assert_array_equal(some.widened(), codes.astype(np.float32))
    np.testing.assert_array_equal(some[1:].widened(), codes[1:].astype(np.float32))
    assert (len(some), repr(some)) == (2, "<int4 matrix (2, 64)>")


@both
def test_rows_come_out_of_blocks_as_they_went_in(dtype: str) -> None:
    whole, codes = matrix(70, 96, dtype)
    given = codes if dtype == "int8" else packed(codes)
    np.testing.assert_array_equal(whole.codes, given)
    for rows in (
        slice(0, 16),
        slice(16, 40),
        slice(32, None),
        slice(64, 70),
        slice(3, 35),
        slice(48, 48),
        slice(9, 60, 7),
    ):
        some = whole[rows]
        assert some.shape == (len(given[rows]), 96) and some.nbytes == given[rows].nbytes + whole.scales[rows].nbytes
        np.testing.assert_array_equal(some.codes, given[rows])
        np.testing.assert_array_equal(some.scales, whole.scales[rows])
        np.testing.assert_array_equal(some.widened(), whole.widened()[rows])
    assert whole.blocks.ctypes.data % 64 == 0


# Products.


WAYS = [(instruction, False) for instruction in INSTRUCTIONS] + ([(INSTRUCTIONS[0], True)] if available() else [])
"""Ways to multiply bytes that this machine has: kinds of instructions, and whether the matrix unit may be used."""


@pytest.fixture(params=WAYS, ids=str)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, bool]]:
    """Every one of them."""
    monkeypatch.setattr(INTEGER_PRODUCT, "run", integer_product(*request.param))
    run._runner.cache_clear()
    yield request.param
    run._runner.cache_clear()


def product(weight: Quantised, x: np.ndarray) -> np.ndarray:
    """Return x (M, I) times a matrix, as decoding does it."""
    (O, I), M = weight.shape, len(x)
    p = Program(M)
    source, target = p.memory.slot("x", I), p.memory.slot("y", O)
    Tokens(p, {}).logits(source, weight, target)
    p.finish()
    y = np.full((M, O), np.nan, np.float32)
    x = np.ascontiguousarray(x, np.float32)
    p.run(M, np.array([0, x.ctypes.data, y.ctypes.data]))
    return y


@both
def test_whole_numbers_are_exact(dtype: str, way: tuple[str, bool]) -> None:
    """With scales that are powers of two, float32 rounds nothing: every bit must be that of integers."""
    for inputs in (32, 64, 96, 128, 160, 192, 224, 256, 416):
        for outputs, rows in ((1, 5), (3, 1), (4, 40), (7, 5), (37, 19), (70, 17), (150, 16)):
            powers = 2.0 ** RNG.integers(-1, 2, (outputs, inputs // GROUP))
            weight, codes = matrix(outputs, inputs, dtype, powers.astype(np.float32))
            x = RNG.integers(-127, 128, (rows, inputs))
            x[:, ::GROUP] = RNG.choice([-127, 127], x[:, ::GROUP].shape)  # so that the scale of every group is 1
            doubled = np.repeat((2 * powers).astype(np.int64), GROUP, axis=1)
            expected = x @ (codes.astype(np.int64) * doubled).T
            np.testing.assert_array_equal(2 * product(weight, x), expected)


@both
def test_any_instructions_rows_and_threads_give_the_same_bits(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    weight, _ = matrix(530, 352, dtype)
    x = RNG.standard_normal((37, 352)).astype(np.float32)
    results = []
    for way in WAYS:
        monkeypatch.setattr(INTEGER_PRODUCT, "run", integer_product(*way))
        run._runner.cache_clear()
        for threads in (1, 2):
            set_num_threads(threads)
            results.append(product(weight, x))
    set_num_threads(None)
    run._runner.cache_clear()
    for result in results[1:]:
        np.testing.assert_array_equal(results[0], result)
    for m in range(0, 37, 4):
        np.testing.assert_array_equal(product(weight, x[m : m + 1])[0], results[0][m])


@both
def test_activations_are_rounded_by_groups(dtype: str) -> None:
    """Through a matrix of ones on the diagonal they come out as they went in, but for the rounding."""
    size = 160
    weight = Quantised(
        np.eye(size, dtype=np.int8) if dtype == "int8" else packed(np.eye(size, dtype=np.int8)),
        narrow(np.ones((size, size // GROUP), np.float32), BFLOAT16),
    )
    x = (RNG.standard_normal((4, size)) * 10.0 ** RNG.uniform(-9, 9, (4, 1))).astype(np.float32)
    x[1, :GROUP] = 0
    step = np.repeat(np.abs(x.reshape(4, -1, GROUP)).max(axis=2), GROUP, axis=1) / 127
    y = product(weight, x)
    assert (np.abs(y - x) <= step / 2 * (1 + 1e-5)).all()
    assert (np.abs(y - x).max(axis=1) > step.min(axis=1) / 5).all()


@both
def test_products_against_float64(dtype: str, way: tuple[str, bool]) -> None:
    weight, codes = matrix(70, 384, dtype)
    x = RNG.standard_normal((19, 384)).astype(np.float32)
    exact = np.repeat(widen(weight.scales), GROUP, axis=1).astype(np.float64) * codes
    scales = np.abs(x.reshape(19, -1, GROUP)).max(axis=2, keepdims=True) / np.float32(127)
    rounded = (np.rint(x.reshape(19, -1, GROUP).astype(np.float64) / scales) * scales).reshape(19, -1)
    sizes = np.abs(rounded) @ np.abs(exact).T
    assert (np.abs(product(weight, x) - rounded @ exact.T) <= 1e-6 * sizes).all()


@both
@pytest.mark.parametrize("rows", [1, 5, FEW_ROWS + 1])
def test_prompts_meet_the_weights_with_activations_that_are_not_rounded(dtype: str, rows: int) -> None:
    weight, codes = matrix(70, 160, dtype)
    x = RNG.standard_normal((rows, 160)).astype(np.float32)
    exact = np.repeat(widen(weight.scales), GROUP, axis=1).astype(np.float64) * codes
    np.testing.assert_array_equal(weight.widened(), exact)
    assert np.abs(linear_map(x, weight) - x @ exact.T).max() <= 1e-6 * (np.abs(x) @ np.abs(exact).T).max()
    if rows <= FEW_ROWS:
        np.testing.assert_array_equal(linear_map(x[-1:], weight)[0], linear_map(x, weight)[-1])


@both
def test_what_is_no_number_stays_none(dtype: str) -> None:
    weight, _ = matrix(8, 96, dtype)
    x = np.ones((20, 96), np.float32)
    x[1, 40], x[18, 90] = np.nan, -np.inf
    y = product(weight, x)
    assert np.isnan(y[[1, 18]]).all() and np.isfinite(np.delete(y, [1, 18], axis=0)).all()


# Models.


def make(architecture: str, dtype: str = "float32", **options: Any) -> wkvnp.Model:
    if architecture == "hybrid":
        options |= {"pattern": "a4567ms"}
    layers = 7 if architecture == "hybrid" else 2
    sizes: dict[str, Any] = {"n_layer": layers, "n_embd": 64, "vocab_size": 59, "head_size": 16}
    return wkvnp.random_model(architecture, rng=0, dtype=dtype, **sizes, **options)


def same_weights(a: wkvnp.Model, b: wkvnp.Model) -> None:
    mine, theirs = flatten(a.stored), flatten(b.stored)
    assert mine.keys() == theirs.keys()
    for name, array in mine.items():
        if isinstance(array, Quantised):
            assert array.dtype == theirs[name].dtype
            np.testing.assert_array_equal(array.codes, theirs[name].codes)
            np.testing.assert_array_equal(array.scales, theirs[name].scales)
        else:
            assert array.dtype == theirs[name].dtype
            np.testing.assert_array_equal(array, theirs[name])


@both
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_files_hold_what_loading_makes(architecture: str, dtype: str, tmp_path: Path) -> None:
    whole = make(architecture)
    whole.save(tmp_path / "float")
    small = wkvnp.load(tmp_path / "float", dtype=dtype)
    small.save(tmp_path / "saved")
    wkvnp.convert(tmp_path / "float", tmp_path / "converted", dtype=dtype)
    assert (tmp_path / "saved").read_bytes() == (tmp_path / "converted").read_bytes()
    again = wkvnp.load(tmp_path / "saved")
    same_weights(small, again)
    same_weights(small, make(architecture, dtype))
    assert again.fingerprint == small.fingerprint != whole.fingerprint
    assert again.config == small.config and repr(again).endswith(f" {dtype}>")
    assert small.n_parameters == whole.n_parameters and small.nbytes == again.nbytes < whole.nbytes
    quantised = {name for name, array in flatten(small.stored).items() if isinstance(array, Quantised)}
    assert sum("head" in name for name in quantised) == 1 and not any("emb" in name for name in quantised)
    wkvnp.convert(tmp_path / "saved", tmp_path / "copied")
    assert (tmp_path / "copied").read_bytes() == (tmp_path / "saved").read_bytes()
    wkvnp.convert(tmp_path / "saved", tmp_path / "back", dtype="float32")
    back = flatten(wkvnp.load(tmp_path / "back").stored)
    for name, array in flatten(small.stored).items():
        np.testing.assert_array_equal(back[name], array.widened() if name in quantised else array)
    same_weights(wkvnp.load(tmp_path / "back"), wkvnp.load(tmp_path / "saved", dtype="float32"))
    logits = [model([3, 1, 4, 1, 5], logits="all")[0] for model in (small, again, wkvnp.load(tmp_path / "back"))]
    np.testing.assert_array_equal(logits[0], logits[1])
    np.testing.assert_array_equal(logits[0], logits[2])


@both
@pytest.mark.parametrize("architecture", ["rwkv7", "mamba1"])
def test_decoding_differs_from_prompts_by_the_rounding_of_activations(architecture: str, dtype: str) -> None:
    model = make(architecture, dtype)
    tokens = RNG.integers(0, 59, (3, 12))
    expected, _ = model(tokens, logits="all")
    state, alone = None, None
    for t in range(12):
        logits, state = model(tokens[:, t : t + 1], state)
        one, alone = model(tokens[1, t : t + 1], alone)
        np.testing.assert_array_equal(logits[1], one)
        assert np.square(logits - expected[:, t]).mean() < 0.01 * np.square(expected[:, t]).mean()


def test_a_head_that_was_the_embedding_becomes_a_matrix_of_its_own(tmp_path: Path) -> None:
    whole = make("mamba1")
    arrays = {name: array for name, array in flatten(whole.stored).items() if name != "lm_head.weight"}
    whole.save(tmp_path / "untied")
    metadata = open_checkpoint(tmp_path / "untied").metadata
    fields = json.loads(metadata["config"]) | {"tie_word_embeddings": True}
    save_safetensors(tmp_path / "tied", arrays, metadata | {"config": json.dumps(fields)})
    tied = wkvnp.load(tmp_path / "tied")
    wkvnp.convert(tmp_path / "tied", tmp_path / "small", dtype="int8")
    small = wkvnp.load(tmp_path / "small")
    same_weights(small, wkvnp.load(tmp_path / "tied", dtype="int8"))
    table, head = small.stored.backbone.embeddings.weight, small.stored.lm_head.weight
    np.testing.assert_array_equal(table, tied.stored.backbone.embeddings.weight)
    np.testing.assert_array_equal(head.codes, quantise(table, "int8").codes)
    assert small.n_parameters == tied.n_parameters + table.size
    expected, found = (model([1, 2, 3])[0] for model in (tied, small))
    assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()


def test_other_dtypes_on_the_way(tmp_path: Path) -> None:
    make("rwkv7", "float64").save(tmp_path / "double")
    kinds = {array.dtype for array in flatten(wkvnp.load(tmp_path / "double", dtype="int8").stored).values()}
    assert kinds == {"int8", np.dtype(np.float32)}
    make("rwkv7", "bfloat16").save(tmp_path / "half")
    small = wkvnp.load(tmp_path / "half", dtype="int4")
    assert small.stored.emb.weight.dtype == BFLOAT16 and small.stored.head.weight.dtype == "int4"
    small.save(tmp_path / "small")
    assert wkvnp.load(tmp_path / "small", dtype="int8").stored.head.weight.dtype == "int8"
    half = wkvnp.load(tmp_path / "small", dtype="bfloat16")
    np.testing.assert_array_equal(half.stored.head.weight, narrow(small.stored.head.weight.widened(), BFLOAT16))


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = str(tmp_path / "a"), str(tmp_path / "b")
    sizes = ["--layers", "2", "--width", "64", "--vocab", "256"]
    assert main(["random-model", source, "--architecture", "rwkv7", *sizes, "--seed", "1"]) == 0
    assert main(["convert", source, target, "--dtype", "int4"]) == 0
    capsys.readouterr()
    assert main(["info", target, "--json"]) == 0
    told, model = json.loads(capsys.readouterr().out), wkvnp.load(target)
    assert told["parameters"] == model.n_parameters and told["memory"]["weights"] == model.nbytes
    assert told["dtypes"].keys() == {"float32", "int4"}
    assert main(["generate", "--model", source, "--dtype", "int8", "--max-tokens", "3", "x"]) == 0


# What is refused.


@both
def test_files_that_are_refused(dtype: str, tmp_path: Path) -> None:
    make("rwkv7", dtype).save(tmp_path / "a")
    container = open_checkpoint(tmp_path / "a")
    raw = {name: tensor.read() for name, tensor in container.tensors.items() if tensor.dtype != dtype}
    for name, tensor in container.tensors.items():
        if tensor.dtype == dtype:
            raw[name], raw[f"{name}.scale"] = tensor.read().codes, tensor.read().scales
    codes, scales = raw["head.weight"], raw["head.weight.scale"]
    number = narrow(np.array([np.nan, np.inf, -1e37], np.float32), BFLOAT16)
    faulty = {name: scales.copy() for name in ("nan", "inf", "large")}
    for array, wrong in zip(faulty.values(), number, strict=True):
        array[3, 1] = wrong
    other = "uint8" if dtype == "int8" else "int8"
    cases: list[tuple[dict[str, Any], str]] = [
        *(({"head.weight.scale": array}, r"weight\.scale' must hold finite numbers") for array in faulty.values()),
        ({"head.weight.scale": scales[:-1]}, r"weight\.scale' must be bfloat16 \(59, 2\); got bfloat16 \(58, 2\)"),
        ({"head.weight.scale": widen(scales)}, r"head\.weight\.scale' must be bfloat16 \(59, 2\); got float32"),
        ({"head.weight.scale": None}, r"head\.weight' has u?int8 codes, but no \.scale beside it"),
        ({"head.weight": codes.view(other)}, r"head\.weight' must be u?int8 of two axes"),
        ({"head.weight": np.ascontiguousarray(codes[:, :-1])}, r"head\.weight' must be u?int8 of two axes"),
        ({"head.weight": codes[0]}, r"head\.weight' must be u?int8 of two axes"),
        ({"head.weight": codes[:-1], "head.weight.scale": scales[:-1]}, r"head\.weight must be \(V=59, C=64\)"),
        ({"head.weight": None}, r"missing: head\.weight"),
        ({"emb.weight": codes, "emb.weight.scale": scales}, r"emb\.weight must be floating point; got int[48] codes"),
        (
            {"blocks.0.att.x_r": codes[:1], "blocks.0.att.x_r.scale": scales[:1]},
            r"blocks\.0\.att\.x_r of shape \(1, 1, 64\) must be floating point",
        ),
    ]
    for changes, message in cases:
        arrays = {name: array for name, array in (raw | changes).items() if array is not None}
        save_safetensors(tmp_path / "b", arrays, container.metadata)
        with pytest.raises(CheckpointError, match=message):
            wkvnp.load(tmp_path / "b")
    form = next(text for text, meant in FORMS.items() if meant == dtype)
    for text in (form.replace("version 1", "version 2"), ""):
        save_safetensors(tmp_path / "b", raw, container.metadata | {KEY: text})
        with pytest.raises(CheckpointError, match=f"{KEY} in the metadata must be one of .*{re.escape(form)}"):
            wkvnp.load(tmp_path / "b")
    save_safetensors(tmp_path / "b", raw, {key: text for key, text in container.metadata.items() if key != KEY})
    with pytest.raises(CheckpointError, match=r"not floating point: .*\(u?int8\)"):
        wkvnp.load(tmp_path / "b")
    save_safetensors(tmp_path / "b", raw, container.metadata)
    same_weights(wkvnp.load(tmp_path / "b"), make("rwkv7", dtype))


@both
def test_models_that_are_refused(dtype: str, tmp_path: Path) -> None:
    sizes: dict[str, Any] = {"n_layer": 1, "n_embd": 12, "vocab_size": 59, "rng": 0}
    with pytest.raises(ArgumentError, match=f"random_model: {dtype} needs matrices whose rows are multiples of 32"):
        wkvnp.random_model("rwkv4", dtype=dtype, **sizes)
    wkvnp.random_model("rwkv4", **sizes).save(tmp_path / "a")
    for use in (lambda: wkvnp.load(tmp_path / "a", dtype=dtype), lambda: convert(tmp_path, dtype)):
        with pytest.raises(ArgumentError, match=f"a: {dtype} needs matrices whose rows are multiples of 32"):
            use()
    model = make("rwkv7")
    arrays = flatten(model.stored)
    arrays["head.weight"] = arrays["head.weight"].copy()
    arrays["head.weight"][3, 5] = np.inf
    save_safetensors(tmp_path / "a", arrays, model.config.metadata())
    for use in (lambda: wkvnp.load(tmp_path / "a", dtype=dtype), lambda: convert(tmp_path, dtype)):
        with pytest.raises(CheckpointError, match=r"a: tensor head\.weight: weights must be finite"):
            use()
    assert not (tmp_path / "b").exists()


def convert(folder: Path, dtype: str) -> None:
    wkvnp.convert(folder / "a", folder / "b", dtype=dtype)


def test_loading_refuses_numbers_that_float16_does_not_have(tmp_path: Path) -> None:
    model = make("rwkv7")
    arrays = flatten(model.stored)
    arrays["emb.weight"] = arrays["emb.weight"].copy()
    arrays["emb.weight"][3, 5] = 65520
    save_safetensors(tmp_path / "a", arrays, model.config.metadata())
    with pytest.raises(CheckpointError, match=r"a: tensor emb\.weight has numbers too large for float16"):
        wkvnp.load(tmp_path / "a", dtype="float16")
    arrays["emb.weight"][3, 5] = np.inf  # an infinity that was there before stays one
    save_safetensors(tmp_path / "a", arrays, model.config.metadata())
    assert np.isinf(wkvnp.load(tmp_path / "a", dtype="float16").stored.emb.weight[3, 5])


# What it costs.

PASSAGE = json.loads((DATA / "expected.json").read_text(encoding="utf-8"))["passage"]


def bits_per_byte(model: wkvnp.Model, *, decode: bool) -> float:
    tokens = np.frombuffer(PASSAGE.encode(), np.uint8).astype(np.int64)
    logits, state = [], None
    if decode:
        for token in tokens[:-1]:
            each, state = model([token], state)
            logits.append(each)
    scores = np.array(logits if decode else model(tokens[:-1], logits="all")[0], np.float64)
    scores -= np.log(np.exp(scores).sum(axis=1, keepdims=True))
    return float(-scores[np.arange(len(tokens) - 1), tokens[1:]].mean() / np.log(2))


@pytest.mark.parametrize("path", [BUNDLED, *sorted(DATA.glob("*.safetensors"))], ids=lambda path: path.stem)
def test_trained_models_lose_little(path: Path) -> None:
    before = bits_per_byte(wkvnp.load(path, dtype="float32"), decode=False)
    for dtype, most in (("int8", 0.005), ("int4", 0.04)):
        model = wkvnp.load(path, dtype=dtype)
        for decode in (False, True):
            assert abs(bits_per_byte(model, decode=decode) / before - 1) <= most
