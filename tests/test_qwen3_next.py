"""Qwen3-Next: against what transformers says, against the papers in float64, and what a folder may not say."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import qwen3_next_oracle
from contracts.tolerance import CUT
from hugging_face_folder import fields_in, tensors_in, write_folder
from state_arrays import assert_close

import wkvnp
from wkvnp.checkpoints import open_checkpoint
from wkvnp.checkpoints.naming import flatten
from wkvnp.errors import CheckpointError

GOLDEN = Path(__file__).parent / "golden"
FOLDERS = ["qwen3_next", "qwen3_next_experts"]
TOKENS = np.random.default_rng(1).integers(0, 47, 45)


def fields_of(folder: str) -> dict[str, Any]:
    return fields_in(GOLDEN / folder)


def arrays_of(folder: str) -> dict[str, np.ndarray]:
    return tensors_in(GOLDEN / folder / "model.safetensors")


@pytest.mark.parametrize("folder", FOLDERS)
def test_logits_are_those_of_transformers(folder: str) -> None:
    model = wkvnp.load(GOLDEN / folder)
    stored = open_checkpoint(GOLDEN / folder / "expected.safetensors").tensors
    tokens, expected = stored["tokens"].read(), stored["logits"].read()
    logits, final = model(tokens, logits="all")
    assert np.abs(logits - expected).max() <= 1e-4
    np.testing.assert_array_equal(logits.argmax(1), expected.argmax(1))
    state = None
    for token, row in zip(tokens, expected, strict=True):
        logits, state = model([token], state=state)
        assert np.abs(logits - row).max() <= 1e-4
        assert logits.argmax() == row.argmax()
    assert state is not None
    assert_close(state, final, CUT)
    double, _ = wkvnp.load(GOLDEN / folder, dtype="float64")(tokens, logits="all")
    assert np.abs(double - expected).max() <= 1e-12


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-10), ("float32", 1e-4)])
def test_logits_are_those_of_the_papers(folder: str, dtype: str, tolerance: float) -> None:
    expected = qwen3_next_oracle.qwen3_next(TOKENS.tolist(), arrays_of(folder), fields_of(folder))
    logits, _ = wkvnp.load(GOLDEN / folder, dtype=dtype)(TOKENS, logits="all")
    assert np.abs(logits - expected).max() <= tolerance


def test_weights_of_chosen_experts_may_sum_to_1(tmp_path: Path) -> None:
    fields = fields_of("qwen3_next_experts") | {"norm_topk_prob": True, "num_experts_per_tok": 3}
    arrays = arrays_of("qwen3_next_experts")
    expected = qwen3_next_oracle.qwen3_next(TOKENS.tolist(), arrays, fields)
    model = wkvnp.load(write_folder(tmp_path / "m", arrays, fields), dtype="float64")
    assert np.abs(model(TOKENS, logits="all")[0] - expected).max() <= 1e-10
    assert np.abs(wkvnp.load(GOLDEN / "qwen3_next_experts")(TOKENS)[0] - expected[-1]).max() > 1e-2


def test_all_kinds_of_layers_of_a_fresh_model(tmp_path: Path) -> None:
    sizes = {"n_layer": 5, "n_embd": 48, "vocab_size": 47, "head_size": 16, "rng": 0}
    model = wkvnp.init("qwen3_next", **sizes, n_group=1, interval=2)
    assert [kind.partition("_")[0] for kind in model.config.kinds] == ["linear", "full", "linear", "full", "linear"]
    fields = json.loads(model.config.metadata()["config"])
    expected = qwen3_next_oracle.qwen3_next(TOKENS.tolist(), flatten(model.weights), fields)
    assert expected.std() > 0.3
    assert np.abs(model(TOKENS, logits="all")[0] - expected).max() <= 1e-4
    model.save(tmp_path / "m")
    assert wkvnp.load(tmp_path / "m").config == model.config


@pytest.mark.parametrize("folder", FOLDERS)
def test_cut_anywhere_and_batch(folder: str) -> None:
    model = wkvnp.load(GOLDEN / folder)
    whole, final = model(TOKENS, logits="all")
    for cut in (1, 2, 20, 44):
        first, state = model(TOKENS[:cut], logits="all")
        second, end = model(TOKENS[cut:], state=state, logits="all")
        assert np.abs(np.concatenate([first, second]) - whole).max() <= CUT
        assert_close(end, final, CUT)
    parts = [TOKENS[:2], TOKENS[2:20], TOKENS[20:]]
    together, states = model(parts)
    for n, part in enumerate(parts):
        alone, state = model(part)
        assert np.abs(together[n] - alone).max() <= CUT
        assert_close(states[n], state, CUT)
    _, state = model(TOKENS[:33].reshape(33, 1))
    many, _ = model(TOKENS[:33].reshape(33, 1)[::-1].copy(), state=state)
    one, _ = model([TOKENS[32]], state=state[0])
    assert np.abs(many[0] - one).max() <= CUT


def test_the_state_is_counted() -> None:
    model = wkvnp.load(GOLDEN / "qwen3_next")
    c, sizes = model.config, [model(TOKENS[:length])[1].nbytes for length in (1, 2, 45)]
    assert c.state_bytes == 4 * 2 * (4 * 12 * 7 + 2 * 76) + 8
    assert c.state_bytes_per_token == 4 * 2 * 2 * 16
    assert sizes == [c.state_bytes + length * c.state_bytes_per_token for length in (1, 2, 45)]


@pytest.mark.parametrize("folder", FOLDERS)
def test_save_and_load(folder: str, tmp_path: Path) -> None:
    model = wkvnp.load(GOLDEN / folder)
    model.save(tmp_path / "m.safetensors")
    again = wkvnp.load(tmp_path / "m.safetensors")
    assert again.config == model.config and again.fingerprint == model.fingerprint
    np.testing.assert_array_equal(again(TOKENS)[0], model(TOKENS)[0])
    half = wkvnp.load(tmp_path / "m.safetensors", dtype="bfloat16")
    assert half.config.dtype == "bfloat16" and half.nbytes < 0.6 * model.nbytes
    assert 0 < np.abs(half(TOKENS)[0] - model(TOKENS)[0]).max() < 1


def test_tensors_of_the_multi_token_prediction_are_left_out(tmp_path: Path) -> None:
    arrays, fields = arrays_of("qwen3_next"), fields_of("qwen3_next")
    extra = {"mtp.fc.weight": np.ones((24, 48), np.float32), "mtp.layers.0.mlp.gate.weight": np.ones(3, np.float32)}
    model = wkvnp.load(write_folder(tmp_path / "m", arrays | extra, fields))
    np.testing.assert_array_equal(model(TOKENS)[0], wkvnp.load(GOLDEN / "qwen3_next")(TOKENS)[0])
    assert not any(name.startswith("mtp") for name in flatten(model.weights))
    with pytest.raises(CheckpointError, match="left over: 'mtpx"):
        wkvnp.load(write_folder(tmp_path / "n", arrays | {"mtpx.fc.weight": np.ones(3, np.float32)}, fields))


def test_what_the_fields_leave_out_is_as_published(tmp_path: Path) -> None:
    fields = fields_of("qwen3_next")
    del fields["rope_parameters"]["partial_rotary_factor"], fields["hidden_act"], fields["mlp_only_layers"]
    model = wkvnp.load(write_folder(tmp_path / "m", arrays_of("qwen3_next"), fields))
    np.testing.assert_array_equal(model(TOKENS)[0], wkvnp.load(GOLDEN / "qwen3_next")(TOKENS)[0])


def test_a_head_beside_a_tied_embedding_must_be_the_embedding(tmp_path: Path) -> None:
    arrays = arrays_of("qwen3_next")
    table = arrays["model.embed_tokens.weight"]
    model = wkvnp.load(write_folder(tmp_path / "m", arrays | {"lm_head.weight": table}, fields_of("qwen3_next")))
    assert model.weights.lm_head is None
    np.testing.assert_array_equal(model(TOKENS)[0], wkvnp.load(GOLDEN / "qwen3_next")(TOKENS)[0])
    with pytest.raises(CheckpointError, match=r"lm_head\.weight must be the embedding"):
        wkvnp.load(write_folder(tmp_path / "n", arrays | {"lm_head.weight": table + 1}, fields_of("qwen3_next")))


@pytest.mark.parametrize(
    ("folder", "changes", "message"),
    [
        (0, {"hidden_act": "gelu"}, "hidden_act must be 'silu'"),
        (0, {"use_sliding_window": True}, "use_sliding_window must be False"),
        (0, {"quantization_config": {"bits": 8}}, "fields that wkvnp does not know .*quantization_config"),
        (0, {"layer_types": ["linear_attention"] * 2}, "layer_types must be a list of num_hidden_layers=3 words"),
        (0, {"layer_types": ["linear_attention"] * 2 + ["sliding"]}, "layer_types must be a list"),
        (0, {"layer_types": ["full_attention"] * 3}, r"layers\.0 .*self_attn is missing, .*linear_attn is left over"),
        (0, {"attention_bias": False}, r"layers\.1 .*self_attn\.q_proj\.bias is left over"),
        (1, {"attention_bias": True}, r"layers\.1 .*self_attn\.q_proj\.bias is missing"),
        (0, {"num_experts": 4, "num_experts_per_tok": 2}, r"layers\.0 .*mlp\.gate is missing"),
        (1, {"num_experts": 4}, "num_experts must be 4, as configured; the tensors have 5"),
        (1, {"num_experts_per_tok": 6}, "num_experts_per_tok must be at most num_experts=5; got 6"),
        (1, {"mlp_only_layers": [0]}, r"layers\.0 .*mlp\.gate_proj is missing"),
        (1, {"mlp_only_layers": 1}, "mlp_only_layers must be a list of whole numbers; got 1"),
        (1, {"decoder_sparse_step": 2}, r"layers\.0 .*a list of 5 mlp\.experts is left over"),
        (1, {"moe_intermediate_size": 9}, "moe_intermediate_size must be 9, as configured; the tensors have 8"),
        (
            0,
            {"num_key_value_heads": 3},
            "num_key_value_heads must be a divisor of num_attention_heads, which is 4; got 3",
        ),
        (0, {"linear_num_key_heads": 3}, "linear_num_key_heads must be a divisor of linear_num_value_heads"),
        (0, {"linear_key_head_dim": 7}, "the width of queries, keys and values of delta nets must be 56"),
        (0, {"linear_conv_kernel_dim": 4}, "linear_conv_kernel_dim must be 4, as configured; the tensors have 3"),
        (0, {"num_hidden_layers": 2, "layer_types": None}, "num_hidden_layers must be 2, as configured"),
        (
            0,
            {"num_hidden_layers": 1 << 40, "layer_types": None},
            "num_hidden_layers must be a whole number from 1 to 65",
        ),
        (0, {"tie_word_embeddings": False}, r"1 tensor is missing: lm_head\.weight"),
        (0, {"head_dim": 18}, "partial_rotary_factor must be .*even number of the 18 channels|head_dim must be"),
        (1, {"partial_rotary_factor": 0.1}, "partial_rotary_factor must be"),
        (1, {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "rope_"),
        (0, {"rope_parameters": {"rope_type": "longrope", "rope_theta": 1e4}}, "rope_"),
        (0, {"hidden_size": 32}, "hidden_size must be 32, as configured; the tensors have 24"),
    ],
)
def test_fields_that_do_not_fit_are_refused(tmp_path: Path, folder: int, changes: dict[str, Any], message: str) -> None:
    name = FOLDERS[folder]
    path = write_folder(tmp_path / "m", arrays_of(name), fields_of(name) | changes)
    with pytest.raises(CheckpointError, match=message) as caught:
        wkvnp.load(path)
    assert str(path) in str(caught.value)


def test_tensors_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    for folder in FOLDERS:
        arrays, fields = arrays_of(folder), fields_of(folder)
        for name in arrays:
            path = write_folder(tmp_path / "m", {n: a for n, a in arrays.items() if n != name}, fields)
            with pytest.raises(CheckpointError, match="missing"):
                wkvnp.load(path)
            path = write_folder(tmp_path / "m", arrays | {name: np.zeros((3, 7), np.float32)}, fields)
            with pytest.raises(CheckpointError, match="must be"):
                wkvnp.load(path)
