"""The same weights in every format give the same logits, and so does what `wkvnp convert` makes of each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from foreign_names import Arrays, to_fla_rwkv6, to_fla_rwkv7, to_hugging_face, to_old_fla_rwkv7, to_web_rwkv
from ggmf_writer import model_file
from gguf_writer import write_gguf
from test_gguf_models import metadata_of, written_as_rwkv6, written_as_rwkv7
from torch_writer import weights_file

import wkvnp
from wkvnp.checkpoints import save_safetensors
from wkvnp.checkpoints.naming import flatten
from wkvnp.models.architectures import module_of

TOKENS = np.random.default_rng(8).integers(0, 96, 40)
VERSIONS = ("rwkv4", "rwkv5.0", "rwkv5.1", "rwkv5.2", "rwkv6", "rwkv7")
Write = Callable[[wkvnp.Model, Path], None]


def named(translate: Callable[[Arrays], Arrays]) -> Write:
    """Return what writes safetensors under other names."""
    return lambda model, path: save_safetensors(path, translate(flatten(model.stored)))


def as_pth(model: wkvnp.Model, path: Path) -> None:
    path.write_bytes(weights_file(flatten(model.stored)))


def as_ggmf(model: wkvnp.Model, path: Path) -> None:
    path.write_bytes(model_file(flatten(model.stored), model.config.architecture))


def as_gguf(model: wkvnp.Model, path: Path) -> None:
    arrays = flatten(model.stored)
    written = written_as_rwkv7(arrays) if model.config.architecture == "rwkv7" else written_as_rwkv6(arrays, 0)
    path.write_bytes(write_gguf(metadata_of(model), written))


FORMATS: dict[str, tuple[tuple[str, ...], Write]] = {
    "safetensors": (VERSIONS, wkvnp.Model.save),
    "pth": (VERSIONS, as_pth),
    "ggmf": (VERSIONS, as_ggmf),
    "GGUF": (("rwkv6", "rwkv7"), as_gguf),
    "Hugging Face names": (("rwkv4", "rwkv5.2", "rwkv6"), named(to_hugging_face)),
    "FLA names of RWKV-6": (("rwkv6",), named(to_fla_rwkv6)),
    "FLA names of RWKV-7": (("rwkv7",), named(to_fla_rwkv7)),
    "old FLA names of RWKV-7": (("rwkv7",), named(to_old_fla_rwkv7)),
    "web-rwkv names": (("rwkv4", "rwkv5.2", "rwkv6", "rwkv7"), named(to_web_rwkv)),
}
CASES = [(form, architecture) for form, (having, _) in FORMATS.items() for architecture in having]


def make(architecture: str, dtype: str = "float32") -> wkvnp.Model:
    """Make a model of which no two axes have the same length where they may differ, and no norm is a constant."""
    model = wkvnp.random_model(architecture, n_layer=3, n_embd=96, vocab_size=96, head_size=24, rng=7, dtype=dtype)
    rng = np.random.default_rng(9)
    for name, array in flatten(model.stored).items():
        if ".ln" in f".{name}" and array.dtype == np.float32:
            array.flags.writeable = True
            array += np.float32(0.1) * rng.standard_normal(array.shape, np.float32)
            array.flags.writeable = False
    return wkvnp.Model(model.config, model.stored, module_of(architecture).network)  # which has copies of small ones


def logits_of(model: wkvnp.Model) -> np.ndarray:
    logits: np.ndarray = model(TOKENS, logits="all")[0]
    assert np.ptp(logits) > 1
    return logits


@pytest.mark.parametrize(("form", "architecture"), CASES)
def test_the_same_logits(form: str, architecture: str, tmp_path: Path) -> None:
    model = make(architecture)
    FORMATS[form][1](model, tmp_path / "file")
    # rwkv.cpp computes RWKV-5 with an epsilon of its own; here the weights are compared.
    same_eps = {"group_norm_eps": 64e-5} if form == "ggmf" else {}
    found = wkvnp.load(tmp_path / "file", **same_eps)
    assert found.config == model.config
    got, expected = logits_of(found), logits_of(model)
    if form == "ggmf" and architecture in ("rwkv4", "rwkv5.0", "rwkv5.1", "rwkv5.2"):
        assert 0 < np.abs(got - expected).max() <= 1e-5, "decays went through an exponential and a logarithm"
    else:
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(("form", "architecture"), CASES)
def test_converted_files_have_the_logits_of_their_source(form: str, architecture: str, tmp_path: Path) -> None:
    FORMATS[form][1](make(architecture), tmp_path / "file")
    wkvnp.convert(tmp_path / "file", tmp_path / "converted")
    source, converted = wkvnp.load(tmp_path / "file"), wkvnp.load(tmp_path / "converted")
    assert converted.config == source.config
    np.testing.assert_array_equal(logits_of(converted), logits_of(source))


@pytest.mark.parametrize(("form", "architecture"), [case for case in CASES if case[0] != "ggmf"])
def test_bfloat16_too(form: str, architecture: str, tmp_path: Path) -> None:
    model = make(architecture, "bfloat16")
    FORMATS[form][1](model, tmp_path / "file")
    wkvnp.convert(tmp_path / "file", tmp_path / "converted")
    expected = logits_of(model)
    for name in ("file", "converted"):
        found = wkvnp.load(tmp_path / name)
        assert found.config.dtype == "bfloat16"
        np.testing.assert_array_equal(logits_of(found), expected)
    wkvnp.convert(tmp_path / "file", tmp_path / "wide", dtype="float32")
    np.testing.assert_array_equal(
        logits_of(wkvnp.load(tmp_path / "wide")), logits_of(wkvnp.load(tmp_path / "file", dtype="float32"))
    )
