"""One token of every sequence as a list of steps: it answers to the layers themselves, which answer to the oracles."""

import copy
import itertools
import pickle
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import wkvnp
from wkvnp import set_num_threads
from wkvnp._dtypes import narrow, widen
from wkvnp._jit import LARGEST_SERIAL
from wkvnp._tree import leaves
from wkvnp.decoding import Program, program
from wkvnp.decoding.many_dots import PIECE
from wkvnp.decoding.product import FACTOR_ROWS, MODES, WIDEN_ONCE
from wkvnp.models.decoder import MOST_SEQUENCES, DecodedState
from wkvnp.operations import Product
from wkvnp.operations.tokens import Tokens
from wkvnp.primitives.linear_map.activation import ACTIVATIONS

DTYPES = ("float32", "bfloat16", "float16")
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "rwkv4": ("rwkv4", {}),
    "rwkv5.0": ("rwkv5.0", {}),
    "rwkv5.1": ("rwkv5.1", {}),
    "rwkv5.2": ("rwkv5.2", {}),
    "rwkv6": ("rwkv6", {}),
    "rwkv7": ("rwkv7", {}),
    "mamba1": ("mamba1", {}),
    "mamba2": ("mamba2", {"n_group": 2}),
    "transformer": ("transformer", {"n_group": 2}),
    "transformer with a window": ("transformer", {"window": 70}),
    "hybrid": ("hybrid", {"pattern": "a4567ms"}),
}
RNG = np.random.default_rng(0)
TOKENS = RNG.integers(0, 59, (5, 100))


def make(kind: str, **sizes: Any) -> wkvnp.Model:
    architecture, options = KINDS[kind]
    usual = {"n_layer": 7 if kind == "hybrid" else 2, "n_embd": 64, "vocab_size": 59, "head_size": 16, "rng": 0}
    return wkvnp.random_model(architecture, **(usual | options | sizes))


def layer_by_layer(model: wkvnp.Model) -> wkvnp.Model:
    """Return the model without its list of steps."""
    other = copy.copy(model)
    other._decoder = "off"
    return other


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-30))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_answers_as_the_layers_do(kind: str, dtype: str) -> None:
    model = make(kind, dtype=dtype)
    plain = layer_by_layer(model)
    _, state = plain(TOKENS[:, :55])
    other = state
    for t in range(55, 75):  # over the border of a block of keys
        logits, state = model(TOKENS[:, t : t + 1], state)
        expected, other = plain(TOKENS[:, t : t + 1], other)
        assert isinstance(state, DecodedState)
        assert distance(logits, expected) < 1e-5
    for (name, mine), (_, theirs) in zip(leaves(state.layers), leaves(other.layers), strict=True):
        if isinstance(mine, np.ndarray):
            assert distance(mine + 1e-30, theirs + 1e-30) < 1e-5, name
        else:
            assert distance(mine.parts().k, theirs.parts().k) < 1e-5, name


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [(kind, "float32") for kind in KINDS]
    + [("rwkv7", "bfloat16"), ("transformer", "bfloat16"), ("rwkv7", "float16"), ("rwkv7", "int8"), ("rwkv7", "int4")],
)
def test_a_sequence_has_the_same_bits_alone_and_in_any_batch(kind: str, dtype: str) -> None:
    model = make(kind, dtype=dtype, n_embd=96)  # three vectors of 32, of 16-bit numbers, or groups
    tokens = RNG.integers(0, 59, (34, 6))
    _, state = layer_by_layer(model)(tokens[:, :5])
    expected = [model(tokens[n, 5:], state[n]) for n in range(len(tokens))]
    for batch in (2, 3, 4, 7, WIDEN_ONCE, 2 * FACTOR_ROWS + 2):
        together, after = model(tokens[:batch, 5:], state[:batch])
        for n in range(batch):
            alone, single = expected[n]
            np.testing.assert_array_equal(together[n], alone)
            one, many = (dict(leaves(part.layers)) for part in (single, after[n]))
            for name, leaf in one.items():
                if isinstance(leaf, np.ndarray):
                    np.testing.assert_array_equal(leaf, many[name])


