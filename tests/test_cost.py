"""What `cost` counts: the orders of growth, figures that are known, and states that are weighed."""

import inspect
from importlib import import_module
from typing import Any

import numpy as np
import pytest
from contracts.doors import by_name, parts

import wkvnp
from wkvnp.errors import ArgumentError
from wkvnp.mechanisms import NAMES

cost = wkvnp.cost
SIZED = {"performer", "gsa", "mamba2", "deltaproduct", "short_convolution", "mamba1", "s4d"}


def growth(name: str, **changed: int) -> float:
    """Return how many times the FLOPs of one setting grow in another."""
    sizes = {"T": 1 << 20, "d": 64}
    one, other = (cost(name, **at).prefill.flops for at in (sizes, sizes | changed))
    return other / one


def test_the_orders_of_growth_are_those_of_the_comparison() -> None:
    for name, tokens, width in [
        ("softmax_attention", 4, 2),  # n^2 d
        ("linear_attention", 2, 4),  # n d^2
        ("rwkv4", 2, 2),  # n d: channels do not meet
        ("rwkv7", 2, 4),  # n d^2 a head, so n d times the width of a head
        ("token_shift", 0, 0),
    ]:
        if name != "token_shift":
            assert growth(name, T=1 << 21) == pytest.approx(tokens, rel=1e-5)
            assert growth(name, d=128) == pytest.approx(width, rel=1e-5)
        else:
            assert cost(name, 100, 64).prefill.flops == 0
    assert cost("rwkv7", 100, 64, heads=2).prefill.flops * 2 == cost("rwkv7", 100, 128).prefill.flops


def test_781_times_and_half_of_it_looking_back_only() -> None:
    full, back = (
        cost("softmax_attention", 100_000, 128, causal=causal).prefill.flops
        / cost("linear_attention", 100_000, 128, causal=causal).prefill.flops
        for causal in (False, True)
    )
    assert full == 781.25 and back == pytest.approx(781.25 / 2, rel=2e-5)


def test_figures_of_the_formulas() -> None:
    """Multiply-adds counted as two, a head of 64, float32."""
    for name, flops, exps, moved in [
        ("rwkv4", 19 * 64, 128, 12 * 64),
        ("linear_attention", 4 * 64**2, 128, 16 * 64),
        ("rwkv5", 5 * 64**2 + 5 * 64, 0, 16 * 64),
        ("rwkv6", 5 * 64**2 + 5 * 64, 64, 20 * 64),
        ("deltanet", 6 * 64**2, 0, 16 * 64 + 4),
        ("gated_deltanet", 7 * 64**2, 1, 16 * 64 + 8),
        ("kda", 7 * 64**2, 64, 20 * 64 + 4),
        ("rwkv7", 9 * 64**2, 64, 28 * 64),
    ]:
        found = cost(name, 1000, 64)
        assert (found.token.flops, found.token.exps) == (flops, exps), name
        assert found.prefill.flops == 1000 * flops
        assert found.token.bytes - 2 * found.state_bytes == moved, name
        assert found.prefill.bytes - 2 * found.state_bytes == 1000 * moved
    assert cost("deltaproduct", 9, 64, n_state=1).token == cost("gated_deltanet", 9, 64).token


def test_attention_at_a_context() -> None:
    found = cost("softmax_attention", 1000, 64, d_v=32, heads=3)
    assert found.token.flops == 3 * 2 * 1000 * (64 + 32)
    assert found.token.exps == 3 * 1000 and found.state_bytes == 3 * 1000 * 96 * 4
    steps = sum(cost("softmax_attention", t, 64, d_v=32, heads=3).token.flops for t in range(1, 1001))
    assert found.prefill.flops == steps
    near = cost("softmax_attention", 1000, 64, n_state=100)
    assert near.prefill.exps == sum(min(t, 100) for t in range(1, 1001))
    assert near.token.exps == 100


def test_prefill_meets_causal_softmax_at_five_halves_of_the_width() -> None:
    for T, cheaper in [(150, "softmax_attention"), (170, "rwkv6")]:
        flops = {name: cost(name, T, 64).prefill.flops for name in ("softmax_attention", "rwkv6")}
        assert min(flops, key=lambda name: flops[name]) == cheaper


def test_a_state_weighs_what_sixty_four_stored_tokens_do() -> None:
    assert cost("softmax_attention", 32, 64).state_bytes == cost("gla", 32, 64).state_bytes
    assert cost("rwkv7", 1, 64, heads=32).state_bytes * 24 == 12_582_912  # 24 layers of 2,048 channels


@by_name
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_state_bytes_are_those_of_the_state(name: str, dtype: str) -> None:
    spec: Any = import_module(f"wkvnp.mechanisms.{name}").SPEC
    sizes = {"B": 1, "T": 7, "H": 3, "G": 3, "K": 5, "V": 5, "C": 15} | dict.fromkeys("NMRWPQ", 4)
    inputs = spec.draw(np.random.default_rng(0), sizes, dtype)
    if name == "s4d":  # counted as it is used, complex
        wide = np.result_type(dtype, np.complex64)
        inputs |= {n: inputs[n].astype(wide) for n in ("A", "B_in", "C_out")}
    _, state = getattr(wkvnp, name)(**inputs)
    found = cost(name, 7, 5, heads=3, dtype=dtype, n_state=4 if name in SIZED else None)
    held = parts(state)
    held = held._replace(lengths=np.empty(0)) if hasattr(held, "lengths") else held
    assert found.state_bytes == sum(part.nbytes for part in held)


def test_every_mechanism_has_a_cost() -> None:
    for name in NAMES:
        found = cost(name, 10, 8, heads=2)
        assert found == cost(getattr(wkvnp, name), 10, 8, heads=2)
        assert found.prefill.bytes > 0 and found.state_bytes > 0


def test_what_can_look_both_ways_can_be_counted_so() -> None:
    for name in NAMES:
        if "causal" in inspect.signature(getattr(wkvnp, name)).parameters:
            assert cost(name, 2000, 8, causal=False).prefill.flops >= cost(name, 2000, 8).prefill.flops
        else:
            with pytest.raises(ArgumentError, match=f"cost: causal must be True for {name}"):
                cost(name, 2000, 8, causal=False)


def test_a_mechanism_without_a_declared_cost_says_where_it_belongs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("wkvnp.analysis.cost"), "NAMES", (*NAMES, "new"))
    with pytest.raises(ArgumentError, match=r"the cost of new is not declared; it belongs in .*analysis/cost\.py"):
        cost("new", 1, 1)


def test_bad_arguments_are_refused_by_name() -> None:
    for arguments, options, message in [
        (("attention", 1, 1), {}, r"cost: mechanism must be one of .*rwkv7.*; got 'attention'"),
        (("rwkv7", 1.5, 64), {}, "cost: T must be a whole number of at least 0; got 1.5"),
        (("rwkv7", "9", 64), {}, "cost: T must be a whole number of at least 0; got '9'"),
        (("rwkv7", 1, 0), {}, "cost: d must be a whole number of at least 1; got 0"),
        (("rwkv7", 1, 64), {"heads": 0}, "cost: heads must be"),
        (("rwkv7", 1, 64), {"n_state": 4}, "cost: n_state must be None for rwkv7"),
        (("rwkv7", 1, 64), {"causal": False}, "cost: causal must be True for rwkv7, which only looks back; got False"),
        (("rwkv7", 1, 64), {"dtype": "int8"}, "dtype must be one of"),
    ]:
        with pytest.raises(ArgumentError, match=message):
            cost(*arguments, **options)
