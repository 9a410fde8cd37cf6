"""What every architecture promises, on random weights."""

from pathlib import Path

import numpy as np
import pytest
from contracts.tolerance import CUT, CUT_QWEN3_NEXT
from state_arrays import assert_close

import wkvnp
from wkvnp._dtypes import BFLOAT16, narrow, widen
from wkvnp._tree import leaves
from wkvnp.checkpoints import open_checkpoint, save_safetensors
from wkvnp.checkpoints.naming import flatten
from wkvnp.errors import ArgumentError, CheckpointError
from wkvnp.models import ARCHITECTURES, sequences
from wkvnp.models.architectures import RWKV
from wkvnp.primitives.norm import layer_norm

RNG = np.random.default_rng(0)
TOKENS = RNG.integers(0, 59, 40)


def make(architecture: str, **sizes: object) -> wkvnp.Model:
    return wkvnp.random_model(
        architecture, **({"n_layer": 2, "n_embd": 48, "vocab_size": 59, "head_size": 16, "rng": 0} | sizes)
    )


@pytest.fixture(scope="module", params=ARCHITECTURES)
def model(request: pytest.FixtureRequest) -> wkvnp.Model:
    return make(request.param)


@pytest.fixture(params=RWKV)
def rwkv(request: pytest.FixtureRequest) -> wkvnp.Model:
    return make(request.param)


def differ(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(np.asarray(a) - np.asarray(b)).max())


def test_shapes(model: wkvnp.Model) -> None:
    assert model(TOKENS)[0].shape == (59,)
    assert model(TOKENS, logits="all")[0].shape == (40, 59)
    assert model(TOKENS.reshape(2, 20))[0].shape == (2, 59)
    assert model(TOKENS.reshape(2, 20), logits="all")[0].shape == (2, 20, 59)
    ragged = [TOKENS[:3], list(TOKENS[3:10]), TOKENS[10:11]]
    assert model(ragged)[0].shape == (3, 59)
    assert [part.shape for part in model(ragged, logits="all")[0]] == [(3, 59), (7, 59), (1, 59)]
    assert model([[1, 2], [3, 4]])[0].shape == (2, 59)
    assert model([[1, 2]])[0].shape == (1, 59)
    assert model(TOKENS)[0].dtype == np.float32


def cut_of(model: wkvnp.Model) -> float:
    return CUT_QWEN3_NEXT if model.config.architecture == "qwen3_next" else CUT


def test_cut_anywhere(model: wkvnp.Model) -> None:
    cut_bound = cut_of(model)
    whole, final = model(TOKENS, logits="all")
    for cut in (1, 2, 19, 39):
        first, state = model(TOKENS[:cut], logits="all")
        second, end = model(TOKENS[cut:], state=state, logits="all")
        assert differ(np.concatenate([first, second]), whole) <= cut_bound
        assert_close(end, final, cut_bound)
    rows, state = [], None
    for token in TOKENS:
        logits, state = model([token], state=state)
        rows.append(logits)
    assert differ(np.array(rows), whole) <= cut_bound


