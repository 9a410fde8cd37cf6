"""Every executor of blocks answers to the oracle, operation by operation and in whole models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import wkvnp
from wkvnp._dtypes import narrow
from wkvnp._jit import interpreted
from wkvnp._tree import leaves, map_leaves
from wkvnp.decoding import Program
from wkvnp.decoding.rows import COPY
from wkvnp.kernels.softmax import KVCache
from wkvnp.mechanisms.rwkv4 import WKVState
from wkvnp.models.whole import oracle
from wkvnp.operations import LowRank, Mixes, Operations, Product, Prompts, SoftmaxAttention
from wkvnp.operations.numpy_oracle import Oracle
from wkvnp.operations.tokens import Tokens

Array = np.ndarray
RNG = np.random.default_rng(0)
B, C, H, N, F, R = 5, 48, 3, 16, 80, 32


def normal(*shape: int, scale: float = 1.0) -> Array:
    return (scale * RNG.standard_normal(shape)).astype(np.float32)


@dataclass(frozen=True)
class Cells:
    """A state for the operations under test."""

    last: Array
    window: Array
    heads: Array
    wkv: WKVState
    channels: Array
    space: Array
    delta: Array
    seen: Array
    kv: KVCache


W = {
    "square": normal(C, C, scale=0.2), "wide": normal(F, C, scale=0.2), "narrow": normal(C, F, scale=0.2),
    "down": normal(C, R, scale=0.2), "up": normal(R, C, scale=0.2), "groups": normal(2, 16, C, scale=0.2),
    "vector": normal(C), "other": normal(C), "taps": normal(4, C), "constants": normal(8, C), "u": normal(H, N),
    "A": -np.exp(normal(C, 4)), "dt": normal(C, 16, scale=0.2),
}  # fmt: skip
NORM = (W["vector"], W["other"])
MIXES = Mixes(("a", "b"), np.stack([W["vector"], W["other"]]))
DECAY = -np.exp(normal(H, N))


def low_rank(x: Any) -> LowRank:
    return LowRank(x, W["down"], W["up"], "tanh")


def mix_moved(o: Operations, x: Any) -> Any:
    moved = o.low_rank_groups("moved", x, normal_down, W["groups"], "tanh")
    mixed = o.mix(x, o.previous(x, "last"), MIXES, moved)
    (y,) = o.multiply(y=Product(mixed[1], W["square"]))
    return o.add_product(y, Product(mixed[0], W["square"]))


normal_down = normal(C, 32, scale=0.2)


def gated_linear(o: Operations, x: Any, *, low: bool, gate: bool) -> Any:
    r, k, v, g, w = o.multiply(
        r=Product(x, W["square"]), k=Product(x, W["square"], "tanh"), v=Product(x, W["square"], "silu"),
        g=Product(x, W["square"], "sigmoid"), w=low_rank(x),
    )  # fmt: skip
    decay: Any = (W["other"], w) if low else DECAY
    return o.gated_linear(r, k, v, g if gate else None, decay, W["u"], NORM, 64e-5, H, "heads")


def rwkv7(o: Operations, x: Any, *, residual: bool) -> Any:
    r, k, v, w, a, g, nu = o.multiply(
        r=Product(x, W["square"]), k=Product(x, W["square"], "tanh"), v=Product(x, W["square"], "silu"),
        w=low_rank(x), a=low_rank(x), g=low_rank(x), nu=low_rank(x),
    )  # fmt: skip
    more = (nu, r) if residual else (None, None)
    return o.rwkv7(r, w, k, v, a, g, *more, W["constants"], 64e-5, H, "heads")


def selective(o: Operations, x: Any) -> Any:
    z, low = o.multiply(z=Product(x, W["square"]), low=Product(x, normal_low))
    dt, b, c = o.split(low, dt=16, B=4, C=4)
    return o.selective(x, z, dt, W["dt"], W["vector"], b, c, W["A"], W["other"], "channels")


normal_low = normal(24, C, scale=0.2)


def state_space(o: Operations, x: Any, *, limits: tuple[float, float]) -> Any:
    b, c, dt = o.multiply(B=Product(x, b_matrix), C=Product(x, b_matrix, "tanh"), dt=Product(x, dt_matrix))
    return o.state_space(x, b, c, dt, W["u"][:, 0], W["A"][:H, 0], W["u"][:, 1], limits, 1, "space")


b_matrix, dt_matrix = normal(8, C, scale=0.2), normal(H, C, scale=0.2)


def wkv(o: Operations, x: Any) -> Any:
    r, k, v = o.multiply(
        r=Product(x, W["square"], "sigmoid"), k=Product(x, W["square"]), v=Product(x, W["square"], "silu")
    )
    return o.wkv(r, k, v, -np.exp(W["vector"]), W["other"], "wkv")


BLOCKS: dict[str, Callable[[Operations, Any], Any]] = {
    "layer_norm": lambda o, x: o.layer_norm("y", x, *NORM, 1e-5),
    "rms_norm": lambda o, x: o.rms_norm("y", x, W["vector"], 1e-5),
    "rms_norm of groups": lambda o, x: o.rms_norm("y", x, W["vector"][:N], 1e-5, H),
    "previous": lambda o, x: o.add_product(*_copied(o, x), Product(o.previous(x, "last"), W["square"])),
    "mix": lambda o, x: o.mix(x, o.previous(x, "last"), MIXES)[1],
    "mix with moved shares": mix_moved,
    "multiply": lambda o, x: o.multiply(a=Product(x, W["square"]), y=Product(x, W["wide"], "relu_squared"))[1],
    "multiply with a bias": lambda o, x: o.multiply(y=Product(x, W["square"], bias=W["other"]))[0],
    "multiply bfloat16": lambda o, x: o.multiply(y=Product(x, narrow(W["wide"], "bfloat16"), "silu"))[0],
    "multiply float16": lambda o, x: o.multiply(y=Product(x, narrow(W["wide"], "float16"), "tanh"))[0],
    "add_product": lambda o, x: o.add_product(*_copied(o, x), Product(x, W["square"])),
    "add_product with a bias": lambda o, x: o.add_product(*_copied(o, x), Product(x, W["square"], bias=W["other"])),
    "add_product with a gate": lambda o, x: o.add_product(*_copied(o, x), Product(x, W["square"]), gate=x),
    "add_feed_forward": lambda o, x: o.add_feed_forward(
        *_copied(o, x), Product(x, W["wide"], "relu_squared"), W["narrow"]
    ),
    "gate": lambda o, x: o.gate("y", x, o.layer_norm("z", x, *NORM, 1e-5)),
    "convolve": lambda o, x: o.convolve("y", x, W["taps"], W["other"], "window"),
    "convolve without a bias, and its product": lambda o, x: o.add_product(
        *_copied(o, o.convolve("y", x, W["taps"], None, "window")), Product(x, W["square"])
    ),
    "split": lambda o, x: o.gate("y", *o.split(x, a=16, b=16, c=16)[1:]),
    "wkv": wkv,
    "gated_linear": lambda o, x: gated_linear(o, x, low=True, gate=True),
    "gated_linear with a constant decay": lambda o, x: gated_linear(o, x, low=False, gate=False),
    "rwkv7": lambda o, x: rwkv7(o, x, residual=False),
    "rwkv7 with a value residual": lambda o, x: rwkv7(o, x, residual=True),
    "selective": selective,
    "state_space": lambda o, x: state_space(o, x, limits=(0.0, np.inf)),
    "state_space with limits": lambda o, x: state_space(o, x, limits=(0.1, 0.7)),
}


def attention(o: Operations, x: Any, *, window: int | None) -> Any:
    k, v = o.multiply(k=Product(x, kv_matrix), v=Product(x, kv_matrix, "silu"))
    how = SoftmaxAttention(3, 1, N, rotated_by_position, 8, window, W["vector"][:N], None, 1e-5)
    return o.attention(x, k, v, how)


kv_matrix = normal(N, C, scale=0.3)


def rotated_by_position(seen: Array, offsets: Array) -> tuple[Array, Array, Array]:
    lengths = np.diff(offsets)
    positions = np.concatenate([first + np.arange(n) for first, n in zip(seen, lengths, strict=True)])
    angles = positions[:, None] * 0.5 ** np.arange(4)
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32), seen + lengths


def delta_rule(o: Operations, x: Any) -> Any:
    q, k, b, a = o.multiply(
        q=Product(x, qk_matrix), k=Product(x, qk_matrix, "tanh"), b=Product(x, dt_matrix), a=Product(x, dt_matrix)
    )
    return o.delta_rule(q, k, x, b, a, W["u"][:, 0], W["u"][:, 1], (1, H), "delta")


qk_matrix = normal(8, C, scale=0.3)


def experts(o: Operations, x: Any) -> Any:
    def expert(scale: float) -> Callable[[Operations, Any], Any]:
        return lambda o, z: o.multiply(y=Product(z, np.float32(scale) * W["square"]))[0]

    return o.experts(x, W["wide"][:4], [expert(n + 1.0) for n in range(4)], 2, True)


PROMPTS_ONLY: dict[str, Callable[[Operations, Any], Any]] = {
    "attention": lambda o, x: attention(o, x, window=None),
    "attention in a window": lambda o, x: attention(o, x, window=3),
    "delta_rule": delta_rule,
    "interleaved": lambda o, x: o.sigmoid_gate("y", *o.interleaved(x, H, q=8, g=8)),
    "sigmoid_gate of rows": lambda o, x: o.sigmoid_gate("y", x, o.multiply(g=Product(x, dt_matrix[:1]))[0]),
    "join": lambda o, x: o.join(*o.split(x, a=16, b=32)),
    "add": lambda o, x: o.add(*_copied(o, x), x),
    "experts": experts,
}
"""Operations that have no step, or whose state grows: whole models show them as steps."""


def _copied(o: Operations, x: Any) -> tuple[Any]:
    """Return a value of its own, which may be changed in place."""
    (y,) = o.multiply(copy=Product(x, np.eye(C, dtype=np.float32)))
    return (y,)


def state() -> Cells:
    ssm = normal(B, 4, C).swapaxes(1, 2)
    parts = WKVState(normal(B, C), np.exp(normal(B, C)), normal(B, C).astype(np.float64))
    kv = KVCache.of(normal(B, 4, 1, N), normal(B, 4, 1, N), [4, 0, 3, 2, 1])
    seen = np.array([4, 0, 3, 2, 1])
    return Cells(
        normal(B, C), normal(B, 3, C), normal(B, H, N, N), parts, ssm, normal(B, H, 8, N), normal(B, H, 8, N), seen, kv
    )  # fmt: skip


def run_tokens(block: Callable[[Operations, Any], Any], x: Array, before: Cells) -> tuple[Array, dict[str, Array]]:
    """Run a block as a program on one token of every sequence."""
    program, memory, after = Program(len(x)), {}, {}
    source = program.memory.slot("x", x.shape[1])
    addresses = [np.ascontiguousarray(x)]
    for name, array in leaves(before):
        if name in ("seen", "kv"):
            continue
        stored = np.ascontiguousarray(array.swapaxes(1, 2) if name == "channels" else array)
        after[name] = np.zeros_like(stored)
        size, itemsize = stored[0].size, stored.itemsize
        memory[name] = tuple(program.memory.slot(f"{name} {when}", size, itemsize) for when in ("before", "after"))
        addresses += [stored, after[name]]
    executor = Tokens(program, memory)
    executor.scope = "test"
    result = block(executor, source)
    target = program.memory.slot("result", result.size)
    executor.add_step(COPY, "result", x=result, y=target, blocks=1)
    program.finish()
    y = np.zeros((len(x), result.size), np.float32)
    program.run(len(x), np.array([0, *(array.ctypes.data for array in (*addresses, y))]))
    after["channels"] = after["channels"].swapaxes(1, 2)
    return y, after


def differ(a: Any, b: Any) -> float:
    a, b = np.asarray(getattr(a, "computed", lambda: a)(), np.float64), np.asarray(b, np.float64)
    assert a.shape == b.shape
    return float(np.abs(a - b).max() / np.abs(b).max())


def wide(cells: Cells) -> Cells:
    def float64(_: str, leaf: Any) -> Any:
        return leaf if isinstance(leaf, np.ndarray) and leaf.dtype.kind == "i" else leaf.astype(np.float64)

    return map_leaves(float64, cells)


@pytest.mark.parametrize("name", BLOCKS | PROMPTS_ONLY)
def test_prompts_answer_to_the_oracle(name: str) -> None:
    block, before, offsets = (BLOCKS | PROMPTS_ONLY)[name], state(), np.array([0, 4, 5, 5, 40, 43])
    x = normal(43, C)
    fast, exact = Prompts(before, offsets), Oracle(wide(before), offsets)
    fast.scope = exact.scope = "test"
    found, expected = block(fast, x), block(exact, x.astype(np.float64))
    assert differ(found, expected) < 3e-6
    for cell in fast._after.keys() - {"kv"}:
        mine, theirs = dict(leaves(getattr(fast.state, cell))), dict(leaves(getattr(exact.state, cell)))
        if cell == "wkv":
            mine, theirs = ({"m": p["aa"] / p["bb"], "e": p["pp"] + np.log(p["bb"])} for p in (mine, theirs))
        for part, array in mine.items():
            assert differ(array, theirs[part]) < 3e-6, (cell, part)


@pytest.mark.skipif(interpreted(), reason="programs are compiled")
@pytest.mark.parametrize("name", BLOCKS)
def test_tokens_answer_to_the_oracle(name: str) -> None:
    before, x = state(), normal(B, C)
    exact = Oracle(wide(before), np.arange(B + 1))
    exact.scope = "test"
    expected = BLOCKS[name](exact, x.astype(np.float64))
    found, after = run_tokens(BLOCKS[name], x, before)
    assert differ(found, expected) < 3e-6
    for cell in exact._after:
        mine = {part.removeprefix(f"{cell}."): array for part, array in after.items() if part.split(".")[0] == cell}
        theirs = {part or cell: array for part, array in leaves(getattr(exact.state, cell))}
        if cell == "wkv":
            mine, theirs = ({"m": p["aa"] / p["bb"], "e": p["pp"] + np.log(p["bb"])} for p in (mine, theirs))
        for part, array in mine.items():
            assert differ(array, theirs[part]) < 3e-6, (cell, part)


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
    "transformer with a window": ("transformer", {"window": 7}),
    "qwen3_next": ("qwen3_next", {}),
    "hybrid": ("hybrid", {"pattern": "a4567ms", "n_layer": 7}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_whole_models_answer_to_the_oracle(kind: str) -> None:
    architecture, options = KINDS[kind]
    model = wkvnp.random_model(
        architecture, **{"n_layer": 2, "n_embd": 64, "vocab_size": 59, "head_size": 16, "rng": 0} | options
    )
    tokens = [RNG.integers(0, 59, size) for size in (9, 1, 12)]
    found, between = model(tokens, logits="all")
    expected, _, values = oracle(model, tokens)
    for mine, theirs in zip(found, expected, strict=True):
        assert differ(mine, theirs) < 2e-5
    assert all(np.isfinite(value).all() for value in values.values())
    more = RNG.integers(0, 59, (3, 1))
    assert differ(model(more, between)[0], oracle(model, more, between)[0][:, 0]) < 2e-5
