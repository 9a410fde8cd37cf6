"""Cases of the kernels whose channels never meet: scan, selective and short convolution."""

from typing import Any

import numpy as np

from contracts.case import Arrays, Case, decays
from wkvnp.kernels import convolution, scan, selective
from wkvnp.kernels.convolution import oracle as convolution_oracle
from wkvnp.kernels.scan import oracle as scan_oracle
from wkvnp.kernels.selective import oracle as selective_oracle

# Two groups of channels, each more than one block.
G, C, N, W = 2, 134, 5, 4


def signed(rng: np.random.Generator, turning: bool, *shape: int) -> np.ndarray:
    numbers = rng.standard_normal(shape)
    return numbers + 1j * rng.standard_normal(shape) if turning else numbers


def poles(rng: np.random.Generator, turning: bool, *shape: int) -> np.ndarray:
    return decays(rng, *shape) + (1j * rng.uniform(-10, 10, shape) if turning else 0)


def scan_case(name: str, gain: Any = "one", turning: bool = False, constant: bool = False) -> Case:
    def draw(rng: np.random.Generator, M: int, Q: int) -> tuple[Arrays, Any]:
        log_decay = poles(rng, turning, 1 if constant else M, C)
        return {"log_decay": log_decay, "x": signed(rng, turning, M, C)}, signed(rng, turning, Q, C)

    def oracle(x: Arrays, state: Any) -> tuple[np.ndarray, Any]:
        return scan_oracle.scan(np.broadcast_to(x["log_decay"], x["x"].shape), x["x"], state, gain)

    return Case(
        name,
        draw,
        lambda x, state, offsets: scan.scan(**x, state=state, offsets=offsets, gain=gain),
        oracle,
        ("log_decay",) if constant else (),
    )


def selective_case(name: str, turning: bool, bare: bool) -> Case:
    def draw(rng: np.random.Generator, M: int, Q: int) -> tuple[Arrays, Any]:
        inputs = {
            "x": rng.standard_normal((M, C)),
            "dt": np.exp(rng.uniform(-3, 1, (M, C))),
            "A": poles(rng, turning, C, N),
            "B": signed(rng, turning, M, G, N),
            "C": signed(rng, turning, M, G, N),
        }
        if not bare:
            inputs |= {"D": rng.standard_normal(C), "z": rng.standard_normal((M, C))}
        return inputs, signed(rng, turning, Q, C, N)

    def run(x: Arrays, state: Any, offsets: np.ndarray) -> tuple[np.ndarray, Any]:
        return selective.selective(**{"D": None, "z": None} | x, state=state, offsets=offsets)

    return Case(name, draw, run, lambda x, state: selective_oracle.selective(**x, state=state), ("A", "D"))


def time_invariant_case(name: str, turning: bool) -> Case:
    def draw(rng: np.random.Generator, M: int, Q: int) -> tuple[Arrays, Any]:
        inputs = {
            "x": rng.standard_normal((M, C)),
            "log_decay": poles(rng, turning, C, N),
            "drive": signed(rng, turning, C, N),
            "read": signed(rng, turning, C, N),
            "D": rng.standard_normal(C),
        }
        return inputs, signed(rng, turning, Q, C, N)

    def discretized(x: Arrays, *functions: Any) -> Arrays:
        """Replace the logarithm by what the kernel or the oracle takes, in double precision."""
        inputs = dict(x)
        log_decay = inputs.pop("log_decay").astype(np.complex128 if turning else np.float64)
        return inputs | {{np.exp: "decay", np.expm1: "less_one"}[f]: f(log_decay) for f in functions}

    return Case(
        name,
        draw,
        lambda x, state, offsets: selective.time_invariant(
            **discretized(x, np.exp, np.expm1), state=state, offsets=offsets
        ),
        lambda x, state: selective_oracle.time_invariant(**discretized(x, np.exp), state=state),
        ("log_decay", "drive", "read", "D"),
    )


def short_case(name: str, width: int, bias: bool) -> Case:
    def draw(rng: np.random.Generator, M: int, Q: int) -> tuple[Arrays, Any]:
        inputs = {"x": rng.standard_normal((M, C)), "weight": rng.standard_normal((width, C))}
        if bias:
            inputs["bias"] = rng.standard_normal(C)
        return inputs, rng.standard_normal((Q, width - 1, C))

    def run(x: Arrays, state: Any, offsets: np.ndarray) -> tuple[np.ndarray, Any]:
        return convolution.short_convolution(x["x"], x["weight"], x.get("bias"), state, offsets)

    return Case(
        name,
        draw,
        run,
        lambda x, state: convolution_oracle.short_convolution(**x, window=state),
        ("weight", "bias"),
        fades=False,
    )


SCAN_CASES = (
    scan_case("scan"),
    scan_case("scan, constant decay", constant=True),
    scan_case("scan, what the decay leaves", "rest"),
    scan_case("scan, root of what the decay leaves", "root"),
    scan_case("scan, complex", turning=True),
    scan_case("scan, complex, constant decay", turning=True, constant=True),
    selective_case("selective", turning=False, bare=False),
    selective_case("selective, bare", turning=False, bare=True),
    selective_case("selective, complex", turning=True, bare=False),
    time_invariant_case("time invariant", turning=False),
    time_invariant_case("time invariant, complex", turning=True),
    short_case("short convolution", W, bias=True),
    short_case("short convolution of one token", 1, bias=False),
)
