"""The weights that a person gets are numbers, whatever a model keeps them in; what is stored cannot be misread."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import wkvnp
from wkvnp._dtypes import BFLOAT16, narrow, widen
from wkvnp._quantised import Quantised
from wkvnp.checkpoints import open_checkpoint, save_safetensors
from wkvnp.checkpoints.naming import flatten
from wkvnp.cli import main
from wkvnp.models import ARCHITECTURES


def halved(path: Path, architecture: str = "rwkv7") -> Path:
    """Write a model all of whose tensors are bfloat16, as most published ones are."""
    made = wkvnp.random_model(architecture, n_layer=2, n_embd=96, vocab_size=59, head_size=32, rng=5)
    arrays = {name: narrow(array, BFLOAT16) for name, array in flatten(made.stored).items()}
    save_safetensors(path, arrays, made.config.metadata())
    return path


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_weights_are_numbers(architecture: str, tmp_path: Path) -> None:
    model = wkvnp.load(halved(tmp_path / "m", architecture))
    stored = flatten(model.stored)
    assert list(model.weights) == list(stored) and len(model.weights) == len(stored)
    for name, array in model.weights.items():
        assert array.dtype == np.float32 and not array.flags.writeable
        np.testing.assert_array_equal(array, widen(stored[name]))
        np.testing.assert_array_equal(np.asarray(array, np.float64), widen(stored[name]))


def test_the_bundled_model_says_what_it_weighs() -> None:
    weights = wkvnp.load().weights
    w0 = weights.blocks[0].att.w0
    assert -10 < w0.astype(np.float32).min() < w0.max() < 5
    np.testing.assert_array_equal(w0, weights["blocks.0.att.w0"])
    assert 0 < np.linalg.norm(weights.emb.weight.astype(np.float64)) < 1000


def test_numpy_floats_are_shared_and_others_are_not_kept(tmp_path: Path) -> None:
    for dtype in ("float32", "float64", "float16"):
        model = wkvnp.random_model("rwkv7", n_layer=1, n_embd=64, vocab_size=32, rng=0, dtype=dtype)
        assert model.weights.head.weight is model.stored.head.weight
    half = wkvnp.load(halved(tmp_path / "m"))
    assert half.weights.head.weight is not half.weights.head.weight
    small = wkvnp.load(tmp_path / "m", dtype="int8")
    assert isinstance(small.stored.head.weight, Quantised)
    np.testing.assert_array_equal(small.weights.head.weight, small.stored.head.weight.widened())


def test_weights_are_found_by_attribute_and_by_name() -> None:
    weights = wkvnp.random_model("rwkv7", n_layer=2, n_embd=64, vocab_size=32, rng=0).weights
    assert len(weights.blocks) == 2 and weights.blocks[1].att["receptance.weight"].shape == (64, 64)
    assert "emb" in dir(weights) and repr(weights.emb) == "<weights: 1 tensors>"
    with pytest.raises(AttributeError, match=r"weights: 'block' must be one of emb, blocks, ln_out, head"):
        weights.block  # noqa: B018
    with pytest.raises(KeyError, match="absent"):
        weights["absent"]
    with pytest.raises(TypeError):
        weights["emb.weight"] = np.zeros(3)  # type: ignore[index]


MISREADINGS: list[Callable[[Any], Any]] = [
    lambda x: x.astype(np.float32),
    lambda x: x.astype(np.float64),
    lambda x: x.astype(int),
    lambda x: np.asarray(x, np.float32),
    lambda x: np.array(x, np.float64),
    lambda x: np.float32(x[0]),
    lambda x: float(x[0]),
    lambda x: x + 1,
    lambda x: x * x,
    lambda x: x.sum(),
    lambda x: x.mean(),
    lambda x: np.linalg.norm(x),
    lambda x: x @ x,
    lambda x: np.zeros(x.shape, np.float32).__setitem__(slice(None), x),
]


@pytest.mark.parametrize("bits", [16256, 0x3231])  # the second is "12" as text
@pytest.mark.parametrize("misread", MISREADINGS)
def test_what_is_stored_as_bfloat16_cannot_be_misread(bits: int, misread: Callable[[Any], Any]) -> None:
    with pytest.raises((TypeError, ValueError)):
        misread(np.full(3, bits, np.uint16).view(BFLOAT16))


def test_readers_and_mechanisms_give_what_cannot_be_misread(tmp_path: Path) -> None:
    container = open_checkpoint(halved(tmp_path / "m"))
    x = narrow(np.ones((1, 3, 2), np.float32), BFLOAT16)
    for array in (container.tensors["emb.weight"].read(), wkvnp.hgrn(x, narrow(-np.ones((1, 3, 2)), BFLOAT16))[0]):
        with pytest.raises(TypeError):
            array.astype(np.float32)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_float32_means_every_tensor(architecture: str, dtype: str, tmp_path: Path) -> None:
    source = halved(tmp_path / "m", architecture)
    assert {array.dtype.name for array in flatten(wkvnp.load(source, dtype=dtype).stored).values()} == {dtype}
    wkvnp.convert(source, tmp_path / "converted", dtype=dtype)
    assert {array.dtype.name for array in load_file(tmp_path / "converted").values()} == {dtype}
    if dtype == "float32":
        assert main(["convert", str(source), str(tmp_path / "command"), "--dtype", dtype]) == 0
        assert (tmp_path / "command").read_bytes() == (tmp_path / "converted").read_bytes()


def test_float32_changes_no_logit(tmp_path: Path) -> None:
    source = halved(tmp_path / "m")
    tokens = np.arange(40) % 59
    wide, half = wkvnp.load(source, dtype="float32"), wkvnp.load(source)
    assert np.abs(wide(tokens, logits="all")[0] - half(tokens, logits="all")[0]).max() <= 1e-5
