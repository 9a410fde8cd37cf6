"""Random weights of any size: for experiments, tests and benchmarks."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from .._arguments import advice, generator_of
from ..checkpoints import LazyTensor
from ..checkpoints.naming import Array, build, declare, read
from ..checkpoints.quantised_tensors import tensor_of
from ..errors import ArgumentError, CheckpointError, ShapeError
from .architectures import ARCHITECTURES, RWKV, config_of, module_of, weights_of
from .language_model import Model
from .network import Config
from .rwkv_layer import fresh_sizes, is_in_fresh
from .settings import Settings
from .storage import checked, converted, require_groups


def random_model(
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
        ``"rwkv4"``, ``"rwkv5.0"``, ``"rwkv5.1"``, ``"rwkv5.2"`` (or ``"rwkv5"``), ``"rwkv6"``, ``"rwkv7"``,
        ``"mamba1"``, ``"mamba2"``, ``"transformer"``, ``"hybrid"`` or ``"qwen3_next"``.
    n_layer, n_embd, vocab_size : int
        Layers, width and tokens.
    head_size : int, default 64
        Width of a head; must divide `n_embd`. RWKV-4 and Mamba-1 have no heads.
    rng : numpy.random.Generator or int, optional
        Where the numbers come from.
    dtype : {"float32", "bfloat16", "float16", "float64", "int8", "int4"}
        In which the matrices are kept, of the last two the large ones.
    **options : optional
        What else an architecture may be told. ``transformer``: `n_group`, heads of keys and values, by default as many
        as there are heads; `window`, how many tokens one sees, by default all. ``mamba1``: `n_state`, numbers a
        channel, by default 16. ``mamba2``: `n_state`, by default 128; `n_group`, groups of heads, by default 1.
        ``hybrid``: `pattern`, letters for the kinds of layers, repeated, by default "arrr" ("a" attention, "4" to "7"
        RWKV-4 to 7, "r" RWKV-7, "m" Mamba-1, "s" Mamba-2); `n_group` and `window` of attention. ``qwen3_next``:
        `n_group`; `interval`, of how many layers the last one has attention, by default 4.

    Returns
    -------
    Model

    Raises
    ------
    ArgumentError
        If the architecture is unknown or a size does not fit.

    Examples
    --------
    >>> import wkvnp
    >>> wkvnp.random_model("rwkv7", n_layer=2, n_embd=128, vocab_size=256, rng=0)
    <rwkv7: 2 layers of 128, 256 tokens, float32>
    """
    architecture = {"rwkv5": "rwkv5.2"}.get(architecture, architecture)
    if architecture not in ARCHITECTURES:
        raise ArgumentError(
            f"random_model: architecture must be one of {', '.join(ARCHITECTURES)}; got {architecture!r}"
        )
    given = {"n_layer": n_layer, "n_embd": n_embd, "vocab_size": vocab_size, "head_size": head_size}
    for name, size in given.items():
        if not isinstance(size, (int, np.integer)) or size < 1:
            raise ArgumentError(f"random_model: {name} must be a positive whole number; got {size!r}")
    if architecture not in _WITHOUT_HEADS and n_embd % head_size:
        raise ShapeError(f"random_model: head_size must divide n_embd={n_embd}; got {head_size}")
    stored, rng = checked(dtype), generator_of("random_model", rng)
    module = module_of(architecture)
    if architecture in RWKV:
        _check_options(architecture, (), options)
        sizes = fresh_sizes(architecture, n_layer, n_embd, vocab_size, head_size)
        declared = weights_of(architecture)
        weights = read(build(declared, _drawn(declare(declared, sizes, n_layer, is_in_fresh), stored, rng)))
        config: Config = config_of(architecture, weights, {**sizes, "L": n_layer}, 64e-5, "random_model")
    else:
        _check_options(architecture, inspect.signature(module.fresh_fields).parameters, options)
        fields = module.fresh_fields(**{name: int(size) for name, size in given.items()}, **options)
        try:
            shapes = module.shapes(module.config_of(Settings(fields, "random_model")))
        except CheckpointError as error:  # here the fields come from arguments
            raise ArgumentError(str(error)) from None
        tensors = _drawn(shapes, stored, rng, getattr(module, "CENTRED", ""))
        places, config = module.bound(tensors, Settings(fields, "random_model"), "random_model")
        weights = read(places)
    return Model(config.kept_in(stored), weights, module.network)


_SIZES = ("n_layer", "n_embd", "vocab_size", "head_size")
_WITHOUT_HEADS = ("rwkv4", "mamba1")


def _check_options(architecture: str, known: Iterable[str], options: Mapping[str, Any]) -> None:
    for name in options:
        if name not in known:
            more = [each for each in known if each not in _SIZES]
            others = f"it takes {', '.join((*_SIZES, 'rng', 'dtype', *more))}"
            hint = advice(name, [*_SIZES, "rng", "dtype", *more])
            raise ArgumentError(f"random_model: {architecture} has no option {name!r}; {hint}{others}")


def _drawn(
    shapes: Mapping[str, tuple[int, ...]], stored: str, rng: np.random.Generator, centred: str = ""
) -> dict[str, LazyTensor]:
    """Draw all tensors, matrices in the dtype to store; names of a pattern are scales stored as differences from 1."""
    require_groups(shapes, stored, "random_model")
    tensors: dict[str, LazyTensor] = {}
    for name, shape in shapes.items():
        array = np.zeros(shape, np.float32) if re.fullmatch(centred, name) else _draw(name, shape, rng)
        tensors[name] = tensor_of(name, converted(name, array, stored, "random_model"))
    return tensors


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
    if last in ("A_log", "D", "dt_bias") or name.endswith(("dt_proj.bias", "conv1d.weight")):
        return _draw_of_state_space(last, shape, rng)
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


def _draw_of_state_space(last: str, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Draw what the layers of Mamba and of gated delta nets have, by the rules of Mamba's authors."""
    if last == "D":
        return np.ones(shape, np.float32)
    if last == "A_log":  # for every state of a channel, or one for each head
        rates = np.arange(1, shape[1] + 1) if len(shape) == 2 else rng.uniform(1, 16, shape)
        return np.broadcast_to(np.log(rates), shape).astype(np.float32)
    if last == "weight":
        bound = shape[-1] ** -0.5
        return rng.uniform(-bound, bound, shape).astype(np.float32)
    dt = np.exp(rng.uniform(np.log(1e-3), np.log(1e-1), shape))
    return np.log(np.expm1(dt)).astype(np.float32)  # whose softplus is dt
