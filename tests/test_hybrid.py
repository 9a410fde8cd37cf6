"""Hybrids: against the papers in float64, and what a file may not say."""

import json
from pathlib import Path
from typing import Any

import hybrid_oracle
import numpy as np
import pytest
from contracts.tolerance import CUT_HYBRID
from state_arrays import assert_close

import wkvnp
from wkvnp.checkpoints import save_safetensors
from wkvnp.checkpoints.naming import flatten
from wkvnp.errors import ArgumentError, CheckpointError, StateError

TOKENS = np.random.default_rng(1).integers(0, 59, 40)
ALL = "a4567mrs"


def noisy(path: Path, dtype: str = "float32", **options: Any) -> wkvnp.Model:
    """Return a model all of whose tensors are random, norms and biases too; `path` is where it is written."""
    sizes = {"n_layer": 8, "n_embd": 48, "vocab_size": 59, "head_size": 16, "rng": 0}
    model, rng = wkvnp.random_model("hybrid", **(sizes | options)), np.random.default_rng(2)
    arrays = {}
    for name, array in flatten(model.weights).items():
        vector = array.ndim < 2 or 1 in array.shape[:2]
        arrays[name] = array + (0.2 if vector else 0.02) * rng.standard_normal(array.shape)
    save_safetensors(path, {name: array.astype(dtype) for name, array in arrays.items()}, model.config.metadata())
    return wkvnp.load(path)


def fields_of(model: wkvnp.Model) -> dict[str, Any]:
    return dict(json.loads(model.config.metadata()["config"]))


@pytest.mark.parametrize("pattern", [ALL, "ar", "smr", "6a"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-10), ("float32", 1e-4)])
def test_logits_are_those_of_the_papers(tmp_path: Path, pattern: str, dtype: str, tolerance: float) -> None:
    model = noisy(tmp_path / "m", dtype, pattern=pattern, n_group=1, window=7)
    expected = hybrid_oracle.hybrid(TOKENS.tolist(), flatten(model.weights), fields_of(model))
    assert expected.std() > 0.3
    logits, _ = model(TOKENS, logits="all")
    assert np.abs(logits - expected).max() <= tolerance
    state, rows = None, []
    for token in TOKENS:
        row, state = model([token], state=state)
        rows.append(row)
    assert np.abs(np.array(rows) - expected).max() <= tolerance


@pytest.mark.parametrize("pattern", [ALL, "rram", "sa"])
def test_cut_anywhere_and_batch(tmp_path: Path, pattern: str) -> None:
    model = noisy(tmp_path / "m", pattern=pattern, window=9)
    whole, final = model(TOKENS, logits="all")
    for cut in (1, 9, 38):
        first, state = model(TOKENS[:cut], logits="all")
        second, end = model(TOKENS[cut:], state=state, logits="all")
        assert np.abs(np.concatenate([first, second]) - whole).max() <= CUT_HYBRID
        assert_close(end, final, CUT_HYBRID)
    parts = [TOKENS[:3], TOKENS[3:20], TOKENS[20:]]
    together, states = model(parts)
    for n, part in enumerate(parts):
        alone, state = model(part)
        assert np.abs(together[n] - alone).max() <= CUT_HYBRID
        assert_close(states[n], state, CUT_HYBRID)


def test_the_pattern_repeats_over_the_layers() -> None:
    sizes = {"n_embd": 32, "vocab_size": 9, "head_size": 16, "rng": 0}
    assert wkvnp.random_model("hybrid", n_layer=6, **sizes).config.pattern == "arrrar"
    assert wkvnp.random_model("hybrid", n_layer=5, pattern="sa", **sizes).config.pattern == "sasas"
    assert wkvnp.random_model("hybrid", n_layer=1, pattern="ra", **sizes).config.pattern == "r"


def test_a_state_has_an_entry_of_its_kind_for_every_layer() -> None:
    model = wkvnp.random_model(
        "hybrid", pattern=ALL, n_layer=8, n_embd=48, vocab_size=59, head_size=16, rng=0, n_group=1
    )
    names = ["AttentionState", *["LayerState"] * 4, "MambaState", "LayerState", "MambaState"]
    _, short = model([1])
    _, state = model(TOKENS)
    assert [type(layer).__name__ for layer in state.layers] == names
    assert model.config.state_bytes_per_token == 4 * 2 * 16
    assert state.nbytes - short.nbytes == 39 * model.config.state_bytes_per_token
    assert short.nbytes == model.config.state_bytes + model.config.state_bytes_per_token
    with pytest.raises(StateError, match="layer 0 of the model is none"):
        model.tuned_state({"blocks.0.att.time_state": np.zeros((3, 16, 16), np.float32)})