def test_long_prompts_run_in_chunks(model: wkvnp.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    cut = cut_of(model)
    ragged = [TOKENS, TOKENS[:7], TOKENS[:0], TOKENS[5:30]]
    single, _ = model(TOKENS)
    several, state = model(ragged, logits="all")
    monkeypatch.setattr(sequences, "CHUNK", 9)
    assert differ(model(TOKENS)[0], single) <= cut
    chunked, after = model(ragged, logits="all")
    for a, b in zip(several, chunked, strict=True):
        assert a.shape == b.shape and (a.size == 0 or differ(a, b) <= cut)
    assert_close(after, state, cut)
    hidden = model(ragged[:2], hidden=[1])[2][1]
    assert [part.shape for part in hidden] == [(40, 48), (7, 48)]


def test_batch_equals_single(model: wkvnp.Model) -> None:
    ragged = [TOKENS[:5], TOKENS[5:17], TOKENS[17:]]
    together, states = model(ragged)
    for n, part in enumerate(ragged):
        alone, state = model(part)
        assert differ(together[n], alone) <= CUT
        assert_close(states[n], state, CUT)


@pytest.mark.parametrize("batch", [2, 3, 32])
def test_one_token_of_a_batch_has_the_bits_of_the_single_one(model: wkvnp.Model, batch: int) -> None:
    tokens = RNG.integers(0, 59, (batch, 2))
    _, state = model(tokens[:, :1])
    together, after = model(tokens[:, 1:], state=state)
    for n in (0, batch - 1):
        alone, single = model(tokens[n, 1:], state=state[n])
        np.testing.assert_array_equal(together[n], alone)
        assert_close(after[n], single)


def test_a_large_batch_on_several_threads_has_the_bits_of_the_single_one() -> None:
    model = make("rwkv7", n_embd=256, head_size=64, vocab_size=999)
    tokens = RNG.integers(0, 999, (32, 1))
    together, after = model(tokens)
    for n in (0, 31):
        alone, single = model(tokens[n])
        np.testing.assert_array_equal(together[n], alone)
        assert_close(after[n], single)


def test_same_bits_for_any_number_of_threads() -> None:
    model = make("rwkv7", n_embd=256, head_size=64, vocab_size=999)  # large enough to be shared among threads
    try:
        wkvnp.set_num_threads(1)
        alone, _ = model([1, 2, 3], logits="all")
        wkvnp.set_num_threads(2)
        shared, _ = model([1, 2, 3], logits="all")
    finally:
        wkvnp.set_num_threads(None)
    np.testing.assert_array_equal(alone, shared)


def test_hidden_states(model: wkvnp.Model) -> None:
    logits, _, hidden = model(TOKENS.reshape(2, 20), hidden=[0, 1])
    assert set(hidden) == {0, 1} and hidden[0].shape == (2, 20, 48)
    if model.config.architecture in RWKV:
        out = model.weights.ln_out
        expected = layer_norm(hidden[1][:, -1], out.weight, out.bias) @ model.weights.head.weight.T
    else:
        expected = model.network.head(hidden[1][:, -1])
    assert differ(expected, logits) <= CUT
    with pytest.raises(
        ArgumentError, match=r"hidden must be a list of layers from 0 to 1, as \[1\], or range\(2\) for all; got \[2\]"
    ):
        model(TOKENS, hidden=[2])


def test_pure(model: wkvnp.Model) -> None:
    _, state = model(TOKENS[:9])
    kept = state.copy()
    once, _ = model(TOKENS[9:], state=state)
    again, _ = model(TOKENS[9:], state=state)
    np.testing.assert_array_equal(once, again)
    assert_close(state, kept)
    _, same = model([], state=state, logits="all")
    for _, leaf in leaves(same.layers):
        if isinstance(leaf, np.ndarray):
            leaf[:] = 7
    model(TOKENS, state=same)
    assert_close(state, kept)
    for array in flatten(model.stored).values():
        assert not array.flags.writeable


def test_no_tokens(model: wkvnp.Model) -> None:
    logits, state = model([], logits="all")
    assert logits.shape == (0, 59) and state.batch == 1
    with pytest.raises(ArgumentError, match="at least one token when logits is 'last'"):
        model([])
    with pytest.raises(ArgumentError, match="at least one token"):
        model([[1], []])


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([1, 59], r"tokens must be in \[0, 59\), the vocabulary of the model; got 59"),
        ([-1], r"got -1"),
        ([1.5], "tokens must be whole numbers; got float64"),
        ("text", "tokens must be whole numbers"),
        (np.zeros((1, 2, 3), int), r"tokens must have shape \(T,\) or \(B, T\)"),
        ([[1, 2], 3], "got a mixture"),
        ([1, [2, 3]], "one sequence, or a list of sequences"),
    ],
)
def test_bad_tokens_are_refused(model: wkvnp.Model, tokens: object, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        model(tokens)  # type: ignore[arg-type]


def test_bad_logits_argument(model: wkvnp.Model) -> None:
    with pytest.raises(ArgumentError, match="logits must be 'last' or 'all'; got 'first'"):
        model([1], logits="first")  # type: ignore[arg-type]


def test_save_and_load(model: wkvnp.Model, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    model.save(path)
    again = wkvnp.load(path)
    assert again.config == model.config and again.fingerprint == model.fingerprint
    np.testing.assert_array_equal(again(TOKENS)[0], model(TOKENS)[0])
    again.save(path)  # over the file that it is mapped from
    np.testing.assert_array_equal(wkvnp.load(path)(TOKENS)[0], model(TOKENS)[0])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_16_bit_weights_stay_16_bit(model: wkvnp.Model, tmp_path: Path, dtype: str) -> None:
    small = make(model.config.architecture, dtype=dtype)
    assert small.config.dtype == dtype
    assert small.nbytes < 0.6 * model.nbytes
    small.save(tmp_path / "m.safetensors")
    stored = open_checkpoint(tmp_path / "m.safetensors").tensors
    assert max(stored.values(), key=lambda tensor: tensor.nbytes).dtype == dtype
    loaded = wkvnp.load(tmp_path / "m.safetensors")
    assert loaded.nbytes == small.nbytes
    wide = wkvnp.load(tmp_path / "m.safetensors", dtype="float32")
    assert wide.config.dtype == "float32"
    for tokens in (TOKENS, TOKENS[:3]):  # BLAS and our own products
        assert differ(loaded(tokens)[0], wide(tokens)[0]) <= CUT
    narrowed = wkvnp.load(tmp_path / "m.safetensors", dtype="float16")
    assert narrowed.config.dtype == "float16"
    with pytest.raises(
        ArgumentError, match="must be one of float64, float32, float16, bfloat16, int8, int4; got 'int3'"
    ):
        wkvnp.load(tmp_path / "m.safetensors", dtype="int3")


def test_all_tensors_may_be_16_bit(model: wkvnp.Model, tmp_path: Path) -> None:
    half = {name: narrow(array, BFLOAT16) for name, array in flatten(model.stored).items()}
    metadata = model.config.metadata()
    save_safetensors(tmp_path / "half", half, metadata)
    save_safetensors(tmp_path / "wide", {name: widen(array) for name, array in half.items()}, metadata)
    assert differ(wkvnp.load(tmp_path / "half")(TOKENS)[0], wkvnp.load(tmp_path / "wide")(TOKENS)[0]) <= CUT


def test_incomplete_files_are_refused(rwkv: wkvnp.Model, tmp_path: Path) -> None:
    arrays = flatten(rwkv.stored)
    path = tmp_path / "m"

    def refuse(changed: dict[str, np.ndarray], message: str) -> None:
        save_safetensors(path, changed, {})
        with pytest.raises(CheckpointError, match=message) as caught:
            wkvnp.load(path)
        assert str(path) in str(caught.value)

    refuse({n: a for n, a in arrays.items() if n != "head.weight"}, r"1 tensor is missing: head\.weight")
    refuse(arrays | {"odd": np.ones(3, np.float32)}, r"left over: 'odd'")
    refuse(arrays | {"ln_out.bias": np.ones(47, np.float32)}, r"ln_out\.bias must be \(C=48\), is \(47,\)")
    refuse({n: a for n, a in arrays.items() if not n.startswith("blocks.0.ln0")}, r"blocks\.0\.ln0")
    refuse(arrays | {"blocks.0.ffn.key.weight": np.zeros((64, 48), np.int32)}, "not floating point")


def test_tensors_that_do_not_fit_the_configuration_are_refused(model: wkvnp.Model, tmp_path: Path) -> None:
    arrays, path, metadata = flatten(model.stored), tmp_path / "m", model.config.metadata()
    for name in list(arrays)[:: max(1, len(arrays) // 12)]:
        for changed in ({n: a for n, a in arrays.items() if n != name}, arrays | {name: np.zeros((3, 7), np.float32)}):
            save_safetensors(path, changed, metadata)
            with pytest.raises(CheckpointError) as caught:
                wkvnp.load(path)
            assert str(path) in str(caught.value)


@pytest.mark.parametrize(("architecture", "what"), [("transformer", "a Transformer"), ("mamba2", "a Mamba")])
def test_a_file_that_needs_a_configuration_asks_for_it(architecture: str, what: str, tmp_path: Path) -> None:
    save_safetensors(tmp_path / "m", flatten(make(architecture).stored), {})
    with pytest.raises(CheckpointError, match=rf"m: looks like {what} .* put its config\.json beside it"):
        wkvnp.load(tmp_path / "m")


def test_heads_must_fill_the_attention_width(tmp_path: Path) -> None:
    arrays = dict(flatten(make("rwkv7").stored))
    for n in range(2):
        arrays[f"blocks.{n}.att.r_k"] = np.zeros((3, 8), np.float32)
    save_safetensors(tmp_path / "m", arrays, {})
    with pytest.raises(CheckpointError, match="heads x head size; got 48 with 3 heads of 8"):
        wkvnp.load(tmp_path / "m")


def test_a_bonus_of_either_kind_must_be_there(tmp_path: Path) -> None:
    arrays = dict(flatten(make("rwkv5.1").stored))
    for n in range(2):
        del arrays[f"blocks.{n}.att.time_faaaa"]
    save_safetensors(tmp_path / "m", arrays, {})
    with pytest.raises(CheckpointError, match=r"missing: blocks\.0\.att\.time_faaaa"):
        wkvnp.load(tmp_path / "m")


def test_time_first_of_rwkv5_is_a_logarithm(tmp_path: Path) -> None:
    arrays = dict(flatten(make("rwkv5.0").stored))
    logs = arrays | {}
    for n in range(2):
        bonus = np.abs(arrays[f"blocks.{n}.att.time_faaaa"]) + 0.1
        arrays[f"blocks.{n}.att.time_faaaa"] = bonus
        logs[f"blocks.{n}.att.time_first"] = np.log(bonus)
        del logs[f"blocks.{n}.att.time_faaaa"]
    save_safetensors(tmp_path / "a", arrays, {})
    save_safetensors(tmp_path / "b", logs, {})
    assert differ(wkvnp.load(tmp_path / "a")(TOKENS)[0], wkvnp.load(tmp_path / "b")(TOKENS)[0]) <= CUT


def test_layer_0_of_rwkv7_ignores_its_value_residual(tmp_path: Path) -> None:
    model = make("rwkv7")
    arrays = dict(flatten(model.stored))
    for name in ("v0", "v1", "v2"):
        arrays[f"blocks.0.att.{name}"] = arrays[f"blocks.1.att.{name}"]
    save_safetensors(tmp_path / "m", arrays, {})
    np.testing.assert_array_equal(wkvnp.load(tmp_path / "m")(TOKENS)[0], model(TOKENS)[0])


def test_one_layer_and_one_head(model: wkvnp.Model, tmp_path: Path) -> None:
    small = make(model.config.architecture, n_layer=1, n_embd=16)
    small.save(tmp_path / "m")
    np.testing.assert_array_equal(wkvnp.load(tmp_path / "m")([1, 2])[0], small([1, 2])[0])


def test_group_norm_eps_is_kept_and_can_be_given(tmp_path: Path) -> None:
    make("rwkv6").save(tmp_path / "m")
    other = wkvnp.load(tmp_path / "m", group_norm_eps=1e-5)
    assert other.config.group_norm_eps == 1e-5
    other.save(tmp_path / "n")
    assert wkvnp.load(tmp_path / "n").config.group_norm_eps == 1e-5
    with pytest.raises(ArgumentError, match="group_norm_eps must be positive; got -1"):
        wkvnp.load(tmp_path / "m", group_norm_eps=-1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "rwkv9"}, "architecture must be one of rwkv4, .*; got 'rwkv9'"),
        ({"n_layer": 0}, "n_layer must be a positive whole number; got 0"),
        ({"n_embd": 50}, "head_size must divide n_embd=50; got 16"),
        ({"dtype": "int3"}, "dtype must be one of"),
    ],
)
def test_init_refuses(changes: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {
        "architecture": "rwkv7",
        "n_layer": 1,
        "n_embd": 48,
        "vocab_size": 59,
        "head_size": 16,
    }
    with pytest.raises(ArgumentError, match=message):
        wkvnp.random_model(**(arguments | changes))  # type: ignore[arg-type]


def test_ranks_follow_the_published_models() -> None:
    model = wkvnp.random_model("rwkv7", n_layer=1, n_embd=768, vocab_size=8, rng=0)
    assert model.config.ranks == {"Dw": 64, "Da": 64, "Dg": 128}
    assert wkvnp.random_model("rwkv7", n_layer=2, n_embd=768, vocab_size=8, rng=0).config.ranks["Dv"] == 32
