"""States can be copied, joined, cut, saved and loaded, and belong to one model."""

from pathlib import Path

import numpy as np
import pytest
from state_arrays import arrays_of, assert_close

import wkvnp
from wkvnp._tree import leaves
from wkvnp.checkpoints import open_checkpoint, save_safetensors
from wkvnp.checkpoints.naming import flatten
from wkvnp.errors import StateError
from wkvnp.models import ARCHITECTURES


def make(architecture: str = "rwkv7", **sizes: object) -> wkvnp.Model:
    return wkvnp.random_model(
        architecture, **({"n_layer": 2, "n_embd": 48, "vocab_size": 59, "head_size": 16, "rng": 0} | sizes)
    )


@pytest.fixture(params=ARCHITECTURES)
def model(request: pytest.FixtureRequest) -> wkvnp.Model:
    return make(request.param)


def test_save_and_load(model: wkvnp.Model, tmp_path: Path) -> None:
    _, state = model([[1, 2, 3], [4, 5, 6]])
    state.save(tmp_path / "s")
    assert_close(wkvnp.State.load(tmp_path / "s", model), state)
    assert [p.name for p in tmp_path.iterdir()] == ["s"]


def test_copy_select_join(model: wkvnp.Model) -> None:
    _, state = model([[1, 2], [3, 4], [5, 6]])
    copy = state.copy()
    before = arrays_of(state)
    for _, leaf in leaves(copy.layers):
        if isinstance(leaf, np.ndarray):
            leaf[:] = 0
    model([[1], [2], [3]], state=copy)
    for name, array in arrays_of(state).items():
        np.testing.assert_array_equal(array, before[name])
    assert state[1].batch == 1 and state[-1].batch == 1 and state[:2].batch == 2 and state[[2, 0]].batch == 2
    assert_close(wkvnp.State.join([state[0], state[1:]]), state)
    assert state.nbytes == 3 * state[0].nbytes
    with pytest.raises(StateError, match="sequence 3 is not one of the 3"):
        state[3]
    with pytest.raises(StateError, match="at least one state"):
        wkvnp.State.join([])


def test_a_state_of_another_model_is_refused(model: wkvnp.Model, tmp_path: Path) -> None:
    other = make(model.config.architecture, rng=1)  # the same shapes, other numbers
    _, state = other([1, 2])
    with pytest.raises(StateError, match="state belongs to another model"):
        model([3], state=state)
    state.save(tmp_path / "s")
    with pytest.raises(StateError, match="belongs to another model"):
        wkvnp.State.load(tmp_path / "s", model)
    with pytest.raises(StateError, match="different models"):
        wkvnp.State.join([state, model([1])[1]])


def test_other_wrong_states_are_refused() -> None:
    model = make()
    _, state = model([[1], [2]])
    with pytest.raises(StateError, match="state must hold 1 sequences, as tokens do; got 2"):
        model([1], state=state)
    with pytest.raises(StateError, match="state must be a State that a model returned; got tuple"):
        model([1], state=(1, 2))  # type: ignore[arg-type]


def test_files_that_hold_no_state_are_refused(tmp_path: Path) -> None:
    model = make()
    path = tmp_path / "f"
    with pytest.raises(StateError, match="f"):
        wkvnp.State.load(path, model)
    path.write_bytes(b"not a checkpoint at all")
    with pytest.raises(StateError, match="f"):
        wkvnp.State.load(path, model)
    model.save(path)
    with pytest.raises(StateError, match="not a state of wkvnp"):
        wkvnp.State.load(path, model)


