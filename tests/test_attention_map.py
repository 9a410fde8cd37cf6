"""The implied attention matrix: for every mechanism, A V plus what the state gives is the output."""

from typing import Any

import numpy as np
import pytest
from contracts.doors import Door, by_way, parts

import wkvnp
from wkvnp.errors import ArgumentError, ShapeError


def weighed(A: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Return A V with the time axis second: A (B, T, S), (B, H, T, S), (B, C, T, S) or (B, H, V, T, S)."""
    if v.ndim == 5:  # several writes a token: columns side by side
        v = v.reshape(v.shape[0], -1, *v.shape[3:])
    if A.ndim == 3:
        return np.einsum("bts,bs...->bt...", A, v)
    if A.ndim == v.ndim + 1:
        return np.moveaxis(np.einsum("b...ts,b...s->b...t", A, np.moveaxis(v, 1, -1)), -1, 1)
    if A.shape[1] != v.shape[2]:  # grouped heads
        v = np.repeat(v, A.shape[1] // v.shape[2], axis=2)
    return np.einsum("bhts,bshv->bthv", A, v)


def without_values(door: Door) -> np.ndarray:
    inputs = door.inputs | {door.spec.value: np.zeros_like(door.inputs[door.spec.value])}
    return door(inputs, state=door.state)[0]


@by_way
def test_matrix_times_values_plus_state_is_the_output(way: Any) -> None:
    door = Door(way, "float64")
    y, _ = door(state=door.state)
    A = wkvnp.attention_matrix(door.name, **door.inputs, **door.options, state=door.state)
    again = weighed(A, door.inputs[door.spec.value]) + without_values(door)
    np.testing.assert_allclose(again, y, rtol=0, atol=1e-11 * np.abs(y).max())
    if not door.options.get("reverse"):
        by_write = np.moveaxis(A.reshape(*A.shape[:-1], A.shape[-2], -1), -1, 0)
        assert not np.triu(by_write, 1).any(), "no row sees the future"


@by_way
def test_sequences_without_batch_rows_and_kinds(way: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    door = Door(way, "float64")
    raw = wkvnp.attention_matrix(door.name, **door.inputs, **door.options)
    one = wkvnp.attention_matrix(door.name, **door.one(1), **door.options)
    np.testing.assert_array_equal(one, raw[1])
    monkeypatch.setattr("wkvnp.analysis.attention_map._NUMBERS_AT_ONCE", 1)
    some = wkvnp.attention_matrix(door.name, **door.inputs, **door.options, rows=[2, 7])
    np.testing.assert_allclose(some, raw[..., [2, 7], :], rtol=1e-12, atol=1e-14)
    shares = wkvnp.attention_matrix(door.name, **door.inputs, **{"normalize": True} | door.options)
    if door.name == "linear_attention":  # which has the option itself
        np.testing.assert_array_equal(shares, raw)
    else:
        np.testing.assert_allclose(shares.sum(-1), np.abs(raw).sum(-1) > 0, rtol=1e-12)
        np.testing.assert_allclose(shares * np.abs(raw).sum(-1, keepdims=True), np.abs(raw), rtol=1e-12, atol=1e-14)


def test_wkv_is_an_average() -> None:
    door = Door("rwkv4", "float64")
    A = wkvnp.attention_matrix(wkvnp.rwkv4, **door.inputs)
    assert A.shape == (2, 12, 11, 11) and (A[np.tril(np.ones((2, 12, 11, 11), bool))] > 0).all()
    np.testing.assert_allclose(A.sum(-1), 1, rtol=1e-12)
    assert parts(door.state)


def test_worked_examples_by_hand() -> None:
    q, k = np.array([[1, 0], [0, 1], [1, 1.0]])[:, None], np.array([[1, 1], [2, 0], [0, 1.0]])[:, None]
    v = np.array([[1, -1], [2, 0], [3, 1.0]])[:, None]
    w = np.log([[0.5, 0.25], [0.5, 0.25], [1, 0.5]])[:, None]
    a = np.array([[-1, 0], [-0.6, -0.8], [0, -1]])[:, None]
    b = np.array([[0.5, 0], [0.3, 0.4], [0, 0.25]])[:, None]
    A = wkvnp.attention_matrix("rwkv7", q, w, k, v, a, b)
    np.testing.assert_allclose(A, [[[1, 0, 0], [-0.31, 0, 0], [0.0025, 2, 1]]], atol=1e-15)
    k4, v4 = np.log([[1.0], [2.0], [1.0]]), np.array([[1.0], [2.0], [3.0]])
    A = wkvnp.attention_matrix("rwkv4", [-np.log(2)], k4, v4, [0.0])
    np.testing.assert_allclose(A, [[[1, 0, 0], [1 / 3, 2 / 3, 0], [1 / 7, 4 / 7, 2 / 7]]], atol=1e-15)


def test_bad_input_is_refused() -> None:
    x = Door("token_shift").inputs["x"]
    for arguments, message in [
        (("attention", x), r"attention_matrix: mechanism must be one of .*rwkv4, .*; got 'attention'"),
        (("token_shift", x, x), "attention_matrix: token_shift takes 1 arrays; got 2"),
    ]:
        with pytest.raises(ArgumentError, match=message):
            wkvnp.attention_matrix(*arguments)
    with pytest.raises(ArgumentError, match="cu_seqlens must be None"):
        wkvnp.attention_matrix("token_shift", x[:1], cu_seqlens=[0, 11])
    with pytest.raises(ShapeError, match="token_shift: x must have shape"):
        wkvnp.attention_matrix("token_shift", x[0, 0])
