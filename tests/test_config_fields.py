"""Fields of ``config.json``: each is read, harmless or refused, as the lists say; others are named in one warning."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from config_fields import EVERYWHERE, ROPE, ROPE_HARMLESS, ROPE_REFUSED, TABLE
from hugging_face_folder import fields_in, tensors_in, write_folder

import wkvnp
from wkvnp.checkpoints import open_checkpoint
from wkvnp.cli import main
from wkvnp.errors import ArgumentError, CheckpointError, UnknownFieldWarning
from wkvnp.models._known_fields import HARMLESS, MAY_MATTER

GOLDEN = Path(__file__).parent / "golden"
CLASSES: dict[str, Any] = json.loads((GOLDEN / "config_fields.json").read_text())
TOKENS = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3]
REMARK = "fields that no software is known to read have no effect: "


def sorted_out(kind: str) -> tuple[set[str], set[str], set[str]]:
    """Return the three lists of a model type."""
    fields = TABLE[kind]
    return set(fields.implemented.split()), set(f"{fields.harmless} {EVERYWHERE}".split()), set(fields.refused)


@pytest.fixture
def changed(tmp_path: Path) -> Any:
    """Return what writes a golden folder with other fields."""

    def write(folder: str, fields: dict[str, Any], absent: tuple[str, ...] = ()) -> Path:
        kept = {name: value for name, value in fields_in(GOLDEN / folder).items() if name not in absent}
        tensors = tensors_in(GOLDEN / folder / "model.safetensors")
        return write_folder(tmp_path / folder.replace("/", "-"), tensors, kept | fields)

    return write


# The lists


@pytest.mark.parametrize("kind", TABLE)
def test_every_field_is_in_one_list(kind: str) -> None:
    implemented, harmless, refused = sorted_out(kind)
    assert not implemented & harmless and not implemented & refused and not harmless & refused
    known = {"model_type"} | implemented | harmless | refused
    assert set(CLASSES[kind]) | set(CLASSES["every class"].split()) | set(CLASSES["generation"].split()) <= known


def test_every_field_of_the_scalings_is_known() -> None:
    assert set(CLASSES["rope"].split()) <= set(" ".join(ROPE.values()).split()) | {ROPE_HARMLESS} | set(ROPE_REFUSED)


def test_fields_of_other_models_are_no_remarks() -> None:
    assert set(CLASSES["other models of text"].split()) <= HARMLESS | MAY_MATTER
    assert not HARMLESS & MAY_MATTER


@pytest.mark.parametrize("kind", TABLE)
def test_a_golden_file_has_each_implemented_field_off_its_default(kind: str) -> None:
    folders = [fields_in(GOLDEN / folder) for folder in TABLE[kind].golden]
    for name in sorted_out(kind)[0] & set(CLASSES[kind]):
        if name == "rope_parameters":  # of which every field has logits of its own, in either place
            assert any(said.get(name) or said.get("rope_scaling") for said in folders)
        elif name == "max_position_embeddings":
            assert kind != "llama" or "yarn-of-max-position-embeddings" in json.loads(
                (GOLDEN / "llama" / "scalings.json").read_text()
            )
        else:
            assert any(said.get(name) not in (None, CLASSES[kind][name]) for said in folders) or (
                name in ("layer_types", "max_window_layers") and any(name not in said for said in folders)
            ), name


@pytest.mark.parametrize("folder", sorted(path.name for path in (GOLDEN / "options").iterdir()))
def test_logits_of_options_are_those_of_transformers(folder: str) -> None:
    stored = open_checkpoint(GOLDEN / "options" / folder / "expected.safetensors").tensors
    tokens, expected = stored["tokens"].read(), stored["logits"].read()
    for dtype, tolerance in (("float32", 1e-4), ("float64", 1e-12)):
        model = wkvnp.load(GOLDEN / "options" / folder, dtype=dtype)
        assert np.abs(model(tokens, logits="all")[0] - expected).max() <= tolerance
        state = None
        for token, row in zip(tokens, expected, strict=True):
            logits, state = model([token], state=state)
            assert np.abs(logits - row).max() <= tolerance


# What the loader does


@pytest.mark.parametrize("kind", TABLE)
def test_implemented_fields_are_read(kind: str, changed: Any) -> None:
    table = TABLE[kind]
    for name in sorted_out(kind)[0]:
        with pytest.raises(CheckpointError, match=rf"\b{name} must be"):
            wkvnp.load(changed(table.golden[0], table.also | {name: ["damaged"]}))


@pytest.mark.parametrize("kind", TABLE)
@pytest.mark.parametrize("value", [True, 7, "text", [1], {"a": 1}, None], ids=str)
def test_harmless_fields_may_say_anything(kind: str, value: Any, changed: Any) -> None:
    folder = TABLE[kind].golden[0]
    expected = wkvnp.load(GOLDEN / folder)(TOKENS)[0]
    # What scales with the lengths of texts reads them.
    keep = ("max_position_embeddings",) if kind != "rwkv" else ()
    fields = dict.fromkeys(sorted_out(kind)[1] - set(keep), value)
    np.testing.assert_array_equal(wkvnp.load(changed(folder, fields))(TOKENS)[0], expected)


@pytest.mark.parametrize("kind", TABLE)
def test_refused_fields_may_only_say_what_changes_nothing(kind: str, changed: Any) -> None:
    folder, refused = TABLE[kind].golden[0], TABLE[kind].refused
    expected = wkvnp.load(GOLDEN / folder)(TOKENS)[0]
    for number in range(max(len(values) for values, _ in refused.values())):
        fields = {name: values[number % len(values)] for name, (values, _) in refused.items()}
        np.testing.assert_array_equal(wkvnp.load(changed(folder, fields))(TOKENS)[0], expected)
    for name, (_, value) in refused.items():
        with pytest.raises(CheckpointError, match=rf"\b{name}( must be|': )"):
            wkvnp.load(changed(folder, {name: value}))


@pytest.mark.parametrize("place", ["rope_scaling", "rope_parameters"])
@pytest.mark.parametrize("scaling", ROPE)
def test_what_is_read_inside_the_rotation(scaling: str, place: str, changed: Any) -> None:
    usual = {"linear": {"factor": 2.0}, "yarn": {"factor": 2.0, "original_max_position_embeddings": 16}}
    usual["llama3"] = {**usual["yarn"], "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    inside: dict[str, Any] = {"rope_type": scaling} | usual.get(scaling, {})

    def load(more: dict[str, Any]) -> wkvnp.Model:
        return wkvnp.load(changed("llama", {"rope_scaling": None, place: inside | more}))

    expected = load({})(TOKENS)[0]
    np.testing.assert_array_equal(load({ROPE_HARMLESS: [1, 2, 2]})(TOKENS)[0], expected)
    nulls = dict.fromkeys(set(ROPE_REFUSED) - set(inside))
    np.testing.assert_array_equal(load(nulls)(TOKENS)[0], expected)
    for name in set(ROPE[scaling].split()) - {"mscale", "mscale_all_dim"}:
        with pytest.raises(CheckpointError, match=rf"\b{name} must be"):
            load({name: ["damaged"]})
    for name in set(ROPE_REFUSED) - set(ROPE[scaling].split()):
        with pytest.raises(CheckpointError, match=rf"\b{name}( must be|': )"):
            load({name: ROPE_REFUSED[name]})
    if scaling == "yarn":
        np.testing.assert_array_equal(load({"mscale": 0.5})(TOKENS)[0], expected)  # alone it changes nothing
        with pytest.raises(CheckpointError, match="mscale must be"):
            load({"mscale": ["damaged"], "mscale_all_dim": 1.0})


def test_a_length_may_be_said_outside_the_rotation(changed: Any) -> None:
    inside = {"rope_type": "yarn", "factor": 4.0}
    expected = wkvnp.load(changed("llama", {"rope_scaling": inside | {"original_max_position_embeddings": 24}}))
    outside = wkvnp.load(changed("llama", {"rope_scaling": inside, "original_max_position_embeddings": 24}))
    np.testing.assert_array_equal(outside(TOKENS)[0], expected(TOKENS)[0])
    both = {"rope_scaling": inside | {"original_max_position_embeddings": 24}, "original_max_position_embeddings": 32}
    with pytest.raises(CheckpointError, match="original_max_position_embeddings must be 32, as outside; got 24"):
        wkvnp.load(changed("llama", both))


def test_empty_scalings_say_nothing(changed: Any) -> None:
    expected = wkvnp.load(GOLDEN / "mistral")(TOKENS)[0]
    np.testing.assert_array_equal(wkvnp.load(changed("mistral", {"rope_scaling": {}}))(TOKENS)[0], expected)
    expected = wkvnp.load(GOLDEN / "llama")(TOKENS)[0]
    np.testing.assert_array_equal(wkvnp.load(changed("llama", {"rope_parameters": {}}))(TOKENS)[0], expected)


def test_a_window_that_is_asked_for_but_not_said_is_that_of_the_class(changed: Any) -> None:
    fields = {"layer_types": None, "max_window_layers": 1}
    assert wkvnp.load(changed("qwen2", fields, absent=("sliding_window",))).config.windows == (None, 4096, 4096)
    assert wkvnp.load(changed("qwen2", fields | {"sliding_window": None})).config.windows == (None, None, None)


# What nobody knows


REMARKS = {"_flash_attn_2_enabled": True, "training_notes": {"by": "me"}, "my_loss": 2.5}


@pytest.mark.parametrize("kind", TABLE)
def test_remarks_are_named_in_one_warning(kind: str, changed: Any) -> None:
    folder = TABLE[kind].golden[0]
    expected = wkvnp.load(GOLDEN / folder)(TOKENS)[0]
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        model = wkvnp.load(changed(folder, REMARKS))
    assert [type(one.message) for one in found] == [UnknownFieldWarning]
    assert str(found[0].message).endswith(
        f"config.json: {REMARK}'_flash_attn_2_enabled', 'training_notes', 'my_loss'"
    ) and "\n" not in str(found[0].message)
    np.testing.assert_array_equal(model(TOKENS)[0], expected)


def test_remarks_inside_the_rotation_are_named_in_the_same_warning(changed: Any) -> None:
    scaling = {"rope_type": "linear", "factor": 2.0, "finetuned": True}
    with pytest.warns(UnknownFieldWarning, match=f"{REMARK}'rope_scaling.finetuned', 'my_loss'") as found:
        wkvnp.load(changed("llama", {"rope_scaling": scaling, "my_loss": 1}))
    assert len(found) == 1


def test_a_warning_on_the_command_line_is_one_line(changed: Any) -> None:
    import subprocess
    import sys

    command = [sys.executable, "-m", "wkvnp", "info", str(changed("llama", {"my\nloss": 1}))]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    assert answer.stderr.startswith("wkvnp: ") and answer.stderr.count("\n") == 1 and "'my\\nloss'" in answer.stderr


# What is ignored


def test_a_refusal_is_overridden_by_name(changed: Any, tmp_path: Path) -> None:
    wrong = {"hidden_act": "gelu", "logit_scale": 0.5, "is_causal": None}
    folder = changed("llama", wrong)
    scaling = fields_in(GOLDEN / "llama")["rope_scaling"] | {"beta_fast": 3.0}
    expected = wkvnp.load(GOLDEN / "llama")(TOKENS)[0]
    with pytest.raises(CheckpointError, match=r"load\(\.\.\., ignore=\['logit_scale', \.\.\.\]\) computes as if they"):
        wkvnp.load(folder, ignore=["hidden_act"])
    model = wkvnp.load(folder, ignore=list(wrong))
    np.testing.assert_array_equal(model(TOKENS)[0], expected)
    model.save(tmp_path / "saved.safetensors")
    np.testing.assert_array_equal(wkvnp.load(tmp_path / "saved.safetensors")(TOKENS)[0], expected)
    wkvnp.convert(folder, tmp_path / "converted.safetensors", ignore=tuple(wrong))
    np.testing.assert_array_equal(wkvnp.load(tmp_path / "converted.safetensors")(TOKENS)[0], expected)
    nested = changed("llama", {"rope_scaling": scaling})
    with pytest.raises(CheckpointError, match=r"ignore=\['rope_scaling\.beta_fast'\]"):
        wkvnp.load(nested)
    np.testing.assert_array_equal(wkvnp.load(nested, ignore=["rope_scaling.beta_fast"])(TOKENS)[0], expected)


def test_the_command_line_ignores_too(changed: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(changed("llama", {"logit_scale": 0.5, "is_causal": None}))
    ignore = ["--ignore", "logit_scale", "--ignore", "is_causal"]
    assert main(["info", folder]) == 1 and "'logit_scale': 0.5" in capsys.readouterr().err
    assert main(["info", folder, *ignore]) == 0
    assert main(["convert", folder, str(tmp_path / "m.safetensors"), *ignore]) == 0
    main(["score", "--model", folder, "--tokenizer", "bytes", "!!", *ignore])
    assert "logit_scale" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("folder", "ignore", "message"),
    [
        ("llama", ["logit_scale"], r"load: ignore must name fields of .*config\.json; it has no 'logit_scale'"),
        ("llama", ["rope_scaling.beta_fast"], r"it has no 'rope_scaling\.beta_fast'"),
        ("rwkv", ["nothing"], "it has no 'nothing'"),
        ("llama", "hidden_act", "load: ignore must be a list of names of fields; got 'hidden_act'"),
        ("llama", 3, "load: ignore must be a list of names of fields; got 3"),
        ("llama", [3], r"load: ignore must be a list of names of fields; got \[3\]"),
    ],
)
def test_what_cannot_be_ignored(folder: str, ignore: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        wkvnp.load(GOLDEN / folder, ignore=ignore)


def test_without_a_configuration_nothing_can_be_ignored() -> None:
    with pytest.raises(
        ArgumentError, match=r"load: ignore must name fields of a configuration; .* has none that is read"
    ):
        wkvnp.load(ignore=["hidden_act"])
