"""Mechanisms whose channels never meet: worked examples, identities with other kernels, and the traps."""

from typing import Any

import numpy as np
import pytest
from contracts import test_mechanisms
from contracts.doors import Door
from contracts.oracles import ORACLES
from contracts.tolerance import SCAN, assert_close

import wkvnp
from wkvnp.errors import ArgumentError, ShapeError
from wkvnp.kernels.convolution import fft_convolution
from wkvnp.kernels.convolution import oracle as convolution_oracle
from wkvnp.kernels.linear import oracle as linear_oracle
from wkvnp.kernels.scan import oracle as scan_oracle
from wkvnp.kernels.scan import scan

ONE = np.array([0, 3])
LN2 = np.log(2)


def close(actual: Any, expected: Any, digits: float = 1e-12) -> None:
    np.testing.assert_allclose(actual, expected, rtol=digits, atol=digits * np.abs(expected).max(initial=0))


# Worked examples


def test_scan_by_hand() -> None:
    log_decay = np.log([[0.5, 0.25], [0.5, 0.5], [0.25, 1]])
    x = np.array([[1.0, 2], [3, 4], [5, 6]])
    h, final = scan(log_decay, x, np.array([[2.0, 4]]), ONE)
    close(h, [[2, 3], [4, 5.5], [6, 11.5]], 1e-15)
    close(final, [[6, 11.5]], 1e-15)
    turning, final = scan(np.log([[0.5j], [-0.5], [1j]]), np.array([[1.0], [2], [0]]) + 0j, None, ONE)
    close(turning, [[1], [1.5], [1.5j]], 1e-15)


def test_selective_scan_by_hand() -> None:
    dt = LN2 * np.array([[1.0], [2], [1]])
    B, C = np.array([[1.0, 1], [0, 1], [1, 0]]), np.array([[1.0, 0], [1, 1], [0, 1]])
    y, state = wkvnp.mamba1([[1.0], [2], [3]], dt, [[-1.0, -2]], B, C, [0.5])
    np.testing.assert_allclose(y.ravel(), [1.193147180560, 3.989197216165, 2.203977605256], rtol=0, atol=5e-13)
    np.testing.assert_allclose(state, [[2.166084939250, 0.703977605256]], rtol=0, atol=5e-13)


# Identities with other kernels


def test_scan_is_the_matrix_recurrence_with_one_key_and_one_value() -> None:
    rng = np.random.default_rng(0)
    g, x, state = -np.exp(rng.standard_normal((40, 6))), rng.standard_normal((40, 6)), rng.standard_normal((1, 6))
    one = np.ones((40, 6, 1))
    y, final = linear_oracle.linear(one, g[:, :, None], one, x[:, :, None], state=state[0][:, None, None])
    h, last = scan(g, x, state, np.array([0, 40]))
    close(h, y[:, :, 0])
    close(last[0], final[:, 0, 0])


def test_mamba1_with_one_pole_a_head_is_the_gated_linear_recurrence() -> None:
    door = Door(("mamba1", {}, False), "float64", B=1)
    G, V, N = 3, 4, 4  # groups of channels are heads
    step, pole = np.exp(np.random.default_rng(1).standard_normal((11, G))), np.array([-0.3, -1.0, -0.01])
    x = door.one(0) | {"dt": np.repeat(step, V, 1), "A": np.repeat(np.repeat(pole, V)[:, None], N, 1)}
    k, v = step[:, :, None] * x["B_in"], x["x"].reshape(11, G, V)
    log_decay = np.broadcast_to((step * pole)[:, :, None], k.shape)
    S = door.state[0].reshape(G, V, N).swapaxes(1, 2)
    y, final = linear_oracle.linear(x["C_out"], log_decay, k, v, state=S)
    ours, state = wkvnp.mamba1(**x, state=door.state[0])
    close(ours, y.reshape(11, 12))
    close(state, final.swapaxes(1, 2).reshape(12, 4))


