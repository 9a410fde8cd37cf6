"""What rwkv.cpp has changed in the tensors of its files, undone: original shapes, orientations and raw decays.

The names are the original ones, so only the container tells such a file. Letters: A attention width, C embedding
width, H heads, N head size, R rank.

References
----------
RWKV/rwkv.cpp, ``python/convert_pytorch_to_ggml.py``.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..checkpoints import Container, LazyTensor
from ..checkpoints.naming import Logarithm, Renamed, Reshape, Rule, Transpose
from ..errors import CheckpointError
from ._schemes import version

GROUP_NORM_EPS = {"rwkv5.0": 1e-5, "rwkv5.1": 1e-5, "rwkv5.2": 1e-5}
"""What rwkv.cpp adds to the variance of each head's output where the original adds 64e-5."""

_ROW = Reshape((1, 1, -1))
_TRANSPOSE = (Transpose(),)
_MIXING_ROWS = Rule(r"blocks\.(\d+)\.(att|ffn)\.(time_(?:mix|maa)_\w)", r"blocks.\1.\2.\3", (_ROW,))

_RWKV4: tuple[Rule, ...] = (
    _MIXING_ROWS,
    Rule(r"blocks\.(\d+)\.att\.time_decay", r"blocks.\1.att.time_decay", (Logarithm("-exp(x)"),)),
)

_RWKV7 = (
    Rule(
        r"blocks\.(\d+)\.att\.x_rwkvag",
        tuple(rf"blocks.\1.att.x_{letter}" for letter in "rwkvag"),
        (Reshape((6, 1, -1)),),
    ),
    Rule(r"blocks\.(\d+)\.att\.([wavg][12])", r"blocks.\1.att.\2", _TRANSPOSE),
)


def original_tensors(container: Container) -> Mapping[str, LazyTensor]:
    """Return the tensors of an rwkv.cpp file in the layouts of the original authors.

    Parameters
    ----------
    container : Container
        A file whose format is ``"ggmf"``.

    Returns
    -------
    mapping of str to LazyTensor

    Raises
    ------
    CheckpointError
        If it is no known RWKV, a shape is impossible, or its header speaks of another model than its tensors.
    """
    tensors, source = container.tensors, str(container.path)
    architecture = version(tensors, source)
    _check_header(container, source)
    if architecture == "rwkv4":
        rules = _RWKV4
    elif architecture == "rwkv7":
        rules = _RWKV7
    else:
        rules = _rwkv6(tensors) if architecture == "rwkv6" else _rwkv5(tensors)
    return Renamed(tensors, rules, source=f"{source} (rwkv.cpp layout)")


def _rwkv5(tensors: Mapping[str, LazyTensor]) -> tuple[Rule, ...]:
    per_head = _per_head(tensors, "time_decay")
    undo = Logarithm("exp(-exp(x))")
    return (
        _MIXING_ROWS,
        Rule(r"blocks\.(\d+)\.att\.time_decay", r"blocks.\1.att.time_decay", (undo, per_head)),
        Rule(r"blocks\.(\d+)\.att\.time_first", r"blocks.\1.att.time_first", (Logarithm("exp(x)"), per_head)),
        Rule(r"blocks\.(\d+)\.att\.time_faaaa", r"blocks.\1.att.time_faaaa", (per_head,)),
    )


def _rwkv6(tensors: Mapping[str, LazyTensor]) -> tuple[Rule, ...]:
    per_head = _per_head(tensors, "time_faaaa")
    return (
        _MIXING_ROWS,
        Rule(r"blocks\.(\d+)\.att\.time_decay", r"blocks.\1.att.time_decay", (_ROW,)),
        Rule(r"blocks\.(\d+)\.att\.time_faaaa", r"blocks.\1.att.time_faaaa", (per_head,)),
        Rule(r"blocks\.(\d+)\.att\.(time_(?:maa|decay)_w[12])", r"blocks.\1.att.\2", _TRANSPOSE),
    )


def _per_head(tensors: Mapping[str, LazyTensor], example: str) -> Reshape:
    """Return the step to the original shape of decay and bonus, (H,) or (H, N), by one of them.

    Stored are (H, N, 1), or (H, 1, 1) for a number per head. The writer squeezes first, so (n, 1) is a single head
    whose size n is the attention width, or else n heads of 5.1.
    """
    stored, norm = tensors.get(f"blocks.0.att.{example}"), tensors.get("blocks.0.att.ln_x.weight")
    if stored is not None and len(stored.shape) == 3 and stored.shape[1] > 1:
        return Reshape((stored.shape[0], -1))
    if stored is not None and norm is not None and stored.shape == (*norm.shape, 1):
        return Reshape((1, -1))
    return Reshape((-1,))


def _check_header(container: Container, source: str) -> None:
    """Refuse a file whose header and tensors do not belong together."""
    stated = {name: container.extras[name] for name in ("n_vocab", "n_embed", "n_layer")}
    blocks = {name.split(".")[1] for name in container.tensors if name.startswith("blocks.")}
    embedding = container.tensors.get("emb.weight")
    if embedding is None or len(embedding.shape) != 2:
        return  # binding says so
    found = {"n_vocab": embedding.shape[0], "n_embed": embedding.shape[1], "n_layer": len(blocks)}
    if found != stated:
        raise CheckpointError(f"{source}: its header says {stated}; its tensors are those of {found}")
