"""What every kernel form promises, on every case of the list."""

import itertools
from typing import Any

import numpy as np
import pytest

import wkvnp.kernels.convolution
import wkvnp.kernels.delta
import wkvnp.kernels.linear
import wkvnp.kernels.scan
import wkvnp.kernels.selective
import wkvnp.kernels.softmax.state
import wkvnp.kernels.wkv
from contracts.cases import CASES, Case
from contracts.tolerance import FADED, SCAN, assert_close
from wkvnp import set_num_threads

LARGE = 1e6  # of a state, in units of what is written

by_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


class NaNMemory:
    """NumPy whose uninitialised memory is NaN, so that an element a kernel forgets is seen."""

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    def empty(self, shape: Any, dtype: Any = float) -> np.ndarray:
        return np.full(shape, np.nan, dtype)

    def empty_like(self, array: np.ndarray) -> np.ndarray:
        return np.full(array.shape, np.nan, array.dtype)


@pytest.fixture(autouse=True)
def nan_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels = wkvnp.kernels
    for module in (kernels.convolution, kernels.delta, kernels.linear, kernels.scan, kernels.selective, kernels.wkv):
        monkeypatch.setattr(module, "np", NaNMemory())
    for module in (kernels.softmax, kernels.softmax.state):
        monkeypatch.setattr(module, "np", NaNMemory())


def cast(tree: Any, dtype: str) -> Any:
    if tree is None or isinstance(tree, np.ndarray):
        wide = np.result_type(dtype, np.complex64) if np.iscomplexobj(tree) else dtype
        return tree if tree is None else tree.astype(wide)
    if isinstance(tree, dict):
        return {name: cast(value, dtype) for name, value in tree.items()}
    return tuple(cast(value, dtype) for value in tree) if isinstance(tree, tuple) else tree.astype(dtype)


def parts(state: Any) -> tuple[np.ndarray, ...]:
    return state if isinstance(state, tuple) else (state,) if isinstance(state, np.ndarray) else state.parts()


def select(state: Any, n: int) -> Any:
    return None if state is None else tuple(p[n] for p in state) if isinstance(state, tuple) else state[n]


def assert_state_close(case: Case, actual: Any, oracle: Any, tolerance: Any) -> None:
    if case.name == "wkv":  # scaled by another exponent it is the same state: compare log d and n / d
        for part in (actual, oracle):
            assert np.all(part[1] >= 0)
        logs = [part[2].astype(np.float64) + np.log(part[1].astype(np.float64)) for part in (actual, oracle)]
        means = [part[0].astype(np.float64) / part[1] for part in (actual, oracle)]
        assert_close(logs[0][None], logs[1][None], tolerance, "log denominator")
        assert_close(means[0][None], means[1][None], tolerance, "mean")
    else:
        for a, b in zip(parts(actual), parts(oracle), strict=True):
            assert_close(a[None], b[None], tolerance, "state")


@by_case
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("T", [0, 1, 2, 37, 1023])
@pytest.mark.parametrize("given", [True, False], ids=["state", "no state"])
def test_agrees_with_oracle(case: Case, dtype: str, T: int, given: bool) -> None:
    rng = np.random.default_rng(T)
    inputs, state = cast(case.draw(rng, T, 1), dtype)
    state = state if given else None
    y, final = case.run(inputs, state, np.array([0, T]))
    oracle_y, oracle_state = case.oracle(inputs, select(state, 0))
    assert y.real.dtype == dtype
    assert_close(y, oracle_y, SCAN[dtype])
    if T or given:
        assert_state_close(case, select(final, 0), oracle_state, SCAN[dtype])


def hardened(case: Case, inputs: Any, state: Any, rng: np.random.Generator) -> tuple[Any, Any]:
    """Return inputs with decays from exp(-80) to 1 - 1e-6, at every tenth token all strong, and a large state."""

    def log_decays(shape: tuple[int, ...]) -> np.ndarray:
        wide = -np.exp(rng.uniform(np.log(1e-6), np.log(80), shape))
        return np.where(rng.random((shape[0], *[1] * (len(shape) - 1))) < 0.1, rng.uniform(-20, -8, shape), wide)

    inputs = dict(inputs)
    if "log_decay" in inputs:
        turns = inputs["log_decay"].imag
        inputs["log_decay"] = log_decays(turns.shape) + (1j * turns if turns.any() else 0)
    if "dt" in inputs:
        inputs["dt"] = inputs["dt"] * np.where(rng.random((len(inputs["dt"]), 1)) < 0.1, 100, 1)
    large = state[0] if isinstance(state, tuple) else state
    return inputs, (LARGE * large, *state[1:]) if isinstance(state, tuple) else LARGE * large


