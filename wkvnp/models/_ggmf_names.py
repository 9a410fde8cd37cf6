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

_RWKV4 = (
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
    rules = {"rwkv4": _RWKV4, "rwkv6": _rwkv6(tensors), "rwkv7": _RWKV7}.get(architecture) or _rwkv5(tensors)
    return Renamed(tensors, rules, source=f"{source} (rwkv.cpp layout)")


def _rwkv5(tensors: Mapping[str, LazyTensor]) -> tuple[Rule, ...]:
    per_head = _per_head(tensors)
    return (
        _MIXING_ROWS,
        Rule(
            r"blocks\.(\d+)\.att\.time_decay", r"blocks.\1.att.time_decay", (Logarithm("exp(-exp(x))"), per_head)
        ),
        Rule(r"blocks\.(\d+)\.att\.time_first", r"blocks.\1.att.time_first", (Logarithm("exp(x)"), per_head)),
        Rule(r"blocks\.(\d+)\.att\.time_faaaa", r"blocks.\1.att.time_faaaa", (per_head,)),
    )


def _rwkv6(tensors: Mapping[str, LazyTensor]) -> tuple[Rule, ...]:
    return (
        _MIXING_ROWS,
        Rule(r"blocks\.(\d+)\.att\.time_decay", r"blocks.\1.att.time_decay", (_ROW,)),
        Rule(r"blocks\.(\d+)\.att\.time_faaaa", r"blocks.\1.att.time_faaaa", (_per_head(tensors),)),
        Rule(r"blocks\.(\d+)\.att\.(time_(?:maa|decay)_w[12])", r"blocks.\1.att.\2", _TRANSPOSE),
    )


def _per_head(tensors: Mapping[str, LazyTensor]) -> Reshape:
    """Return the step to the original shape of decay and bonus: (H,) or (H, N).

    Stored are (H, N, 1), or (H, 1, 1) for a number per head; the writer squeezes first, so (N, 1) is a single head
    (then N is the attention width), or else H numbers of 5.1.
    """
    stored = next(
        (tensors[name].shape for part in ("time_decay", "time_faaaa") if (name := f"blocks.0.att.{part}") in tensors)
    )
    width = tensors["blocks.0.att.ln_x.weight"].shape[-1] if "blocks.0.att.ln_x.weight" in tensors else 0
    if len(stored) == 3 and stored[1] > 1:
        return Reshape((stored[0], -1))
    if len(stored) == 2 and stored == (width, 1):
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
