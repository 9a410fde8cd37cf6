"""A hybrid: a pattern of letters says of what kind every layer is, attention or a recurrence.

The block of a layer is in its own architecture's file and comes as it is, with its norms and its channel mix or
feed-forward network. What is added here is the embedding, a last layer norm and the head.

Letters: M packed tokens, C channels, V vocabulary. All others mean the same within one layer only.

References
----------
Lieber et al. 2024, "Jamba" (arXiv:2403.19887), section 3, and De et al. 2024, "Griffin" (arXiv:2402.19427), section 2,
for attention in a few layers among recurrent ones.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from .._dtypes import dtype_name
from ..checkpoints import LazyTensor
from ..checkpoints.naming import bind, declare
from ..checkpoints.tensors import quoted
from ..errors import ArgumentError
from . import mamba1, mamba2, rwkv4, rwkv5, rwkv6, rwkv7, transformer
from .hybrid_kinds import KINDS, Around, Shape
from .network import Config, Embedding, Head, Network, vector
from .settings import Settings, agree, as_metadata


@dataclass(frozen=True, eq=False, kw_only=True)
class Block:
    """``blocks.n``: one of these."""

    attention: transformer.Block | None = None
    rwkv4: rwkv4.Block | None = None
    rwkv5: rwkv5.Block52 | None = None
    rwkv6: rwkv6.Block | None = None
    rwkv7: rwkv7.Block | None = None
    mamba1: mamba1.Block | None = None
    mamba2: mamba2.Block | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Weights(Around):
    """All tensors of a checkpoint."""

    blocks: tuple[Block, ...]


WEIGHTS = {"hybrid": Weights}
_OF_A_LAYER = re.compile(r"blocks\.(0|[1-9][0-9]{0,8})\.(\w+)\.(.+)")


@dataclass(frozen=True, kw_only=True)
class HybridConfig(Config):
    """Sizes of a hybrid.

    Attributes
    ----------
    pattern : str
        The letter of every layer, from `KINDS`.
    parts : tuple of Config
        For every layer, the configuration of a model of its kind that has this one layer.
    fields : dict
        The configuration as it was read.
    """

    pattern: str
    parts: tuple[Any, ...]
    fields: dict[str, Any]

    def kept_in(self, dtype: str) -> Self:
        """Return the configuration of the same model with its matrices in another dtype, those of all layers."""
        return replace(self, dtype=dtype, parts=tuple(part.kept_in(dtype) for part in self.parts))

    @property
    def state_bytes(self) -> int:
        """Bytes of the state of one sequence that do not grow."""
        return sum(part.state_bytes for part in self.parts)

    @property
    def state_bytes_per_token(self) -> int:
        """Bytes that every token adds to the state, in the layers that have attention."""
        return sum(part.state_bytes_per_token for part in self.parts)

    def metadata(self) -> dict[str, str]:
        """Return what a safetensors file says besides the tensors."""
        return as_metadata(self.architecture, self.fields)


def network(weights: Weights, config: HybridConfig, dtype: np.dtype[Any]) -> Network:
    """Return the way from tokens to logits: embedding, layers of their kinds, last norm and head.

    What a layer of RWKV-7 hands up to later ones passes through the layers of other kinds.
    """
    scale, shift = vector(weights.ln_out.weight, dtype), vector(weights.ln_out.bias, dtype)
    kinds = [KINDS[letter] for letter in config.pattern]
    return Network(
        embed=Embedding(weights.emb.weight, dtype),
        layers=tuple(
            kind.layer(getattr(block, kind.part), part, dtype)
            for kind, block, part in zip(kinds, weights.blocks, config.parts, strict=True)
        ),
        head=Head(weights.head.weight, scale, shift, 1e-5),
    )


def bound(tensors: Mapping[str, LazyTensor], settings: Settings, source: str) -> tuple[Weights, HybridConfig]:
    """Return tensors in their places among the weights, unread, and the configuration that they and the fields make.

    Every layer is bound by itself, so that its letters are its own.

    Raises
    ------
    CheckpointError
        If a tensor or a field is missing, left over, or not what it must be.
    """
    table = tensors["emb.weight"].shape if "emb.weight" in tensors else ()
    for name, size in zip(("vocab_size", "hidden_size"), table, strict=False):
        settings.fields.setdefault(name, size)
    if isinstance(pattern := settings.value("pattern"), str) and len(pattern) > len(tensors):
        raise settings.fault("pattern", f"a letter for every layer; there are {len(tensors)} tensors for all of them")
    config = config_of(settings)
    settings.finish(remarks=False)
    firsts = _firsts(config.pattern)
    outside, inside = _sorted(tensors, config.pattern)
    around, sizes = bind(Around, outside, source=source)
    agree(sizes, {"C": ("hidden_size", config.n_embd), "V": ("vocab_size", config.vocab_size)}, source)
    blocks, parts = [], []
    for n, letter in enumerate(config.pattern):
        kind, part, where = KINDS[letter], config.parts[n], f"{source}: blocks.{n}.{KINDS[letter].part}"
        needed = [re.escape(name) for name in kind.shapes(part, n in firsts)]
        block, sizes = bind(kind.block, inside[n], source=where, require=needed)
        agree(sizes, {"C": ("hidden_size", config.n_embd)}, where)
        blocks.append(Block(**{kind.part: block}))
        parts.append(kind.measured(part, block, around, sizes, where))
    weights = Weights(emb=around.emb, blocks=tuple(blocks), ln_out=around.ln_out, head=around.head)
    return weights, replace(config, parts=tuple(parts), dtype=dtype_name(around.head.weight.dtype))


def _sorted(
    tensors: Mapping[str, LazyTensor], pattern: str
) -> tuple[dict[str, LazyTensor], list[dict[str, LazyTensor]]]:
    """Return the tensors that belong to no layer, and those of every layer under the names that they have in it."""
    firsts = _firsts(pattern)
    outside: dict[str, LazyTensor] = {}
    inside: list[dict[str, LazyTensor]] = [{} for _ in pattern]
    for name, tensor in tensors.items():
        found = _OF_A_LAYER.fullmatch(name)
        n = int(found[1]) if found else len(pattern)
        kind = KINDS[pattern[n]] if n < len(pattern) else None
        if found and kind and found[2] == kind.part and not kind.does_not_use(found[3], n in firsts):
            inside[n][found[3]] = tensor
        else:
            outside[name] = tensor
    return outside, inside


def _firsts(pattern: str) -> set[int]:
    """Return the layers that are the first of their kind."""
    first: dict[str, int] = {}
    for n, letter in enumerate(pattern):
        first.setdefault(KINDS[letter].part, n)
    return set(first.values())


def _is_pattern(pattern: Any) -> bool:
    return isinstance(pattern, str) and pattern != "" and all(letter in KINDS for letter in pattern)


_LETTERS = ", ".join(f"{letter} ({kind.part})" for letter, kind in KINDS.items())


def config_of(settings: Settings) -> HybridConfig:
    """Return the configuration that the fields describe; what they leave to the tensors is as in `random_model`."""
    settings.choice("model_type", ("hybrid",))
    pattern = settings.value("pattern")
    if not _is_pattern(pattern):
        raise settings.fault("pattern", f"a letter for every layer, of {_LETTERS}")
    n_layer = settings.integer("num_hidden_layers", len(pattern))
    if n_layer != len(pattern):
        raise settings.fault("pattern", f"{n_layer} letters, one for each of num_hidden_layers")
    shared = {
        "hidden_size": settings.integer("hidden_size"),
        "num_hidden_layers": n_layer,
        "vocab_size": settings.integer("vocab_size"),
    }
    settings.ignore(*(kind.part for kind in KINDS.values()))  # a description of layers that are not there is harmless
    parts: dict[str, Any] = {}
    for kind in dict.fromkeys(KINDS[letter] for letter in pattern):
        settings.fields.setdefault(kind.part, {})
        if (described := settings.nested(kind.part)) is None:
            raise settings.fault(kind.part, "an object")
        parts[kind.part] = kind.config(described, shared)
        described.finish(remarks=False)
    return HybridConfig(
        architecture="hybrid",
        n_layer=n_layer,
        n_embd=shared["hidden_size"],
        vocab_size=shared["vocab_size"],
        pattern=pattern,
        parts=tuple(KINDS[letter].of_layer(parts[KINDS[letter].part], n) for n, letter in enumerate(pattern)),
        fields=settings.fields,
    )


def fresh_fields(
    *,
    n_layer: int,
    n_embd: int,
    vocab_size: int,
    head_size: int,
    pattern: str = "arrr",
    n_group: int | None = None,
    window: int | None = None,
) -> dict[str, Any]:
    """Return the fields of a model with random weights, whose layers repeat a pattern."""
    if not _is_pattern(pattern):
        raise ArgumentError(f"random_model: pattern must be one or more letters of {_LETTERS}; got {quoted(pattern)}")
    pattern = (pattern * n_layer)[:n_layer]
    sizes = {"n_layer": n_layer, "n_embd": n_embd, "vocab_size": vocab_size, "head_size": head_size}
    kinds = dict.fromkeys(KINDS[letter] for letter in pattern)
    return {
        "model_type": "hybrid",
        "pattern": pattern,
        "hidden_size": n_embd,
        "num_hidden_layers": n_layer,
        "vocab_size": vocab_size,
        **{kind.part: kind.fresh_fields(**sizes, n_group=n_group, window=window) for kind in kinds},
    }


def shapes(config: HybridConfig) -> dict[str, Shape]:
    """Return the names and shapes of the tensors of a fresh model."""
    firsts = _firsts(config.pattern)
    named = declare(Around, {"C": config.n_embd, "V": config.vocab_size}, 0)
    for n, letter in enumerate(config.pattern):
        kind = KINDS[letter]
        inside = kind.shapes(config.parts[n], n in firsts)
        named |= {f"blocks.{n}.{kind.part}.{name}": shape for name, shape in inside.items()}
    return named
