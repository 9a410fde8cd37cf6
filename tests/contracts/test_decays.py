"""What one token leaves of a state, at every decay: slow ones keep their digits, strong ones do not cancel."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import wkvnp
from contracts.doors import SIZES, spec_of
from wkvnp.checkpoints import save_safetensors
from wkvnp.checkpoints.naming import flatten
from wkvnp.mechanisms import NAMES

LOG_DECAYS = (-1e-6, -1e-3, -0.1, -0.5, -0.69, -0.7, -1, -3, -8, -10, -16, -17, -20, -40, -60, -80)
BOUND = 3e-7
COMPUTED = 2e-7
"""For each unit of a logarithm that the mechanism itself computes in float32, which rounds it."""

LOWEST = -1000.0  # a logarithm of nothing: what is written with this weight counts no more
SIZE = SIZES | {"B": 1, "T": 1}
FADING = [n for n in NAMES if any(i.domain in ("log_decay", "pole") for i in spec_of(n).inputs)]
FADING = [n for n in FADING if spec_of(n).state_axes or spec_of(n).state_parts]
EXPONENTS = {"mlstm": "m", "rwkv4": "pp"}  # parts of states that are scaled by exp of them


def arguments(name: str, log_decay: float) -> dict[str, np.ndarray]:
    """Return arguments that write nothing and let the state decay."""
    spec, rng = spec_of(name), np.random.default_rng(0)
    values = {i.name: np.zeros_like(i.draw(rng, SIZE, np.float32)) for i in spec.inputs}
    for i in spec.inputs:
        if i.domain in ("log_decay", "pole"):
            values[i.name][...] = log_decay
        elif i.name in ("dt", "B_in", "C_out"):
            values[i.name][...] = 1
    values |= {n: np.full_like(values[n], LOWEST) for n in ("log_input",) if n in values}
    return values | ({"k": np.full_like(values["k"], LOWEST)} if name == "rwkv4" else {})


def ones(name: str) -> Any:
    """Return a state of ones; exponents are zeros."""
    spec = spec_of(name)
    state = spec.draw_state(np.random.default_rng(0), SIZE, np.float32)
    if not spec.state_parts:
        return np.ones_like(state)
    parts = [np.full_like(a, p.name != EXPONENTS.get(name)) for p, a in zip(spec.state_parts, state, strict=True)]
    return type(state)(*parts)


def kept(name: str, state: Any) -> list[np.ndarray]:
    """Return the arrays of a state in double precision, without exponents."""
    spec = spec_of(name)
    if not spec.state_parts:
        return [np.float64(state)]
    parts = dict(zip((p.name for p in spec.state_parts), state, strict=True))
    scale = np.exp(parts.pop(EXPONENTS[name])) if name in EXPONENTS else 1.0
    return [
        np.float64(a) * np.reshape(scale, np.shape(scale) + (1,) * (a.ndim - np.ndim(scale))) for a in parts.values()
    ]


def test_every_kind_of_decay_is_here() -> None:
    assert {"gla", "rwkv4", "rwkv7", "kda", "gsa", "mamba1", "mamba2", "s4d", "mlstm", "hgrn", "retnet"} <= set(FADING)


@pytest.mark.parametrize("name", FADING)
@pytest.mark.parametrize("log_decay", LOG_DECAYS)
def test_one_token_keeps_what_the_decay_says(name: str, log_decay: float) -> None:
    _, state = getattr(wkvnp, name)(**arguments(name, log_decay), state=ones(name))
    exact = np.exp(np.float64(np.float32(log_decay)))
    for part in kept(name, state):
        assert np.abs(part / exact - 1).max() <= BOUND


@pytest.mark.parametrize("name", FADING)
@pytest.mark.parametrize("log_decay", [-88.0, -100.0, -1e4, -np.inf])
def test_below_the_smallest_normal_number_nothing_is_kept(name: str, log_decay: float) -> None:
    if name in EXPONENTS or (name.startswith(("s4d", "mamba")) and np.isinf(log_decay)):
        pytest.skip("exponents are kept in double precision; a rate is finite")
    _, state = getattr(wkvnp, name)(**arguments(name, log_decay), state=ones(name))
    assert all((part == 0).all() for part in kept(name, state))


@pytest.mark.parametrize("log_decay", LOG_DECAYS)
@pytest.mark.parametrize("angle", [0.0, 1e-3, 0.7, np.pi / 2, 3.0])
def test_complex_decays(log_decay: float, angle: float) -> None:
    rate = np.full((6, 4), np.complex64(log_decay + 1j * angle))
    zeros, many = np.zeros((1, 1, 6), np.float32), np.ones((1, 6, 4), np.complex64)
    row = np.zeros((1, 1, 4), np.complex64)
    states = [
        wkvnp.s4d(zeros, np.ones(6, np.float32), rate, 1 + 0 * rate, 1 + 0 * rate, state=many)[1],
        wkvnp.mamba1(zeros, zeros + 1, rate, row, row, state=many)[1],
    ]
    exact = np.exp(np.complex128(rate))
    for state in states:
        assert (np.abs(state - exact) / np.abs(exact)).max() <= BOUND


@pytest.mark.parametrize("log_decay", LOG_DECAYS)
def test_decays_that_a_mechanism_computes(log_decay: float) -> None:
    zeros, state = np.zeros((1, 1, 7), np.float32), np.ones((1, 7), np.float32)
    z = np.float32(-np.expm1(log_decay))
    if z < 1:
        exact = 1 - np.float64(z)
        _, last = wkvnp.mingru(zeros, zeros + z, state=state)
        assert np.abs(last / exact - 1).max() <= BOUND - COMPUTED * np.log(exact)
    Lambda = np.log(np.expm1(np.float64(-log_decay) / 8)).astype(np.float32)
    exact = np.exp(-8 * np.logaddexp(0, np.float64(Lambda)))
    _, last = wkvnp.rg_lru(zeros, zeros + 1, zeros, np.full(7, Lambda), state=state)
    assert np.abs(last / exact - 1).max() <= BOUND - COMPUTED * log_decay


def test_one_strong_token_after_a_large_state() -> None:
    rng = np.random.default_rng(0)
    q, k = (rng.standard_normal((1, 1, 2, 5)).astype(np.float32) for _ in range(2))
    v, log_decay = rng.standard_normal((1, 1, 2, 7)).astype(np.float32), np.full((1, 1, 2, 5), -20, np.float32)
    for size in (1e4, 1e8):
        state = size * rng.standard_normal((1, 2, 5, 7)).astype(np.float32)
        y, _ = wkvnp.gla(q, k, v, log_decay, scale=1.0, state=state)
        S = np.exp(-20) * np.float64(state) + np.float64(k)[0, 0, None, ..., None] * v[0, 0, None, :, None]
        exact = np.einsum("hk,bhkv->bhv", np.float64(q[0, 0]), S)
        assert np.abs(y[0] - exact).max() <= 5e-7 * np.abs(exact).max()


@pytest.mark.parametrize("tokens", [[5], [5, 6, 7]], ids=["one token", "a prompt"])
def test_a_model_drops_a_large_state(tokens: list[int], tmp_path: Path) -> None:
    made = wkvnp.random_model("rwkv6", n_layer=1, n_embd=64, vocab_size=31, head_size=16, rng=0)
    arrays = flatten(made.weights)
    arrays["blocks.0.att.time_decay"] = np.full_like(arrays["blocks.0.att.time_decay"], np.log(5))
    arrays["blocks.0.att.time_decay_w2"] = np.zeros_like(arrays["blocks.0.att.time_decay_w2"])
    save_safetensors(tmp_path / "m", arrays, made.config.metadata())
    model = wkvnp.load(tmp_path / "m")
    (layer,) = model.initial_state(batch=1).layers
    size = np.float32(1e12)
    ends = []
    for wkv in (layer.wkv, np.full_like(layer.wkv, size)):
        state = replace(model.initial_state(batch=1), layers=(replace(layer, wkv=wkv),))
        ends.append(np.float64(model(tokens, state)[1].layers[0].wkv))
    exact = ends[0] + size * np.exp(-5.0 * len(tokens))
    # One rounding of the decay, log(5), is 3e-7 of the logarithm, 5.
    assert np.abs(ends[1] / exact - 1).max() <= 1e-6 * len(tokens)
