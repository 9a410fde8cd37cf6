"""RWKV-6 and RWKV-7 written as llama.cpp's converter writes them, and read back: the same logits, bit for bit."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf_writer import Packed, Typed, write_gguf

import wkvnp
from wkvnp._dtypes import BFLOAT16, narrow
from wkvnp.checkpoints import open_checkpoint
from wkvnp.checkpoints.naming import flatten
from wkvnp.checkpoints.quantised_blocks import BLOCK_TYPES, dequantise, packed_size
from wkvnp.errors import ArgumentError, CheckpointError
from wkvnp.models.architectures import module_of

TOKENS = np.random.default_rng(5).integers(0, 96, 40)
Arrays = dict[str, Any]


def model(architecture: str, n_layer: int = 5, n_embd: int = 64, head_size: int = 16) -> Any:
    """Make a model in which no tensor is a constant, so that none can be mistaken for another."""
    made = wkvnp.random_model(
        architecture, n_layer=n_layer, n_embd=n_embd, vocab_size=96, head_size=head_size, rng=3
    )  # fmt: skip
    rng = np.random.default_rng(4)
    for name, array in flatten(made.stored).items():
        if re.search(r"ln\w*\.(weight|bias)$", name):
            array.flags.writeable = True
            array += rng.standard_normal(array.shape, np.float32) * np.float32(0.1)
            array.flags.writeable = False
    return wkvnp.Model(made.config, made.stored, module_of(architecture).network)  # which has copies of small ones


def arrays_of(made: Any) -> Arrays:
    return {name: np.asarray(array) for name, array in flatten(made.stored).items()}


WORDS = (
    (r"^emb\.", "token_embd."),
    (r"^head\.", "output."),
    (r"^ln_out\.", "output_norm."),
    (r"^blocks\.0\.ln0\.", "token_embd_norm."),
    (r"^blocks\.", "blk."),
    (r"\.ln1\.", ".attn_norm."),
    (r"\.ln2\.", ".attn_norm_2."),
    (r"\.att\.ln_x\.", ".time_mix_ln."),
    (r"\.att\.time_maa_(\w)$", r".time_mix_lerp_\1"),
    (r"\.ffn\.time_maa_(\w)$", r".channel_mix_lerp_\1"),
    (r"\.ffn\.x_k$", ".channel_mix_lerp_k"),
    (r"\.att\.time_maa_(w\d)$", r".time_mix_\1"),
    (r"\.att\.time_decay", ".time_mix_decay"),
    (r"\.att\.time_faaaa$", ".time_mix_first"),
    (r"\.att\.", ".time_mix_"),
    (r"\.ffn\.", ".channel_mix_"),
)


def theirs(name: str) -> str:
    for ours, word in WORDS:
        name = re.sub(ours, word, name)
    return name if name.endswith((".weight", ".bias")) else name + ".weight"


def written_as_rwkv7(arrays: Arrays) -> Arrays:
    written = {}
    for name, array in arrays.items():
        if re.search(r"att\.x_[rwkvag]$", name):
            continue
        if re.search(r"att\.[wavg][12]$", name):
            array = array.T
        elif array.ndim != 2 or name.endswith("r_k"):
            array = array.reshape(-1)
        written[theirs(name)] = array
    for n in layers(arrays):
        rows = [arrays[f"blocks.{n}.att.x_{letter}"] for letter in "rwkvag"]
        written[f"blk.{n}.time_mix_lerp_fused.weight"] = np.stack(rows)
    for part in "012":  # what makes llama.cpp happy
        written[f"blk.0.time_mix_v{part}.weight"] = written[f"blk.0.time_mix_a{part}.weight"]
    return written


def written_as_rwkv6(arrays: Arrays, period: int, fused: bool = True) -> Arrays:
    written = {}
    for name, array in arrays.items():
        if re.search(r"time_(maa|decay)_w[12]$", name):
            array = np.swapaxes(array, -1, -2)
        elif array.ndim == 3:
            array = array.reshape(-1)
        if period and re.search(r"att\.output|ffn\.value", name):
            array = array / np.float32(2 ** (int(name.split(".")[1]) // period))
        written[theirs(name)] = array
    for n in layers(arrays):
        if fused:
            rows = [written.pop(f"blk.{n}.time_mix_lerp_{letter}.weight") for letter in "wkvrg"]
            written[f"blk.{n}.time_mix_lerp_fused.weight"] = np.stack(rows)[:, None, None, :]
    return written


def layers(arrays: Arrays) -> range:
    return range(len({name.split(".")[1] for name in arrays if name.startswith("blocks.")}))


def metadata_of(made: Any, **more: Any) -> dict[str, Any]:
    config = made.config
    kind = config.architecture
    common = {
        "context_length": 1048576,
        "embedding_length": config.n_embd,
        "block_count": config.n_layer,
        "attention.layer_norm_epsilon": 1e-5,
        "wkv.head_size": config.head_size,
        "feed_forward_length": config.n_ffn,
        "attention.head_count": 0,
    }
    arrays = arrays_of(made)
    if kind == "rwkv7":
        for word, factor in (("decay", "w"), ("iclr", "a"), ("gate", "g")):
            common[f"attention.{word}_lora_rank"] = arrays[f"blocks.0.att.{factor}1"].shape[1]
        common["attention.value_residual_mix_lora_rank"] = arrays["blocks.1.att.v1"].shape[1]
    else:
        common["time_mix_extra_dim"] = arrays["blocks.0.att.time_maa_w2"].shape[1]
        common["time_decay_extra_dim"] = arrays["blocks.0.att.time_decay_w1"].shape[1]
        common["rescale_every_n_layers"] = 0
    tokens = ["<s>", *(f"\\x{byte:02x}" for byte in range(95))]
    return {
        "general.architecture": kind,
        "general.type": "model",
        **{f"{kind}.{name}": value for name, value in (common | more).items()},
        "tokenizer.ggml.model": "rwkv",
        "tokenizer.ggml.tokens": tokens,
    }


def same_as(path: Path, made: Any) -> None:
    loaded = wkvnp.load(path)
    assert loaded.config.architecture == made.config.architecture
    expected = arrays_of(made)
    got = arrays_of(loaded)
    assert got.keys() == expected.keys()
    for name, array in expected.items():
        assert got[name].dtype == array.dtype, name
        np.testing.assert_array_equal(got[name].reshape(array.shape), array, err_msg=name)
    ours, theirs = loaded(TOKENS, logits="all")[0], made(TOKENS, logits="all")[0]
    np.testing.assert_array_equal(ours, theirs)
    assert np.ptp(ours) > 1


def test_rwkv7(tmp_path: Path) -> None:
    made = model("rwkv7")
    (tmp_path / "a.gguf").write_bytes(write_gguf(metadata_of(made), written_as_rwkv7(arrays_of(made))))
    same_as(tmp_path / "a.gguf", made)
    same_as(tmp_path, made)


@pytest.mark.parametrize(("period", "fused"), [(0, True), (2, True), (1, True), (2, False), (6, True)])
def test_rwkv6(tmp_path: Path, period: int, fused: bool) -> None:
    made = model("rwkv6")
    metadata = metadata_of(made, rescale_every_n_layers=period)
    (tmp_path / "a.gguf").write_bytes(write_gguf(metadata, written_as_rwkv6(arrays_of(made), period, fused)))
    same_as(tmp_path / "a.gguf", made)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_scales_are_undone_in_the_stored_precision(tmp_path: Path, dtype: str) -> None:
    made = model("rwkv6")
    kind = np.dtype(np.float16) if dtype == "float16" else BFLOAT16
    scaled = re.compile(r"\.(time_mix_output|channel_mix_value)\.weight")
    written = {
        name: narrow(array, kind) if scaled.search(name) else array
        for name, array in written_as_rwkv6(arrays_of(made), 2).items()
    }
    (tmp_path / "a.gguf").write_bytes(write_gguf(metadata_of(made, rescale_every_n_layers=2), written))
    loaded = arrays_of(wkvnp.load(tmp_path / "a.gguf"))
    for n in range(5):
        for name in (f"blocks.{n}.att.output.weight", f"blocks.{n}.ffn.value.weight"):
            got, array = loaded[name], arrays_of(made)[name]
            assert got.dtype == kind
            # Only the smallest float16 numbers lost bits when they were halved.
            close = narrow(array, kind).view(np.uint16) == got.view(np.uint16)
            assert close.all() if dtype == "bfloat16" else close.mean() > 0.99


def test_quantised_models(tmp_path: Path) -> None:
    made = model("rwkv7", n_layer=2, n_embd=256, head_size=64)
    rng = np.random.default_rng(6)
    written, plain = {}, {}
    kinds = list(BLOCK_TYPES)
    for name, array in written_as_rwkv7(arrays_of(made)).items():
        written[name] = plain[name] = array
        if array.ndim == 2 and array.shape[1] % 256 == 0 and not re.search(r"token_embd|_[wavg]1", name):
            kind = kinds[len(plain) % len(kinds)]
            data = random_blocks(kind, packed_size(kind, array.shape), rng)
            written[name] = Packed(kind, array.shape, data)
            plain[name] = dequantise(kind, data, array.shape)
    assert sum(isinstance(tensor, Packed) for tensor in written.values()) > 10
    for name, tensors in (("a.gguf", written), ("b.gguf", plain)):
        (tmp_path / name).write_bytes(write_gguf(metadata_of(made), tensors))
    quantised, reference = (wkvnp.load(tmp_path / name) for name in ("a.gguf", "b.gguf"))
    np.testing.assert_array_equal(quantised(TOKENS)[0], reference(TOKENS)[0])
    assert np.isfinite(reference(TOKENS)[0]).all()
    assert open_checkpoint(tmp_path / "a.gguf").tensors["output.weight"].stored in BLOCK_TYPES


def random_blocks(kind: str, size: int, rng: np.random.Generator) -> bytes:
    """Return blocks of random whole numbers with scales that make values of about 0.01."""
    raw = rng.integers(0, 256, size, dtype=np.uint8)
    blocks = raw.view(BLOCK_TYPES[kind].layout)
    for field in ("d", "m", "dmin"):
        if field in (blocks.dtype.names or ()):
            small = 1e-5 if kind.endswith("K") else 1e-4 if kind == "Q8_0" else 1e-3
            blocks[field] = rng.uniform(0.5, 1, len(blocks)) * small
    return raw.tobytes()


@pytest.mark.parametrize(("architecture", "fused"), [("rwkv6", True), ("rwkv6", False), ("rwkv7", True)])
def test_names_against_the_gguf_package(architecture: str, fused: bool) -> None:
    gguf = pytest.importorskip("gguf", reason="names are compared with the package of llama.cpp")
    known = gguf.MODEL_TENSORS[gguf.MODEL_ARCH[architecture.upper()]]
    names = {gguf.TENSOR_NAMES[tensor].format(bid=n) for tensor in known for n in range(5)}
    arrays = arrays_of(model(architecture))
    written = written_as_rwkv7(arrays) if architecture == "rwkv7" else written_as_rwkv6(arrays, 2, fused)
    assert {re.sub(r"\.(weight|bias)$", "", name) for name in written} <= names
    keys = vars(gguf.Keys.LLM) | vars(gguf.Keys.Attention) | vars(gguf.Keys.WKV)
    stated = {value.replace("{arch}", architecture) for value in keys.values() if isinstance(value, str)}
    ours = {name for name in metadata_of(model(architecture)) if name.startswith("rwkv")}
    assert ours <= stated


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "width": ({"rwkv7.embedding_length": 65}, r"metadata rwkv7\.\*: embedding_length must be 64, for emb\.weight .*65"),
    "layers": ({"rwkv7.block_count": 6}, r"block_count must be the number of layers, of which the file has 5; got 6"),
    "fewer layers": ({"rwkv7.block_count": 4}, "block_count must be"),
    "many layers": ({"rwkv7.block_count": Typed(10, 2**62)}, "block_count must be a whole number"),
    "no layers": ({"rwkv7.block_count": None}, "block_count must be a whole number from 1; got no such field"),
    "layers of text": ({"rwkv7.block_count": "5"}, "block_count must be a whole number"),
    "odd heads": ({"rwkv7.wkv.head_size": 7}, r"time_mix_r_k\.weight' cannot become blocks\.0\.att\.r_k"),
    "no heads": ({"rwkv7.wkv.head_size": None}, "wkv.head_size must be"),
    "feed-forward": ({"rwkv7.feed_forward_length": 255}, "feed_forward_length must be 256"),
    "a rank": ({"rwkv7.attention.gate_lora_rank": 31}, "attention.gate_lora_rank must be 32"),
    "epsilon": ({"rwkv7.attention.layer_norm_epsilon": 1e-6}, "layer_norm_epsilon must be 1e-05.*got 1e-06"),
    "one shift": ({"rwkv7.token_shift_count": 1}, "token_shift_count must be 2"),
    "something new": ({"rwkv7.deep_embed": True}, "does not know may change the numbers: 'deep_embed': True"),
    "a relative": ({"general.architecture": "rwkv6qwen2"}, "must be one of rwkv6, .*; got 'rwkv6qwen2' .a hybrid with"),
    "another relative": ({"general.architecture": "arwkv7"}, "'arwkv7' .a hybrid"),
    "no architecture": ({"general.architecture": None}, "general.architecture must be .* got no such entry"),
    "a number for it": ({"general.architecture": 7}, "general.architecture must be"),
    "an adapter": ({"general.type": "adapter"}, "general.type must be 'model'; got 'adapter'"),
}


def test_a_refusal_of_metadata_is_overridden_by_name(tmp_path: Path) -> None:
    made = model("rwkv7")
    metadata = metadata_of(made) | {"rwkv7.deep_embed": True}
    (tmp_path / "a.gguf").write_bytes(write_gguf(metadata, written_as_rwkv7(arrays_of(made))))
    with pytest.raises(CheckpointError, match=r"'deep_embed': True; load\(\.\.\., ignore=\['rwkv7\.deep_embed'\]\)"):
        wkvnp.load(tmp_path / "a.gguf")
    loaded = wkvnp.load(tmp_path / "a.gguf", ignore=["rwkv7.deep_embed"])
    np.testing.assert_array_equal(loaded([1, 2, 3])[0], made([1, 2, 3])[0])
    with pytest.raises(
        ArgumentError, match=r"ignore must name fields of the metadata of .*a\.gguf; it has no 'deep_embed'"
    ):
        wkvnp.load(tmp_path / "a.gguf", ignore=["deep_embed"])


@pytest.mark.parametrize("case", WRONG)
def test_metadata_that_disagree(tmp_path: Path, case: str) -> None:
    change, words = WRONG[case]
    made = model("rwkv7")
    metadata = {name: value for name, value in (metadata_of(made) | change).items() if value is not None}
    (tmp_path / "a.gguf").write_bytes(write_gguf(metadata, written_as_rwkv7(arrays_of(made))))
    with pytest.raises(CheckpointError, match=words) as caught:
        wkvnp.load(tmp_path / "a.gguf")
    assert str(caught.value).startswith(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("blk.2.time_mix_w1.weight", None, r"1 tensor is missing: blocks\.2\.att\.w1"),
        ("blk.2.time_mix_w1.weight", lambda array: array.T, r"blocks\.2\.att\.w1 must be \(C=64, Dw=32\)"),
        ("blk.3.time_mix_lerp_fused.weight", lambda array: array[:5], "time_mix_lerp_fused.weight' cannot become"),
        ("blk.3.time_mix_key.scale", lambda _: np.ones(1, np.float32), "1 tensor is left over: .*time_mix_key.scale"),
        ("blk.٣.extra", lambda _: np.ones(1, np.float32), "block_count must be"),
        ("blk.05.extra", lambda _: np.ones(1, np.float32), "block_count must be"),
        ("blocks.0.att.w1", lambda _: np.ones(1, np.float32), r"two tensors are both 'blocks\.0\.att\.w1'"),
    ],
)
def test_tensors_that_do_not_fit(tmp_path: Path, name: str, change: Any, words: str) -> None:
    made = model("rwkv7")
    written = written_as_rwkv7(arrays_of(made))
    if change is None:
        del written[name]
    else:
        written[name] = np.ascontiguousarray(change(written.get(name)))
    (tmp_path / "a.gguf").write_bytes(write_gguf(metadata_of(made), written))
    with pytest.raises(CheckpointError, match=words):
        wkvnp.load(tmp_path / "a.gguf")


def test_a_scale_that_does_not_fit(tmp_path: Path) -> None:
    made = model("rwkv6", n_layer=3)
    written = written_as_rwkv6(arrays_of(made), 1)
    written["blk.2.time_mix_output.weight"] = np.full((64, 64), 30000, np.float16)
    (tmp_path / "a.gguf").write_bytes(write_gguf(metadata_of(made, rescale_every_n_layers=1), written))
    with pytest.raises(CheckpointError, match=r"'blk\.2\.time_mix_output\.weight' must fit float16 after .* by 2\*\*2"):
        wkvnp.load(tmp_path / "a.gguf")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rwkv6.wkv.head_size": 32}, r"wkv\.head_size must be 16, for blocks\.0\.att\.time_faaaa has the shape"),
        ({"rwkv6.time_mix_extra_dim": 64}, "time_mix_extra_dim must be 32"),
        ({"rwkv6.time_decay_extra_dim": 32}, "time_decay_extra_dim must be 64"),
        ({"rwkv6.rescale_every_n_layers": -1}, "rescale_every_n_layers must be a whole number from 0; got -1"),
        ({"rwkv6.vocab_size": 97}, "vocab_size must be 96"),
    ],
)
def test_metadata_of_rwkv6_that_disagree(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    made = model("rwkv6")
    (tmp_path / "a.gguf").write_bytes(write_gguf(metadata_of(made) | change, written_as_rwkv6(arrays_of(made), 0)))
    with pytest.raises(CheckpointError, match=words):
        wkvnp.load(tmp_path / "a.gguf")
