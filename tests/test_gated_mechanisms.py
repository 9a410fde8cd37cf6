"""What is special about the gated matrix states: worked examples, identities between them, extreme gates."""

from typing import Any

import numpy as np
import pytest
from contracts.doors import SIZES, parts, spec_of
from contracts.oracles.gated import ORACLES
from contracts.tolerance import SCAN, assert_close

import wkvnp
from wkvnp.errors import ArgumentError, ShapeError
from wkvnp.kernels.linear import oracle
from wkvnp.mechanisms.lightning_attention import layer_decay
from wkvnp.mechanisms.mlstm import MLSTMState
from wkvnp.mechanisms.retnet import rotated

DOORS = sorted(ORACLES)
by_door = pytest.mark.parametrize("name", DOORS)


def draw(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape)


def close(actual: Any, expected: Any) -> None:
    np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12)


def same(a: tuple[np.ndarray, Any], b: tuple[np.ndarray, Any]) -> None:
    close(a[0], b[0])
    for p, q in zip(parts(a[1]), parts(b[1]), strict=True):
        close(p, q)


def inputs_of(name: str, **sizes: int) -> dict[str, np.ndarray]:
    return spec_of(name).draw(np.random.default_rng(1), SIZES | sizes, np.float64)


def state_of(name: str) -> Any:
    return spec_of(name).draw_state(np.random.default_rng(2), SIZES, np.float64)


# Worked examples: T = 3, one head.

Q = np.array([[1.0, 0], [0, 1], [1, 1]])[:, None]
K = np.array([[1.0, 1], [2, 0], [0, 1]])[:, None]
V = np.array([[1.0, -1], [2, 0], [3, 1]])[:, None]
G = np.log([[0.5, 0.25], [0.5, 0.25], [1, 0.5]])[:, None]


def test_worked_example_read_after_the_update() -> None:
    y, S = wkvnp.gla(Q, K, V, G, scale=1.0)
    close(y[:, 0], [[1, -1], [0.25, -0.25], [7.625, 0.375]])
    close(S[0], [[4.5, -0.5], [3.125, 0.875]])
    A = wkvnp.attention_matrix("gla", Q, K, V, G, scale=1.0)
    close(A[0], [[1, 0, 0], [0.25, 0, 0], [0.625, 2, 1]])


def test_worked_example_read_before_the_update() -> None:
    u = np.array([[2.0, 3.0]])
    y, S = wkvnp.rwkv6(Q, G, K, V, u)
    close(y[:, 0], [[2, -2], [1, -1], [13.75, 2.25]])
    close(S[0], [[4.5, -0.5], [3.125, 0.875]])
    close(wkvnp.attention_matrix("rwkv6", Q, G, K, V, u)[0], [[2, 0, 0], [1, 0, 0], [0.75, 2, 3]])


# One mechanism in terms of another.


def test_simple_gla_is_gla_with_equal_channels() -> None:
    x, state = inputs_of("simple_gla"), state_of("simple_gla")
    spread = x | {"log_decay": np.repeat(x["log_decay"][..., None], SIZES["K"], -1)}
    same(wkvnp.simple_gla(**x, state=state), wkvnp.gla(**spread, state=state))


def test_retnet_and_lightning_attention_are_simple_gla_with_a_constant_decay() -> None:
    x, state = inputs_of("retnet"), state_of("retnet")
    spread = x | {"log_decay": np.broadcast_to(x["log_decay"], x["q"].shape[:3])}
    same(wkvnp.retnet(**x, state=state), wkvnp.simple_gla(**spread, state=state))
    same(wkvnp.lightning_attention(**x, state=state), wkvnp.simple_gla(**spread, scale=1.0, state=state))


def test_hgrn2_is_gla_whose_key_is_what_the_decay_leaves() -> None:
    x, state = inputs_of("hgrn2"), state_of("hgrn2")
    k = -np.expm1(x["log_decay"])
    same(wkvnp.hgrn2(**x, state=state), wkvnp.gla(x["q"], k, x["i"], x["log_decay"], scale=1.0, state=state))


