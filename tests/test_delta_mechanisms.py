"""The delta-rule family: worked examples by hand, what the mechanisms are of one another, and what keys may be."""

from typing import Any

import numpy as np
import pytest
from contracts.doors import Door, assert_same

import wkvnp
from wkvnp.errors import ShapeError
from wkvnp.kernels.delta import delta_rule, dplr
from wkvnp.kernels.linear import oracle as linear_oracle

Arrays = dict[str, np.ndarray]

# One head, T = 3.
Q = np.array([[1, 0], [0, 1], [1, 1.0]])[:, None]
K = np.array([[1, 1], [2, 0], [0, 1.0]])[:, None]
V = np.array([[1, -1], [2, 0], [3, 1.0]])[:, None]
UNIT = np.array([[1, 0], [0.6, 0.8], [0, 1.0]])[:, None]
BETA = np.array([1, 0.5, 0.5])[:, None]
W = np.array([[0.5, 0.25], [0.5, 0.25], [1, 0.5]])[:, None]
A = np.array([[-1, 0], [-0.6, -0.8], [0, -1]])[:, None]
B = np.array([[0.5, 0], [0.3, 0.4], [0, 0.25]])[:, None]
PLAIN: Any = {"qk_l2norm": False, "scale": 1}


def close(actual: np.ndarray, wanted: Any, error: float = 1e-12) -> None:
    wanted = np.asarray(wanted)
    assert actual.shape == wanted.shape
    assert np.abs(actual - wanted).max(initial=0) <= error * max(1, np.abs(wanted).max(initial=0))


def drawn(name: str, T: int = 37, **sizes: int) -> Arrays:
    return Door(name, "float64", T=T, **sizes).inputs


# Worked examples


def test_diagonal_plus_low_rank_by_hand() -> None:
    y, state = wkvnp.rwkv7(Q, np.log(W), K, V, A, B)
    close(y[:, 0], [[1, -1], [-0.31, 0.31], [7.0025, 0.9975]], 1e-15)
    close(state[0], [[4.08, -0.08], [2.9225, 1.0775]], 1e-15)
    y, _ = wkvnp.rwkv7(Q, np.log(W), K, V, A, B, state=np.diag([1.0, 2.0])[None])
    close(y[:, 0], [[1, -1], [-0.31, 0.275], [7.0025, 0.86875]], 1e-15)
    close(
        wkvnp.attention_matrix("rwkv7", Q, np.log(W), K, V, A, B)[0], [[1, 0, 0], [-0.31, 0, 0], [0.0025, 2, 1]], 1e-15
    )
    R, _ = wkvnp.rwkv7(Q, np.log(W), K, 0 * V, A, B, state=np.eye(2)[None])
    close(R[:, 0], [[0, 0], [0, -0.0175], [0, -0.064375]], 1e-15)


def test_deltanet_by_hand() -> None:
    y, state = wkvnp.deltanet(Q, UNIT, V, BETA, **PLAIN)
    close(y[:, 0], [[1, -1], [0.56, 0.24], [3.2, -0.2]], 1e-15)
    close(state[0], [[1.42, -0.82], [1.78, 0.62]], 1e-15)
    matrix = wkvnp.attention_matrix("deltanet", Q, UNIT, V, BETA, **PLAIN)
    close(matrix[0], [[1, 0, 0], [-0.24, 0.4, 0], [0.7, 0.5, 0.5]], 1e-15)


def test_gated_deltanet_by_hand() -> None:
    y, state = wkvnp.gated_deltanet(Q, UNIT, V, BETA, np.log([[0.5], [0.5], [1]]), **PLAIN)
    close(y[:, 0], [[1, -1], [0.68, 0.12], [2.85, 0.15]], 1e-15)
    close(state[0], [[1.01, -0.41], [1.84, 0.56]], 1e-15)


# What they are of one another