def test_group_norm_eps_is_read(tmp_path: Path) -> None:
    model = noisy(tmp_path / "m", "float64", pattern="5r")
    fields = fields_of(model) | {"rwkv7": {"head_size": 16, "group_norm_eps": 0.5}}
    fields["rwkv5"] = fields["rwkv7"]
    write(tmp_path / "n", flatten(model.weights), fields)
    changed = wkvnp.load(tmp_path / "n")
    expected = hybrid_oracle.hybrid(TOKENS.tolist(), flatten(model.weights), fields)
    assert np.abs(changed(TOKENS, logits="all")[0] - expected).max() <= 1e-10
    assert np.abs(changed(TOKENS)[0] - model(TOKENS)[0]).max() > 1e-3


def test_sizes_may_be_left_to_the_embedding(tmp_path: Path) -> None:
    model = noisy(tmp_path / "m", window=7)
    fields = fields_of(model)
    for name in ("hidden_size", "vocab_size", "num_hidden_layers"):
        del fields[name]
    fields["attention"] |= {"hidden_size": 48, "vocab_size": 59, "num_hidden_layers": 8, "tie_word_embeddings": False}
    write(tmp_path / "n", flatten(model.weights), fields)
    again = wkvnp.load(tmp_path / "n")
    np.testing.assert_array_equal(again(TOKENS)[0], model(TOKENS)[0])
    again.save(tmp_path / "o")
    assert wkvnp.load(tmp_path / "o").config == again.config


def write(path: Path, arrays: dict[str, np.ndarray], fields: dict[str, Any]) -> None:
    save_safetensors(path, arrays, {"architecture": "hybrid", "config": json.dumps(fields)})


def without(arrays: dict[str, np.ndarray], *names: str) -> dict[str, np.ndarray]:
    return {name: array for name, array in arrays.items() if not name.endswith(names)}