def test_mamba1_is_its_hidden_attention() -> None:
    door = Door(("mamba1", {}, False), "float64", B=1)
    x = door.one(0)
    B, C = (np.repeat(x[name], 4, axis=1) for name in ("B_in", "C_out"))
    D = np.cumsum(x["dt"], axis=0)
    decay = np.exp((D[:, None] - D[None])[..., None] * x["A"])  # t, i, c, n
    M = np.einsum("tcn,ticn,ic,icn->cti", C, decay, x["dt"], B) * np.tril(np.ones((11, 11)))
    close(wkvnp.attention_matrix("mamba1", **x), M)
    R = np.einsum("tcn,tcn,cn->tc", C, np.exp(D[..., None] * x["A"]), door.state[0])
    close(wkvnp.mamba1(**x, state=door.state[0])[0], np.einsum("cti,ic->tc", M, x["x"]) + R)


def test_mamba1_with_one_group_needs_no_axis_of_groups() -> None:
    door = Door("mamba1", G=1)
    flat = {name: door.inputs[name][:, :, 0] for name in ("B_in", "C_out")}
    test_mechanisms.assert_same(door(door.inputs | flat, state=door.state), door(state=door.state))
    test_mechanisms.assert_same(door(door.inputs | {"B_in": flat["B_in"]}), door())


def test_complex_numbers_stand_for_conjugate_pairs() -> None:
    for name in ("mamba1", "s4d"):
        door = TurningDoor((name, {}, False), "float64")
        x, names = door.one(0), ("A", "B_in", "C_out")
        both = x | {n: np.concatenate([x[n], x[n].conj()], axis=-1) for n in names}
        twice, _ = ORACLES[name](both, None, {})
        close(2 * door(x)[0], twice)


def test_s4d_holds_its_input_exactly() -> None:
    A, t = np.array([[-0.5 + 2j]]), 0.1 * np.arange(1, 51)
    y, _ = wkvnp.s4d(np.ones((50, 1)), [0.1], A, [[1.0]], [[1.0]])
    close(y[:, 0], 2 * ((np.exp(A[0, 0] * t) - 1) / A[0, 0]).real)  # the solution of h' = A h + 1


def test_mingru_is_hgrn_and_both_average() -> None:
    rng = np.random.default_rng(2)
    z, candidate = rng.random((60, 5)), rng.standard_normal((60, 5))
    y, _ = wkvnp.mingru(candidate, z)
    close(wkvnp.hgrn(candidate, np.log1p(-z))[0], y)
    low, high = np.minimum.accumulate(candidate), np.maximum.accumulate(candidate)
    assert (np.minimum(low, 0) <= y).all() and (y <= np.maximum(high, 0)).all()


def test_short_convolution_is_numpys_and_shifts_tokens() -> None:
    rng = np.random.default_rng(3)
    x, weight = rng.standard_normal((20, 3)), rng.standard_normal((4, 3))
    y, state = wkvnp.short_convolution(x, weight)
    close(y, np.stack([np.convolve(x[:, c], weight[::-1, c])[:20] for c in range(3)], axis=1))
    np.testing.assert_array_equal(state, x[-3:])
    _, early = wkvnp.short_convolution(x[:2], weight)
    np.testing.assert_array_equal(early, [0 * x[0], x[0], x[1]])
    assert wkvnp.short_convolution(x, weight[:1])[1].shape == (0, 3)
    shift = np.array([[1.0], [0.0]]) * np.ones(3)
    np.testing.assert_array_equal(wkvnp.short_convolution(x, shift)[0], wkvnp.token_shift(x)[0])


# S4D as a convolution


