"""What is special about Mamba-1, FalconMamba and Mamba-2: their witnesses, their files, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import mamba_oracle
import numpy as np
import pytest
from hugging_face_folder import fields_in, tensors_in
from torch_writer import tensor, torch_file

import wkvnp
from wkvnp.checkpoints import open_checkpoint, save_safetensors
from wkvnp.checkpoints.naming import flatten
from wkvnp.errors import ArgumentError, CheckpointError
from wkvnp.models._mamba_fields import in_hugging_face_terms

GOLDEN = Path(__file__).parent / "golden"
TINY = ("mamba1", "mamba1_untied", "falcon_mamba", "mamba2", "mamba2_codestral")
BAR = 1e-4  # of the issue that asked for them; measured 2e-5, where transformers in float32 is as far from float64
TOKENS = np.random.default_rng(0).integers(0, 53, 40)


def fields_of(name: str) -> dict[str, Any]:
    return fields_in(GOLDEN / name)


def expected(name: str) -> tuple[np.ndarray, np.ndarray]:
    arrays = tensors_in(GOLDEN / name / "expected.safetensors")
    return arrays["tokens"], arrays["logits"]


def changed(tmp_path: Path, name: str, changes: dict[str, Any], **arrays: np.ndarray | None) -> Path:
    """Copy a tiny model with other fields and tensors; None takes one away."""
    fields = {key: value for key, value in (fields_of(name) | changes).items() if value is not None}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    tensors = {k: a for k, a in (tensors_in(GOLDEN / name / "model.safetensors") | arrays).items() if a is not None}
    save_safetensors(tmp_path / "model.safetensors", tensors, {})
    return tmp_path


@pytest.mark.parametrize("how", ["sequence", "tokens", "pieces"])
@pytest.mark.parametrize("name", TINY)
def test_logits_of_transformers(name: str, how: str) -> None:
    model, (tokens, logits) = wkvnp.load(GOLDEN / name), expected(name)
    cuts = {"sequence": [], "tokens": range(1, len(tokens)), "pieces": [2, 9]}[how]
    rows, state = [], None
    for piece in np.split(tokens, cuts):
        row, state = model(piece, state=state, logits="all")
        rows.append(row)
    found = np.concatenate(rows)
    assert np.abs(found - logits).max() <= BAR
    np.testing.assert_array_equal(found.argmax(1), logits.argmax(1))


@pytest.mark.parametrize("name", TINY)
def test_float64_is_that_of_transformers(name: str) -> None:
    tokens, logits = expected(name)
    found, _ = wkvnp.load(GOLDEN / name, dtype="float64")(tokens, logits="all")
    assert found.dtype == np.float64
    assert np.abs(found - logits).max() <= 1e-10


@pytest.mark.parametrize("name", TINY)
def test_the_oracle_agrees(name: str) -> None:
    tokens, logits = expected(name)
    found = mamba_oracle.logits(fields_of(name), tensors_in(GOLDEN / name / "model.safetensors"), list(tokens))
    assert np.abs(found - logits).max() <= 1e-10


@pytest.mark.parametrize(
    ("architecture", "options"), [("mamba1", {"n_state": 5}), ("mamba2", {"n_state": 7, "n_group": 3})]
)
def test_fresh_models_answer_as_the_oracle(architecture: str, options: dict[str, int], tmp_path: Path) -> None:
    model = wkvnp.random_model(architecture, n_layer=3, n_embd=48, vocab_size=53, head_size=16, rng=0, **options)
    model.save(tmp_path / "m")
    logits = mamba_oracle.logits(model.config.fields, flatten(model.weights), list(TOKENS))
    for dtype, bar in (("float32", BAR), ("float64", 1e-10)):
        assert np.abs(wkvnp.load(tmp_path / "m", dtype=dtype)(TOKENS, logits="all")[0] - logits).max() <= bar


def test_states_have_names_and_sizes() -> None:
    model = wkvnp.random_model("mamba1", n_layer=2, n_embd=48, vocab_size=53, rng=0, n_state=5)
    _, state = model([[1, 2], [3, 4]])
    assert state.layers[1].convolution.shape == (2, 3, 96) and state.layers[1].ssm.shape == (2, 96, 5)
    assert state.nbytes == 2 * model.config.state_bytes
    model = wkvnp.random_model("mamba2", n_layer=2, n_embd=48, vocab_size=53, head_size=8, rng=0, n_state=5, n_group=2)
    _, state = model([[1, 2], [3, 4]])
    assert state.layers[1].convolution.shape == (2, 3, 96 + 20) and state.layers[1].ssm.shape == (2, 12, 5, 8)
    assert state.nbytes == 2 * model.config.state_bytes


def test_fresh_numbers_are_drawn_as_published() -> None:
    first = wkvnp.random_model("mamba1", n_layer=1, n_embd=64, vocab_size=53, rng=0).weights.backbone.layers[0].mixer
    np.testing.assert_allclose(np.exp(first.A_log), np.broadcast_to(np.arange(1.0, 17), (128, 16)), rtol=1e-6)
    second = wkvnp.random_model("mamba2", n_layer=1, n_embd=512, vocab_size=53, head_size=8, rng=0)
    mixer = second.weights.backbone.layers[0].mixer
    assert 1 <= np.exp(mixer.A_log).min() < 2 and 15 < np.exp(mixer.A_log).max() <= 16
    for bias in (first.dt_proj.bias, mixer.dt_bias):
        steps = np.log1p(np.exp(bias.astype(np.float64)))
        assert 0.99e-3 < steps.min() < 2e-3 and 0.05 < steps.max() < 0.101
    assert (first.D == 1).all() and 0.45 < np.abs(first.conv1d.weight).max() <= 0.5


def test_init_refuses() -> None:
    with pytest.raises(ArgumentError, match="random_model: n_groups must be a divisor of num_heads = 12; got 5"):
        wkvnp.random_model("mamba2", n_layer=1, n_embd=48, vocab_size=9, head_size=8, n_group=5)
    with pytest.raises(ArgumentError, match="random_model: state_size must be a whole number from 1; got 0"):
        wkvnp.random_model("mamba1", n_layer=1, n_embd=48, vocab_size=9, n_state=0)
    with pytest.raises(ArgumentError, match="random_model: mamba1 has no option 'n_group'"):
        wkvnp.random_model("mamba1", n_layer=1, n_embd=48, vocab_size=9, n_group=2)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("mamba1_untied", {"time_step_rank": "auto", "conv_kernel": None, "expand": None, "intermediate_size": None}),
        ("mamba1_untied", {"use_bias": None, "hidden_act": None, "layer_norm_epsilon": None, "expand": 2.0}),
        ("mamba2_codestral", {"time_step_limit": [0, {"__float__": "Infinity"}]}),
        ("mamba2_codestral", {"time_step_limit": None, "expand": None, "intermediate_size": None, "rms_norm": None}),
        ("mamba1", {"tie_word_embeddings": None}),
        # What the released mamba-130m-hf and its sisters say beside.
        (
            "mamba1",
            {"d_model": 28, "d_inner": 84, "n_layer": 2, "ssm_cfg": {}, "rms_norm": True, "fused_add_norm": True}
            | {"pad_vocab_size_multiple": 8, "torch_dtype": "float32"},
        ),
        ("mamba2_codestral", {"tie_word_embeddings": None}),
    ],
)
def test_fields_that_say_the_usual_may_be_absent(name: str, changes: dict[str, Any], tmp_path: Path) -> None:
    tokens, logits = expected(name)
    found, _ = wkvnp.load(changed(tmp_path, name, changes))(tokens, logits="all")
    assert np.abs(found - logits).max() <= BAR


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("mamba1", {"hidden_act": "gelu"}, "hidden_act must be 'silu'.*; got 'gelu'"),
        ("mamba1", {"ssm_cfg": {"d_state": 6}}, "ssm_cfg must be {}"),
        ("mamba1", {"d_inner": 56}, "d_inner must be 84"),
        ("mamba1", {"rms_norm": False}, "rms_norm must be True"),
        ("mamba1", {"norm_eps": 1e-3}, "fields that wkvnp does not know may change the numbers: 'norm_eps': 0.001"),
        ("mamba1", {"mixer_rms_eps": 1e-6}, "'mixer_rms_eps'"),
        ("mamba1", {"time_step_rank": 4}, "time_step_rank must be 4, as configured; the tensors have 5"),
        ("mamba1", {"time_step_rank": "small"}, "time_step_rank must be a whole number from 1; got 'small'"),
        ("mamba1", {"state_size": 7}, "state_size must be 7, as configured; the tensors have 6"),
        ("mamba1", {"conv_kernel": 4}, "conv_kernel must be 4"),
        ("mamba1", {"intermediate_size": 56}, "intermediate_size must be 56, as configured; the tensors have 84"),
        ("mamba1", {"expand": 1e30, "intermediate_size": None}, "expand must be smaller"),
        ("mamba1", {"use_bias": False}, "use_bias must be true, as there is a tensor 'backbone.*bias'; got false"),
        ("mamba1", {"use_conv_bias": False}, "use_conv_bias must be true"),
        ("mamba1_untied", {"use_conv_bias": True}, r"missing: backbone\.layers\.0\.mixer\.conv1d\.bias"),
        ("mamba1", {"tie_word_embeddings": False}, r"missing: lm_head\.weight"),
        (
            "mamba1_untied",
            {"tie_word_embeddings": True},
            r"lm_head\.weight must be the embedding, .*; got other numbers",
        ),
        ("mamba1", {"vocab_size": 54}, "vocab_size must be 54"),
        ("mamba1", {"num_hidden_layers": 3}, "num_hidden_layers must be 3"),
        ("mamba2", {"num_heads": 3}, "num_heads must be expand x hidden_size / head_dim = 6; got 3"),
        ("mamba2", {"n_groups": 4}, "n_groups must be a divisor of num_heads = 6; got 4"),
        ("mamba2", {"n_groups": 1}, "n_groups state_size must be 94, as configured; the tensors have 114"),
        ("mamba2", {"num_heads": 12, "head_dim": 7}, "num_heads must be 12, as configured; the tensors have 6"),
        ("mamba2", {"intermediate_size": 56}, "intermediate_size must be expand x hidden_size = 84; got 56"),
        ("mamba2", {"time_step_limit": [0.1, 0.01]}, "time_step_limit must be two numbers of at least 0"),
        ("mamba2", {"time_step_limit": [0.1]}, "time_step_limit must be two numbers"),
        ("mamba2", {"time_step_limit": [False, 1.0]}, "time_step_limit must be two numbers"),
        ("mamba2", {"rms_norm": False}, "rms_norm must be True"),
        ("mamba2", {"model_type": "mamba3"}, "model_type must be one of .*mamba, .*; got 'mamba3'"),
    ],
)
def test_what_is_refused(name: str, changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=message):
        wkvnp.load(changed(tmp_path, name, changes))


def test_only_infinity_is_more_than_json(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "mamba2_codestral", tmp_path, dirs_exist_ok=True)
    config = tmp_path / "config.json"
    text = config.read_text()
    assert "Infinity" in text
    for odd in ("NaN", "-Infinity"):
        config.write_text(text.replace("Infinity", odd))
        with pytest.raises(CheckpointError, match=f"its JSON holds {odd}, which is no number"):
            wkvnp.load(tmp_path)


def test_steps_are_limited_in_what_is_saved_too(tmp_path: Path) -> None:
    for name in ("mamba2", "mamba2_codestral", "falcon_mamba"):
        tokens, logits = expected(name)
        wkvnp.load(GOLDEN / name).save(tmp_path / "m")
        again, _ = wkvnp.load(tmp_path / "m")(tokens, logits="all")
        assert np.abs(again - logits).max() <= BAR


def test_a_copy_of_the_embedding_is_left_out(tmp_path: Path) -> None:
    head = tensors_in(GOLDEN / "mamba1" / "model.safetensors")["backbone.embeddings.weight"]
    model = wkvnp.load(changed(tmp_path, "mamba1", {}, **{"lm_head.weight": head}))
    assert model.weights.lm_head is None and model.fingerprint == wkvnp.load(GOLDEN / "mamba1").fingerprint


def test_a_model_saved_without_its_head_is_complete_where_the_embedding_is_the_head(tmp_path: Path) -> None:
    for name, message in (("mamba1", None), ("mamba1_untied", r"missing: lm_head\.weight")):
        arrays = tensors_in(GOLDEN / name / "model.safetensors")
        bare: dict[str, np.ndarray | None] = {
            f.removeprefix("backbone."): a for f, a in arrays.items() if f != "lm_head.weight"
        }
        path = changed(tmp_path, name, {}, **(dict.fromkeys(arrays) | bare))
        if message:
            with pytest.raises(CheckpointError, match=message):
                wkvnp.load(path)
        else:
            assert wkvnp.load(path).fingerprint == wkvnp.load(GOLDEN / name).fingerprint


PUBLISHED: dict[str, dict[str, Any]] = {
    "mamba1": {
        "d_model": 28,
        "n_layer": 2,
        "vocab_size": 50,
        "ssm_cfg": {"d_state": 6, "d_conv": 4, "dt_rank": 5, "bias": True, "dt_min": 0.001, "use_fast_path": True},
        "rms_norm": True,
        "residual_in_fp32": True,
        "fused_add_norm": True,
        "pad_vocab_size_multiple": 8,
    },
    "mamba2": {
        "d_model": 28,
        "d_intermediate": 0,
        "n_layer": 2,
        "vocab_size": 53,
        "ssm_cfg": {"layer": "Mamba2", "d_state": 6, "headdim": 14, "ngroups": 2, "dt_limit": [0.05, 0.4]},
        "attn_layer_idx": [],
        "attn_cfg": {},
        "rms_norm": True,
        "residual_in_fp32": True,
        "fused_add_norm": True,
        "pad_vocab_size_multiple": 16,
        "tie_embeddings": True,
    },
}


def published(tmp_path: Path, architecture: str) -> dict[str, np.ndarray]:
    """Write a checkpoint as state-spaces/mamba does, and return its arrays under Hugging Face's names."""
    fields = PUBLISHED[architecture]
    theirs = dict(in_hugging_face_terms(fields, "test"))
    rng = np.random.default_rng(0)
    padded = {"mamba1": 56, "mamba2": 64}[architecture]
    options = {"n_state": 6} | ({"n_group": 2} if architecture == "mamba2" else {})
    fresh = wkvnp.random_model(architecture, n_layer=2, n_embd=28, vocab_size=padded, head_size=14, rng=0, **options)
    arrays = {name: a + rng.normal(0, 0.2, a.shape).astype(a.dtype) for name, a in flatten(fresh.weights).items()}
    if architecture == "mamba1":
        shapes = {"x_proj.weight": (17, 56), "dt_proj.weight": (56, 5), "in_proj.bias": (112,), "out_proj.bias": (28,)}
        for n in range(2):
            for name, shape in shapes.items():
                arrays[f"backbone.layers.{n}.mixer.{name}"] = rng.normal(0, 0.3, shape).astype(np.float32)
    del arrays["lm_head.weight"]
    top, storages = {}, {}
    for number, (name, array) in enumerate(arrays.items()):
        place = str(number)
        top[name.replace("embeddings", "embedding")] = tensor(place, "float32", array.size, array.shape)
        storages[place] = array.tobytes()
    top["lm_head.weight"] = top["backbone.embedding.weight"]  # one storage under two names
    (tmp_path / "pytorch_model.bin").write_bytes(torch_file(top, storages))
    (tmp_path / "config.json").write_text(json.dumps(fields))
    assert theirs["vocab_size"] == padded
    return arrays


