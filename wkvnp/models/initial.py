"""Random weights of any size: for experiments, tests and benchmarks."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from .._dtypes import FLOAT_DTYPES, float_dtype, narrow
from ..checkpoints import LazyTensor
from ..checkpoints.naming import Array, build, declare, read
from ..errors import ShapeError
from .architectures import ARCHITECTURES, RWKV, config_of, converted, module_of, weights_of
from .language_model import Model
from .network import Config
from .settings import Settings


def init(
    architecture: str,
    *,
    n_layer: int,
    n_embd: int,
    vocab_size: int,
    head_size: int = 64,
    rng: np.random.Generator | int | None = None,
    dtype: str = "float32",
    **options: Any,
) -> Model:
    """Make a model with random weights.

    The numbers are drawn so that activations keep a size of about one and decays span short and long memories; they
    are no recipe for training.

    Parameters
    ----------
    architecture : str
        ``"rwkv4"``, ``"rwkv5.0"``, ``"rwkv5.1"``, ``"rwkv5.2"`` (or ``"rwkv5"``), ``"rwkv6"``, ``"rwkv7"`` or
        ``"transformer"``.
    n_layer, n_embd, vocab_size : int
        Layers, width and tokens.
    head_size : int, default 64
        Width of a head; must divide `n_embd`. RWKV-4 has no heads.
    rng : numpy.random.Generator or int, optional
        Where the numbers come from.
    dtype : {"float32", "bfloat16", "float16", "float64"}
        In which the matrices are kept.
    **options : optional
        What else an architecture may be told. ``transformer``: `n_group`, heads of keys and values, by default as many
        as there are heads; `window`, how many tokens one sees, by default all.

    Returns
    -------
    Model

    Raises
    ------
    ShapeError
        If the architecture is unknown or a size does not fit.

    Examples
    --------
    >>> import wkvnp
    >>> wkvnp.init("rwkv7", n_layer=2, n_embd=128, vocab_size=256, rng=0)
    <rwkv7: 2 layers of 128, 256 tokens, float32>
    """
    architecture = {"rwkv5": "rwkv5.2"}.get(architecture, architecture)
    if architecture not in ARCHITECTURES:
        raise ShapeError(f"init: architecture must be one of {', '.join(ARCHITECTURES)}; got {architecture!r}")
    given = {"n_layer": n_layer, "n_embd": n_embd, "vocab_size": vocab_size, "head_size": head_size}
    for name, size in given.items():
        if not isinstance(size, (int, np.integer)) or size < 1:
            raise ShapeError(f"init: {name} must be a positive whole number; got {size!r}")
    if architecture not in _WITHOUT_HEADS and n_embd % head_size:
        raise ShapeError(f"init: head_size must divide n_embd={n_embd}; got {head_size}")
    stored, rng = float_dtype(dtype), np.random.default_rng(rng)
    module = module_of(architecture)
    if architecture in RWKV:
        _check_options(architecture, (), options)
        sizes = _sizes(architecture, n_layer, n_embd, vocab_size, head_size)
        declared = weights_of(architecture)
        weights = build(declared, _drawn(declare(declared, sizes, n_layer, _is_present), stored, rng))
        config: Config = config_of(architecture, weights, {**sizes, "L": n_layer}, 64e-5, "init")
    else:
        _check_options(architecture, inspect.signature(module.fresh_fields).parameters, options)
        fields = module.fresh_fields(**{name: int(size) for name, size in given.items()}, **options)
        arrays = _drawn(module.shapes(module.config_of(Settings(fields, "init"))), stored, rng)
        tensors = {name: LazyTensor.of(name, array) for name, array in arrays.items()}
        places, config = module.bound(tensors, Settings(fields, "init"), "init")
        weights = read(places)
    return Model(config, weights, module.network)


_WITHOUT_HEADS = ("rwkv4", "mamba1")


def _check_options(architecture: str, known: Iterable[str], options: Mapping[str, Any]) -> None:
    for name in options:
        if name not in known:
            raise ShapeError(f"init: {architecture} has no option {name!r}")


def _drawn(shapes: Mapping[str, tuple[int, ...]], stored: np.dtype[Any], rng: np.random.Generator) -> dict[str, Array]:
    """Draw all tensors, matrices in the dtype to store."""
    arrays: dict[str, Array] = {}
    for name, shape in shapes.items():
        array = _draw(name, shape, rng)
        arrays[name] = converted(name, array, stored) if stored != FLOAT_DTYPES["float32"] else narrow(array, stored)
        arrays[name].flags.writeable = False
    return arrays


def _sizes(architecture: str, n_layer: int, n_embd: int, vocab_size: int, head_size: int) -> dict[str, int]:
    """Return the size of every axis letter, by the rules of the published models."""
    sizes = {"C": n_embd, "A": n_embd, "V": vocab_size, "H": n_embd // head_size, "N": head_size}
    sizes["F"] = 4 * n_embd if architecture in ("rwkv4", "rwkv7") else max(32, int(3.5 * n_embd) // 32 * 32)
    large = n_embd >= 4096
    sizes |= {"R": 64 if large else 32, "D": 128 if large else 64}

    def rank(factor: float, power: float) -> int:
        multiple: int = round(factor * n_embd**power / 32)
        return max(32, 32 * multiple)

    sizes |= {"Dw": rank(1.8, 0.5), "Da": rank(1.8, 0.5), "Dg": rank(0.6, 0.8)}
    return sizes | ({"Dv": rank(1.3, 0.5)} if n_layer > 1 else {})


def _is_present(name: str) -> bool:
    """Say which optional tensors a fresh model has."""
    block, _, tensor = name.removeprefix("blocks.").partition(".")
    if tensor.startswith("ln0."):
        return block == "0"
    if tensor in ("att.v0", "att.v1", "att.v2"):
        return block != "0"
    return tensor == "att.time_faaaa"


_RULES: Mapping[str, tuple[float, float]] = {
    "time_decay": (-3.0, 2.0),
    "w0": (-1.0, 2.0),
    "time_first": (0.0, 0.5),
    "time_faaaa": (0.0, 0.5),
    "a0": (0.0, 0.5),
    "v0": (0.5, 0.5),
    "k_k": (0.85, 0.1),
    "k_a": (1.0, 0.1),
    "r_k": (0.0, 0.2),
}
"""Last part of a name -> mean and spread."""


def _draw(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    last = name.rpartition(".")[2]
    if last == "weight" and (".ln" in f".{name}" or "norm" in name):
        return np.ones(shape, np.float32)
    if last == "bias":
        return np.zeros(shape, np.float32)
    if last in _RULES:
        mean, spread = _RULES[last]
        return (mean + spread * rng.standard_normal(shape, np.float32)).astype(np.float32)
    if 1 in shape[:2] and len(shape) == 3:
        return rng.random(shape, np.float32)
    # Matrices are [out, in], factors [in, rank] and [rank, out].
    inputs = shape[1] if last == "weight" else shape[-2]
    scale = np.float32(0.02 if "emb" in name else inputs**-0.5)
    return rng.standard_normal(shape, np.float32) * scale