def test_damaged_states_are_refused(tmp_path: Path) -> None:
    model = make()
    _, state = model([1])
    metadata = {"format": "wkvnp state 1", "model": model.fingerprint}
    good = {f"layers.{name}": array for name, array in leaves(state.layers)}
    for changed, message in [
        ({**good, "layers.1.wkv": good["layers.1.wkv"][..., :-1]}, r"layers\.1\.wkv must be float32 of shape"),
        ({**good, "layers.0.wkv": good["layers.0.wkv"].astype(np.float64)}, "must be float32"),
        ({n: a for n, a in good.items() if n != "layers.0.wkv"}, "must hold 6 tensors; layers.0.wkv is missing"),
    ]:
        save_safetensors(tmp_path / "s", changed, metadata)
        with pytest.raises(StateError, match=message):
            wkvnp.State.load(tmp_path / "s", model)
    (tmp_path / "s").write_bytes((tmp_path / "s").read_bytes()[:-5])
    with pytest.raises(StateError):
        wkvnp.State.load(tmp_path / "s", model)


def test_malformed_states_of_valid_types_are_refused(model: wkvnp.Model, tmp_path: Path) -> None:
    path = tmp_path / "s"
    model([[1, 2, 3], [4, 5, 6]])[1].save(path)
    container = open_checkpoint(path)
    good = {name: np.array(tensor.read()) for name, tensor in container.tensors.items()}
    for name, array in good.items():
        changes = [
            array.reshape(-1)[0].reshape(()),
            array[None],
            array.reshape(-1),
            array[:1],
            array[:0],
            np.concatenate([array, array]),
            array.astype(np.float16 if array.dtype != np.float16 else np.float64),
            array.astype(np.int32),
            np.zeros((0, *array.shape[1:]), array.dtype),
        ]
        for changed in changes:
            if changed.shape == array.shape and changed.dtype == array.dtype:
                continue
            save_safetensors(path, good | {name: changed}, container.metadata)
            with pytest.raises(StateError):
                wkvnp.State.load(path, model)
        save_safetensors(path, {other: a for other, a in good.items() if other != name}, container.metadata)
        with pytest.raises(StateError):
            wkvnp.State.load(path, model)
    for metadata in ({}, {"format": container.metadata["format"]}, {**container.metadata, "model": "another"}):
        save_safetensors(path, good, metadata)
        with pytest.raises(StateError):
            wkvnp.State.load(path, model)
    save_safetensors(path, {name: a.reshape(-1)[:1].reshape(()) for name, a in good.items()}, container.metadata)
    with pytest.raises(StateError, match=r"must have \d axes; got shape \(\)"):
        wkvnp.State.load(path, model)


@pytest.mark.parametrize("architecture", ["rwkv5.2", "rwkv6", "rwkv7"])
def test_tuned_states(architecture: str, tmp_path: Path) -> None:
    model = make(architecture)
    rng = np.random.default_rng(0)
    tuned = {f"blocks.{n}.att.time_state": rng.standard_normal((3, 16, 16)).astype(np.float32) for n in range(2)}
    save_safetensors(tmp_path / "tuned", tuned, {})
    state = wkvnp.State.load(tmp_path / "tuned", model)
    # The file has values first, we have keys first.
    np.testing.assert_array_equal(state.layers[1].wkv[0], tuned["blocks.1.att.time_state"].swapaxes(1, 2))
    assert not state.layers[0].time_shift.any()
    expected, _ = model([1, 2], state=state)

    save_safetensors(tmp_path / "merged", flatten(model.weights) | tuned, {})
    merged = wkvnp.load(tmp_path / "merged")
    np.testing.assert_array_equal(merged([1, 2])[0], expected)
    assert merged.initial_state(3).batch == 3
    np.testing.assert_array_equal(merged([[1, 2], [1, 2]])[0][0], merged([1, 2])[0])

    del tuned["blocks.1.att.time_state"]
    save_safetensors(tmp_path / "short", tuned, {})
    with pytest.raises(StateError, match=r"blocks\.1\.att\.time_state must have shape \(3, 16, 16\).*no such tensor"):
        wkvnp.State.load(tmp_path / "short", model)


def test_rwkv4_has_no_matrix_state_to_tune(tmp_path: Path) -> None:
    save_safetensors(tmp_path / "t", {"blocks.0.att.time_state": np.zeros((1, 2, 2), np.float32)}, {})
    with pytest.raises(StateError, match="rwkv4"):
        wkvnp.State.load(tmp_path / "t", make("rwkv4"))