@pytest.mark.parametrize("architecture", PUBLISHED)
def test_checkpoints_of_the_authors(architecture: str, tmp_path: Path) -> None:
    arrays = published(tmp_path, architecture)
    model = wkvnp.load(tmp_path)
    assert model.config.architecture == architecture and model.config.tied and model.weights.lm_head is None
    theirs = dict(in_hugging_face_terms(PUBLISHED[architecture], "test"))
    logits = mamba_oracle.logits(theirs, arrays, list(TOKENS))
    found, _ = model(TOKENS, logits="all")
    assert np.abs(found - logits).max() <= BAR
    wkvnp.convert(tmp_path / "pytorch_model.bin", tmp_path / "m.safetensors")
    again, _ = wkvnp.load(tmp_path / "m.safetensors")(TOKENS, logits="all")
    np.testing.assert_array_equal(again, found)
    assert set(open_checkpoint(tmp_path / "m.safetensors").tensors) == set(arrays)


@pytest.mark.parametrize(
    ("changes", "inside", "message"),
    [
        ({"rms_norm": False}, {}, "rms_norm must be True"),
        ({"d_intermediate": 128}, {}, "d_intermediate must be 0"),
        ({"attn_layer_idx": [3, 5]}, {}, "attn_layer_idx must be \\[\\]"),
        ({"bidirectional": True}, {}, "'bidirectional': True"),
        ({"ssm_cfg": 3}, {}, "ssm_cfg must be an object; got 3"),
        ({}, {"layer": "Mamba3"}, "ssm_cfg: layer must be 'Mamba1' or 'Mamba2'"),
        ({}, {"norm_before_gate": True}, "ssm_cfg: norm_before_gate must be False"),
        ({}, {"rmsnorm": False}, "ssm_cfg: rmsnorm must be True"),
        ({}, {"D_has_hdim": True}, "ssm_cfg: D_has_hdim must be False"),
        ({}, {"d_ssm": 28}, "ssm_cfg: d_ssm must be None or 56"),
        ({}, {"rope": 1}, "ssm_cfg: fields that wkvnp does not know .*'rope': 1"),
        ({}, {"dt_limit": [1.0]}, "time_step_limit must be two numbers"),
    ],
)
def test_what_the_authors_may_say_and_is_refused(
    changes: dict[str, Any], inside: dict[str, Any], message: str, tmp_path: Path
) -> None:
    published(tmp_path, "mamba2")
    fields = PUBLISHED["mamba2"]
    (tmp_path / "config.json").write_text(json.dumps(fields | {"ssm_cfg": fields["ssm_cfg"] | inside} | changes))
    with pytest.raises(CheckpointError, match=message):
        wkvnp.load(tmp_path)
