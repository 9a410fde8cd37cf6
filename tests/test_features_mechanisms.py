"""Attention by features: worked examples, identities, traps, and what random features promise."""

import functools
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from contracts.doors import Door, assert_same

import wkvnp
from wkvnp.errors import ArgumentError, ShapeError
from wkvnp.mechanisms import _normalised, favor
from wkvnp.mechanisms.favor import favor_features, favor_matrix, favor_relative_std
from wkvnp.primitives import feature_maps

DRAWS = 40_000
WIDTH = 8


def drawn(*shape: int, size: float = 1.0, seed: int = 0) -> list[np.ndarray]:
    """Return q, k, v of shape (T, H, K), (S, H, K), (S, H, V)."""
    T, S, H, K, V = shape
    rng = np.random.default_rng(seed)
    return [
        size * rng.standard_normal((T, H, K)),
        size * rng.standard_normal((S, H, K)),
        rng.standard_normal((S, H, V)),
    ]


def dense(A: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Average values (S, H, V) with weights (H, T, S)."""
    return np.einsum("hts,shv->thv", A / A.sum(-1, keepdims=True), v)


def softmax_attention(q: np.ndarray, k: np.ndarray, v: np.ndarray, causal: bool = True) -> np.ndarray:
    scores = np.exp(np.einsum("thk,shk->hts", q, k) / np.sqrt(q.shape[-1]))
    return dense(np.tril(scores) if causal else scores, v)


# Feature maps


def test_elu_plus_one_keeps_its_digits_where_expm1_loses_them() -> None:
    x = np.array([-0.5, -17, -20, -50, -80, 0, 2], np.float32)
    np.testing.assert_allclose(feature_maps.elu_plus_one(x)[:5], np.exp(x[:5].astype(np.float64)), rtol=2e-7)
    np.testing.assert_array_equal(feature_maps.elu_plus_one(x)[5:], [1, 3])
    naive = np.expm1(x) + np.float32(1)
    assert abs(naive[1] / np.exp(-17.0) - 1) > 0.4 and not naive[2:5].any()
    y = feature_maps.elu_plus_one(np.array([-100.0, np.inf, 1e300]))
    np.testing.assert_allclose(y, [3.720075976020836e-44, np.inf, 1e300], rtol=1e-15)
    assert np.isnan(feature_maps.elu_plus_one(np.array([np.nan]))).all()


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("d", [1, 2, 7, 16])
def test_taylor_features_are_the_series(d: int, full: bool) -> None:
    q, k = np.random.default_rng(d).standard_normal((2, 50, d))
    s = (q * k).sum(-1) / np.sqrt(d)
    phi_q, phi_k = (feature_maps.taylor(x, full=full) for x in (q, k))
    np.testing.assert_allclose((phi_q * phi_k).sum(-1), 1 + s + s**2 / 2, rtol=1e-12)
    assert phi_q.shape == (50, 1 + d + d * d if full else feature_maps.taylor_width(d))


def test_the_other_maps_by_hand() -> None:
    x = np.array([[1.0, -2.0, 3.0]])
    np.testing.assert_array_equal(feature_maps.relu(x), [[1, 0, 3]])
    np.testing.assert_array_equal(feature_maps.relu_squared(x), [[1, 0, 9]])
    np.testing.assert_allclose(feature_maps.softmax(x + 1000), np.exp(x) / np.exp(x).sum(), rtol=1e-14)
    # relu([x, -x]) = [1, 0, 3, 0, 2, 0]; the neighbour one to the left is [0, 1, 0, 3, 0, 2], two [2, 0, 1, 0, 3, 0].
    np.testing.assert_array_equal(feature_maps.dpfp(x), [[0, 0, 0, 0, 0, 0]])
    np.testing.assert_array_equal(feature_maps.dpfp(x, 2), [[0, 0, 0, 0, 0, 0, 2, 0, 3, 0, 6, 0]])
    W = np.array([[1.0, 1, 0], [0, 0, 2]])
    powers = np.exp(2 * np.array([-1.0, 6, 1, -6]))
    np.testing.assert_allclose(feature_maps.hedgehog(x, W), [powers / powers.sum()], rtol=1e-12)


def test_projection_is_a_product_with_one_matrix_or_one_a_head() -> None:
    rng = np.random.default_rng(0)
    x, W = rng.standard_normal((5, 3, 7)), rng.standard_normal((3, 6, 7))
    np.testing.assert_allclose(feature_maps.project(x, W), np.einsum("thk,hmk->thm", x, W), rtol=1e-12)
    np.testing.assert_allclose(feature_maps.project(x, W[0]), x @ W[0].T, rtol=1e-12, atol=1e-14)
    assert feature_maps.project(x[:0], W).shape == (0, 3, 6)
    assert feature_maps.project(x.astype(np.float32), W).dtype == np.float32


@pytest.mark.parametrize("name", list(feature_maps.FEATURES))
def test_every_map_keeps_the_dtype_and_treats_rows_alone(name: str) -> None:
    x = np.random.default_rng(0).standard_normal((90, 3, 17)).astype(np.float32)
    phi = feature_maps.FEATURES[name](x)
    assert phi.dtype == np.float32
    for part in (slice(0, 1), slice(5, 38), slice(0, 0)):
        np.testing.assert_array_equal(feature_maps.FEATURES[name](x[part]), phi[part])


# Linear attention


def worked_example() -> list[np.ndarray]:
    q = np.array([[0.0, 1], [1, 0], [2, -1]])
    k = np.array([[0.0, 1], [1, 1], [-1, 0]])
    v = np.array([[1.0, -1], [2, 0], [3, 1]])
    return [q[:, None], k[:, None], v[:, None]]


def test_worked_example_of_elu_plus_one() -> None:
    q, k, v = worked_example()
    y, state = wkvnp.linear_attention(q, k, v, eps=0)
    expected = [[1, -1], [1.6, -0.4], [1.810413264527, -0.189586735473]]
    np.testing.assert_allclose(y[:, 0], expected, rtol=0, atol=1e-12)
    sums, _ = wkvnp.linear_attention(q, k, np.ones_like(v), normalize=False)
    np.testing.assert_allclose(sums[:, 0, 0], [5, 10, 11.943035529372], rtol=0, atol=1e-12)
    np.testing.assert_allclose(state.z[0], [3 + np.exp(-1), 5], rtol=1e-15)
    biased, _ = wkvnp.linear_attention(q, k, v, eps=1.0)
    np.testing.assert_allclose(biased[:, 0, 0], [5 / 6, 16 / 11, 1.810413264527 * 11.943035529372 / 12.943035529372])


def test_strongly_negative_inputs_still_average() -> None:
    q, k, v = (x.astype(np.float32) for x in drawn(6, 6, 2, 4, 3))
    y, _ = wkvnp.linear_attention(0 * q - 25, 0 * k - 17, v, eps=0)
    np.testing.assert_allclose(y, v.cumsum(0) / np.arange(1, 7)[:, None, None], rtol=1e-5, atol=1e-6)


def test_where_all_features_are_zero_the_answer_is_zero() -> None:
    q, k, v = drawn(5, 5, 2, 4, 3)
    q[2] = -1
    for dtype in (np.float32, np.float64):
        y, _ = wkvnp.linear_attention(*(x.astype(dtype) for x in (q, k, v)), features="relu")
        assert np.isfinite(y).all() and not y[2].any() and y[4].any()
        y, _ = wkvnp.linear_attention(*(x.astype(dtype) for x in (q, -abs(k), v)), features="relu", causal=False)
        assert not y.any()


MAPS: dict[str, Any] = {
    "elu+1": "elu+1",
    "softmax": "softmax",
    "taylor": "taylor",
    "taylor, full": functools.partial(feature_maps.taylor, full=True),
    "dpfp": "dpfp",
    "dpfp, 3": functools.partial(feature_maps.dpfp, nu=3),
    "hedgehog, a matrix a head": lambda x: feature_maps.hedgehog(x, np.linspace(-1, 1, 60).reshape(2, 6, 5)),
    "a pair": (feature_maps.softmax, np.exp),
}


@pytest.mark.parametrize("name", list(MAPS))
def test_causal_crossing_and_full_are_the_dense_average(name: str) -> None:
    phi = MAPS[name]
    functions = [
        feature_maps.FEATURES[f] if isinstance(f, str) else f for f in (phi if name == "a pair" else (phi, phi))
    ]
    q, k, v = drawn(9, 13, 2, 5, 3)
    weights = np.einsum("thm,shm->hts", functions[0](q), functions[1](k))
    y, state = wkvnp.linear_attention(q, k, v, features=phi, causal=False, eps=0)
    np.testing.assert_allclose(y, dense(weights, v), rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(state.z, functions[1](k).sum(0), rtol=1e-12)
    y, state = wkvnp.linear_attention(q, k[:9], v[:9], features=phi, eps=1e-3)
    A = np.tril(weights[:, :, :9])
    expected = np.einsum("hts,shv->thv", A / (A.sum(-1, keepdims=True) + 1e-3), v[:9])
    np.testing.assert_allclose(y, expected, rtol=1e-11, atol=1e-12)
    y1, carried = wkvnp.linear_attention(q[:4], k[:4], v[:4], features=phi, eps=1e-3)
    y2, final = wkvnp.linear_attention(q[4:], k[4:9], v[4:9], features=phi, eps=1e-3, state=carried)
    assert_same((np.concatenate([y1, y2]), final), (y, state))


@pytest.mark.parametrize("name", ["linear_attention", "based", "performer"])
def test_without_causal_batches_and_packed_sequences_are_single_ones(name: str) -> None:
    door = Door(name, "float64", B=1)
    inputs = door.inputs | {n: np.repeat(a, 2, axis=0) for n, a in door.inputs.items() if n in "qkv"}
    inputs["k"] = np.concatenate([inputs["k"], -inputs["k"][:, :3]], axis=1)  # S = 14 keys, T = 11 queries
    inputs["v"] = np.concatenate([inputs["v"], -inputs["v"][:, :3]], axis=1)
    y, final = door(inputs, causal=False)
    for b in range(2):
        one, state = door(inputs | {n: inputs[n][b] for n in "qkv"}, causal=False)
        np.testing.assert_allclose(one, y[b], rtol=1e-13)
        for part, whole in zip(state, final, strict=True):
            np.testing.assert_allclose(part, whole[b], rtol=1e-13, atol=1e-13)
    packed, _ = door(cu_seqlens=[0, 4, 4, 11], causal=False, reverse=True)
    for begin, end in ((0, 4), (4, 11)):
        alone, _ = door(door.cut(slice(None), slice(begin, end)), causal=False)
        np.testing.assert_allclose(packed[:, begin:end], alone, rtol=1e-12)
    _, causal = door()
    _, crossing = door(causal=False)
    for part, whole in zip(causal, crossing, strict=True):
        np.testing.assert_allclose(part, whole, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["linear_attention", "based", "performer"])
def test_without_causal_the_matrix_is_full(name: str) -> None:
    door = Door(name, "float64")
    A = wkvnp.attention_matrix(name, **door.inputs, causal=False)
    np.testing.assert_allclose(A.sum(-1), 1, rtol=1e-5)
    y, _ = door(causal=False)
    np.testing.assert_allclose(np.einsum("bhts,bshv->bthv", A, door.inputs["v"]), y, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", ["linear_attention", "based", "performer"])
def test_pieces_of_time_change_no_bit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    door = Door(name)
    whole, all_at_once = door(state=door.state), door(causal=False)
    alone = Door(name, B=1)
    ragged = alone(cu_seqlens=[0, 0, 4, 4, 11, 11])
    for at_once in (1, 100, 300):
        monkeypatch.setattr(_normalised, "FEATURES_AT_ONCE", at_once)
        assert_same(door(state=door.state), whole)
        assert_same(alone(cu_seqlens=[0, 0, 4, 4, 11, 11]), ragged)
        np.testing.assert_allclose(door(causal=False)[0], all_at_once[0], rtol=1e-4, atol=1e-5)


def test_based_is_linear_attention_with_taylor_features() -> None:
    q, k, v = drawn(9, 9, 2, 5, 3)
    y, state = wkvnp.based(q, k, v)
    s = np.einsum("thk,shk->hts", q, k) / np.sqrt(5)
    np.testing.assert_allclose(y, dense(np.tril(1 + s + s**2 / 2), v), rtol=1e-11, atol=1e-12)
    full, wide = wkvnp.based(q, k, v, full=True)
    np.testing.assert_allclose(full, y, rtol=1e-11, atol=1e-12)
    assert state.S.shape == (2, 21, 3) and wide.S.shape == (2, 31, 3)
    with pytest.raises(
        ShapeError, match=r"based: state.S must have shape \(B, H, M, V\) with M=21 as in features; got"
    ):
        wkvnp.based(q, k, v, state=wide)


def test_bad_options_are_refused() -> None:
    q, k, v = drawn(4, 4, 2, 5, 3)
    _, state = wkvnp.linear_attention(q, k, v)
    for named, message in [
        ({"features": "exp"}, "features must be 'elu.1', .*, None or a function; got 'exp'"),
        ({"features": lambda x: x[..., 0]}, r"features must keep all axes but the last of \(0, 2, 5\); got \(0, 2\)"),
        ({"features": ("relu", "dpfp")}, "features must give q and k the same width; got 5 and 10"),
        ({"eps": -1e-9}, "eps must not be negative; got -1e-09"),
        ({"causal": False, "state": state}, "state must be None with causal=False"),
        (
            {"features": "dpfp", "state": state},
            r"state.S must have shape .* with M=10 as in features; got \(1, 2, 5, 3\)",
        ),
    ]:
        with pytest.raises(ArgumentError, match=f"linear_attention: {message}"):
            wkvnp.linear_attention(q, k, v, **named)
    crossing = functools.partial(wkvnp.linear_attention, causal=False)
    with pytest.raises(ShapeError, match=r"linear_attention: k must have shape \(B, S, H, K\) as q has a batch axis"):
        crossing(np.stack([q, q]), k, v)
    with pytest.raises(ShapeError, match=r"linear_attention: v must have shape \(B, S, H, V\) with S=4 as in k; got"):
        crossing(q[None], k[None], v[None, :3])
    with pytest.raises(
        ShapeError, match=r"linear_attention: k must have shape \(1, T, H, K\) with T=3 as in q, because"
    ):
        crossing(q[None, :3], k[None], v[None], cu_seqlens=[0, 1, 3])
    with pytest.raises(ShapeError, match=r"linear_attention: k must have shape \(B, T, H, K\) with T=3 as in q; got"):
        wkvnp.linear_attention(q[:3], k, v)


# Performer


def test_worked_example_of_positive_features() -> None:
    W = [[1.0], [-1.0]]
    pairs = {(0, 0): 1, (0, 0.5): 0.995126421569, (0.5, 1): 1.259154131117, (1, 1): 1.384034448413}
    for (x, y), expected in pairs.items():
        phi, psi = favor_features([[float(x)], [float(y)]], W)
        np.testing.assert_allclose(phi @ psi, expected, rtol=0, atol=1e-12)
        np.testing.assert_allclose(phi @ psi, np.exp(-(x * x + y * y) / 2) * np.cosh(x + y), rtol=1e-14)


def pairs_of_vectors() -> np.ndarray:
    """Return 5 queries and keys (2, 5, WIDTH): small, so that an estimate is known to a percent after all draws."""
    return 0.8 * np.random.default_rng(5).standard_normal((2, 5, WIDTH))


def estimates(W: np.ndarray, q: np.ndarray, k: np.ndarray) -> np.ndarray:
    """Return exp(q . k / sqrt(d)) as estimated by every group of features W (draws, m, d): (draws, pairs)."""
    flat = W.reshape(-1, W.shape[-1])
    products = favor_features(q, flat) * favor_features(k, flat) * len(flat)
    return products.reshape(len(q), *W.shape[:2]).mean(-1).T


def matrices(kind: str, seed: int) -> np.ndarray:
    """Return independent draws of one block of directions: (draws, WIDTH, WIDTH)."""
    W = favor_matrix(DRAWS * WIDTH, WIDTH, seed, kind=kind)
    if kind == "hyperbolic":  # the negatives stand behind all of the directions
        return np.concatenate([half.reshape(DRAWS // 2, WIDTH, WIDTH) for half in np.split(W, 2)], axis=1)
    return W.reshape(DRAWS, WIDTH, WIDTH)


def z_scores(kind: str) -> np.ndarray:
    q, k = pairs_of_vectors()
    found = estimates(matrices(kind, 1), q, k)
    exact = np.exp((q * k).sum(-1) / np.sqrt(WIDTH))
    return (found.mean(0) - exact) / (found.std(0) / np.sqrt(len(found)))


@pytest.mark.parametrize("kind", ["orthogonal", "iid", "hyperbolic"])
def test_estimates_are_right_on_average(kind: str) -> None:
    assert np.abs(z_scores(kind)).max() < 4


def test_the_average_tells_wrong_signs_and_constant_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    assert z_scores("regularised").min() < -10
    qr = np.linalg.qr
    monkeypatch.setattr(favor.np.linalg, "qr", lambda a: (qr(a)[0], np.broadcast_to(np.eye(WIDTH), a.shape)))
    assert np.abs(z_scores("orthogonal")).max() > 10


@pytest.mark.parametrize("kind", ["orthogonal", "regularised"])
def test_blocks_are_orthogonal_and_uniformly_turned(kind: str) -> None:
    W = matrices(kind, 2)
    lengths = np.linalg.norm(W, axis=-1)
    Q = W / lengths[..., None]
    np.testing.assert_allclose(
        Q[:100] @ Q[:100].swapaxes(1, 2), np.broadcast_to(np.eye(WIDTH), (100, 8, 8)), atol=1e-12
    )
    # Of a uniformly distributed orthogonal matrix an entry has mean 0 and variance 1 / d: this is five deviations.
    assert np.abs(Q.mean(0)).max() < 5 / np.sqrt(WIDTH * DRAWS)
    if kind == "regularised":
        np.testing.assert_allclose(lengths, np.sqrt(WIDTH), rtol=1e-12)
    else:
        assert abs((lengths**2).mean() / WIDTH - 1) < 0.005 and abs((lengths**2).var() / (2 * WIDTH) - 1) < 0.02


def test_matrices_of_any_size_from_a_seed() -> None:
    W = favor_matrix(11, 4, 3, dtype="float32")
    assert W.shape == (11, 4) and W.dtype == np.float32
    np.testing.assert_array_equal(W, favor_matrix(11, 4, np.random.default_rng(3)).astype(np.float32))
    H = favor_matrix(6, 4, 3, kind="hyperbolic")
    np.testing.assert_array_equal(H[:3], -H[3:])
    for arguments, message in [
        ((4, 2, None), "rng must be a whole number from 0 or a numpy.random.Generator; got None"),
        ((0, 2, 0), "m and d must be positive"),
        ((3, 2, 0, "hyperbolic"), "m even if hyperbolic; got m=3, d=2"),
        ((4, 2, 0, "sobol"), "kind must be one of 'orthogonal', .*; got 'sobol'"),
    ]:
        with pytest.raises(ArgumentError, match=f"favor_matrix: .*{message}"):
            favor_matrix(*arguments[:3], **({"kind": arguments[3]} if len(arguments) > 3 else {}))
    with pytest.raises(ShapeError, match=r"favor_features: x and W must have shape \(\.\.\., K\) and \(M, K\); got"):
        favor_features(np.zeros((2, 3)), np.zeros((4, 2)))


def test_the_error_falls_as_the_root_of_the_features() -> None:
    q, k = 0.5 * pairs_of_vectors()  # larger ones have such heavy tails that 2,000 draws do not tell their deviation
    exact = np.exp((q * k).sum(-1) / np.sqrt(WIDTH))
    for m in (32, 128, 512):
        W = favor_matrix(2000 * m, WIDTH, m, kind="iid").reshape(2000, m, WIDTH)
        relative = (estimates(W, q, k) / exact).std(0)
        np.testing.assert_allclose(relative, favor_relative_std(q, k, m), rtol=0.12)


def test_relative_std_of_large_vectors() -> None:
    q, k = np.random.default_rng(0).standard_normal((2, 100, 64)).astype(np.float32)
    std = favor_relative_std(q, k, 4096)
    assert std.shape == (100,) and std.dtype == np.float64 and 10 < np.median(std) < 1000
    assert np.isinf(favor_relative_std(1000 * q[0], k[0], 4096))
    assert favor_relative_std(np.zeros(4), np.zeros(4), 1) == 0


def test_causal_running_maximum_is_the_global_constant() -> None:
    q, k, v = drawn(200, 200, 3, 6, 4, size=1.5)
    k *= np.linspace(0.1, 4, 200)[:, None, None]  # so that the maximum keeps rising
    W = favor_matrix(24, 6, 1)
    exponents = feature_maps.favor_exponents(k, W)
    rises = np.diff(np.maximum.accumulate(exponents.max(-1), axis=0), axis=0) > 0
    assert (rises.sum(0) > 5).all()
    features = np.exp(exponents - exponents.max((0, 2), keepdims=True))
    scaled = np.exp(feature_maps.favor_exponents(q, W) - 3)
    A = np.tril(np.einsum("thm,shm->hts", scaled, features))
    y, state = wkvnp.performer(q, k, v, W)
    np.testing.assert_allclose(y, dense(A, v), rtol=0, atol=1e-12 * np.abs(v).max())
    np.testing.assert_array_equal(state.M, exponents.max((0, 2)))
    np.testing.assert_allclose(state.z, features.sum(0), rtol=1e-12)
    _, crossing = wkvnp.performer(q, k, v, W, causal=False)
    for part, whole in zip(crossing, state, strict=True):
        np.testing.assert_allclose(part, whole, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_cuts_are_exact_while_the_maximum_rises_and_nothing_overflows(dtype: str) -> None:
    q, k, v = (x.astype(dtype) for x in drawn(60, 60, 2, 16, 3, size=12.0))
    W = favor_matrix(32, 16, 1, dtype=dtype)
    whole = wkvnp.performer(q, k, v, W)
    assert np.isfinite(whole[0]).all() and np.abs(feature_maps.favor_exponents(k, W)).max() > 200
    for t in range(0, 61, 6):
        y1, carried = wkvnp.performer(q[:t], k[:t], v[:t], W)
        y2, final = wkvnp.performer(q[t:], k[t:], v[t:], W, state=carried)
        assert_same((np.concatenate([y1, y2]), final), whole)


def test_float32_agrees_with_float64_over_a_long_text() -> None:
    q, k, v = (x.astype(np.float32) for x in drawn(2000, 2000, 2, 32, 16, size=0.6))
    W = favor_matrix(64, 32, 1, dtype="float32")
    y, _ = wkvnp.performer(q, k, v, W)
    exact, _ = wkvnp.performer(*(x.astype(np.float64) for x in (q, k, v, W)))
    assert np.sqrt(((y - exact) ** 2).mean() / (exact**2).mean()) < 5e-6


def test_with_many_features_it_is_softmax_attention() -> None:
    q, k, v = drawn(40, 40, 2, 8, 4, size=0.5)
    exact = softmax_attention(q, k, v)
    size = np.linalg.norm(exact)
    few, many = (
        np.mean([np.linalg.norm(wkvnp.performer(q, k, v, favor_matrix(m, 8, i))[0] - exact) for i in range(20)])
        for m in (1024, 16384)  # with fewer, a quotient of two estimates is off by less than its parts promise
    )
    typical = np.sqrt((favor_relative_std(q[:, None], k, 16384) ** 2).mean())  # of one weight
    assert many / size < typical < 0.02 and few / many == pytest.approx(4, rel=0.15)
    crossing, _ = wkvnp.performer(q[:9], k, v, favor_matrix(16384, 8, 1), causal=False)
    full = softmax_attention(q[:9], k, v, causal=False)
    assert np.linalg.norm(crossing - full) < 2 * typical * np.linalg.norm(full)


def test_every_head_may_have_directions_of_its_own() -> None:
    q, k, v = drawn(7, 7, 3, 4, 2)
    W = np.stack([favor_matrix(6, 4, seed) for seed in range(3)])
    y, state = wkvnp.performer(q, k, v, W)
    for h in range(3):
        alone, final = wkvnp.performer(q[:, [h]], k[:, [h]], v[:, [h]], W[h])
        assert_same((y[:, [h]], type(state)(*(part[[h]] for part in state))), (alone, final))


def test_shifting_all_keys_by_their_norm_changes_nothing() -> None:
    """The weights depend on queries only through their products: the term of the query's own norm cancels."""
    q, k, v = drawn(7, 7, 1, 4, 2)
    W = favor_matrix(16, 4, 0)
    y, _ = wkvnp.performer(q, k, v, W)
    A = np.tril(np.einsum("thm,shm->hts", favor_features(q, W), favor_features(k, W)))
    np.testing.assert_allclose(y, dense(A, v), rtol=1e-12, atol=1e-13)


def test_the_page_says_what_the_script_prints(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = Path(__file__).resolve().parents[1]
    script: dict[str, Any] = runpy.run_path(str(root / "benchmarks" / "performer_error.py"))
    monkeypatch.setitem(script["outputs"].__globals__, "SIZES", (0.25,))
    script["outputs"]()
    printed = capsys.readouterr().out.splitlines()[-1]
    page = (root / "docs" / "mechanisms" / "performer.md").read_text(encoding="utf-8")
    row = next(line for line in page.splitlines() if line.startswith("| 0.25 |"))
    ours, theirs = ([float(cell) for cell in line.strip("|").split("|")] for line in (printed, row))
    np.testing.assert_allclose(ours, theirs, rtol=0.05)  # two digits are printed


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("size", [1e6, 1e19, 1e30, 1e37])
def test_features_whose_products_are_infinite_give_the_mean_of_the_values(size: float, causal: bool) -> None:
    rng = np.random.default_rng(0)
    q, k = (size * rng.uniform(0, 1, (1, 5, 2, 3)).astype(np.float32) for _ in range(2))
    v = rng.standard_normal((1, 5, 2, 4)).astype(np.float32)
    y, state = wkvnp.linear_attention(q, k, v, causal=causal)
    exact, _ = wkvnp.linear_attention(*map(np.float64, (q, k, v)), causal=causal)
    assert np.abs(y - exact).max() <= 1e-6
    assert np.isfinite(state.S).all()


def test_scaling_large_queries_changes_no_bit_elsewhere() -> None:
    rng = np.random.default_rng(0)
    q, k, v = (rng.uniform(0, 1, (1, 6, 2, 3)).astype(np.float32) for _ in range(3))
    usual = wkvnp.linear_attention(q, k, v, features="relu", eps=1e-3)[0]
    large = wkvnp.linear_attention(q * np.float32(2**40), k, v, features="relu", eps=1e-3 * 2**40)[0]
    np.testing.assert_array_equal(large, usual)
    mixed = np.concatenate([q[:, :3], q[:, 3:] * np.float32(2**40)], axis=1)
    np.testing.assert_array_equal(wkvnp.linear_attention(mixed, k, v, features="relu", eps=0)[0][:, :3],
                                  wkvnp.linear_attention(q, k, v, features="relu", eps=0)[0][:, :3])  # fmt: skip
    plain = wkvnp.linear_attention(q * np.float32(2**40), k, v, normalize=False, features="relu")[0]
    np.testing.assert_array_equal(plain, wkvnp.linear_attention(q, k, v, normalize=False, features="relu")[0] * 2**40)


@pytest.mark.parametrize("name", ["linear_attention", "based"])
def test_sums_that_are_infinite_are_refused(name: str) -> None:
    x = np.full((1, 4, 2, 3), 2e38, np.float32)
    with pytest.raises(ShapeError, match=f"{name}: k must be so small that its features, their sums .* divide k by"):
        getattr(wkvnp, name)(np.ones_like(x), x, x)
    y, _ = getattr(wkvnp, name)(np.ones_like(x), np.ones_like(x), np.full_like(x, np.nan))
    assert np.isnan(y).all()
