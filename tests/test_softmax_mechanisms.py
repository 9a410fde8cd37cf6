"""Softmax attention and its relatives: examples by hand, dense matrices, patterns, the growing state."""

import copy
import pickle
import threading
from typing import Any

import numpy as np
import pytest
from contracts.tolerance import SCAN, assert_close

import wkvnp
from wkvnp.errors import ArgumentError, ShapeError
from wkvnp.kernels.softmax import KVCache, softmax
from wkvnp.mechanisms.random_blocks import draw_random_blocks

Q3 = np.array([[1, 0], [0, 1], [1, 1.0]])[:, None]
K3 = np.array([[1, 1], [2, 0], [0, 1.0]])[:, None]
V3 = np.array([[1, -1], [2, 0], [3, 1.0]])[:, None]


def drawn(T: int, dtype: str = "float64", seed: int = 0, H: int = 6, G: int = 2, K: int = 5, V: int = 7) -> Any:
    rng = np.random.default_rng(seed)
    shapes = ((T, H, K), (T, G, K), (T, G, V))
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def dense(q: Any, k: Any, v: Any, *, shown: Any = None, cap: Any = None, bias: Any = 0, sinks: Any = None) -> Any:
    """Return y and the whole matrix P (H, T, S), in float64; `bias` is added to the scores and `shown` masks them."""
    q, k, v = (np.float64(x) for x in (q, k, v))
    (T, H, K), (S, G, _) = q.shape, k.shape
    k, v = (np.repeat(x, H // G, axis=1) for x in (k, v))
    s = np.einsum("thk,shk->hts", q, k) / np.sqrt(K)
    s = (s if cap is None else cap * np.tanh(s / cap)) + bias
    i, j = np.arange(T)[:, None] + S - T, np.arange(S)
    s = np.where((j <= i) if shown is None else shown(i, j), s, -np.inf)
    top = np.maximum(s.max(-1, keepdims=True), -1e300 if sinks is None else sinks[:, None, None])
    e = np.exp(s - top)
    P = e / (e.sum(-1, keepdims=True) + (0 if sinks is None else np.exp(sinks[:, None, None] - top)))
    return np.einsum("hts,shv->thv", P, v), P


def assert_equals(y: np.ndarray, expected: np.ndarray) -> None:
    assert_close(y, expected, SCAN[y.dtype.name])


def test_worked_example() -> None:
    y, state = wkvnp.softmax_attention(Q3, K3, V3, scale=1)
    example = [[1, -1], [1.268941421370, -0.731058578630], [1.733043605245, -0.266956394755]]
    np.testing.assert_allclose(y[:, 0], example, rtol=0, atol=5e-13)
    _, lse, _ = softmax(Q3, K3, V3, None, np.array([0, 3]), scale=1)
    np.testing.assert_allclose(lse[:, 0], [1, 1.313261687518, 2.861994804058], rtol=0, atol=5e-13)
    np.testing.assert_array_equal(state.parts().k, K3)
    np.testing.assert_array_equal(state.parts().v, V3)


# The dense matrix


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("T", [1, 63, 64, 65, 200])
def test_every_term_against_the_dense_matrix(dtype: str, T: int) -> None:
    q, k, v = drawn(T, dtype)
    rng = np.random.default_rng(1)
    slopes, sinks = np.exp(rng.standard_normal(6) - 2).astype(dtype), rng.standard_normal(6).astype(dtype)
    i, j = np.arange(T)[:, None], np.arange(T)
    attend = wkvnp.softmax_attention
    assert_equals(attend(q, k, v)[0], dense(q, k, v)[0])
    assert_equals(attend(q, k, v, causal=False)[0], dense(q, k, v, shown=lambda i, j: i == i + j * 0)[0])
    near = dense(q, k, v, shown=lambda i, j: (j <= i) & (i - j < 20))[0]
    assert_equals(attend(q, k, v, window=20)[0], near)
    both = dense(q, k, v, shown=lambda i, j: abs(i - j) < 20)[0]
    assert_equals(attend(q, k, v, window=20, causal=False)[0], both)
    assert_equals(attend(q, k, v, softcap=0.5)[0], dense(q, k, v, cap=0.5)[0])
    assert_equals(attend(q, k, v, slopes=slopes)[0], dense(q, k, v, bias=-slopes[:, None, None] * (i - j))[0])
    assert_equals(attend(q, k, v, sinks=sinks)[0], dense(q, k, v, sinks=np.float64(sinks))[0])
    log_forget = -np.exp(rng.standard_normal((T, 6)) - 2).astype(dtype)
    F = np.cumsum(log_forget.T, axis=1, dtype=np.float64)
    forgotten = dense(q, k, v, bias=F[:, :, None] - F[:, None, :])[0]
    assert_equals(wkvnp.forgetting_attention(q, k, v, log_forget)[0], forgotten)


def test_implied_matrix_is_the_dense_one() -> None:
    q, k, v = drawn(70)
    _, P = dense(q, k, v)
    A = wkvnp.attention_matrix("softmax_attention", q, k, v)
    np.testing.assert_allclose(A, P, rtol=0, atol=1e-14)
    np.testing.assert_allclose(A.sum(-1), 1, rtol=1e-13)


def test_long_text_in_float32() -> None:
    q, k, v = drawn(3000, "float32", H=2, G=1, K=64, V=64)
    assert_equals(wkvnp.softmax_attention(q, k, v)[0], dense(q, k, v)[0])


def test_gates_of_zero_change_no_bit() -> None:
    q, k, v = drawn(150, "float32")
    y, _ = wkvnp.softmax_attention(q, k, v)
    np.testing.assert_array_equal(wkvnp.forgetting_attention(q, k, v, np.zeros((150, 6), np.float32))[0], y)


def test_gates_late_in_a_text_keep_their_digits() -> None:
    q, k, v = drawn(100, "float32")
    log_forget = -np.random.default_rng(3).random((100, 6)).astype(np.float32)
    past = np.zeros((1, 6), np.float32), np.float32([[-3e6] * 6])
    _, state = wkvnp.forgetting_attention(q[:1], k[:1], v[:1], past[1])
    y, _ = wkvnp.forgetting_attention(q[1:], k[1:], v[1:], log_forget[1:], state=state)
    alone = log_forget.copy()
    alone[0] = 0
    expected, _ = wkvnp.forgetting_attention(q, k, v, alone)
    assert_equals(y, np.float64(expected[1:]))
    with pytest.raises(ArgumentError, match="forgetting_attention: log_forget must be finite"):
        wkvnp.forgetting_attention(q, k, v, np.where(log_forget < -0.9, -np.inf, log_forget))


def test_weak_and_strong_scores() -> None:
    q, k, v = drawn(100, "float32")
    y, _ = wkvnp.softmax_attention(300 * q, 300 * k, v)
    assert np.isfinite(y).all()
    assert_equals(y[:1], np.repeat(v[:1], 3, axis=1))
    capped, _ = wkvnp.softmax_attention(1e-3 * q, k, v, softcap=50.0)
    assert_equals(capped, dense(1e-3 * q, k, v, cap=50.0)[0])
    assert (wkvnp.softmax_attention(q, k, v)[0] <= v.max(axis=0).max(axis=0)).all(), "a mean stays among its values"


# Other keys than queries


def test_cross_attention_and_a_past_given_as_keys() -> None:
    q, k, v = drawn(200)
    y, _ = wkvnp.softmax_attention(q[:9], k, v, causal=False)
    assert_equals(y, dense(q[:9], k, v, shown=lambda i, j: i == i + j * 0)[0])
    whole, final = wkvnp.softmax_attention(q, k, v)
    late, state = wkvnp.softmax_attention(q[-9:], k, v)
    np.testing.assert_array_equal(late, whole[-9:])
    np.testing.assert_array_equal(state.parts().k, final.parts().k)
    batched, state = wkvnp.softmax_attention(q[None, -9:], k[None], v[None], window=30)
    np.testing.assert_array_equal(batched[0], wkvnp.softmax_attention(q, k, v, window=30)[0][-9:])
    assert len(state) == 1


def test_a_query_that_sees_nothing_is_zero() -> None:
    q, k, v = drawn(100, "float32")
    offsets, behind = np.array([0, 100]), np.array([0, 10])
    options = {"scale": 1.0, "causal": False, "window": 5, "key_offsets": behind}
    y, lse, _ = softmax(q, k[:10], v[:10], None, offsets, **options)
    assert not y[:86].any() and (lse[:86] == -np.inf).all()
    assert y[86:].all() and np.isfinite(lse[86:]).all()
    y, lse, _ = softmax(q, k[:10], v[:10], None, offsets, sinks=np.full(6, 2, np.float32), **options)
    assert not y[:86].any() and (lse[:86] == 2).all()
    y, _ = wkvnp.softmax_attention(q, k[:0], v[:0], causal=False)
    assert y.shape == (100, 6, 7) and not y.any()
    _, lse, _ = softmax(q, k, v, None, offsets, scale=1.0)
    np.testing.assert_array_equal(softmax(q, k, v[..., :0].copy(), None, offsets, scale=1.0)[1], lse)


def test_not_a_number_stays_visible_and_does_not_reach_the_past() -> None:
    q, k, v = drawn(150, "float32")
    y, _ = wkvnp.softmax_attention(q, k, v)
    for place in (q, k, v):
        spoilt = [x.copy() for x in (q, k, v)]
        spoilt[next(n for n, x in enumerate((q, k, v)) if x is place)][77] = np.nan
        broken, _ = wkvnp.softmax_attention(*spoilt)
        np.testing.assert_array_equal(broken[:77], y[:77])
        assert np.isnan(broken[77]).all()
        assert np.isnan(broken[78:]).all() == (place is not q)


def test_parts_of_the_keys_can_be_merged() -> None:
    q, k, v = drawn(130)
    offsets = np.array([0, 130])

    def part(keys: slice) -> tuple[np.ndarray, np.ndarray]:
        behind = np.array([0, len(k[keys])])
        options = {"scale": 0.3, "causal": False, "key_offsets": behind}
        return softmax(q, np.ascontiguousarray(k[keys]), np.ascontiguousarray(v[keys]), None, offsets, **options)[:2]

    (y1, lse1), (y2, lse2), (y, lse) = part(slice(0, 47)), part(slice(47, None)), part(slice(None))
    merged = np.logaddexp(lse1, lse2)
    np.testing.assert_allclose(merged, lse, rtol=1e-13)
    both = np.exp(lse1 - merged)[..., None] * y1 + np.exp(lse2 - merged)[..., None] * y2
    np.testing.assert_allclose(both, y, rtol=0, atol=1e-13)


# The state


def test_one_token_at_a_time() -> None:
    q, k, v = drawn(150, "float32")
    whole, final = wkvnp.softmax_attention(q, k, v)
    state = None
    for t in range(150):
        y, state = wkvnp.softmax_attention(q[t : t + 1], k[t : t + 1], v[t : t + 1], state=state)
        np.testing.assert_array_equal(y[0], whole[t])
    np.testing.assert_array_equal(state.parts().k, final.parts().k)
    np.testing.assert_array_equal(state.parts().v, final.parts().v)


def test_the_state_grows_in_place_and_seldom_moves() -> None:
    q, k, v = drawn(1, "float32")
    state, stores = None, set()
    for _ in range(3000):
        _, state = wkvnp.softmax_attention(q, k, v, state=state, window=1)
        stores.add(id(state._store))
    assert int(state.lengths) == 3000 and len(stores) < 14


def test_two_continuations_of_one_state_do_not_meet() -> None:
    q, k, v = drawn(12, "float32")
    _, root = wkvnp.softmax_attention(q[:4], k[:4], v[:4])
    before = [x.copy() for x in root.parts()]
    _, left = wkvnp.softmax_attention(q[4:7], k[4:7], v[4:7], state=root)
    kept = [x.copy() for x in left.parts()]
    _, right = wkvnp.softmax_attention(q[7:], k[7:], v[7:], state=root)
    assert left._store is root._store and right._store is not root._store
    for state, parts in ((root, before), (left, kept)):
        for ours, then in zip(state.parts(), parts, strict=True):
            np.testing.assert_array_equal(ours, then)
    np.testing.assert_array_equal(right.parts().k, np.concatenate([k[:4], k[7:]]))
    y1, _ = wkvnp.softmax_attention(q[7:], k[7:], v[7:], state=right)
    y2, _ = wkvnp.softmax_attention(q[7:], k[7:], v[7:], state=right.copy())
    np.testing.assert_array_equal(y1, y2)


def test_threads_that_go_on_from_one_state_do_not_meet() -> None:
    q, k, v = drawn(40, "float32")
    _, root = wkvnp.softmax_attention(q[:20], k[:20], v[:20])
    expected = [wkvnp.softmax_attention(q[n : n + 1], k[n : n + 1], v[n : n + 1], state=root.copy()) for n in range(8)]
    for _ in range(20):
        found: dict[int, Any] = {}
        start, fresh = threading.Barrier(8), root.copy()

        def go(n: int, root: Any, found: Any = found, start: Any = start) -> None:
            start.wait()
            found[n] = wkvnp.softmax_attention(q[n : n + 1], k[n : n + 1], v[n : n + 1], state=root)

        workers = [threading.Thread(target=go, args=(n, fresh)) for n in range(8)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        for n, (y, state) in enumerate(expected):
            np.testing.assert_array_equal(found[n][0], y)
            np.testing.assert_array_equal(found[n][1].parts().v, state.parts().v)


def ragged() -> Any:
    q, k, v = drawn(100, "float32")
    return wkvnp.softmax_attention(q[None], k[None], v[None], cu_seqlens=[0, 70, 70, 100])[1], k, v


def assert_same_state(a: Any, b: Any) -> None:
    for x, y in zip(a.parts(), b.parts(), strict=True):
        np.testing.assert_array_equal(x, y)
        assert x.dtype == y.dtype


def test_sequences_of_a_state() -> None:
    state, k, v = ragged()
    assert len(state) == 3 and state.lengths.tolist() == [70, 0, 30] and state.dtype == np.float32
    assert repr(state) == "KVCache(3 sequences, lengths 70, 0, 30; 2 heads of 5 and 7)"
    assert state.nbytes == 100 * 2 * 12 * 4
    parts = state.parts()
    assert parts.k.shape == (3, 70, 2, 5) and parts.v.shape == (3, 70, 2, 7) and not parts.k[2, 30:].any()
    np.testing.assert_array_equal(state[2].parts().k, k[70:])
    np.testing.assert_array_equal(state[-1].parts().v, v[70:])
    assert [int(one.lengths) for one in state] == [70, 0, 30]
    assert_same_state(KVCache.join([state[2:], state[[0, 1]]]), state[[2, 0, 1]])
    assert_same_state(KVCache.of(*parts), state)
    for copied in (state.copy(), copy.deepcopy(state), pickle.loads(pickle.dumps(state)), state.astype("float32")):
        assert_same_state(copied, state)
    assert_same_state(pickle.loads(pickle.dumps(state[0])), state[0])
    assert state.astype("float64").parts().k.dtype == np.float64
    with pytest.raises(IndexError):
        state[3]
    with pytest.raises(ShapeError, match="one sequence, which has no batch axis"):
        state[0][0]


def test_one_sequence_twice_in_a_batch() -> None:
    state, _, _ = ragged()
    q, k, v = (x[None].repeat(2, axis=0) for x in drawn(3, "float32", seed=5))
    k[1] += 1
    y, twice = wkvnp.softmax_attention(q, k, v, state=state[[2, 2]])
    for b in range(2):
        alone, final = wkvnp.softmax_attention(q[b], k[b], v[b], state=state[2])
        np.testing.assert_array_equal(y[b], alone)
        assert_same_state(final, twice[b])


def test_a_state_can_be_shortened() -> None:
    q, k, v = drawn(90, "float32")
    _, whole = wkvnp.softmax_attention(q, k, v)
    _, part = wkvnp.softmax_attention(q[:40], k[:40], v[:40])
    assert_same_state(whole.shortened(40), part)
    y, again = wkvnp.softmax_attention(q[40:], k[40:], v[40:], state=whole.shortened(40))
    np.testing.assert_array_equal(y, wkvnp.softmax_attention(q, k, v)[0][40:])
    assert_same_state(again, whole)
    with pytest.raises(ArgumentError, match=r"KVCache: lengths must be from 0 to \[90\]; got \[91\]"):
        whole.shortened(91)


@pytest.mark.parametrize("window", [1, 2, 65, 100])
def test_keys_out_of_sight_can_be_let_go(window: int) -> None:
    q, k, v = drawn(700, "float32")
    whole, _ = wkvnp.softmax_attention(q, k, v, window=window)
    for step in (1, 7, 130):
        state, rooms = None, set()
        for begin in range(0, 700, step):
            part = slice(begin, begin + step)
            y, state = wkvnp.softmax_attention(q[part], k[part], v[part], window=window, state=state)
            np.testing.assert_array_equal(y, whole[part])
            state = state.within(window)
            begun = max(0, min(begin + step, 700) - window + 1) // 64 * 64
            assert int(state.lengths) == min(begin + step, 700) - begun < window + 63
            rooms.add(int(state._store.room[0]))
            assert_same_state(state, KVCache.of(k[begun : part.stop], v[begun : part.stop]))
        assert max(rooms) <= 2 * (window + 63 + step) + 64
    assert state is not None and state.within(window) is state


def test_what_was_let_go_is_still_there_for_others() -> None:
    q, k, v = drawn(300, "float32")
    _, root = wkvnp.softmax_attention(q[:200], k[:200], v[:200], window=20)
    late = root.within(20)
    kept = root.copy()
    y, _ = wkvnp.softmax_attention(q[200:], k[200:], v[200:], window=20, state=late)
    np.testing.assert_array_equal(y, wkvnp.softmax_attention(q, k, v, window=20)[0][200:])
    assert_same_state(root, kept)
    whole, _ = wkvnp.softmax_attention(q[200:], k[200:], v[200:], state=root)
    np.testing.assert_array_equal(whole, wkvnp.softmax_attention(q, k, v)[0][200:])
    for same in (late.copy(), pickle.loads(pickle.dumps(late)), late.shortened(late.lengths)):
        assert_same_state(same, late)
        again, _ = wkvnp.softmax_attention(q[200:], k[200:], v[200:], window=20, state=same)
        np.testing.assert_array_equal(again, y)
    assert late.nbytes == int(late.lengths) * 2 * 12 * 4 < root.nbytes


def test_sequences_of_unequal_length_let_go_of_their_own() -> None:
    state, _, _ = ragged()
    q, more_k, more_v = drawn(90, "float32", seed=7)
    q, more_k, more_v = (x.reshape(3, 30, *x.shape[1:]) for x in (q, more_k, more_v))
    expected, _ = wkvnp.softmax_attention(q, more_k, more_v, window=5, state=state)
    within = state.within(5)
    assert within.lengths.tolist() == [6, 0, 30]
    y, on = wkvnp.softmax_attention(q, more_k, more_v, window=5, state=within)
    np.testing.assert_array_equal(y, expected)
    assert on.within(5).lengths.tolist() == [36, 30, 60]
    joined = KVCache.join([within[[2]], within[:2]])
    y, _ = wkvnp.softmax_attention(q[[2, 0, 1]], more_k[[2, 0, 1]], more_v[[2, 0, 1]], window=5, state=joined)
    np.testing.assert_array_equal(y, expected[[2, 0, 1]])


def test_gates_are_part_of_the_state() -> None:
    q, k, v = drawn(80, "float32")
    gates = -np.random.default_rng(0).random((80, 6)).astype(np.float32)
    _, state = wkvnp.forgetting_attention(q, k, v, gates)
    np.testing.assert_allclose(state.parts().gates, np.cumsum(np.float64(gates), axis=0), rtol=1e-12)
    assert_same_state(pickle.loads(pickle.dumps(state)), state)
    assert state.parts()._fields == ("k", "v", "lengths", "gates")
    with pytest.raises(ArgumentError, match="forgetting_attention: state must be a ForgetCache; got KVCache"):
        wkvnp.forgetting_attention(q, k, v, gates, state=KVCache.of(k, v))


def test_states_that_do_not_fit_are_refused() -> None:
    q, k, v = drawn(3, "float32")
    state = KVCache.of(k, v)
    attend = wkvnp.softmax_attention
    with pytest.raises(
        ShapeError, match=r"state.k must have shape \(B, S, G, K\) with B=2 as in the sequences; got \(1,"
    ):
        attend(*(x[None].repeat(2, axis=0) for x in (q, k, v)), state=KVCache.of(k[None], v[None]))
    with pytest.raises(ShapeError, match=r"state.k must have shape \(B, S, G, K\); got \(3, 2, 5\)"):
        attend(q[None], k[None], v[None], state=state)
    with pytest.raises(ShapeError, match=r"state.k must have shape \(B, S, G, K\); got \(1, 1, 3, 2, 5\)"):
        attend(q, k, v, state=KVCache.of(k[None], v[None]))
    with pytest.raises(ShapeError, match=r"state.v must have shape .* with V=6 as in v; got \(1, 3, 2, 7\)"):
        attend(q, k, v[..., 1:], state=state)
    with pytest.raises(ShapeError, match=r"KVCache: v must have shape \(B, S, G, V\) with S=3 as in k; got \(1, 2"):
        KVCache.of(k, v[1:])
    with pytest.raises(ArgumentError, match=r"KVCache: lengths must be 1 numbers from 0 to 3; got \[4\]"):
        KVCache.of(k, v, 4)


# Patterns


def longformer_shown(window: int, tokens: list[int], causal: bool) -> Any:
    def shown(i: Any, j: Any) -> Any:
        near = (abs(i - j) < window) | np.isin(i, tokens) | np.isin(j, tokens)
        return near & (j <= i) if causal else near

    return shown


@pytest.mark.parametrize("causal", [True, False])
def test_longformer_against_the_dense_matrix(causal: bool) -> None:
    q, k, v = drawn(300)
    for window, tokens in ((10, [0, 3, 130, 250]), (70, []), (1, [299, 1000])):
        y, _ = wkvnp.longformer(q, k, v, window=window, global_tokens=tokens, causal=causal)
        assert_equals(y, dense(q, k, v, shown=longformer_shown(window, tokens, causal))[0])
    y, _ = wkvnp.longformer(q, k, v, window=40, causal=causal)
    np.testing.assert_array_equal(y, wkvnp.softmax_attention(q, k, v, window=40, causal=causal)[0])


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("block", [16, 30, 64, 100])
def test_bigbird_against_the_dense_matrix(causal: bool, block: int) -> None:
    q, k, v = drawn(500)
    blocks = -(-500 // block)
    table = draw_random_blocks(0, blocks, 2, causal=causal)
    heads = np.stack([draw_random_blocks(h, blocks, 2, causal=causal) for h in range(6)])

    def shown(table: np.ndarray) -> Any:
        pairs = np.eye(blocks, dtype=bool)
        for a, row in enumerate(table):
            pairs[a, row[row >= 0]] = True

        def see(i: Any, j: Any) -> Any:
            a, b = i // block, j // block
            near = (a - b < 3) & (b <= a) if causal else abs(a - b) <= 1
            see = near | (a == 0) | (b == 0) | pairs[a, b]
            return see & (j <= i) if causal else see

        return see

    y, _ = wkvnp.bigbird(q, k, v, block=block, random_blocks=table, causal=causal)
    assert_equals(y, dense(q, k, v, shown=shown(table))[0])
    y, _ = wkvnp.bigbird(q, k, v, block=block, random_blocks=heads, causal=causal)
    for h in range(6):
        head = dense(q[:, h : h + 1], k[:, h // 3][:, None], v[:, h // 3][:, None], shown=shown(heads[h]))[0]
        assert_equals(y[:, h : h + 1], head)


def test_bigbird_goes_on_from_a_state() -> None:
    q, k, v = drawn(400, "float32")
    options = {"block": 20, "random_blocks": draw_random_blocks(1, 20, 3)}
    whole, final = wkvnp.bigbird(q, k, v, **options)
    for cut in (1, 200, 333, 399):
        first, state = wkvnp.bigbird(q[:cut], k[:cut], v[:cut], **options)
        second, end = wkvnp.bigbird(q[cut:], k[cut:], v[cut:], state=state, **options)
        np.testing.assert_array_equal(np.concatenate([first, second]), whole)
        assert_same_state(end, final)


def test_blocks_that_are_not_seen_are_not_read() -> None:
    q, k, v = drawn(1280, "float32")
    k[128:1024] = np.nan
    v[128:1024] = np.inf
    for y, _ in (
        wkvnp.bigbird(q, k, v, window_blocks=2),
        wkvnp.longformer(q, k, v, window=64, global_tokens=range(64)),
        wkvnp.softmax_attention(q, k, v, window=64),
    ):
        assert np.isfinite(y[-128:]).all()


def test_random_blocks() -> None:
    table = draw_random_blocks(np.random.default_rng(3), 40, 3)
    for a, row in enumerate(table):
        real = row[row >= 0]
        assert (
            np.unique(real).size == real.size == min(3, max(0, a - 3)) and not np.isin(real, [0, a, a - 1, a - 2]).any()
        )
        assert (real < a).all()
    np.testing.assert_array_equal(draw_random_blocks(5, 20, 2), draw_random_blocks(5, 30, 2)[:20])
    both = draw_random_blocks(5, 20, 2, causal=False)
    assert (both[1:] > np.arange(1, 20)[:, None]).any()
    with pytest.raises(ArgumentError, match=r"draw_random_blocks: rng must be a whole number .*; got None"):
        draw_random_blocks(None, 4, 2)


# Options


@pytest.mark.parametrize(
    ("door", "options", "message"),
    [
        ("softmax_attention", {"window": 0}, "softmax_attention: window must be a whole number from 1; got 0"),
        ("softmax_attention", {"window": 2.5}, "softmax_attention: window must be a whole number from 1; got 2.5"),
        ("softmax_attention", {"softcap": 0}, "softmax_attention: softcap must be a number above 0; got 0"),
        ("softmax_attention", {"scale": "x"}, "softmax_attention: scale must be a number above 0; got 'x'"),
        ("longformer", {"window": True}, "longformer: window must be a whole number from 1; got True"),
        ("longformer", {"global_tokens": [-1]}, "longformer: global_tokens must be a whole number from 0; got -1"),
        ("bigbird", {"block": 0}, "bigbird: block must be a whole number from 1; got 0"),
        (
            "bigbird",
            {"random_blocks": [[[0]]] * 2},
            r"bigbird: random_blocks must be .* \(H=6, Q, R\); got \(2, 1, 1\)",
        ),
        ("bigbird", {"random_blocks": [[0.5]]}, "bigbird: random_blocks must be whole numbers"),
    ],
)
def test_options_that_do_not_fit_are_refused(door: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        getattr(wkvnp, door)(*drawn(3), **options)


def test_what_cannot_be_continued_is_refused() -> None:
    q, k, v = drawn(3)
    for door in ("softmax_attention", "longformer", "bigbird"):
        _, state = getattr(wkvnp, door)(q, k, v)
        with pytest.raises(ArgumentError, match=f"{door}: state must be None when causal is False"):
            getattr(wkvnp, door)(q, k, v, state=state, causal=False)
    with pytest.raises(
        ShapeError, match="softmax_attention: k must have at least the 3 tokens of q when causal; got 2"
    ):
        wkvnp.softmax_attention(q, k[:2], v[:2])
    with pytest.raises(ShapeError, match=r"softmax_attention: v must have shape \(B, S, G, V\) with S=2 as in k"):
        wkvnp.softmax_attention(q, k[:2], v, causal=False)
