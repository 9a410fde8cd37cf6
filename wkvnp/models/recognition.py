"""What model a checkpoint holds: told by tensor names, and by the configuration beside them where there is one."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

from ..checkpoints import Container, LazyTensor
from ..checkpoints.naming import bind, flatten
from ..checkpoints.quantised_tensors import FORMS as QUANTISED_FORMS
from ..checkpoints.quantised_tensors import KEY
from ..checkpoints.tensors import quoted
from ..checkpoints.wrappers import with_aliases, without_prefix
from ..errors import ArgumentError, CheckpointError
from . import _ggmf_names, _gguf_names, _rwkv_fields
from ._gguf_hugging_face import FORMS, hugging_face_form
from ._gguf_metadata import architecture_of
from ._mamba_fields import in_hugging_face_terms
from ._schemes import original_names, refuse_relatives, version
from .architectures import MODEL_TYPES, config_of, module_of, weights_of
from .network import Config
from .settings import Settings, fields_of, without
from .storage import check_quantised

_DESCRIBED_ELSEWHERE = re.compile(r"(?:model\.|backbone\.)?layers\.\d+\.(self_attn|linear_attn|mixer)\.")
_RWKV = ("blocks.0.att.key.weight", "blocks.0.att.time_state")


def recognise(
    container: Container, group_norm_eps: float | None = None, ignore: Collection[str] = ()
) -> tuple[Any, Config]:
    """Return the tensors of a checkpoint in the places of its weights, unread, and the configuration of its model.

    Raises
    ------
    CheckpointError
        If its architecture is not known, or it is incomplete.
    ArgumentError
        If there is no field of a name in `ignore`.
    """
    weights, config = _recognised(container, group_norm_eps, _checked(ignore))
    if config.vocab_size < 2:
        raise CheckpointError(f"{container.path}: the vocabulary of a model must have at least 2 tokens; got 1")
    if (form := container.metadata.get(KEY)) is not None:
        check_quantised(flatten(weights), str(container.path))
        config = config.kept_in(QUANTISED_FORMS[form])
    return weights, config


def _checked(ignore: Collection[str]) -> Collection[str]:
    listed = isinstance(ignore, Collection) and not isinstance(ignore, str)
    if not listed or not all(isinstance(name, str) for name in ignore):
        raise ArgumentError(f"load: ignore must be a list of names of fields; got {quoted(ignore)}")
    return ignore


def _recognised(container: Container, group_norm_eps: float | None, ignore: Collection[str]) -> tuple[Any, Config]:
    source, found = str(container.path), None
    if ignore and container.format == "gguf":
        container = replace(container, extras=without(container.extras, ignore, f"the metadata of {source}"))
    tensors: Mapping[str, LazyTensor]
    if container.format == "ggmf":
        tensors = _ggmf_names.original_tensors(container)
    elif container.format == "gguf" and architecture_of(container) in FORMS:
        tensors, fields = hugging_face_form(container)
        found = fields, f"{source}: metadata"
    elif container.format == "gguf":
        tensors = _gguf_names.original_tensors(container)
    else:
        tensors = original_names(with_aliases(without_prefix(container.tensors), container.metadata), source)
        found = None if any(name in tensors for name in _RWKV) else _fields_of(container, ignore)
    if found is None:
        _refuse_undescribed(tensors, source)
        return _rwkv(container, tensors, group_norm_eps, ignore)
    if group_norm_eps is not None:
        raise ArgumentError(f"load: group_norm_eps is for RWKV-5 to 7; {source} holds another model")
    described, where = in_hugging_face_terms(*found), found[1]
    kind = described.get("model_type")
    if not isinstance(kind, str) or kind not in MODEL_TYPES:
        raise CheckpointError(
            f"{where}: model_type must be one of {', '.join(MODEL_TYPES)}, which wkvnp computes; got {quoted(kind)}"
        )
    weights, config = module_of(MODEL_TYPES[kind]).bound(tensors, Settings(described, where), source)
    return weights, config


def _fields_of(container: Container, ignore: Collection[str]) -> tuple[dict[str, Any], str] | None:
    """Return the fields that a checkpoint carries but for some, and what to call them; None if it carries none."""
    found = fields_of(container)
    return found and (without(found[0], ignore, found[1]), found[1])


def _refuse_undescribed(tensors: Iterable[str], source: str) -> None:
    """Refuse models whose tensors do not say everything, if there is nothing beside them that does."""
    for name in tensors:
        if match := _DESCRIBED_ELSEWHERE.match(name):
            what = {"self_attn": "a Transformer", "linear_attn": "a Qwen3-Next", "mixer": "a Mamba"}[match[1]]
            raise CheckpointError(
                f"{source}: looks like {what} (tensor {quoted(name)}), whose tensors do not say how many heads or what "
                "norms it has; put its config.json beside it"
            )


def _rwkv(
    container: Container, tensors: Mapping[str, LazyTensor], group_norm_eps: float | None, ignore: Collection[str]
) -> tuple[Any, Config]:
    """Recognise an RWKV, which its tensors describe but for one number."""
    source = str(container.path)
    refuse_relatives(tensors, container.extras, source)
    architecture = version(tensors, source)
    module = module_of(architecture)
    weights, sizes = bind(
        weights_of(architecture),
        tensors,
        source=source,
        ignore=(r"blocks\.[1-9][0-9]*\.ln0\.(weight|bias)", *module.IGNORE),  # only layer 0 uses its ln0
        require=(r"blocks\.0\.ln0\.(weight|bias)", *module.required(tensors)),
    )
    stored = _stored_eps(container, architecture, sizes, ignore)
    eps = stored if group_norm_eps is None else group_norm_eps
    if not eps > 0:
        raise ArgumentError(f"load: group_norm_eps must be positive; got {eps}")
    return weights, config_of(architecture, weights, sizes, eps, source)


def _stored_eps(
    container: Container, architecture: str, sizes: Mapping[str, int], ignore: Collection[str]
) -> float:  # fmt: skip
    if _rwkv_fields.speaks_of(container.tensors) and (found := _fields_of(container, ignore)) is not None:
        return _rwkv_fields.group_norm_eps(Settings(*found), architecture, container.tensors, sizes)
    if ignore and container.format != "gguf":
        raise ArgumentError(f"load: ignore must name fields of a configuration; {container.path} has none that is read")
    usual = _ggmf_names.GROUP_NORM_EPS.get(architecture, 64e-5) if container.format == "ggmf" else 64e-5
    text = container.metadata.get("group_norm_eps", repr(usual))
    try:
        return float(text)
    except ValueError:
        raise CheckpointError(
            f"{container.path}: group_norm_eps in the metadata must be a number; got {text!r}"
        ) from None