@pytest.mark.parametrize("case", [case for case in CASES if case.fades], ids=lambda case: case.name)
@pytest.mark.parametrize("T", [2, 37, 200])
def test_what_a_decay_leaves_of_a_large_state_is_right_at_every_position(case: Case, T: int) -> None:
    rng = np.random.default_rng(T)
    inputs, state = cast(hardened(case, *case.draw(rng, T, 1), rng), "float32")
    y, final = case.run(inputs, state, np.array([0, T]))
    oracle_y, oracle_state = case.oracle(inputs, select(state, 0))
    for t in range(T):
        assert_close(y[t : t + 1], oracle_y[t : t + 1], FADED, f"y[{t}]")
    assert_state_close(case, select(final, 0), oracle_state, FADED)


@by_case
def test_cutting_anywhere_changes_no_bit(case: Case) -> None:
    inputs, state = cast(case.draw(np.random.default_rng(1), 29, 1), "float32")
    whole, final = case.run(inputs, state, np.array([0, 29]))
    for cut in (0, 1, 13, 28, 29):
        first, carried = case.run(case.sequence(inputs, 0, cut), state, np.array([0, cut]))
        second, end = case.run(case.sequence(inputs, cut, 29), carried, np.array([0, 29 - cut]))
        np.testing.assert_array_equal(np.concatenate([first, second]), whole)
        for a, b in zip(parts(end), parts(final), strict=True):
            np.testing.assert_array_equal(a, b)


@by_case
def test_batch_and_ragged_equal_single_sequences(case: Case) -> None:
    offsets = np.array([0, 7, 7, 8, 31])
    inputs, state = cast(case.draw(np.random.default_rng(2), 31, 4), "float32")
    y, final = case.run(inputs, state, offsets)
    for n, (begin, end) in enumerate(itertools.pairwise(offsets)):
        single = tuple(p[n : n + 1] for p in state) if isinstance(state, tuple) else state[n : n + 1]
        alone, after = case.run(case.sequence(inputs, begin, end), single, np.array([0, end - begin]))
        np.testing.assert_array_equal(y[begin:end], alone)
        ours = tuple(p[n : n + 1] for p in final) if isinstance(final, tuple) else final[n : n + 1]
        for a, b in zip(parts(ours), parts(after), strict=True):
            np.testing.assert_array_equal(a, b)


@by_case
def test_inputs_and_state_are_untouched(case: Case) -> None:
    inputs, state = cast(case.draw(np.random.default_rng(3), 9, 2), "float32")
    before = [a.copy() for a in (*inputs.values(), *parts(state))]
    case.run(inputs, state, np.array([0, 4, 9]))
    for now, then in zip((*inputs.values(), *parts(state)), before, strict=True):
        np.testing.assert_array_equal(now, then)


@by_case
def test_same_bits_for_any_number_of_threads(case: Case) -> None:
    inputs, state = cast(case.draw(np.random.default_rng(4), 400, 3), "float32")  # too much for one thread
    results = []
    try:
        for threads in (1, 2):
            set_num_threads(threads)
            results.append(case.run(inputs, state, np.array([0, 120, 241, 400])))
    finally:
        set_num_threads(None)
    np.testing.assert_array_equal(results[0][0], results[1][0])
    for a, b in zip(parts(results[0][1]), parts(results[1][1]), strict=True):
        np.testing.assert_array_equal(a, b)


@by_case
def test_short_launches_change_no_bit(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, state = cast(case.draw(np.random.default_rng(5), 50, 2), "float32")
    offsets = np.array([0, 33, 50])
    whole = case.run(inputs, state, offsets)
    monkeypatch.setattr("wkvnp._shapes._LONGEST_LAUNCH", 5000)
    cut = case.run(inputs, state, offsets)
    np.testing.assert_array_equal(whole[0], cut[0])
    for a, b in zip(parts(whole[1]), parts(cut[1]), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.interpreted
@by_case
def test_small_case(case: Case) -> None:
    inputs, state = cast(case.draw(np.random.default_rng(6), 4, 1), "float64")
    y, final = case.run(inputs, state, np.array([0, 4]))
    oracle_y, oracle_state = case.oracle(inputs, select(state, 0))
    assert_close(y, oracle_y, SCAN["float64"])
    assert_state_close(case, select(final, 0), oracle_state, SCAN["float64"])


def test_wkv_survives_keys_of_any_size() -> None:
    k = np.array([[60.0], [-60.0], [60.0], [-1000.0], [1000.0]], np.float32)
    v = np.arange(5, dtype=np.float32)[:, None]
    y, (aa, bb, pp) = wkvnp.kernels.wkv.wkv(np.float32([-0.5]), np.float32([0.3]), k, v, None, np.array([0, 5]))
    assert np.isfinite(y).all() and np.isfinite(aa).all() and np.isfinite(bb).all() and np.isfinite(pp).all()
    assert y[4] == pytest.approx(4.0)