def test_tensors_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    model, path = wkvnp.random_model("hybrid", n_layer=4, n_embd=48, vocab_size=59, head_size=16, rng=0), tmp_path / "m"
    arrays, fields = flatten(model.weights), fields_of(model)

    def refuse(changed: dict[str, np.ndarray], message: str) -> None:
        write(path, changed, fields)
        with pytest.raises(CheckpointError, match=message) as caught:
            wkvnp.load(path)
        assert str(path) in str(caught.value)

    row, narrow = arrays["blocks.2.rwkv7.att.v0"], np.zeros((3, 8), np.float32)
    refuse(without(arrays, "2.rwkv7.att.x_r"), r"blocks\.2\.rwkv7: 1 tensor is missing: att\.x_r")
    refuse(without(arrays, "2.rwkv7.att.v0"), r"blocks\.2\.rwkv7: 1 tensor is missing: att\.v0")
    refuse(without(arrays, "2.rwkv7.att.v0", "v1", "v2"), r"blocks\.2\.rwkv7: 3 tensors are missing: att\.v0")
    refuse({n: a for n, a in arrays.items() if "blocks.3." not in n}, r"blocks\.3\.rwkv7: \d+ tensors are missing: ln1")
    refuse(without(arrays, "ln_out.bias"), r"1 tensor is missing: ln_out\.bias")
    refuse(arrays | {"blocks.1.rwkv7.att.v0": row}, r"left over: 'blocks\.1\.rwkv7\.att\.v0'")
    refuse(arrays | {"blocks.0.attention.ln0.weight": row[0, 0]}, r"left over: ln0\.weight|left over: 'ln0\.weight'")
    refuse(arrays | {"blocks.1.rwkv7.ln0.weight": row[0, 0]}, r"left over: 'blocks\.1\.rwkv7\.ln0\.weight'")
    refuse(arrays | {"blocks.1.rwkv6.ln1.weight": row[0, 0]}, r"left over: 'blocks\.1\.rwkv6\.ln1\.weight'")
    refuse(arrays | {"blocks.4.rwkv7.ln1.weight": row[0, 0]}, r"left over: 'blocks\.4\.rwkv7\.ln1\.weight'")
    refuse(arrays | {"blocks.01.rwkv7.ln1.weight": row[0, 0]}, r"left over: 'blocks\.01\.rwkv7\.ln1\.weight'")
    refuse(arrays | {"blocks.3.rwkv7.att.r_k": narrow}, r"blocks\.3\.rwkv7: .*heads x head size; got 48 with 3 heads")
    refuse(arrays | {"blocks.3.rwkv7.att.x_r": narrow}, r"blocks\.3\.rwkv7: .*att\.x_r must be \(1, 1, C=48\)")
    wide = wkvnp.random_model("hybrid", pattern="r", n_layer=2, n_embd=64, vocab_size=59, head_size=16, rng=0).weights
    other = {f"blocks.3.rwkv7.{name}": array for name, array in flatten(wide.blocks[1].rwkv7).items()}
    refuse(arrays | other, r"blocks\.3\.rwkv7: hidden_size must be 48, as configured; the tensors have 64")
    mlp = {f"blocks.0.attention.mlp.{name}_proj.weight": np.zeros((96, 48), np.float32) for name in ("gate", "up")}
    mlp["blocks.0.attention.mlp.down_proj.weight"] = np.zeros((48, 96), np.float32)
    refuse(
        arrays | mlp, r"blocks\.0\.attention: mlp.gate_proj.weight must be \(128, 48\), as configured; is \(96, 48\)"
    )
    bias = {"blocks.0.attention.self_attn.q_proj.bias": np.zeros(48, np.float32)}
    refuse(arrays | bias, r"blocks\.0\.attention.*left over.*self_attn\.q_proj\.bias")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pattern": "arr"}, "pattern must be 4 letters, one for each of num_hidden_layers; got 'arr'"),
        (
            {"pattern": "arxr"},
            r"pattern must be a letter for every layer, of a \(attention\), r \(rwkv7\), .*; got 'arxr'",
        ),
        ({"pattern": ""}, "pattern must be a letter for every layer"),
        ({"pattern": None}, "pattern must be a letter for every layer"),
        ({"pattern": 7}, "pattern must be a letter for every layer"),
        ({"pattern": ["a", "r", "r", "r"]}, "pattern must be a letter for every layer"),
        (
            {"pattern": "r" * 999, "num_hidden_layers": None},
            r"pattern must be a letter for every layer; there are \d+ tensors",
        ),
        ({"hidden_size": 64}, "hidden_size must be 64, as configured; the tensors have 48"),
        ({"vocab_size": 64}, "vocab_size must be 64, as configured; the tensors have 59"),
        ({"rwkv7": {"head_size": 8}}, r"blocks\.1\.rwkv7: head_size must be 8, as configured; the tensors have 16"),
        ({"rwkv7": None}, "rwkv7 must be an object; got None"),
        ({"rwkv7": {}}, "rwkv7: head_size must be a whole number from 1; got no such field"),
        ({"rwkv7": {"head_size": 16, "v_first": 2}}, "rwkv7: fields that wkvnp does not know .*: 'v_first': 2"),
        ({"attention": {"alibi": True}}, "attention: .*num_attention_heads must be"),
        ({"layer_scale": 2}, "fields that wkvnp does not know may change the numbers: 'layer_scale': 2"),
        ({"model_type": "jamba"}, "model_type must be one of"),
    ],
)
def test_fields_that_do_not_fit_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    model = wkvnp.random_model("hybrid", n_layer=4, n_embd=48, vocab_size=59, head_size=16, rng=0)
    write(tmp_path / "m", flatten(model.weights), fields_of(model) | changes)
    with pytest.raises(CheckpointError, match=message) as caught:
        wkvnp.load(tmp_path / "m")
    assert str(tmp_path / "m") in str(caught.value)


@pytest.mark.parametrize("changes", [{"alibi": True}, {"hidden_size": 64}, {"vocab_size": 8}, {"num_hidden_layers": 9}])
def test_fields_of_attention_that_do_not_fit_are_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    model = wkvnp.random_model("hybrid", n_layer=4, n_embd=48, vocab_size=59, head_size=16, rng=0)
    fields = fields_of(model)
    write(tmp_path / "m", flatten(model.weights), fields | {"attention": fields["attention"] | changes})
    with pytest.raises(CheckpointError, match=f"attention: .*{next(iter(changes))}"):
        wkvnp.load(tmp_path / "m")


def test_a_description_of_layers_that_are_not_there_is_harmless(tmp_path: Path) -> None:
    model = wkvnp.random_model("hybrid", n_layer=2, n_embd=48, vocab_size=59, head_size=16, rng=0)
    write(tmp_path / "m", flatten(model.weights), fields_of(model) | {"mamba1": {"state_size": 16}})
    np.testing.assert_array_equal(wkvnp.load(tmp_path / "m")([1])[0], model([1])[0])


@pytest.mark.parametrize("pattern", ["ax", "", 7, "A"])
def test_init_refuses_unknown_kinds(pattern: Any) -> None:
    with pytest.raises(
        ArgumentError, match=r"random_model: pattern must be one or more letters of a \(attention\), .*;"
    ):
        wkvnp.random_model("hybrid", n_layer=2, n_embd=48, vocab_size=59, head_size=16, pattern=pattern)