def test_delta_rule_is_diagonal_plus_low_rank() -> None:
    x = drawn("kda", G=6)
    rows = {n: a[0] for n, a in x.items()}
    offsets, state = np.array([0, 12, 37]), Door("kda", "float64", G=6).state
    q, g, k, v, beta = (rows[n] for n in ("q", "log_decay", "k", "v", "beta"))
    key = beta[..., None] * k
    y, final = dplr(q, g, key, v, np.exp(g) * k, -key, state, offsets)
    again = delta_rule(q, g, k, v, beta, state, offsets)
    close(again[0], y)
    close(again[1], final)
    # ... and with a decay a head, as the front door of RWKV-7 says it.
    x = drawn("gated_deltanet", G=6)
    g = np.broadcast_to(x["log_decay"][..., None], x["k"].shape)
    key = x["beta"][..., None] * x["k"]
    y, final = wkvnp.rwkv7(x["q"], g, key, x["v"], np.exp(g) * x["k"], -key)
    again = wkvnp.gated_deltanet(**x, **PLAIN)
    close(again[0], y)
    close(again[1], final)


def test_without_low_rank_it_is_the_gated_linear_recurrence() -> None:
    x = drawn("rwkv7")
    zero = 0 * x["a"]
    y, state = wkvnp.rwkv7(**x | {"a": zero, "b": zero})
    for n in range(2):
        wanted = linear_oracle.linear(x["r"][n], x["log_decay"][n], x["k"][n], x["v"][n])
        close(y[n], wanted[0])
        close(state[n], wanted[1])


def test_kda_with_one_decay_a_head_is_gated_deltanet() -> None:
    x = drawn("gated_deltanet")
    spread = np.repeat(x["log_decay"][..., None], 5, axis=-1)
    assert_same(wkvnp.kda(**x | {"log_decay": spread}), wkvnp.gated_deltanet(**x))


def test_gated_deltanet_without_decay_is_deltanet() -> None:
    x = drawn("deltanet")
    assert_same(wkvnp.gated_deltanet(**x, log_decay=np.zeros((2, 37, 6))), wkvnp.deltanet(**x))


def test_deltaproduct_of_one_step_is_gated_deltanet() -> None:
    x = drawn("gated_deltanet")
    one = {n: x[n][:, :, None] for n in ("k", "v", "beta")}
    assert_same(wkvnp.deltaproduct(**x | one), wkvnp.gated_deltanet(**x))
    del x["log_decay"]
    assert_same(wkvnp.deltaproduct(**x | one), wkvnp.deltanet(**x))


def test_deltaproduct_is_gated_deltanet_on_a_finer_time_axis() -> None:
    x, R = drawn("deltaproduct", R=3), 3
    flat = {n: x[n].reshape(2, 37 * R, *x[n].shape[3:]) for n in ("k", "v", "beta")}
    decay = np.zeros((2, 37, R, 6))
    decay[:, :, 0] = x["log_decay"]
    q = np.repeat(x["q"], R, axis=1)
    y, state = wkvnp.gated_deltanet(q=q, **flat, log_decay=decay.reshape(2, 37 * R, 6))
    assert_same(wkvnp.deltaproduct(**x), (y[:, R - 1 :: R], state))


def test_heads_that_share_a_query_and_a_key_are_heads_with_equal_ones() -> None:
    for name in ("deltanet", "gated_deltanet", "kda", "deltaproduct"):
        x = drawn(name)
        spread = {n: np.repeat(x[n], 2, axis=-2) for n in ("q", "k")}
        assert_same(getattr(wkvnp, name)(**x), getattr(wkvnp, name)(**x | spread))


def test_bad_groups_and_steps_are_refused() -> None:
    x = drawn("deltanet")
    for heads in (0, 4):
        odd = {n: np.resize(x[n], (2, 37, heads, 5)) for n in ("q", "k")}
        with pytest.raises(ShapeError, match=f"deltanet: G={heads} of q must divide H=6 of v"):
            wkvnp.deltanet(**x | odd)
    x = drawn("deltaproduct", R=0)
    with pytest.raises(ShapeError, match=r"deltaproduct: k must have .* \(axis R\); got \(2, 37, 0, 3, 5\)"):
        wkvnp.deltaproduct(**x)


# Dense, chunked and split forms