def test_same_bits_for_any_number_of_threads_and_launches(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make("rwkv7", n_embd=128)
    assert model.n_parameters > 2 * LARGEST_SERIAL, "large enough to be shared"
    results = []
    for threads, size in ((1, 1 << 30), (2, 1 << 30), (2, 1 << 16)):
        set_num_threads(threads)
        monkeypatch.setattr(program, "_LAUNCH_BYTES", size)
        fresh, state = copy.copy(model), None
        fresh._decoder = None
        for t in range(8):
            logits, state = fresh(TOKENS[:, t : t + 1], state)
        results.append(logits)
        assert isinstance(fresh.program, Program)
        assert (len(fresh.program._launches) > 1) == (size < 1 << 30)
    set_num_threads(None)
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


@pytest.mark.parametrize("kind", ["rwkv4", "rwkv7", "mamba1", "transformer"])
def test_a_state_is_a_value(kind: str, tmp_path: Path) -> None:
    model = make(kind)
    _, state = model([TOKENS[0, 0]])
    before = [leaf.copy() for _, leaf in leaves(state.layers)]
    logits, after = model([3], state)
    again, _ = model([3], state)
    np.testing.assert_array_equal(logits, again)
    for old, (_, leaf) in zip(before, leaves(state.layers), strict=True):
        if isinstance(leaf, np.ndarray):
            np.testing.assert_array_equal(old, leaf)
    following = model([5], after)[0]
    after.save(tmp_path / "state.safetensors")
    copies = [
        after.copy(),
        copy.deepcopy(after),
        pickle.loads(pickle.dumps(after)),
        wkvnp.State.load(tmp_path / "state.safetensors", model),
        wkvnp.State.join([state, after])[1],
    ]
    for same in copies:
        np.testing.assert_array_equal(model([5], same)[0], following)
    assert (after.batch, after.nbytes, after.dtype) == (1, copies[0].nbytes, np.float32)


def test_memory_is_used_again_only_when_nobody_holds_an_array_of_it() -> None:
    model = make("rwkv7")
    _, state = model(TOKENS[:3, :1])
    held = state.layers[1].wkv[1]
    expected = held.copy()
    places = set()
    for t in range(1, 6):
        _, state = model(TOKENS[:3, t : t + 1], state)
        assert isinstance(state, DecodedState)
        places.add(state.memory.address)
    np.testing.assert_array_equal(held, expected)
    assert len(places) == 2, "one that is read and one that is written, in turns"
    many, _ = model(RNG.integers(0, 59, (9, 1)))
    assert np.isfinite(many).all()
    np.testing.assert_array_equal(held, expected)


def test_what_one_sequence_overflows_stays_its_own() -> None:
    model = make("rwkv7")
    _, state = model(TOKENS[:3, :1])
    clean = model(TOKENS[:3, 1:2], state)[0]
    state.layers[0].wkv[1] = np.nan
    broken = model(TOKENS[:3, 1:2], state)[0]
    assert np.isnan(broken[1]).all()
    np.testing.assert_array_equal(broken[[0, 2]], clean[[0, 2]])
    np.testing.assert_array_equal(model(TOKENS[[0, 2], 1:2], state[[0, 2]])[0], clean[[0, 2]])


def test_widths_that_are_no_whole_vectors_and_large_batches_go_through_the_layers() -> None:
    narrow_model = make("rwkv7", n_embd=24, head_size=8)
    logits, state = narrow_model([1])
    assert not isinstance(state, DecodedState) and np.isfinite(logits).all()
    model = make("rwkv7")
    many = RNG.integers(0, 59, (MOST_SEQUENCES + 1, 1))
    logits, state = model(many)
    assert not isinstance(state, DecodedState)
    few, decoded = model(many[:MOST_SEQUENCES])
    assert isinstance(decoded, DecodedState) and distance(few, logits[:MOST_SEQUENCES]) < 1e-5
    double = make("rwkv7", dtype="float64")
    assert not isinstance(double([1])[1], DecodedState)


def test_python_threads_share_a_model() -> None:
    model = make("rwkv7")
    expected = [model(TOKENS[n, :1])[0] for n in range(5)]
    found: dict[int, list[np.ndarray]] = {n: [] for n in range(5)}

    def decode(n: int) -> None:
        found[n] = [model(TOKENS[n, :1])[0] for _ in range(20)]

    workers = [threading.Thread(target=decode, args=(n,)) for n in range(5)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for n in range(5):
        assert len(found[n]) == 20
        for logits in found[n]:
            np.testing.assert_array_equal(logits, expected[n])


@pytest.mark.parametrize("rows", [7, 20])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("outputs", [1, 3, 4, 70, 331])
def test_products(dtype: str, outputs: int, rows: int) -> None:
    inputs = 80
    weight = narrow(RNG.standard_normal((outputs, inputs)).astype(np.float32), dtype)
    x = RNG.standard_normal((rows, inputs)).astype(np.float32)
    bias, gate, old = (
        RNG.standard_normal(shape).astype(np.float32) for shape in (outputs, (rows, outputs), (rows, outputs))
    )
    exact = x.astype(np.float64) @ widen(weight).astype(np.float64).T + bias
    activated = {
        "linear": exact,
        "tanh": np.tanh(exact),
        "sigmoid": 1 / (1 + np.exp(-exact)),
        "silu": exact / (1 + np.exp(-exact)),
        "relu_squared": np.maximum(exact, 0) ** 2,
    }
    assert set(activated) == set(ACTIVATIONS)
    p, slot = Program(24), itertools.count(1)
    o = Tokens(p, {})
    source, multiplier = p.memory.slot("x", inputs), p.memory.slot("gate", outputs)
    results, expected = [], []
    for name, value in activated.items():
        for mode in MODES:
            results.append(p.memory.slot(f"y {next(slot)}", outputs))
            product, multiplied = Product(source, weight, name, bias), multiplier if mode == "add gated" else None
            o._product(mode, product, results[-1], mode, multiplied)
            expected.append({"store": value, "add": old + value, "add gated": old + gate * value}[mode])
    p.finish()
    arrays = [x, gate, *(old.copy() for _ in results)]
    p.run(rows, np.array([0, *(array.ctypes.data for array in arrays)]))
    for found, want in zip(arrays[2:], expected, strict=True):
        assert distance(found, want) < 3e-6


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_long_row_met_piece_by_piece_has_the_bits_of_one_met_at_once(dtype: str) -> None:
    inputs, outputs, rows = 2 * PIECE + 32, 47, WIDEN_ONCE + 1
    weight = narrow(RNG.standard_normal((outputs, inputs)).astype(np.float32), dtype)
    x = RNG.standard_normal((rows, inputs)).astype(np.float32)
    p = Program(rows)
    Tokens(p, {}).logits(p.memory.slot("x", inputs), weight, p.memory.slot("y", outputs))
    p.finish()

    def run(x: np.ndarray) -> np.ndarray:
        y = np.empty((len(x), outputs), np.float32)
        p.run(len(x), np.array([0, x.ctypes.data, y.ctypes.data]))
        return y

    together = run(x)
    assert distance(together, x.astype(np.float64) @ widen(weight).astype(np.float64).T) < 3e-6
    np.testing.assert_array_equal(together, np.concatenate([run(row[None].copy()) for row in x]))


@pytest.mark.parametrize(
    ("architecture", "options", "reason"),
    [
        ("rwkv7", {"n_embd": 24, "head_size": 8}, "blocks.0.att.x has 24 numbers; a whole number of vectors of 16"),
        ("rwkv7", {"dtype": "float64"}, "activations are float64; programs compute in float32"),
        ("qwen3_next", {}, "interleaved heads have no step"),
    ],
)
def test_a_model_says_why_it_has_no_program(architecture: str, options: dict[str, Any], reason: str) -> None:
    model = wkvnp.random_model(
        architecture, **{"n_layer": 1, "n_embd": 64, "vocab_size": 59, "head_size": 16} | options
    )
    assert reason in str(model.program)
    assert not isinstance(model([1])[1], DecodedState)


def test_a_program_describes_itself() -> None:
    text = str(make("rwkv7").program)
    assert text.startswith("phase 0: 0 bytes of matrices\n  embed x: tokens=tokens, table: 59 x 64 float32")
    assert "  product blocks.1.ffn.k: x=blocks.1.ffn.x_k, W: 256 x 64 float32, y=blocks.1.ffn.k" in text
    assert "v_first=blocks.0.att.v" in text