def test_gla_without_decay_is_rwkv6_with_a_bonus_of_one() -> None:
    x, state = inputs_of("gla") | {"log_decay": np.zeros((2, 11, 6, 5))}, state_of("gla")
    one = np.ones((SIZES["H"], SIZES["K"]))
    same(wkvnp.gla(**x, scale=1.0, state=state), wkvnp.rwkv6(x["q"], x["log_decay"], x["k"], x["v"], one, state=state))


def test_gla_of_width_one_is_a_scan_of_numbers() -> None:
    x = inputs_of("gla", B=1, H=1, K=1, V=1)
    y, h = wkvnp.gla(**x, scale=1.0)
    expected, running = [], 0.0
    for k, v, g in zip(x["k"].ravel(), x["v"].ravel(), x["log_decay"].ravel(), strict=True):
        running = np.exp(g) * running + k * v
        expected.append(running)
    close(y.ravel(), expected * x["q"].ravel())
    close(h.ravel(), running)


def test_mamba2_is_the_selective_scan_with_one_rate_a_head() -> None:
    """``h[e, n] = exp(dt[e] A[e, n]) h[e, n] + dt[e] B[n] x[e]`` and ``y[e] = sum_n C[n] h[e, n] + D[e] x[e]``."""
    x, state = inputs_of("mamba2", B=1), state_of("mamba2")[:1]
    T, H, width = x["x"].shape[1:]
    u, dt = x["x"][0].reshape(T, -1), np.repeat(x["dt"][0], width, axis=1)
    A, D = np.repeat(x["A"], width)[:, None], np.repeat(x["D"], width)
    B_in, C_out = (np.repeat(x[n][0], H // SIZES["G"] * width, axis=1) for n in ("B_in", "C_out"))
    h = state[0].transpose(0, 2, 1).reshape(H * width, -1)
    y = np.zeros((T, H * width))
    for t in range(T):
        h = np.exp(dt[t][:, None] * A) * h + dt[t][:, None] * B_in[t] * u[t][:, None]
        y[t] = (C_out[t] * h).sum(1) + D * u[t]
    y *= x["z"][0].reshape(T, -1) / (1 + np.exp(-x["z"][0].reshape(T, -1)))
    ours, final = wkvnp.mamba2(**x, state=state)
    close(ours[0].reshape(T, -1), y)
    close(final[0].transpose(0, 2, 1).reshape(H * width, -1), h)


def test_mamba2_is_mamba1_with_one_rate_a_head() -> None:
    x = inputs_of("mamba2")
    B, T, H, width = x["x"].shape
    flat = {n: x[n].reshape(B, T, H * width) for n in ("x", "z")} | {n: x[n] for n in ("B_in", "C_out")}
    A = np.repeat(x["A"], width)[:, None] * np.ones(SIZES["N"])
    y, h = wkvnp.mamba1(**flat, dt=np.repeat(x["dt"], width, axis=-1), A=A, D=np.repeat(x["D"], width))
    ours, S = wkvnp.mamba2(**x)
    close(ours.reshape(B, T, -1), y)
    close(S.transpose(0, 1, 3, 2).reshape(B, H * width, -1), h)


def test_mamba2_groups_are_heads_that_stand_next_to_each_other() -> None:
    x = inputs_of("mamba2", G=2)
    repeated = x | {n: np.repeat(x[n], 3, axis=2) for n in ("B_in", "C_out")}
    interleaved = x | {n: np.tile(x[n], (1, 1, 3, 1)) for n in ("B_in", "C_out")}
    same(wkvnp.mamba2(**x), wkvnp.mamba2(**repeated))
    assert np.abs(wkvnp.mamba2(**x)[0] - wkvnp.mamba2(**interleaved)[0]).max() > 0.1


def test_mamba2_takes_one_skip_weight_a_channel() -> None:
    x = inputs_of("mamba2")
    spread = x | {"D": np.repeat(x["D"][:, None], SIZES["V"], axis=1)}
    same(wkvnp.mamba2(**x), wkvnp.mamba2(**spread))


# The dense form: A V + R S_0.


def test_gla_is_its_dense_matrix_and_what_is_left_of_the_state() -> None:
    T, H, width = 40, 2, 5
    q, k, v, S = draw(T, H, width), draw(T, H, width), draw(T, H, 7), draw(H, width, 7)
    g = -np.exp(np.random.default_rng(3).uniform(-12, 3, (T, H, width)))
    total = np.cumsum(g, axis=0)
    gap = total[:, None] - total[None]  # (T, T, H, K)
    A = np.einsum("thk,ihk,tihk->hti", q, k, np.where(np.tri(T, dtype=bool)[:, :, None, None], np.exp(gap), 0))
    R = q * np.exp(total)
    y, final = wkvnp.gla(q, k, v, g, scale=1.0, state=S)
    close(y, np.einsum("hti,ihv->thv", A, v) + np.einsum("thk,hkv->thv", R, S))
    close(final, np.exp(total[-1])[:, :, None] * S + np.einsum("thk,thv->hkv", np.exp(total[-1] - total) * k, v))
    close(wkvnp.attention_matrix("gla", q, k, v, g, scale=1.0, state=S), A)


@by_door
def test_output_is_the_attention_matrix_times_the_values_and_a_part_of_the_state(name: str) -> None:
    x = inputs_of(name, B=1) | ({"z": None, "D": None} if name == "mamba2" else {})
    state = type(s)(*(p[:1] for p in s)) if isinstance(s := state_of(name), tuple) else s[:1]
    value = spec_of(name).value
    door = getattr(wkvnp, name)
    y, _ = door(**x, state=state)
    rest, _ = door(**x | {value: np.zeros_like(x[value])}, state=state)
    A = wkvnp.attention_matrix(name, **x, state=state)
    close(y, np.einsum("bhti,bihv->bthv", A, x[value]) + rest)


# Invariants.


@by_door
def test_output_is_linear_in_the_values(name: str) -> None:
    x, value, door = inputs_of(name), spec_of(name).value, getattr(wkvnp, name)
    other = draw(*x[value].shape)
    (a, _), (b, _) = door(**x), door(**x | {value: other})
    both, _ = door(**x | {value: 2 * x[value] - 3 * other})
    close(both, 2 * a - 3 * b)


@by_door
def test_no_token_sees_the_future(name: str) -> None:
    x, door = inputs_of(name), getattr(wkvnp, name)
    before, _ = door(**x)
    for i in spec_of(name).inputs:
        if i.sequential:
            changed = x[i.name].copy()
            changed[:, 6] *= 0.5
            after, _ = door(**x | {i.name: changed})
            np.testing.assert_array_equal(after[:, :6], before[:, :6])
            assert (after[:, 6:] != before[:, 6:]).any()


PADDING = {
    "gla": {"k": 0.0, "log_decay": 0.0},
    "simple_gla": {"k": 0.0, "log_decay": 0.0},
    "hgrn2": {"log_decay": 0.0},
    "mamba2": {"dt": 0.0},
    "mlstm": {"log_input": -np.inf, "log_decay": 0.0},
    "gsa": {"log_decay": 0.0, "s": 0.0},
}


@pytest.mark.parametrize("name", sorted(PADDING))
def test_a_token_that_pads_leaves_the_state_alone(name: str) -> None:
    x, state, door = inputs_of(name), state_of(name), getattr(wkvnp, name)
    padded = {}
    for i in spec_of(name).inputs:
        a = x[i.name]
        if i.sequential:
            a = np.insert(a, 4, a[:, 4], axis=1)
            if i.name in PADDING[name]:
                a[:, 4] = PADDING[name][i.name]
        padded[i.name] = a
    y, final = door(**padded, state=state)
    same((np.delete(y, 4, axis=1), final), door(**x, state=state))


def test_zeroing_only_the_values_is_no_padding() -> None:
    x = inputs_of("gla")
    v = x["v"].copy()
    v[:, 4] = 0
    y, _ = wkvnp.gla(**x | {"v": v})
    kept, _ = wkvnp.gla(**{n: np.delete(a, 4, axis=1) for n, a in x.items()})
    assert np.abs(np.delete(y, 4, axis=1) - kept)[:, 4:].max() > 1e-3


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_infinite_decay_begins_anew(dtype: str) -> None:
    for name in ("gla", "simple_gla", "mlstm", "gsa"):
        x = {n: a.astype(dtype) for n, a in inputs_of(name).items()}
        x["log_decay"][:, 5] = -np.inf
        y, _ = getattr(wkvnp, name)(**x)
        fresh, _ = getattr(wkvnp, name)(**{n: a[:, 5:] for n, a in x.items()})
        assert np.isfinite(y).all()
        np.testing.assert_allclose(y[:, 5:], fresh, rtol=2e-6 if dtype == "float32" else 1e-12, atol=1e-6)


def test_a_long_sequence_in_single_precision() -> None:
    T, H = 4096, 2
    q, k, v = draw(T, H, 5), draw(T, H, 6)[..., :5], draw(T, H, 7)
    g = -np.exp(np.random.default_rng(5).uniform(-14, 0, (1, H, 5))) * np.ones((T, 1, 1))
    x = {n: a.astype(np.float32) for n, a in {"q": q, "k": k, "v": v, "log_decay": g}.items()}
    y, _ = wkvnp.gla(**x)
    assert_close(y, ORACLES["gla"](x, None, {})[0], SCAN["float32"])


def test_hgrn2_with_gates_near_one_keeps_its_digits() -> None:
    x = {n: a.astype(np.float32) for n, a in inputs_of("hgrn2", B=1).items()}
    x["log_decay"] *= np.float32(1e-6)
    expected, _ = ORACLES["hgrn2"]({n: a[0] for n, a in x.items()}, None, {})
    assert_close(wkvnp.hgrn2(**x)[0][0], expected, SCAN["float32"])


# RetNet.


def test_retnet_forgets_half_in_22_44_88_tokens() -> None:
    one = np.ones((2, 8, 1))
    y, _ = wkvnp.retnet(one, one, one * np.array([1, 0])[:, None, None])
    np.testing.assert_array_equal(np.rint(np.log(2) / -np.log(y[1, :, 0])), [22, 44, 88, 177, 355, 709, 1419, 2839])


def test_after_rotation_only_distances_count() -> None:
    q, k = draw(9, 2, 6), draw(9, 2, 6)[::-1]
    here = np.einsum("thk,shk->hts", rotated(q), rotated(k))
    there = np.einsum("thk,shk->hts", rotated(q, 1000), rotated(k, np.arange(1000, 1009)))
    np.testing.assert_allclose(here, there, atol=1e-11)
    close(np.einsum("thk,thk->th", rotated(q), rotated(k)), np.einsum("thk,thk->th", q, k))
    quarter = rotated(np.array([1.0, 0, 1, 0]).reshape(1, 1, 4), np.pi / 2)
    close(quarter.ravel(), [0, 1, np.cos(np.pi / 2e4), np.sin(np.pi / 2e4)])
    assert rotated(q.astype(np.float32)).dtype == np.float32
    with pytest.raises(ShapeError, match=r"rotated: x must have shape .* even K; got \(9, 2, 5\)"):
        rotated(q[..., :5])


def test_retnet_with_rotation_can_be_cut() -> None:
    q, k, v = draw(9, 2, 6), draw(9, 2, 6)[::-1], draw(9, 2, 7)
    whole, _ = wkvnp.retnet(rotated(q), rotated(k), v)
    first, state = wkvnp.retnet(rotated(q[:4]), rotated(k[:4]), v[:4])
    second, _ = wkvnp.retnet(rotated(q[4:], 4), rotated(k[4:], 4), v[4:], state=state)
    close(np.concatenate([first, second]), whole)


# Lightning attention.


def test_decays_of_the_layers() -> None:
    close(layer_decay("transnormer", 4, 0, 8), [0, -2, -4, -6])
    close(layer_decay("transnormer", 4, 6, 8), [0, -0.5, -1, -1.5])
    close(layer_decay("minimax", 8, 0, 5), -(1 + 1e-5) * 2.0 ** -np.arange(1, 9))
    close(layer_decay("minimax", 64, 79, 80), -1e-5 * 2.0 ** (-np.arange(1, 65) / 8))
    close(layer_decay("minimax", 6, 2, 5)[4:], -(0.5 + 1e-5) * 2.0 ** -np.array([1.0, 3.0]))
    close(layer_decay("minimax", 1, 0, 1), [-(1 + 1e-5) / 256])
    for bad in (("other", 4, 0, 8), ("minimax", 0, 0, 8), ("minimax", 4, 8, 8), ("transnormer", 4, -1, 8)):
        with pytest.raises(ArgumentError, match="layer_decay: form must be"):
            layer_decay(*bad)


# mLSTM.


def gates(name: str, T: int, H: int) -> tuple[np.ndarray, np.ndarray]:
    sizes = {"none": (0, 0), "rising": (900, 0), "falling": (-900, 0), "high": (0, 3000), "low": (0, -60)}
    slope, level = sizes[name]
    noise = np.random.default_rng(7).standard_normal((2, T, H))
    return level + slope * np.linspace(0, 1, T)[:, None] + 20 * noise[0], -np.exp(2 * noise[1] - 2)


@pytest.mark.parametrize("kind", ["none", "rising", "falling", "high", "low"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_mlstm_with_gates_of_any_size(kind: str, dtype: str) -> None:
    T, H = 60, 2
    q, k = np.abs(draw(T, H, 5)), np.abs(draw(T, H, 6)[..., :5])  # no cancelling: the division would amplify it
    log_input, log_decay = gates(kind, T, H)
    x = {"q": q, "k": k, "v": draw(T, H, 7), "log_input": log_input, "log_decay": log_decay}
    x = {n: a.astype(dtype) for n, a in x.items()}
    y, final = wkvnp.mlstm(**x, scale=1.0)
    expected, (C, n, m) = oracle.exponential(**x)
    assert_close(y, expected, SCAN[dtype])
    assert_close(final.C, C, SCAN[dtype])
    assert_close(final.n, n, SCAN[dtype])
    close(final.m, m)
    assert np.abs(y).max() > 1e-30


def test_mlstm_does_not_depend_on_the_scale_of_its_state() -> None:
    x, state = inputs_of("mlstm"), state_of("mlstm")
    shifted = MLSTMState(state.C * np.exp(-2.5), state.n * np.exp(-2.5), state.m + 2.5)
    (y, a), (z, b) = wkvnp.mlstm(**x, state=state), wkvnp.mlstm(**x, state=shifted)
    close(y, z)
    close((a.C.T * np.exp(a.m.T)).T, (b.C.T * np.exp(b.m.T)).T)


def test_mlstm_reads_nothing_as_zero() -> None:
    one = np.ones((2, 1, 2), np.float32)
    for gate in (-1000.0, 1000.0):
        y, state = wkvnp.mlstm(0 * one, one, one, np.full((2, 1), gate, np.float32), np.zeros((2, 1), np.float32))
        np.testing.assert_array_equal(y, 0 * one)
        assert all(np.isfinite(part).all() for part in state)


def test_mlstm_is_a_weighted_mean_where_all_is_positive_and_gates_are_high() -> None:
    x = inputs_of("mlstm")
    x |= {"q": np.abs(x["q"]), "k": np.abs(x["k"]), "log_input": 40 + x["log_input"], "v": np.ones_like(x["v"])}
    close(wkvnp.mlstm(**x)[0], 1)


# Gated slot attention.


def test_gsa_is_softmax_over_what_the_slots_hold() -> None:
    x = inputs_of("gsa", B=1)
    T = x["q"].shape[1]
    total = np.cumsum(x["log_decay"][0], axis=0)
    causal = np.tri(T, dtype=bool)[:, :, None, None]
    weight = np.where(causal, np.exp(total[:, None] - total[None]), 0) * x["s"][0]  # (T, T, H, R): share of token i
    score = np.einsum("thk,ihk,tihr->thr", x["q"][0], x["k"][0], weight) * SIZES["K"] ** -0.5
    share = np.exp(score) / np.exp(score).sum(-1, keepdims=True)
    y, _ = wkvnp.gsa(**x)
    close(y[0], np.einsum("thr,tihr,ihv->thv", share, weight, x["v"][0]))


def test_gsa_survives_scores_of_any_size() -> None:
    x = {n: a.astype(np.float32) for n, a in inputs_of("gsa").items()}
    y, _ = wkvnp.gsa(**x, scale=1e6)
    assert np.isfinite(y).all()


def test_gsa_fills_by_default_what_it_forgets() -> None:
    x = inputs_of("gsa")
    filled = x | {"s": 1 - np.exp(x["log_decay"])}
    same(wkvnp.gsa(**x | {"s": None}), wkvnp.gsa(**filled))
