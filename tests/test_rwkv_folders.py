"""Folders of RWKV models as Hugging Face and Flash Linear Attention have them: what their configurations say counts."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foreign_names import to_fla_rwkv6, to_fla_rwkv7, to_hugging_face
from hugging_face_folder import write_folder
from torch_writer import weights_file

import wkvnp
from wkvnp.checkpoints import open_checkpoint
from wkvnp.checkpoints.naming import flatten
from wkvnp.errors import CheckpointError

GOLDEN = Path(__file__).parent / "golden" / "rwkv"
TOKENS = np.random.default_rng(3).integers(0, 59, 20)
SIZES = {"hidden_size": 48, "num_hidden_layers": 2, "vocab_size": 59}
HUGGING_FACE = {
    "rwkv4": SIZES | {"model_type": "rwkv", "attention_hidden_size": 48, "context_length": 1024, "rescale_every": 6,
                      "layer_norm_epsilon": 1e-05, "intermediate_size": 192, "tie_word_embeddings": False},
    "rwkv5.2": SIZES | {"model_type": "rwkv5", "attention_hidden_size": 48, "head_size": 16, "model_version": "5_2",
                        "num_attention_heads": 64, "rescale_every": 6, "intermediate_size": None, "use_cache": True},
    "rwkv6": SIZES | {"model_type": "rwkv6", "head_size": 16, "head_size_divisor": 8, "layer_norm_epsilon": 1e-05},
}  # fmt: skip
FLA = {
    "rwkv6": SIZES | {"model_type": "rwkv6", "num_heads": 3, "expand_k": 1.0, "expand_v": 1.0, "hidden_ratio": 3.5,
                      "attn_mode": "chunk", "hidden_act": "sqrelu", "norm_eps": 1e-05, "norm_first": True,
                      "norm_bias": True, "fuse_norm": True, "fuse_cross_entropy": True, "attn": None,
                      "proj_low_rank_dim": 32, "gate_low_rank_dim": 64, "max_position_embeddings": 2048},
    "rwkv7": SIZES | {"model_type": "rwkv7", "head_dim": 16, "intermediate_size": 192, "a_low_rank_dim": 32,
                      "decay_low_rank_dim": 32, "gate_low_rank_dim": 32, "v_low_rank_dim": 32, "norm_eps": 1e-05,
                      "value_dim": [48, 48], "fuse_norm": False, "fuse_linear_cross_entropy": False, "attn": None},
}  # fmt: skip
FOLDERS = [
    ("hf", "rwkv4", to_hugging_face, 64e-5), ("hf", "rwkv5.2", to_hugging_face, 64e-5),
    ("hf", "rwkv6", to_hugging_face, 64e-5),
    ("fla", "rwkv6", to_fla_rwkv6, 1e-5), ("fla", "rwkv7", to_fla_rwkv7, 16e-5),
]  # fmt: skip


def fresh(architecture: str) -> wkvnp.Model:
    return wkvnp.random_model(architecture, n_layer=2, n_embd=48, vocab_size=59, head_size=16, rng=0)


def fields_of(kind: str, architecture: str) -> dict[str, Any]:
    return dict((HUGGING_FACE if kind == "hf" else FLA)[architecture])


def test_logits_are_those_of_transformers() -> None:
    model = wkvnp.load(GOLDEN)
    stored = open_checkpoint(GOLDEN / "expected.safetensors").tensors
    tokens, expected = stored["tokens"].read(), stored["logits"].read()
    logits, _ = model(tokens, logits="all")
    assert np.abs(logits - expected).max() <= 1e-4
    np.testing.assert_array_equal(logits.argmax(1), expected.argmax(1))
    state = None
    for token, row in zip(tokens, expected, strict=True):
        logits, state = model([token], state=state)
        assert np.abs(logits - row).max() <= 1e-4


@pytest.mark.parametrize(("kind", "architecture", "translate", "eps"), FOLDERS)
def test_the_epsilon_of_the_group_norm(
    kind: str, architecture: str, translate: Any, eps: float, tmp_path: Path
) -> None:
    model = fresh(architecture)
    arrays, fields = translate(flatten(model.weights)), fields_of(kind, architecture)
    loaded = wkvnp.load(write_folder(tmp_path / "m", arrays, fields))
    assert loaded.config.group_norm_eps == pytest.approx(eps, rel=1e-12)
    model.save(tmp_path / "original.safetensors")
    expected = wkvnp.load(tmp_path / "original.safetensors", group_norm_eps=eps)(TOKENS)[0]
    np.testing.assert_array_equal(loaded(TOKENS)[0], expected)
    loaded.save(tmp_path / "again.safetensors")
    np.testing.assert_array_equal(wkvnp.load(tmp_path / "again.safetensors")(TOKENS)[0], expected)
    assert wkvnp.load(tmp_path / "m", group_norm_eps=0.25).config.group_norm_eps == 0.25


def test_a_divisor_of_another_size(tmp_path: Path) -> None:
    arrays = to_hugging_face(flatten(fresh("rwkv6").weights))
    fields = HUGGING_FACE["rwkv6"] | {"head_size_divisor": 3}
    assert wkvnp.load(write_folder(tmp_path / "m", arrays, fields)).config.group_norm_eps == pytest.approx(9e-5)


def test_a_torch_file_has_a_configuration_too(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(weights_file(to_hugging_face(flatten(fresh("rwkv6").weights))))
    (tmp_path / "config.json").write_text(json.dumps(HUGGING_FACE["rwkv6"] | {"head_size_divisor": 4}))
    assert wkvnp.load(tmp_path).config.group_norm_eps == pytest.approx(16e-5)


def test_a_configuration_beside_original_names_is_not_theirs(tmp_path: Path) -> None:
    model = fresh("rwkv7")
    model.save(tmp_path / "a.safetensors")
    (tmp_path / "config.json").write_text('{"model_type": "of something else"}')
    np.testing.assert_array_equal(wkvnp.load(tmp_path / "a.safetensors")(TOKENS)[0], model(TOKENS)[0])


@pytest.mark.parametrize(
    ("kind", "architecture", "wrong", "message"),
    [
        ("hf", "rwkv4", {"model_type": "rwkv5"}, "model_type must be 'rwkv', the only values .* got 'rwkv5'"),
        ("hf", "rwkv4", {"layer_norm_epsilon": 1e-3}, "layer_norm_epsilon must be 1e-05"),
        ("hf", "rwkv4", {"hidden_size": 24}, "hidden_size must be 24, as configured; the tensors have 48"),
        ("hf", "rwkv5.2", {"head_size": 8}, "head_size must be 8, as configured; the tensors have 16"),
        ("hf", "rwkv6", {"tie_word_embeddings": True}, "tie_word_embeddings must be False"),
        ("hf", "rwkv6", {"head_size_divisor": 0}, "head_size_divisor must be a number above 0; got 0"),
        ("hf", "rwkv6", {"norm_eps": 1e-5}, "'norm_eps': 1e-05"),
        ("fla", "rwkv6", {"norm_eps": 64e-5}, "norm_eps must be 1e-05"),
        ("fla", "rwkv6", {"num_heads": 4}, "num_heads must be 4, as configured; the tensors have 3"),
        ("fla", "rwkv7", {"hidden_act": "relu"}, "hidden_act must be 'sqrelu'"),
        ("fla", "rwkv7", {"attn": {"layers": [1], "num_heads": 2}}, "attn must be None, .* got {'layers'"),
        (
            "fla",
            "rwkv7",
            {"intermediate_size": 96},
            "intermediate_size must be 96, as configured; the tensors have 192",
        ),
        ("fla", "rwkv7", {"num_hidden_layers": 3}, "num_hidden_layers must be 3, as configured; the tensors have 2"),
        ("fla", "rwkv7", {"norm_first": False}, "norm_first must be True"),
        ("fla", "rwkv7", {"quantization_config": {"bits": 4}}, "'quantization_config'"),
    ],
)
def test_what_does_not_fit_is_refused(
    kind: str, architecture: str, wrong: dict[str, Any], message: str, tmp_path: Path
) -> None:
    (translate,) = (row[2] for row in FOLDERS if row[:2] == (kind, architecture))
    arrays = translate(flatten(fresh(architecture).weights))
    folder = write_folder(tmp_path / "m", arrays, fields_of(kind, architecture) | wrong)
    with pytest.raises(CheckpointError, match=message):
        wkvnp.load(folder)
