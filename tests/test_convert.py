"""Converting: the file that loading and saving gives, without the memory, completely or not at all."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ggmf_writer import model_file
from torch_writer import weights_file

import wkvnp
from wkvnp.checkpoints import LazyTensor, open_checkpoint, save_safetensors
from wkvnp.checkpoints.naming import flatten
from wkvnp.cli import main
from wkvnp.errors import ArgumentError, CheckpointError
from wkvnp.models import ARCHITECTURES, storage

ROOT = Path(wkvnp.__file__).parents[1]


def make(architecture: str = "rwkv7", dtype: str = "float32") -> wkvnp.Model:
    return wkvnp.random_model(architecture, n_layer=2, n_embd=96, vocab_size=59, head_size=32, rng=5, dtype=dtype)


def sources(model: wkvnp.Model, folder: Path) -> list[Path]:
    arrays = flatten(model.stored)
    paths = [folder / name for name in ("a.safetensors", "a.pth", "a.bin", "q.bin")]
    model.save(paths[0])
    paths[1].write_bytes(weights_file(arrays))
    paths[2].write_bytes(model_file(arrays, model.config.architecture))
    paths[3].write_bytes(model_file(arrays, model.config.architecture, "Q8_0"))
    return paths


@pytest.mark.parametrize("architecture", ["rwkv4", "rwkv5.0", "rwkv5.2", "rwkv6", "rwkv7"])
@pytest.mark.parametrize("dtype", [None, "float32", "bfloat16", "float16", "float64"])
def test_the_file_is_the_one_of_load_and_save(architecture: str, dtype: str | None, tmp_path: Path) -> None:
    for source in sources(make(architecture), tmp_path):
        wkvnp.load(source, dtype=dtype).save(tmp_path / "saved")
        wkvnp.convert(source, tmp_path / "converted", dtype=dtype)
        assert (tmp_path / "converted").read_bytes() == (tmp_path / "saved").read_bytes()


@pytest.mark.parametrize("architecture", [name for name in ARCHITECTURES if not name.startswith("rwkv")])
@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_models_that_a_configuration_describes(architecture: str, dtype: str | None, tmp_path: Path) -> None:
    """As a folder with a config.json; the file carries the configuration itself."""
    folder = tmp_path / "folder"
    folder.mkdir()
    wkvnp.random_model(architecture, n_layer=2, n_embd=64, vocab_size=59, rng=5).save(tmp_path / "own")
    own = open_checkpoint(tmp_path / "own")
    (folder / "config.json").write_text(own.metadata["config"])
    save_safetensors(folder / "model.safetensors", own.tensors)
    wkvnp.load(folder, dtype=dtype).save(tmp_path / "saved")
    wkvnp.convert(folder, tmp_path / "converted", dtype=dtype)
    assert (tmp_path / "converted").read_bytes() == (tmp_path / "saved").read_bytes()
    assert wkvnp.load(tmp_path / "converted").config.architecture == architecture


def test_foreign_names_and_shards_become_one_file_of_original_names(tmp_path: Path) -> None:
    arrays = flatten(make("rwkv4").stored)
    words = {"emb.": "embeddings.", ".att.": ".attention.", ".ffn.": ".feed_forward.", "ln0": "pre_ln"}
    letters = {"_k": "_key", "_v": "_value", "_r": "_receptance"}
    foreign = {}
    for name, array in arrays.items():
        for ours, theirs in words.items():
            name = name.replace(ours, theirs)
        name = name[:-2] + letters[name[-2:]] if "time_mix_" in name else name
        foreign[name if name == "head.weight" else f"rwkv.{name}"] = array
    half = len(foreign) // 2
    shards = [dict(list(foreign.items())[:half]), dict(list(foreign.items())[half:])]
    index = {name: f"{number}.safetensors" for number, shard in enumerate(shards) for name in shard}
    for number, shard in enumerate(shards):
        save_safetensors(tmp_path / f"{number}.safetensors", shard)
    text = '{"weight_map": {' + ", ".join(f'"{name}": "{shard}"' for name, shard in index.items()) + "}}"
    (tmp_path / "model.safetensors.index.json").write_text(text)
    wkvnp.convert(tmp_path, tmp_path / "whole.safetensors")
    found = open_checkpoint(tmp_path / "whole.safetensors").tensors
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name].read(), array)
    with pytest.raises(CheckpointError, match=r"target must not be a file that is read; got .*1\.safetensors"):
        wkvnp.convert(tmp_path / "model.safetensors.index.json", tmp_path / "1.safetensors")


def test_what_the_file_says_of_itself(tmp_path: Path) -> None:
    *_, ggmf, _ = sources(make("rwkv5.2"), tmp_path)
    wkvnp.convert(ggmf, tmp_path / "b")
    assert open_checkpoint(tmp_path / "b").metadata == {"architecture": "rwkv5.2", "group_norm_eps": "1e-05"}
    assert wkvnp.load(tmp_path / "b").config == wkvnp.load(ggmf).config


def test_vectors_stay_and_large_tensors_are_converted_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "_PIECE", 1000)
    make().save(tmp_path / "a")
    wkvnp.convert(tmp_path / "a", tmp_path / "b", dtype="bfloat16")
    dtypes = {name: tensor.dtype for name, tensor in open_checkpoint(tmp_path / "b").tensors.items()}
    assert {dtypes[f"blocks.1.att.{name}"] for name in ("x_r", "w0", "r_k", "ln_x.weight")} == {"float32"}
    assert {dtypes[name] for name in ("emb.weight", "head.weight", "blocks.0.att.w1")} == {"bfloat16"}
    wkvnp.load(tmp_path / "a", dtype="bfloat16").save(tmp_path / "c")
    assert (tmp_path / "b").read_bytes() == (tmp_path / "c").read_bytes()


def test_numbers_that_a_dtype_cannot_hold_are_refused(tmp_path: Path) -> None:
    arrays = dict(flatten(make(dtype="bfloat16").stored))
    save_safetensors(tmp_path / "a", arrays)
    for number, fault in ((7e4, True), (6e4, False)):
        large = np.full((59, 96), number, np.float32)
        large[0, 0] = np.inf  # an infinity that was there before stays one
        save_safetensors(tmp_path / "a", arrays | {"emb.weight": large})
        if fault:
            with pytest.raises(CheckpointError, match=r"a: tensor emb\.weight has numbers too large for float16"):
                wkvnp.convert(tmp_path / "a", tmp_path / "b", dtype="float16")
        else:
            wkvnp.convert(tmp_path / "a", tmp_path / "b", dtype="float16")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_one_tensor_at_a_time_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make().save(tmp_path / "a")
    order: list[str] = []
    read = LazyTensor.read
    monkeypatch.setattr(LazyTensor, "read", lambda self: (order.append(self.name), read(self))[1])
    largest = 59 * 96
    seen: list[tuple[int, int]] = []
    wkvnp.convert(tmp_path / "a", tmp_path / "b", progress=lambda *counts: seen.append((*counts, len(order))))  # type: ignore[arg-type]
    assert [reads for *_, reads in seen] == list(range(1, len(seen) + 1)), "each was written before the next was read"
    steps = np.diff([0, *(done for done, *_ in seen)])
    assert seen[-1][0] == seen[-1][1] == steps.sum() and steps.max() == 4 * max(largest, 384 * 96)


def test_what_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    make().save(path)
    before = path.read_bytes()
    (tmp_path / "link").symlink_to(path)
    for target in (path, tmp_path / "link", tmp_path / ".." / tmp_path.name / "a.safetensors"):
        with pytest.raises(CheckpointError, match="convert: target must not be a file that is read"):
            wkvnp.convert(path, target)
    with pytest.raises(CheckpointError, match=r"cannot be written: it is a folder"):
        wkvnp.convert(path, tmp_path)
    with pytest.raises(ArgumentError, match="dtype must be one of"):
        wkvnp.convert(path, tmp_path / "b", dtype="int3")
    save_safetensors(tmp_path / "c", {"x": np.zeros(3, np.float32)})
    with pytest.raises(CheckpointError, match="not a known RWKV"):
        wkvnp.convert(tmp_path / "c", tmp_path / "b")
    assert path.read_bytes() == before
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.safetensors", "c", "link"]


def test_a_failure_leaves_the_old_file(tmp_path: Path) -> None:
    arrays = flatten(make("rwkv5.2").stored)
    data = bytearray(model_file(arrays, "rwkv5.2"))
    at = data.index(b"blocks.1.att.time_decay") + len("blocks.1.att.time_decay")
    data[at : at + 4] = np.float32(1.5).tobytes()
    (tmp_path / "a.bin").write_bytes(data)
    (tmp_path / "b").write_bytes(b"before")
    with pytest.raises(CheckpointError, match=r"blocks\.1\.att\.time_decay' must be exp"):
        wkvnp.convert(tmp_path / "a.bin", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"before"
    assert len(list(tmp_path.iterdir())) == 2


# The command.


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make().save(tmp_path / "a")
    source, target = str(tmp_path / "a"), str(tmp_path / "b")
    assert main(["convert", source, target, "--dtype", "bfloat16"]) == 0
    assert capsys.readouterr() == ("", "")
    assert wkvnp.load(target).config.dtype == "bfloat16"
    assert main(["convert", source, target]) == 2
    assert capsys.readouterr().err == f"wkvnp: error: {target} exists; --force replaces it\n"
    assert wkvnp.load(target).config.dtype == "bfloat16"
    assert main(["convert", source, target, "--force"]) == 0
    assert wkvnp.load(target).config.dtype == "float32"
    assert main(["convert", source, source, "--force"]) == 1
    assert "target must not be a file that is read" in capsys.readouterr().err
    assert main(["convert", source, str(tmp_path / "absent" / "b")]) == 1
    assert "the folder" in capsys.readouterr().err
    assert main(["convert", str(tmp_path / "absent"), str(tmp_path / "c")]) == 1
    assert "no such file" in capsys.readouterr().err
    assert main(["convert", source, target, "--dtype", "float8"]) == 2


def test_a_bar_on_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make().save(tmp_path / "a")
    stream = io.StringIO()
    stream.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr("wkvnp.cli.progress._PATIENCE", -1.0)
    assert main(["convert", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    text = stream.getvalue()
    assert text.startswith("\rconverting [") and " MB\r\x1b[K" in text
    assert text.endswith(f"b: {(tmp_path / 'b').stat().st_size:,} bytes\n")


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT to a process")
def test_ctrl_c_leaves_nothing_behind(tmp_path: Path) -> None:
    program = (
        "import sys, time\n"
        "from wkvnp.checkpoints import safetensors\n"
        "from wkvnp.cli import main\n"
        "safetensors._PIECE = 4096\n"
        "real = safetensors._bytes_of\n"
        "def slow(*a):\n"
        "    print('writing', flush=True); time.sleep(0.05)\n"
        "    return real(*a)\n"
        "safetensors._bytes_of = slow\n"
        "sys.exit(main())\n"
    )
    make().save(tmp_path / "a")
    (tmp_path / "b").write_bytes(b"before")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    child = subprocess.Popen(
        [sys.executable, "-c", program, "convert", "--force", tmp_path / "a", tmp_path / "b"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert child.stdout is not None
    child.stdout.readline()
    start = time.monotonic()
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=30)
    assert (child.returncode, err) == (130, b"")
    assert time.monotonic() - start < 2
    assert (tmp_path / "b").read_bytes() == b"before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts resident memory as Linux does")
def test_memory_is_that_of_the_largest_tensor(tmp_path: Path) -> None:
    """96 MB of tensors of at most 8 MB; the source is mapped, and its pages count as ours until they are given back."""
    shapes = {"emb.weight": (2048, 1024), "head.weight": (2048, 1024)}
    base = wkvnp.random_model("rwkv4", n_layer=1, n_embd=1024, vocab_size=8, rng=0)
    block = {name: array for name, array in flatten(base.stored).items() if name.startswith("blocks.0.")}
    rng = np.random.default_rng(0)
    arrays = {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    arrays |= {"ln_out.weight": np.ones(1024, np.float32), "ln_out.bias": np.zeros(1024, np.float32)}
    for number in range(2):
        arrays |= {
            f"blocks.{number}.{name[9:]}": array for name, array in block.items() if number == 0 or "ln0" not in name
        }
    save_safetensors(tmp_path / "a", arrays)
    program = (
        "import sys\n"
        "from wkvnp.models import conversion\n"
        "def peak():  # not ru_maxrss, which begins with that of the parent\n"
        "    (line,) = (line for line in open('/proc/self/status') if line.startswith('VmHWM'))\n"
        "    return 1024 * int(line.split()[1])\n"
        "conversion.convert(sys.argv[4], sys.argv[4] + '.b', dtype=sys.argv[3] or None)\n"
        "before = peak()\n"
        "conversion.convert(sys.argv[1], sys.argv[2], dtype=sys.argv[3] or None)\n"
        "print(peak() - before)\n"
    )
    wkvnp.random_model("rwkv4", n_layer=1, n_embd=64, vocab_size=8, rng=0).save(tmp_path / "small")
    size = (tmp_path / "a").stat().st_size
    largest = max(array.nbytes for array in arrays.values())
    for dtype in ("", "bfloat16", "int8", "int4"):
        done = subprocess.run(
            [sys.executable, "-c", program, tmp_path / "a", tmp_path / "b", dtype, tmp_path / "small"],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert int(done.stdout) < 2 * largest + (16 << 20) < size
