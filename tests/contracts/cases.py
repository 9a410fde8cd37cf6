"""Every kernel form as a case: draw inputs, run it on packed sequences, ask its oracle about one sequence."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from wkvnp.kernels import delta, linear, wkv
from wkvnp.kernels.delta import oracle as delta_oracle
from wkvnp.kernels.linear import oracle as linear_oracle
from wkvnp.kernels.wkv import oracle as wkv_oracle

# No two axes share a length, so nothing transposed can pass; V is more than one block of values.
H, K, V, C = 3, 5, 70, 67

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Case:
    """`draw(rng, M, N)` gives packed inputs and a state; `run` and `oracle` take them as keywords."""

    name: str
    draw: Callable[[np.random.Generator, int, int], tuple[Arrays, Any]]
    run: Callable[[Arrays, Any, np.ndarray], tuple[np.ndarray, Any]]
    oracle: Callable[[Arrays, Any], tuple[np.ndarray, Any]]
    constant: tuple[str, ...] = ()  # inputs without a time axis

    def sequence(self, inputs: Arrays, begin: int, end: int) -> Arrays:
        return {name: a if name in self.constant else a[begin:end] for name, a in inputs.items()}


def decays(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Strong, weak and mixed decays: from exp(-20) to all but 1."""
    return -np.exp(rng.uniform(-8, 3, shape))


def linear_case(name: str, decay: Callable[..., np.ndarray], time: bool, bonus: bool) -> Case:
    def draw(rng: np.random.Generator, M: int, N: int) -> tuple[Arrays, Any]:
        inputs = {
            "q": rng.standard_normal((M, H, K)),
            "log_decay": decay(rng, M if time else 1),
            "k": rng.standard_normal((M, H, K)),
            "v": rng.standard_normal((M, H, V)),
        }
        if bonus:
            inputs["bonus"] = rng.standard_normal((H, K))
        return inputs, rng.standard_normal((N, H, K, V))

    def run(x: Arrays, state: Any, offsets: np.ndarray) -> tuple[np.ndarray, Any]:
        return linear.linear(x["q"], x["log_decay"], x["k"], x["v"], x.get("bonus"), state, offsets)

    def oracle(x: Arrays, state: Any) -> tuple[np.ndarray, Any]:
        log_decay = np.broadcast_to(x["log_decay"], x["k"].shape)
        return linear_oracle.linear(x["q"], log_decay, x["k"], x["v"], x.get("bonus"), state)

    return Case(name, draw, run, oracle, ("bonus",) if time else ("bonus", "log_decay"))


def draw_delta(rng: np.random.Generator, M: int, N: int) -> tuple[Arrays, Any]:
    direction = rng.standard_normal((M, H, K))
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    inputs = {
        "q": rng.standard_normal((M, H, K)),
        "log_decay": decays(rng, M, H, K),
        "k": rng.standard_normal((M, H, K)),
        "v": rng.standard_normal((M, H, V)),
        "a": -direction,
        "b": direction * rng.random((M, H, K)),
    }
    return inputs, rng.standard_normal((N, H, K, V))


def draw_delta_rule(rng: np.random.Generator, M: int, N: int) -> tuple[Arrays, Any]:
    inputs, state = draw_delta(rng, M, N)
    inputs["k"] = inputs.pop("a")
    del inputs["b"]
    return inputs | {"beta": rng.random((M, H))}, state


def draw_wkv(rng: np.random.Generator, M: int, N: int) -> tuple[Arrays, Any]:
    inputs = {
        "log_decay": decays(rng, C),
        "u": rng.standard_normal(C),
        "k": 20 * rng.standard_normal((M, C)),
        "v": rng.standard_normal((M, C)),
    }
    return inputs, (rng.standard_normal((N, C)), 1 + rng.random((N, C)), 5 * rng.standard_normal((N, C)))


def run_wkv(x: Arrays, state: Any, offsets: np.ndarray) -> tuple[np.ndarray, Any]:
    return wkv.wkv(x["log_decay"], x["u"], x["k"], x["v"], state, offsets)


def oracle_wkv(x: Arrays, state: Any) -> tuple[np.ndarray, Any]:
    y, parts = wkv_oracle.wkv(x["log_decay"], x["u"], x["k"], x["v"], *(state or ()))
    return y, parts


CASES = (
    linear_case("linear, vector decay, bonus", lambda rng, M: decays(rng, M, H, K), True, True),
    linear_case("linear, vector decay, read after", lambda rng, M: decays(rng, M, H, K), True, False),
    linear_case("linear, scalar decay", lambda rng, M: decays(rng, M, H, 1), True, False),
    linear_case("linear, constant vector decay", lambda rng, M: decays(rng, M, H, K), False, True),
    linear_case("linear, constant scalar decay", lambda rng, M: decays(rng, M, H, 1), False, False),
    linear_case("linear, no decay", lambda rng, M: np.zeros((M, H, 1)), False, False),
    Case(
        "delta, diagonal plus low rank",
        draw_delta,
        lambda x, state, offsets: delta.dplr(**x, state=state, offsets=offsets),
        lambda x, state: delta_oracle.dplr(**x, state=state),
    ),
    Case(
        "delta rule",
        draw_delta_rule,
        lambda x, state, offsets: delta.delta_rule(**x, state=state, offsets=offsets),
        lambda x, state: delta_oracle.delta_rule(**x, state=state),
    ),
    Case("wkv", draw_wkv, run_wkv, oracle_wkv, ("log_decay", "u")),
)