@pytest.mark.parametrize("rule", ["zoh", "bilinear"])
@pytest.mark.parametrize("turning", [True, False], ids=["complex", "real"])
def test_s4d_recurrence_is_its_convolution(rule: str, turning: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    door = (TurningDoor if turning else Door)(("s4d", {"discretization": rule}, True), "float64", B=1, T=300)
    states = (TurningDoor if turning else Door)(door.name, "float64", B=3).state
    named = {"cu_seqlens": [0, 190, 190, 300], "state": states, "reverse": True}
    y, final = door(**named)
    for numbers in (1 << 19, 1000):  # powers in one block, and in many
        monkeypatch.setattr("wkvnp.kernels.convolution._NUMBERS_AT_ONCE", numbers)
        y2, final2 = door(**named, mode="convolution")
        assert y2.dtype == y.dtype and final2.dtype == final.dtype
        close(y2, y)
        close(final2, final)
    close(door(mode="convolution")[0], door()[0])


def test_s4d_convolution_in_pieces_and_in_half_precision() -> None:
    door = TurningDoor("s4d", "float32", B=1, T=200)
    whole, final = door(mode="convolution")
    first, carried = door(door.cut(slice(None), slice(0, 77)), mode="convolution")
    second, last = door(door.cut(slice(None), slice(77, None)), mode="convolution", state=carried)
    close(np.concatenate([first, second], axis=1), whole, 3e-6)
    close(last, final, 3e-6)
    exact, _ = ORACLES["s4d"](door.one(0), None, {})
    assert_close(whole[0], exact, SCAN["float32"])
    for mode in ("recurrent", "convolution"):
        y, state = door(door.inputs | {"u": door.inputs["u"].astype(np.float16)}, mode=mode)
        assert y.dtype == np.float16 and state.dtype == np.complex64
        assert door(door.cut(slice(None), slice(0, 0)), mode=mode)[0].shape == (1, 0, 12)


@pytest.mark.parametrize("mode", ["recurrent", "convolution"])
def test_s4d_at_the_edges_of_its_poles(mode: Any) -> None:
    u = np.array([[1.0], [2], [4]])
    y, _ = wkvnp.s4d(u, [0.5], [[0.0]], [[1.0]], [[1.0]], mode=mode)  # an integrator
    close(y.ravel(), [0.5, 1.5, 3.5])
    y, _ = wkvnp.s4d(u, [0.0], [[-1.0]], [[1.0]], [[1.0]], state=[[3.0]], mode=mode)  # no step at all
    close(y.ravel(), [3.0, 3.0, 3.0])
    for A, once in ((-2.0, 0.5), (-2.0 + 0j, 1.0)):  # the bilinear rule forgets everything here
        y, _ = wkvnp.s4d(u, [1.0], [[A]], [[1.0]], [[1.0]], discretization="bilinear", mode=mode, state=[[7.0]])
        close(y, once * u)
    y, _ = wkvnp.s4d(u, [1.0], [[-6.0]], [[1.0]], [[1.0]], discretization="bilinear", mode=mode)  # and here alternates
    close(y.ravel(), [0.25, 0.375, 0.8125])


@pytest.mark.parametrize("T", [1, 2, 3, 20, 64, 97])
def test_the_end_of_a_convolution_does_not_wrap_around(T: int) -> None:
    rng = np.random.default_rng(T)
    x, response = rng.standard_normal((T, 2)), rng.standard_normal((T, 2))
    close(fft_convolution(x, response, np.array([0, T])), convolution_oracle.long_convolution(x, response))


# Complex poles keep every promise of the contract


class TurningDoor(Door):
    """A front door whose poles, inputs and readouts are complex."""

    def __init__(self, way: Any, dtype: str = "float32", seed: int = 0, **sizes: int) -> None:
        super().__init__(way, dtype, seed, **sizes)
        rng = np.random.default_rng(seed + 1)
        wide = np.result_type(dtype, np.complex64)
        for i in self.spec.inputs:
            if i.may_be_complex:
                array = self.inputs[i.name]
                self.inputs[i.name] = (array + 3j * rng.standard_normal(array.shape)).astype(wide)
        self.state = (self.state + 1j * rng.standard_normal(self.state.shape)).astype(wide)


@pytest.mark.parametrize("name", ["mamba1", "s4d"])
@pytest.mark.parametrize(
    "contract",
    [
        test_mechanisms.test_no_state_is_the_start_of_a_text,
        test_mechanisms.test_split_anywhere,
        test_mechanisms.test_batch_equals_loop_and_needs_no_batch_axis,
        test_mechanisms.test_ragged_equals_single,
        test_mechanisms.test_reverse_is_flip_run_flip,
        test_mechanisms.test_inputs_and_state_untouched,
        test_mechanisms.test_strides_and_byte_order_do_not_matter,
        test_mechanisms.test_same_bits_for_any_number_of_threads,
    ],
    ids=lambda contract: contract.__name__,
)
def test_complex_poles_keep_the_contract(name: str, contract: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(test_mechanisms, "Door", TurningDoor)
    contract((name, {}, True))


@pytest.mark.parametrize("name", ["mamba1", "s4d"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_complex_poles_agree_with_the_oracle(name: str, dtype: str) -> None:
    for T in (0, 1, 11):
        door = TurningDoor(name, dtype, T=T)
        y, final = door(state=door.state)
        assert y.dtype == dtype and final.dtype == np.result_type(dtype, np.complex64)
        exact, last = ORACLES[name](door.one(0), door.state[0], {})
        assert_close(y[0], exact, SCAN[dtype])
        assert_close(final[:1], last[None], SCAN[dtype])


# Long sequences, strong and weak decays


@pytest.mark.parametrize("name", ["hgrn", "mingru", "rg_lru", "mamba1", "s4d", "turning mamba1", "turning s4d"])
@pytest.mark.parametrize("rates", [(-8, -4), (1, 3), (-8, 3)], ids=["weak", "strong", "mixed"])
def test_float32_keeps_its_digits_over_a_thousand_tokens(name: str, rates: tuple[int, int]) -> None:
    turning, name = name.startswith("turning"), name.removeprefix("turning ")
    door = (TurningDoor if turning else Door)(name, "float32", B=1, T=1023)
    rate = np.exp(np.random.default_rng(4).uniform(*rates, (1023, 12)))
    new = {
        "hgrn": {"log_decay": -rate},
        "mingru": {"z": -np.expm1(-rate)},
        "rg_lru": {"r": np.minimum(rate / 24, 1), "Lambda": np.full(12, 3.0)},
        "mamba1": {"dt": rate, "A": door.inputs["A"] / np.abs(door.inputs["A"].real) if name == "mamba1" else 0},
        "s4d": {"dt": rate[0], "A": door.inputs["A"] / np.abs(door.inputs["A"].real) if name == "s4d" else 0},
    }[name]
    x = door.one(0) | {n: np.asarray(a).astype(door.inputs[n].dtype) for n, a in new.items()}
    y, final = door(x, state=door.state[0])
    exact, last = ORACLES[name](x, door.state[0], {})
    assert_close(y, exact, SCAN["float32"])
    assert_close(final[None], last[None], SCAN["float32"])


@pytest.mark.parametrize("name", ["hgrn", "mamba1", "s4d"])
def test_float32_keeps_its_digits_where_one_slow_decay_is_met_a_thousand_times(name: str) -> None:
    rng = np.random.default_rng(6)
    A = (-np.exp(rng.uniform(-4, -2, (12, 4))) + 100j * rng.standard_normal((12, 4))).astype(np.complex64)
    rate = np.exp(rng.uniform(-4, -2, 12)).astype(np.float32)
    door = (Door if name == "hgrn" else TurningDoor)(name, "float32", B=1, T=4096)
    new: dict[str, Any] = {
        "hgrn": {"log_decay": np.tile(-rate / 20, (4096, 1))},
        "mamba1": {"dt": np.tile(rate, (4096, 1)), "A": A},
        "s4d": {"dt": rate, "A": A},
    }[name]
    x = door.one(0) | new
    y, final = door(x, state=door.state[0])
    exact, last = ORACLES[name](x, door.state[0], {})
    assert_close(y, exact, SCAN["float32"])
    assert_close(final[None], last[None], SCAN["float32"])


def test_what_is_forgotten_at_once_leaves_nothing() -> None:
    for dtype in (np.float32, np.float64):
        x = np.array([[3.0], [-2], [5]], dtype)
        for gone in (-1e4, -np.inf):
            y, _ = wkvnp.hgrn(x, np.full((3, 1), gone, dtype), state=np.array([7.0], dtype))
            np.testing.assert_array_equal(y, x)
        y, _ = wkvnp.mingru(x, np.ones((3, 1), dtype))
        np.testing.assert_array_equal(y, x)
        one = np.ones((3, 1), dtype)
        y, _ = wkvnp.mamba1(x, 1e4 * one, np.array([[-1.0]], dtype), one, 1e-4 * one)
        close(y, x, 1e-6)
        y, _ = wkvnp.rg_lru(x, one, one, np.array([1e3], dtype))
        np.testing.assert_array_equal(y, x)


def test_a_state_fades_through_the_smallest_numbers_to_nothing() -> None:
    y, state = wkvnp.hgrn(np.zeros((3000, 4), np.float32), np.full((3000, 4), -0.1, np.float32), state=np.ones(4))
    assert (np.diff(y, axis=0) <= 0).all() and (y >= 0).all()
    close(y[:800], np.exp(-0.1 * np.arange(1, 801))[:, None] * np.ones(4), 1e-4)
    assert (state <= np.finfo(np.float32).tiny).all()


def test_tokens_that_change_nothing() -> None:
    door = Door(("mamba1", {}, True), T=4)
    _, state = door(door.inputs | {"dt": np.zeros_like(door.inputs["dt"])}, state=door.state)
    np.testing.assert_array_equal(state, door.state)
    door = Door("hgrn", T=4)
    _, state = door(door.inputs | {"log_decay": np.zeros_like(door.inputs["log_decay"])}, state=door.state)
    np.testing.assert_array_equal(state, door.state)
    door = Door("rg_lru", T=4)
    _, state = door(door.inputs | {"r": np.zeros_like(door.inputs["r"])}, state=door.state)
    np.testing.assert_array_equal(state, door.state)


def test_rg_lru_keeps_the_digits_of_what_a_slow_decay_leaves() -> None:
    Lambda = np.array([-18.0], np.float32)  # a = 1 - 1e-7, which a float32 can hardly tell from 1
    one = np.ones((1, 1), np.float32)
    y, _ = wkvnp.rg_lru(one, one, one, Lambda)
    close(y, [[np.sqrt(-np.expm1(-16 * np.log1p(np.exp(-18.0))))]], 1e-6)


def test_scan_gains_are_what_the_decay_leaves() -> None:
    rng = np.random.default_rng(5)
    g, x = -np.exp(rng.uniform(-20, 3, (50, 3))), rng.standard_normal((50, 3))
    for gain, weight in (("rest", -np.expm1(g)), ("root", np.sqrt(-np.expm1(2 * g)))):
        close(scan(g, x, None, np.array([0, 50]), gain)[0], scan_oracle.scan(g, weight * x)[0])


# Bad input


def test_bad_input_is_refused() -> None:
    one = np.ones((3, 2))
    for call, message in [
        (lambda: wkvnp.mingru(one, 1.5 * one), "mingru: z must be between 0 and 1; got 1.5 to 1.5"),
        (lambda: wkvnp.rg_lru(one, -one, one, [0.0, 0.0]), "rg_lru: r must be between 0 and 1; got -1 to -1"),
        (lambda: wkvnp.rg_lru(one, one, one, [0.0, 0.0], power=-1), "rg_lru: power must not be negative; got -1"),
        (lambda: wkvnp.short_convolution(one, one[:0]), r"weight must have shape \(W, C\) with W at least 1; got W=0"),
        (
            lambda: wkvnp.short_convolution(one, one, state=one),
            r"state must have shape \(B, W-1, C\) with W-1=2 as in weight; got \(1, 3, 2\)",
        ),
    ]:
        with pytest.raises(ArgumentError, match=message):
            call()
    mamba, s4d = Door("mamba1"), Door("s4d")
    with pytest.raises(ArgumentError, match="mamba1: dt must not be negative; got"):
        mamba(mamba.inputs | {"dt": -mamba.inputs["dt"]})
    with pytest.raises(ShapeError, match="mamba1: G=3 of B_in must divide C=11 of x"):
        mamba(Door("mamba1", C=11).inputs)
    with pytest.raises(ArgumentError, match=r"mamba1: state must be real floating point .* got complex64"):
        mamba(state=mamba.state.astype(np.complex64))
    with pytest.raises(ArgumentError, match=r"s4d: A must be at most 0, or decay would be growth; got 0\.5"):
        s4d(s4d.inputs | {"A": np.full((12, 4), 0.5 + 1j, np.complex64)})
    with pytest.raises(ArgumentError, match="s4d: u is float64 but dt is float32"):
        s4d(s4d.inputs | {"u": s4d.inputs["u"].astype(np.float64)})
    with pytest.raises(ArgumentError, match="s4d: mode must be 'recurrent' or 'convolution'; got 'fft'"):
        s4d(mode="fft")
    with pytest.raises(ArgumentError, match="s4d: discretization must be 'zoh' or 'bilinear'; got 'euler'"):
        s4d(discretization="euler")
