"""The kinds of layers that a hybrid may have, by letter: each is the layer of another architecture, taken as it is.

Letters: C channels, V vocabulary; all others mean the same within a layer only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Annotated, Any

from ..checkpoints.naming import Matrix, Norm, declare, flatten
from ..errors import CheckpointError
from . import mamba1, mamba2, rwkv4, rwkv5, rwkv6, rwkv7, transformer
from .architectures import config_of as config_of_rwkv
from .architectures import module_of, weights_of
from .network import Config, Layer
from .rwkv_layer import RWKVConfig, fresh_sizes, is_in_fresh
from .settings import Settings, agree
from .transformer_config import TransformerConfig

Shape = tuple[int, ...]
_GIVEN = ("n_layer", "n_embd", "vocab_size")
_SHARED = ("hidden_size", "num_hidden_layers", "vocab_size", "tie_word_embeddings")


@dataclass(frozen=True, eq=False)
class Around:
    """The tensors around the layers of a hybrid."""

    emb: Annotated[Matrix, "V C"]
    ln_out: Annotated[Norm, "C"]
    head: Annotated[Matrix, "V C"]


@dataclass(frozen=True, eq=False)
class Recurrent:
    """A kind of RWKV block: its tensors say what its sizes are.

    Attributes
    ----------
    part : str
        The name above its tensors in a block, and above its fields in the configuration.
    architecture : str
        The model that it comes from.
    block : type
        Declares its tensors.
    layer : callable
        Makes a layer of a block, its configuration and the dtype of the activations.
    """

    part: str
    architecture: str
    block: type[Any]
    layer: Callable[..., Layer]

    def does_not_use(self, name: str, first: bool) -> bool:
        """Say whether a block of an RWKV may have a tensor that this layer has no use for."""
        unused: tuple[str, ...] = ("ln0.",)
        if self.part == "rwkv5":
            unused += ("att.time_first",)
        if self.part == "rwkv7" and first:
            unused += ("att.v0", "att.v1", "att.v2")
        return name.startswith(unused)

    def fresh_fields(self, head_size: int, **options: Any) -> dict[str, Any]:
        """Return the fields of such layers in a fresh model."""
        return {} if self.architecture == "rwkv4" else {"head_size": head_size}

    def config(self, settings: Settings, shared: Mapping[str, int]) -> RWKVConfig:
        """Return the configuration of such a layer in a fresh model."""
        C, V, heads = shared["hidden_size"], shared["vocab_size"], self.architecture != "rwkv4"
        head = settings.integer("head_size") if heads else 1
        sizes = fresh_sizes(self.architecture, 2, C, V, head)
        return RWKVConfig(
            architecture=self.architecture,
            n_layer=1,
            n_embd=C,
            vocab_size=V,
            n_att=C,
            n_ffn=sizes["F"],
            n_head=sizes["H"] if heads else 0,
            head_size=head if heads else 0,
            ranks={letter: sizes[letter] for letter in module_of(self.architecture).RANKS},
            group_norm_eps=settings.number("group_norm_eps", 64e-5) if heads else 64e-5,
        )

    def of_layer(self, c: RWKVConfig, n: int) -> RWKVConfig:
        """Return the configuration of a model with the layer of a number alone."""
        return c

    def shapes(self, c: RWKVConfig, first: bool) -> dict[str, Shape]:
        """Return the tensors of a fresh layer; the first of an RWKV-7 has no earlier value to look back to."""
        sizes = {"C": c.n_embd, "A": c.n_att, "V": c.vocab_size, "F": c.n_ffn, "H": c.n_head, "N": c.head_size}
        model = declare(weights_of(self.architecture), sizes | c.ranks, 2, is_in_fresh)
        return _inside(model, f"blocks.{0 if first else 1}.")

    def measured(self, c: RWKVConfig, block: Any, around: Around, sizes: dict[str, int], source: str) -> RWKVConfig:
        """Return the configuration that the tensors of a layer describe."""
        model = weights_of(self.architecture)(around.emb, (block,), around.ln_out, around.head)
        found = config_of_rwkv(self.architecture, model, sizes | {"V": c.vocab_size, "L": 1}, c.group_norm_eps, source)
        agree({"N": found.head_size}, {"N": ("head_size", c.head_size)}, source)
        return found


@dataclass(frozen=True, eq=False)
class Described:
    """A kind of block whose sizes the configuration says: as `Recurrent`, and some more.

    Attributes
    ----------
    module : module
        That of its architecture.
    place : str
        The prefix of the first block in a model of that architecture.
    usual : mapping of str to object
        What fields say that are not there.
    options : tuple of str
        What `random_model` passes on to such layers.
    """

    part: str
    module: ModuleType
    block: type[Any]
    layer: Callable[..., Layer]
    place: str
    usual: Mapping[str, Any]
    options: tuple[str, ...] = ()

    def does_not_use(self, name: str, first: bool) -> bool:
        """Say no: the configuration says which tensors there are."""
        return False

    def fresh_fields(self, head_size: int, **options: Any) -> dict[str, Any]:
        """Return the fields of such layers in a fresh model."""
        given = {name: value for name, value in options.items() if name in (*_GIVEN, *self.options)}
        fields: dict[str, Any] = self.module.fresh_fields(head_size=head_size, **given)
        return {name: value for name, value in fields.items() if name not in _SHARED}

    def config(self, settings: Settings, shared: Mapping[str, int]) -> Config:
        """Return the configuration of a model all of whose layers are of this kind."""
        settings.fields = {**self.usual, **shared, **settings.fields}
        config: Config = self.module.config_of(settings)
        for name, size in shared.items():
            if settings.fields[name] != size:
                raise settings.fault(name, f"{size}, as in the whole model")
        return config

    def of_layer(self, c: Config, n: int) -> Config:
        """Return the configuration of a model with the layer of a number alone."""
        alone: dict[str, Any] = {"windows": c.windows[n : n + 1]} if isinstance(c, TransformerConfig) else {}
        return replace(c, n_layer=1, **alone)

    def shapes(self, c: Config, first: bool) -> dict[str, Shape]:
        """Return the tensors of a layer."""
        return _inside(self.module.shapes(c), self.place)

    def measured(self, c: Config, block: Any, around: Around, sizes: dict[str, int], source: str) -> Config:
        """Return the configuration, which the tensors of a layer must fit."""
        wanted = self.shapes(c, False)
        for name, tensor in flatten(block).items():
            if name not in wanted:
                raise CheckpointError(f"{source}: 1 tensor is left over, as configured: {name}")
            if tensor.shape != wanted[name]:
                raise CheckpointError(f"{source}: {name} must be {wanted[name]}, as configured; is {tensor.shape}")
        return c


_ATTENTION = Described(
    part="attention",
    module=transformer,
    block=transformer.Block,
    layer=transformer.AttentionLayer,
    place="model.layers.0.",
    usual={"model_type": "mistral", "sliding_window": None},
    options=("n_group", "window"),
)
_RWKV7 = Recurrent("rwkv7", "rwkv7", rwkv7.Block, rwkv7.Layer)
KINDS: dict[str, Recurrent | Described] = {
    "a": _ATTENTION,
    "r": _RWKV7,
    "4": Recurrent("rwkv4", "rwkv4", rwkv4.Block, rwkv4.Layer),
    "5": Recurrent("rwkv5", "rwkv5.2", rwkv5.Block52, rwkv5.Layer),
    "6": Recurrent("rwkv6", "rwkv6", rwkv6.Block, rwkv6.Layer),
    "7": _RWKV7,
    "m": Described("mamba1", mamba1, mamba1.Block, mamba1.Mamba1Layer, "backbone.layers.0.", {"model_type": "mamba"}),
    "s": Described("mamba2", mamba2, mamba2.Block, mamba2.Mamba2Layer, "backbone.layers.0.", {"model_type": "mamba2"}),
}
"""What the letters of a pattern stand for."""


def _inside(shapes: Mapping[str, Shape], place: str) -> dict[str, Shape]:
    """Return the tensors under a prefix, without the prefix; a hybrid has no ``ln0``."""
    inside = {name.removeprefix(place): shape for name, shape in shapes.items() if name.startswith(place)}
    return {name: shape for name, shape in inside.items() if not name.startswith("ln0.")}
