"""The router of a mixture of experts: what published routers compute, and the statistics of their load."""

import numpy as np
import pytest

from wkvnp.errors import ArgumentError, ShapeError
from wkvnp.primitives.router import expert_load, top_k_gate


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(np.float64(x) - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("normalize", [True, False])
def test_softmax_routers(dtype: str, normalize: bool) -> None:
    logits = (3 * np.random.default_rng(0).standard_normal((2, 40, 7))).astype(dtype)
    kept = logits.copy()
    experts, weights, shares = top_k_gate(logits, 3, normalize=normalize)
    p = softmax(logits)
    for token in np.ndindex(2, 40):
        best = sorted(range(7), key=lambda e: (-logits[token][e], e))[:3]
        assert experts[token].tolist() == best
        wanted = p[token][best] / (p[token][best].sum() if normalize else 1)
        np.testing.assert_allclose(
            weights[token], wanted, rtol={"float16": 1e-3, "float32": 3e-6, "float64": 1e-13}[dtype]
        )
    assert weights.dtype == dtype and experts.dtype == np.int64
    np.testing.assert_allclose(shares, p, rtol=1e-5)
    np.testing.assert_array_equal(logits, kept)


def test_sigmoid_with_a_bias_that_only_chooses() -> None:
    logits = np.random.default_rng(1).standard_normal((50, 6))
    bias = np.array([0, 0, 5, 0, 0, -5.0])
    gate = top_k_gate(logits, 2, scores="sigmoid", bias=bias)
    scores = 1 / (1 + np.exp(-logits))
    assert (gate.experts[:, 0] == 2).all() and not (gate.experts == 5).any()
    chosen = np.take_along_axis(scores, gate.experts, -1)
    np.testing.assert_allclose(gate.weights, chosen / chosen.sum(-1, keepdims=True), rtol=1e-12)
    plain = top_k_gate(logits, 2, scores="sigmoid", normalize=False)
    np.testing.assert_allclose(plain.weights, -np.sort(-scores)[:, :2], rtol=1e-12)


def test_extreme_logits_and_ties() -> None:
    gate = top_k_gate(np.float32([[-300, 500, -302, -np.inf], [1, 1, 1, 1]]), 3)
    assert gate.experts.tolist() == [[1, 0, 2], [0, 1, 2]]
    np.testing.assert_allclose(gate.weights[1], 1 / 3, rtol=1e-6)
    assert np.isfinite(gate.weights).all()
    far = top_k_gate([[0.0, -800, -801, 900]], 2, bias=[0, 9, 9, -9], scores="softmax")
    assert sorted(far.experts[0].tolist()) == [1, 2]
    np.testing.assert_allclose(np.sort(far.weights[0]), softmax(np.array([0.0, -1]))[::-1], rtol=1e-12)
    assert (top_k_gate([[-900.0, -901]], 2, scores="sigmoid").weights >= 0).all()


def test_load() -> None:
    even = expert_load(top_k_gate(10 * np.eye(4), 1))
    assert even.counts.tolist() == [1, 1, 1, 1] and even.idle == 0 and even.overload == 0
    assert even.balance == pytest.approx(1)
    one = expert_load(top_k_gate(np.tile([900.0, 0, 0, 0], (5, 2, 1)), 1))
    assert one.counts.tolist() == [10, 0, 0, 0] and one.idle == 3 and one.overload == 3
    assert one.balance == pytest.approx(4)
    logits = np.random.default_rng(2).standard_normal((1000, 8))
    gate = top_k_gate(logits, 2)
    load = expert_load(gate)
    assert load.counts.sum() == 2000
    assert load.balance == pytest.approx(8 * (load.counts / 2000) @ softmax(logits).mean(0))
    none = expert_load(top_k_gate(np.zeros((0, 4)), 2))
    assert none.counts.tolist() == [0] * 4 and none.idle == 4


def test_bad_arguments_are_refused_by_name() -> None:
    x = np.zeros((3, 4))
    for k in (0, 5, 1.5):
        with pytest.raises(
            ShapeError, match=r"top_k_gate: k must be a whole number from 1 to E of logits \(3, 4\); got"
        ):
            top_k_gate(x, k)
    with pytest.raises(ArgumentError, match="top_k_gate: scores must be 'softmax' or 'sigmoid'; got 'relu'"):
        top_k_gate(x, 1, scores="relu")
    with pytest.raises(ShapeError, match=r"top_k_gate: bias must have shape \(E,\) with E=4 as in logits; got \(3,\)"):
        top_k_gate(x, 1, bias=np.zeros(3))
    with pytest.raises(ArgumentError, match="top_k_gate: logits must not be a masked array"):
        top_k_gate(np.ma.masked_array(x), 1)
