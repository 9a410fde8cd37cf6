"""Checkpoints as training programs leave them: in shards, in dicts, under prefixes, with aliases."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foreign_names import to_hugging_face
from hugging_face_folder import fields_in, tensors_in, write_folder
from safetensors.numpy import save_file
from torch_writer import tensor, torch_file, weights_file

import wkvnp
from wkvnp.checkpoints import open_checkpoint, save_safetensors
from wkvnp.checkpoints.naming import flatten
from wkvnp.errors import CheckpointError
from wkvnp.models import ARCHITECTURES

TOKENS = np.arange(20) % 31


def made(architecture: str = "rwkv7") -> wkvnp.Model:
    return wkvnp.random_model(architecture, n_layer=1, n_embd=64, vocab_size=31, rng=0)


@pytest.fixture
def model() -> wkvnp.Model:
    return made()


def same(path: Path, model: wkvnp.Model) -> None:
    loaded = wkvnp.load(path)
    assert flatten(loaded.stored).keys() == flatten(model.stored).keys()
    np.testing.assert_array_equal(loaded(TOKENS)[0], model(TOKENS)[0])


def write_shards(folder: Path, arrays: dict[str, np.ndarray], kind: str) -> dict[str, Any]:
    """Write two shards and their index; return what the index holds."""
    names = list(arrays)
    index: dict[str, Any] = {"metadata": {"total_size": 1}, "weight_map": {}}
    for n, part in enumerate((names[::2], names[1::2]), start=1):
        some = {name: arrays[name] for name in part}
        if kind == "bin":
            shard = folder / f"pytorch_model-0000{n}-of-00002.bin"
            shard.write_bytes(weights_file(some))
        else:
            shard = folder / f"model-0000{n}-of-00002.safetensors"
            save_safetensors(shard, some, {})
        index["weight_map"] |= dict.fromkeys(part, shard.name)
    write_index(folder, kind, index)
    return index


def write_index(folder: Path, kind: str, index: dict[str, Any]) -> None:
    name = "pytorch_model.bin.index.json" if kind == "bin" else "model.safetensors.index.json"
    (folder / name).write_text(json.dumps(index))


@pytest.mark.parametrize("kind", ["bin", "safetensors"])
def test_shards_are_read_by_their_index(kind: str, tmp_path: Path, model: wkvnp.Model) -> None:
    index = write_shards(tmp_path, flatten(model.stored), kind)
    same(tmp_path, model)
    same(next(tmp_path.glob("*.index.json")), model)
    wkvnp.convert(tmp_path, tmp_path.parent / "one.safetensors")
    same(tmp_path.parent / "one.safetensors", model)

    index["weight_map"]["blocks.0.att.rotary.inv_freq"] = next(iter(index["weight_map"].values()))
    write_index(tmp_path, kind, index)  # a tensor that no shard has and no weight needs
    same(tmp_path, model)
    index["weight_map"]["lost.weight"] = "absent.bin"
    write_index(tmp_path, kind, index)
    with pytest.raises(CheckpointError, match=r"absent\.bin: no such file"):
        wkvnp.load(tmp_path)


@pytest.mark.parametrize("kind", ["bin", "safetensors"])
def test_a_tensor_that_is_listed_and_needed_must_be_there(kind: str, tmp_path: Path, model: wkvnp.Model) -> None:
    arrays = flatten(model.stored)
    index = write_shards(tmp_path, {name: a for name, a in arrays.items() if name != "head.weight"}, kind)
    index["weight_map"]["head.weight"] = next(iter(index["weight_map"].values()))
    write_index(tmp_path, kind, index)
    with pytest.raises(CheckpointError, match=r"1 tensor is missing: head\.weight"):
        wkvnp.load(tmp_path)


def test_torch_shards_have_a_configuration_beside_them(tmp_path: Path) -> None:
    made("transformer").save(tmp_path / "own")
    fields = json.loads(open_checkpoint(tmp_path / "own").metadata["config"])
    arrays = tensors_in(tmp_path / "own")
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text(json.dumps(fields))
    write_shards(tmp_path / "m", arrays, "bin")
    same(tmp_path / "m", made("transformer"))


NUMBERS = np.arange(6, dtype=np.float32)


@pytest.mark.parametrize("key", ["model", "module", "state_dict"])
def test_weights_in_a_dict_of_a_training_run(key: str, tmp_path: Path) -> None:
    x = tensor("0", "float32", 6, (2, 3))
    moment = tensor("1", "float32", 6, (6,))
    top = {"epoch": 3, "optimizer": {"state": {0: {"exp_avg": moment}}, "lr": [0.1]}, key: {"x": x}, "rng": moment}
    (tmp_path / "a.pth").write_bytes(torch_file(top, {"0": NUMBERS.tobytes(), "1": NUMBERS.tobytes()}))
    container = open_checkpoint(tmp_path / "a.pth")
    assert list(container.tensors) == ["x"] and container.extras["epoch"] == 3
    np.testing.assert_array_equal(container.tensors["x"].read(), NUMBERS.reshape(2, 3))


def test_weights_in_two_dicts_are_not_chosen_between(tmp_path: Path) -> None:
    x = tensor("0", "float32", 6, (2, 3))
    (tmp_path / "a.pth").write_bytes(torch_file({"model": {"x": x}, "module": {"x": x}}, {"0": NUMBERS.tobytes()}))
    with pytest.raises(CheckpointError, match="there are weights under 'model' and 'module'"):
        open_checkpoint(tmp_path / "a.pth")


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "_forward_module.", "_orig_mod.module."])
@pytest.mark.parametrize("kind", ["safetensors", "pth"])
@pytest.mark.parametrize("foreign", [False, True])
def test_names_with_the_prefix_of_a_wrapper(prefix: str, kind: str, foreign: bool, tmp_path: Path) -> None:
    model = made("rwkv4" if foreign else "rwkv7")
    arrays = flatten(model.stored)
    arrays = to_hugging_face(arrays) if foreign else arrays
    wrapped = {prefix + name: array for name, array in arrays.items()}
    path = tmp_path / f"m.{kind}"
    path.write_bytes(weights_file(wrapped)) if kind == "pth" else save_safetensors(path, wrapped, {})
    same(path, model)
    some = {name if n else prefix + name: array for n, (name, array) in enumerate(arrays.items())}
    save_safetensors(tmp_path / "some.safetensors", some, {})
    with pytest.raises(CheckpointError, match=prefix.split(".")[0]):
        wkvnp.load(tmp_path / "some.safetensors")


@pytest.mark.parametrize("architecture", ["transformer", "mamba1"])
@pytest.mark.parametrize("kept", ["table", "head"])
def test_tied_weights_are_found_under_either_name(architecture: str, kept: str, tmp_path: Path) -> None:
    made(architecture).save(tmp_path / "own")
    fields = json.loads(open_checkpoint(tmp_path / "own").metadata["config"]) | {"tie_word_embeddings": True}
    arrays = tensors_in(tmp_path / "own")
    arrays.pop("lm_head.weight", None)
    folder = write_folder(tmp_path / "tied", arrays, fields)
    model = wkvnp.load(folder)
    table = next(name for name in arrays if "embed" in name)
    if kept == "head":
        arrays["lm_head.weight"] = arrays.pop(table)
    names = {"lm_head.weight": table} if kept == "table" else {table: "lm_head.weight"}
    wide = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    save_file(wide, folder / "model.safetensors", {"format": "pt", **names})
    assert fields_in(folder)["tie_word_embeddings"]
    same(folder, model)
    save_file(wide, folder / "model.safetensors", {"format": "pt"})
    if kept == "head":
        with pytest.raises(CheckpointError, match="missing"):
            wkvnp.load(folder)


@pytest.mark.parametrize("architecture", [name for name in ARCHITECTURES if name.startswith("rwkv")])
@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_a_model_of_single_numbers_is_refused(architecture: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    arrays = {name: np.zeros(shape, np.float32) for name in flatten(made(architecture).stored)}
    save_safetensors(tmp_path / "m", arrays, {})
    with pytest.raises(CheckpointError):
        wkvnp.load(tmp_path / "m")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_tensor_without_numbers_is_refused(architecture: str, tmp_path: Path) -> None:
    model = made(architecture)
    arrays = flatten(model.stored)
    for name in list(arrays)[:6]:
        save_safetensors(tmp_path / "m", arrays | {name: arrays[name][:0]}, model.config.metadata())
        with pytest.raises(CheckpointError, match=r"wrong shape|must"):
            wkvnp.load(tmp_path / "m")
