"""Transformers and Mambas written as llama.cpp's converter writes them, read under the names of Hugging Face."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf_writer import Typed, write_gguf

from wkvnp.checkpoints import open_checkpoint
from wkvnp.errors import CheckpointError
from wkvnp.models._gguf_hugging_face import hugging_face_form

V, C, F, L, HEADS, GROUPS, D = 24, 32, 48, 2, 4, 2, 8
INNER, STATE, TAPS, RANK = 64, 4, 3, 2
Arrays = dict[str, np.ndarray]


def drawn(shapes: dict[str, tuple[int, ...]]) -> Arrays:
    rng = np.random.default_rng(1)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def decoder(biases: str = "", norms: bool = False, tied: bool = False) -> Arrays:
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (V, C), "model.norm.weight": (C,)}
    shapes |= {} if tied else {"lm_head.weight": (V, C)}
    for n in range(L):
        stem = f"model.layers.{n}."
        maps = {"self_attn.q_proj": (HEADS * D, C), "self_attn.o_proj": (C, HEADS * D)}
        maps |= {f"self_attn.{letter}_proj": (GROUPS * D, C) for letter in "kv"}
        maps |= {"mlp.gate_proj": (F, C), "mlp.up_proj": (F, C), "mlp.down_proj": (C, F)}
        shapes |= {f"{stem}{name}.weight": shape for name, shape in maps.items()}
        shapes |= {f"{stem}{name}.bias": shape[:1] for name, shape in maps.items() if name[-6] in biases}
        shapes |= {f"{stem}{name}_layernorm.weight": (C,) for name in ("input", "post_attention")}
        shapes |= {f"{stem}self_attn.{letter}_norm.weight": (D,) for letter in "qk" if norms}
    return drawn(shapes)


def turned(array: np.ndarray, heads: int) -> np.ndarray:
    """Put channel j + D/2 of a head right behind its channel j."""
    rows = array.reshape(heads, D, -1)
    order = [channel for j in range(D // 2) for channel in (j, j + D // 2)]
    return rows[:, order].reshape(array.shape)


DECODER_WORDS = (
    (r"^model\.embed_tokens\.", "token_embd."),
    (r"^model\.norm\.", "output_norm."),
    (r"^lm_head\.", "output."),
    (r"^model\.layers\.", "blk."),
    (r"\.self_attn\.([qkv])_proj\.", r".attn_\1."),
    (r"\.self_attn\.([qk])_norm\.", r".attn_\1_norm."),
    (r"\.self_attn\.o_proj\.", ".attn_output."),
    (r"\.input_layernorm\.", ".attn_norm."),
    (r"\.post_attention_layernorm\.", ".ffn_norm."),
    (r"\.mlp\.(\w+)_proj\.", r".ffn_\1."),
)


def renamed(name: str, words: tuple[tuple[str, str], ...]) -> str:
    for ours, theirs in words:
        name = re.sub(ours, theirs, name)
    return name


def written_decoder(arrays: Arrays, turn: bool) -> Arrays:
    written = {}
    for name, array in arrays.items():
        if turn and re.search(r"[qk]_proj", name):
            array = turned(array, HEADS if "q_proj" in name else GROUPS)
        written[renamed(name, DECODER_WORDS)] = array
    return written


def decoder_metadata(architecture: str, **more: Any) -> dict[str, Any]:
    entries = {
        "block_count": L,
        "context_length": 128,
        "embedding_length": C,
        "feed_forward_length": F,
        "attention.head_count": HEADS,
        "attention.head_count_kv": GROUPS,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "rope.freq_base": 500000.0,
        "rope.dimension_count": D,
        "vocab_size": V,
    }
    entries |= {name.replace("__", "."): value for name, value in more.items()}
    stated = {f"{architecture}.{name}": value for name, value in entries.items() if value is not None}
    return {"general.architecture": architecture} | stated


def decoder_fields(architecture: str) -> dict[str, Any]:
    return {
        "model_type": architecture,
        "hidden_size": C,
        "intermediate_size": F,
        "num_hidden_layers": L,
        "num_attention_heads": HEADS,
        "num_key_value_heads": GROUPS,
        "head_dim": D,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "rope_scaling": None,
        "max_position_embeddings": 128,
        "vocab_size": V,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
    }


def form(tmp_path: Path, metadata: dict[str, Any], tensors: Arrays) -> tuple[Any, dict[str, Any]]:
    (tmp_path / "a.gguf").write_bytes(write_gguf(metadata, tensors))
    return hugging_face_form(open_checkpoint(tmp_path / "a.gguf"))


def same(got: Any, expected: Arrays) -> None:
    assert got.keys() == expected.keys()
    for name, array in expected.items():
        assert got[name].shape == array.shape, name
        np.testing.assert_array_equal(got[name].read(), array, err_msg=name)


@pytest.mark.parametrize(
    ("architecture", "biases", "norms", "tied", "more"),
    [
        ("llama", "", False, False, {"attention_bias": False, "mlp_bias": False}),
        ("llama", "qkvo", False, True, {"attention_bias": True, "mlp_bias": False, "tie_word_embeddings": True}),
        ("llama", "e_pn", False, False, {"attention_bias": False, "mlp_bias": True}),
        ("qwen2", "qkv", False, False, {}),
        ("qwen3", "", True, True, {"attention_bias": False, "tie_word_embeddings": True}),
    ],
)
def test_transformers(
    tmp_path: Path, architecture: str, biases: str, norms: bool, tied: bool, more: dict[str, Any]
) -> None:
    arrays = decoder(biases, norms, tied)
    written = written_decoder(arrays, turn=architecture == "llama")
    tensors, fields = form(tmp_path, decoder_metadata(architecture), written)
    same(tensors, arrays)
    assert fields == decoder_fields(architecture) | more


def test_the_rows_of_a_head_by_hand(tmp_path: Path) -> None:
    arrays = decoder()
    written = written_decoder(arrays, turn=True)
    # llama.cpp turns channels 0 and 1 together, Hugging Face 0 and 4.
    q, theirs = arrays["model.layers.0.self_attn.q_proj.weight"], written["blk.0.attn_q.weight"]
    for head in range(HEADS):
        np.testing.assert_array_equal(theirs[head * D], q[head * D])
        np.testing.assert_array_equal(theirs[head * D + 1], q[head * D + 4])
        np.testing.assert_array_equal(theirs[head * D + 7], q[head * D + 7])


def llama3_divisors(factor: float, low: float = 1.0, high: float = 4.0, context: int = 8192) -> np.ndarray:
    """Write down the published rule, one rate at a time."""
    divisors = []
    for j in range(D // 2):
        wavelength = 2 * math.pi * 500000.0 ** (2 * j / D)
        if wavelength < context / high:
            divisors.append(1.0)
        elif wavelength > context / low:
            divisors.append(factor)
        else:
            smooth = (context / wavelength - low) / (high - low)
            divisors.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(divisors, np.float32)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"rope__scaling__type": "none"}, None),
        (
            {"rope__scaling__type": "linear", "rope__scaling__factor": 2.5, "rope__scaling__finetuned": True},
            {"rope_type": "linear", "factor": 2.5},
        ),
        (
            {
                "rope__scaling__type": "yarn",
                "rope__scaling__factor": 4.0,
                "rope__scaling__original_context_length": 32768,
                "rope__scaling__yarn_beta_fast": 31.0,
            },
            {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768, "beta_fast": 31.0},
        ),
    ],
)
def test_scaled_rotations(tmp_path: Path, more: dict[str, Any], expected: Any) -> None:
    written = written_decoder(decoder("qkv"), turn=False)
    assert form(tmp_path, decoder_metadata("qwen2", **more), written)[1]["rope_scaling"] == expected


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_the_scaling_of_llama3_is_read_off_its_divisors(tmp_path: Path, factor: float) -> None:
    arrays = decoder()
    divisors = llama3_divisors(factor)
    assert divisors[0] == 1
    assert divisors[-1] == factor
    written = written_decoder(arrays, turn=True) | {"rope_freqs.weight": divisors}
    tensors, fields = form(tmp_path, decoder_metadata("llama"), written)
    same(tensors, arrays)
    assert fields["rope_scaling"] == {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }


@pytest.mark.parametrize(
    ("divisors", "words"),
    [
        (llama3_divisors(8.0)[:3], r"must be float32 of shape \(4,\)"),
        (llama3_divisors(8.0).astype(np.float16), "must be float32"),
        (llama3_divisors(8.0) * np.float32(1.01), "its numbers are others"),
        (llama3_divisors(8.0)[::-1].copy(), "its numbers are others"),
        (np.full(4, np.nan, np.float32), "its numbers are others"),
        (np.zeros(4, np.float32), "its numbers are others"),
        (np.array([1, 1, np.inf, np.inf], np.float32), "its numbers are others"),
    ],
)
def test_other_divisors_are_refused(tmp_path: Path, divisors: np.ndarray, words: str) -> None:
    written = written_decoder(decoder(), turn=True) | {"rope_freqs.weight": divisors}
    with pytest.raises(CheckpointError, match=f"rope_freqs.weight .*{words}"):
        form(tmp_path, decoder_metadata("llama"), written)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "dynamic rotation": ({"rope__scaling__type": "dynamic"}, "rope.scaling.type must be 'none' or 'linear' or 'yarn'"),
    "long rotation": ({"rope__scaling__type": "longrope"}, "rope.scaling.type must be"),
    "linear without a factor": ({"rope__scaling__type": "linear"}, "rope.scaling.factor must be a number above 0"),
    "yarn without a length": (
        {"rope__scaling__type": "yarn", "rope__scaling__factor": 4.0}, "original_context_length must be"
    ),
    "yarn with a factor of attention": (
        {
            "rope__scaling__type": "yarn", "rope__scaling__factor": 4.0, "rope__scaling__original_context_length": 8,
            "rope__scaling__yarn_attn_factor": 0.5,
        },
        "may change the numbers: 'rope.scaling.yarn_attn_factor': 0.5",
    ),
    "a factor without a type": ({"rope__scaling__factor": 2.0}, "rope.scaling.factor must be 1.0"),
    "both scalings": (
        {"rope__scaling__type": "linear", "rope__scaling__factor": 2.0}, "rope.scaling.type contradict each other"
    ),
    "the old scaling": ({"rope__scale_linear": 2.0}, "'rope.scale_linear': 2.0"),
    "half a rotation": ({"rope__dimension_count": 4}, "rope.dimension_count must be 8"),
    "experts": ({"expert_count": 8}, "expert_count must be 0.*got 8"),
    "a window": ({"attention__sliding_window": 4096}, "attention.sliding_window must be 0"),
    "not causal": ({"attention__causal": False}, "attention.causal must be True"),
    "parallel": ({"use_parallel_residual": True}, "use_parallel_residual must be False"),
    "scaled logits": ({"logit_scale": 0.5}, "'logit_scale': 0.5"),
    "a soft cap": ({"attn_logit_softcapping": 50.0}, "'attn_logit_softcapping': 50.0"),
    "another scale": ({"attention__scale": 0.1}, "'attention.scale': 0.1"),
    "wide values": ({"attention__key_length": 8, "attention__value_length": 16}, "attention.value_length must be 8"),
    "heads of every layer": ({"attention__head_count_kv": [2, 2]}, "attention.head_count_kv must be a whole number"),
    "no heads": ({"attention__head_count": None}, "attention.head_count must be a whole number"),
    "heads that do not divide": ({"attention__head_count": 5}, "attention.head_count must be a divisor of .*=32"),
    "odd heads": (
        {"attention__head_count": 3, "attention__key_length": 8}, r"attn_q\.weight' cannot become .*q_proj.weight"
    ),
    "no epsilon": ({"attention__layer_norm_rms_epsilon": None}, "layer_norm_rms_epsilon must be a number above 0"),
    "a vocabulary": ({"vocab_size": 25}, r"vocab_size must be 24, for model\.embed_tokens\.weight has the shape"),
    "a width": ({"embedding_length": 40, "attention__key_length": 8}, "embedding_length must be 32"),
    "layers": ({"block_count": 3}, "block_count must be the number of layers, of which the file has 2; got 3"),
    "an infinite base": ({"rope__freq_base": math.inf}, "rope.freq_base must be a number above 0"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_changes_numbers_is_refused(tmp_path: Path, case: str) -> None:
    more, words = WRONG[case]
    written = written_decoder(decoder(), turn=True) | {"rope_freqs.weight": llama3_divisors(8.0)}
    if "contradict" not in words:
        del written["rope_freqs.weight"]
    with pytest.raises(CheckpointError, match=words) as caught:
        form(tmp_path, decoder_metadata("llama", **more), written)
    assert str(caught.value).startswith(str(tmp_path))


def test_other_architectures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="must be one of llama, qwen2, qwen3, mamba, mamba2; got 'gemma3'"):
        form(tmp_path, decoder_metadata("gemma3"), {})
    written = written_decoder(decoder(), turn=True)
    del written["token_embd.weight"]
    with pytest.raises(CheckpointError, match="is missing, or no matrix"):
        form(tmp_path, decoder_metadata("llama"), written)
    written = written_decoder(decoder(), turn=True) | {"blk.0.attn_q.scale": np.ones(1, np.float32)}
    assert "blk.0.attn_q.scale" in form(tmp_path, decoder_metadata("llama"), written)[0]


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3", "mamba", "mamba2"])
def test_names_against_the_gguf_package(architecture: str) -> None:
    gguf = pytest.importorskip("gguf", reason="names are compared with the package of llama.cpp")
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[architecture.upper()], L)
    mamba = architecture.startswith("mamba")
    arrays = backbone(architecture) if mamba else decoder("qkv", norms=architecture == "qwen3")
    for name in arrays:
        known = "dt_proj.bias" if architecture == "mamba2" and name.endswith("dt_bias") else None
        theirs = names.get_name(name.replace("dt_bias", known) if known else name, try_suffixes=(".weight", ".bias"))
        assert theirs == renamed(name, BACKBONE_WORDS if mamba else DECODER_WORDS), name


# Mamba.


def backbone(architecture: str) -> Arrays:
    shapes: dict[str, tuple[int, ...]] = {"backbone.embeddings.weight": (V, C), "backbone.norm_f.weight": (C,)}
    for n in range(L):
        shapes[f"backbone.layers.{n}.norm.weight"] = (C,)
        stem = f"backbone.layers.{n}.mixer."
        if architecture == "mamba":
            mixer = {
                "in_proj.weight": (2 * INNER, C), "x_proj.weight": (RANK + 2 * STATE, INNER), "A_log": (INNER, STATE),
                "dt_proj.weight": (INNER, RANK), "dt_proj.bias": (INNER,), "D": (INNER,),
            }  # fmt: skip
            channels = INNER
        else:
            channels = INNER + 2 * 2 * STATE
            mixer = {"in_proj.weight": (INNER + channels + HEADS, C), "A_log": (HEADS,), "D": (HEADS,)}
            mixer |= {"dt_bias": (HEADS,), "norm.weight": (INNER,)}
        mixer |= {"conv1d.weight": (channels, 1, TAPS), "conv1d.bias": (channels,), "out_proj.weight": (C, INNER)}
        shapes |= {stem + name: shape for name, shape in mixer.items()}
    return drawn(shapes)


BACKBONE_WORDS = (
    (r"^backbone\.embeddings\.", "token_embd."),
    (r"^backbone\.norm_f\.", "output_norm."),
    (r"^backbone\.layers\.", "blk."),
    (r"^(blk\.\d+)\.norm\.", r"\1.attn_norm."),
    (r"\.mixer\.A_log$", ".ssm_a"),
    (r"\.mixer\.D$", ".ssm_d"),
    (r"\.mixer\.dt_bias$", ".ssm_dt.bias"),
    (r"\.mixer\.(\w+)_proj\.", r".ssm_\1."),
    (r"\.mixer\.", ".ssm_"),
)


def written_backbone(arrays: Arrays, architecture: str) -> Arrays:
    written = {}
    for name, array in arrays.items():
        if name.endswith("A_log"):
            array = -np.exp(array)
        if name.endswith("conv1d.weight"):
            array = array.squeeze()
        if architecture == "mamba2" and name.endswith(("A_log", "D")):
            array = array[:, None]
        if architecture == "mamba2" and name.endswith("mixer.norm.weight"):
            array = array.reshape(2, -1)
        written[renamed(name, BACKBONE_WORDS)] = array
    return written


def backbone_metadata(architecture: str, **more: Any) -> dict[str, Any]:
    entries = {
        "context_length": 2**20,
        "embedding_length": C,
        "feed_forward_length": 0,
        "attention.head_count": 0,
        "block_count": L,
        "ssm.conv_kernel": TAPS,
        "ssm.inner_size": INNER,
        "ssm.state_size": STATE,
        "ssm.time_step_rank": RANK if architecture == "mamba" else HEADS,
        "attention.layer_norm_rms_epsilon": 1e-5,
    }
    entries |= {"ssm.dt_b_c_rms": False} if architecture == "mamba" else {"ssm.group_count": 2}
    entries |= {name.replace("__", "."): value for name, value in more.items()}
    stated = {f"{architecture}.{name}": value for name, value in entries.items() if value is not None}
    return {"general.architecture": architecture} | stated


@pytest.mark.parametrize("architecture", ["mamba", "mamba2"])
def test_mambas(tmp_path: Path, architecture: str) -> None:
    arrays = backbone(architecture)
    written = written_backbone(arrays, architecture)
    tensors, fields = form(tmp_path, backbone_metadata(architecture), written)
    assert tensors.keys() == arrays.keys()
    for name, array in arrays.items():
        assert tensors[name].shape == array.shape, name
        got = tensors[name].read()
        if name.endswith("A_log"):  # -exp(A_log) was rounded once
            np.testing.assert_allclose(got, array, rtol=0, atol=2e-7 + 2e-7 * np.abs(array).max())
            np.testing.assert_allclose(-np.exp(got), -np.exp(array), rtol=5e-7)
        else:
            np.testing.assert_array_equal(got, array, err_msg=name)
    expected = {
        "model_type": architecture,
        "hidden_size": C,
        "num_hidden_layers": L,
        "expand": 2,
        "state_size": STATE,
        "conv_kernel": TAPS,
        "layer_norm_epsilon": 1e-5,
        "use_bias": False,
        "use_conv_bias": True,
        "hidden_act": "silu",
        "vocab_size": V,
        "tie_word_embeddings": True,
    }
    if architecture == "mamba":
        assert fields == expected | {"intermediate_size": INNER, "time_step_rank": RANK}
    else:
        assert fields == expected | {"num_heads": HEADS, "head_dim": INNER // HEADS, "n_groups": 2}


@pytest.mark.parametrize(
    ("architecture", "more", "words"),
    [
        ("mamba", {"ssm__dt_b_c_rms": True}, "ssm.dt_b_c_rms must be False"),
        ("mamba", {"ssm__conv_kernel": None}, "ssm.conv_kernel must be a whole number"),
        ("mamba", {"ssm__conv_kernel": 5}, "ssm_conv1d.weight' cannot become"),
        ("mamba", {"ssm__inner_size": 63}, "ssm.inner_size must be a multiple of embedding_length=32"),
        ("mamba", {"feed_forward_length": 64}, "feed_forward_length must be 0"),
        ("mamba", {"attention__head_count": 4}, "attention.head_count must be 0"),
        ("mamba", {"ssm__group_count": 2}, "'ssm.group_count': 2"),
        ("mamba2", {"ssm__time_step_rank": 5}, "ssm.time_step_rank must be a divisor of ssm.inner_size=64"),
        ("mamba2", {"ssm__state_size": Typed(5, -1)}, "ssm.state_size must be a whole number"),
    ],
)
def test_mambas_that_are_refused(tmp_path: Path, architecture: str, more: dict[str, Any], words: str) -> None:
    written = written_backbone(backbone(architecture), architecture)
    with pytest.raises(CheckpointError, match=words):
        form(tmp_path, backbone_metadata(architecture, **more), written)


def test_decays_that_grow_are_refused(tmp_path: Path) -> None:
    written = written_backbone(backbone("mamba"), "mamba")
    written["blk.1.ssm_a"][3, 2] = 0.5
    tensors, _ = form(tmp_path, backbone_metadata("mamba"), written)
    with pytest.raises(CheckpointError, match=r"'blk\.1\.ssm_a' must be -exp\(x\).*got 0\.5"):
        tensors["backbone.layers.1.mixer.A_log"].read()