def dense(q: np.ndarray, g: np.ndarray, k: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row by row, backwards from the query: the matrix (T, T), and the rows R (T, K) that meet the first state."""
    T, width = q.shape
    matrix, rows = np.zeros((T, T)), np.zeros((T, width))
    for t in range(T):
        r = q[t]
        for i in range(t, -1, -1):
            matrix[t, i] = r @ k[i]
            r = r * np.exp(g[i]) + (r @ b[i]) * a[i]
        rows[t] = r
    return matrix, rows


def test_dense_rows_times_values_plus_state() -> None:
    door = Door("kda", "float64", T=37, G=6)
    x, (h, n) = door.inputs, (4, 1)
    y, _ = wkvnp.kda(**x, state=door.state, **PLAIN)
    q, k, g = (x[name][n, :, h] for name in ("q", "k", "log_decay"))
    key = x["beta"][n, :, h, None] * k
    matrix, rows = dense(q, g, key, np.exp(g) * k, -key)
    close(matrix @ x["v"][n, :, h] + rows @ door.state[n, h], y[n, :, h])
    close(wkvnp.attention_matrix("kda", **x, state=door.state, **PLAIN)[n, h], matrix)
    x = Door("rwkv7", "float64", T=37).inputs
    matrix, _ = dense(*(x[name][n, :, h] for name in ("r", "log_decay", "k", "a", "b")))
    close(wkvnp.attention_matrix("rwkv7", **x)[n, h], matrix)


def chunked(q: Any, k: Any, v: Any, beta: Any, g: Any, S: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """One head by matrix products over chunks: W solves for what every key has yet to write."""
    rows = []
    for begin in range(0, len(q), size):
        cut = slice(begin, begin + size)
        G = np.cumsum(g[cut])
        factor = np.tril(np.exp(np.minimum(G[:, None] - G, 0)))
        lower = np.tril(factor * (k[cut] @ (beta[cut, None] * k[cut]).T), -1)
        written = v[cut] - np.exp(G)[:, None] * (k[cut] @ S)
        W = np.linalg.solve(np.eye(len(G)) + lower, written)
        key = beta[cut, None] * k[cut]
        rows.append(np.exp(G)[:, None] * (q[cut] @ S) + (factor * (q[cut] @ key.T)) @ W)
        S = np.exp(G[-1]) * S + (key * np.exp(G[-1] - G)[:, None]).T @ W
    return np.concatenate(rows), S


def test_a_second_witness_by_chunks_that_do_not_divide_the_text() -> None:
    door = Door("gated_deltanet", "float64", T=67, G=6)
    x = door.inputs
    y, final = wkvnp.gated_deltanet(**x, state=door.state, **PLAIN)
    for size in (16, 67):
        one = (x[n][0, :, 2] for n in ("q", "k", "v", "beta", "log_decay"))
        rows, S = chunked(*one, door.state[0, 2], size)
        close(rows, y[0, :, 2])
        close(S, final[0, 2])


def test_zeros_beside_the_values_and_a_unit_state_carry_a_segment_to_any_start() -> None:
    door = Door("kda", "float64", T=37, G=6)
    x, start = door.inputs, door.state
    wide = np.concatenate([x["v"], np.zeros((2, 37, 6, 5))], axis=-1)
    unit = np.concatenate([np.zeros((2, 6, 5, 7)), np.broadcast_to(np.eye(5), (2, 6, 5, 5))], axis=-1)
    y, summary = wkvnp.kda(**x | {"v": wide}, state=unit)
    rows, M = y[..., 7:], summary[..., 7:]
    wanted, final = wkvnp.kda(**x, state=start)
    close(y[..., :7] + np.einsum("bthk,bhkv->bthv", rows, start), wanted)
    close(M @ start + summary[..., :7], final)


# What the state may hold


def test_a_length_is_the_root_of_the_squares_plus_a_millionth() -> None:
    x = drawn("deltanet") | {"k": 1e-3 * drawn("deltanet")["k"]}
    q, k = (x[n] / np.sqrt((x[n] ** 2).sum(-1, keepdims=True) + 1e-6) for n in ("q", "k"))
    assert 0.6 < np.linalg.norm(k, axis=-1).max() < 0.7  # 0.9e-3 long before, and not 1 now
    y, state = wkvnp.deltanet(**x)
    again = wkvnp.deltanet(**x | {"q": q, "k": k}, qk_l2norm=False)
    close(again[0], y)
    close(again[1], state)
    y, state = wkvnp.deltanet(**x | {"k": 0 * x["k"]})
    assert not y.any() and not state.any()


def test_scale_is_one_over_the_root_of_the_key_width_unless_given() -> None:
    x = drawn("deltanet")
    close(wkvnp.deltanet(**x)[0], wkvnp.deltanet(**x, scale=1)[0] / np.sqrt(5))


def test_strength_two_is_a_reflection() -> None:
    x = drawn("deltanet", T=2, G=6)
    x |= {"k": np.repeat(x["k"][:, :1], 2, axis=1), "v": 0 * x["v"], "beta": np.full((2, 2, 6), 2.0)}
    state = Door("deltanet", "float64").state
    x["k"] /= np.linalg.norm(x["k"], axis=-1, keepdims=True)
    _, once = wkvnp.deltanet(**{n: a[:, :1] for n, a in x.items()}, state=state, **PLAIN)
    close(np.linalg.norm(once, axis=-2), np.linalg.norm(state, axis=-2))
    assert np.abs(once - state).max() > 0.1
    close(wkvnp.deltanet(**x, state=state, **PLAIN)[1], state)


def lengths(square: float, T: int, dtype: str = "float64") -> tuple[np.ndarray, np.ndarray]:
    """Return y and the state after keys of random directions whose squared length is `square`."""
    rng = np.random.default_rng(0)
    k, q = rng.standard_normal((2, T, 1, 16))
    k *= np.sqrt(square) / np.linalg.norm(k, axis=-1, keepdims=True)
    arrays = (a.astype(dtype) for a in (q, k, rng.standard_normal((T, 1, 16)), np.ones((T, 1))))
    return wkvnp.deltanet(*arrays, qk_l2norm=False)


def test_long_keys_let_the_state_grow_and_nothing_is_clipped() -> None:
    norms = [float(np.linalg.norm(lengths(square, 400)[1])) for square in (1.0, 1.69, 2.02, 2.56)]
    assert norms[0] < norms[1] < 40 and norms[1] < norms[2] < 300 and 1e6 < norms[3] < 1e9
    y, state = lengths(4.0, 2000, "float32")
    assert not np.isfinite(state).any() and not np.isfinite(y[-1]).any()
    assert np.isfinite(y[:20]).all()


def test_an_infinite_log_decay_starts_anew() -> None:
    for dtype in ("float32", "float64"):
        door = Door("gated_deltanet", dtype)
        x = door.inputs | {"log_decay": door.inputs["log_decay"].copy()}
        x["log_decay"][:, 4] = -np.inf
        y, final = wkvnp.gated_deltanet(**x, state=door.state)
        assert_same(wkvnp.gated_deltanet(**{n: a[:, 4:] for n, a in x.items()}), (y[:, 4:], final))


def test_a_padded_token_is_one_that_neither_writes_nor_decays() -> None:
    door = Door("kda", "float64")
    x = {n: a.copy() for n, a in door.inputs.items()}
    for name in ("k", "log_decay"):
        x[name][:, 6] = 0
    y, final = wkvnp.kda(**x, state=door.state)
    rest = {n: np.delete(a, 6, axis=1) for n, a in x.items()}
    assert_same(wkvnp.kda(**rest, state=door.state), (np.delete(y, 6, axis=1), final))


@pytest.mark.parametrize("name", ["deltanet", "gated_deltanet", "kda", "deltaproduct"])
def test_linear_in_the_values_and_causal(name: str) -> None:
    x = drawn(name)
    door = getattr(wkvnp, name)
    other = np.random.default_rng(1).standard_normal(x["v"].shape)
    (y1, s1), (y2, s2) = door(**x), door(**x | {"v": other})
    y, state = door(**x | {"v": 2 * x["v"] - 3 * other})
    close(y, 2 * y1 - 3 * y2)
    close(state, 2 * s1 - 3 * s2)
    changed = {n: a.copy() for n, a in x.items()}
    for a in changed.values():
        a[:, 20] *= 0.5
    np.testing.assert_array_equal(door(**changed)[0][:, :20], y1[:, :20])
    assert (door(**changed)[0][:, 20] != y1[:, 20]).any()
