"""What training programs wrap around weights: prefixes of all names, dicts around dicts, aliases of shared tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from .tensors import LazyTensor

KEYS = ("state_dict", "model", "module")
"""Under which a checkpoint of a training run keeps the weights, beside its optimizer and counters."""

_PREFIXES = ("module.", "_orig_mod.", "_forward_module.")


def without_prefix(tensors: Mapping[str, LazyTensor]) -> Mapping[str, LazyTensor]:
    """Return tensors without the prefixes of wrapped modules, where all names have them.

    Examples
    --------
    >>> import numpy as np
    >>> names = ("_orig_mod.module.emb.weight", "_orig_mod.module.head.weight")
    >>> list(without_prefix({name: LazyTensor.of(name, np.ones(2)) for name in names}))
    ['emb.weight', 'head.weight']
    """
    while tensors and (prefix := next((p for p in _PREFIXES if all(n.startswith(p) for n in tensors)), "")):
        names = {name: name.removeprefix(prefix) for name in tensors}
        tensors = {short: replace(tensors[name], name=short) for name, short in names.items()}
    return tensors


def with_aliases(tensors: Mapping[str, LazyTensor], metadata: Mapping[str, str]) -> Mapping[str, LazyTensor]:
    """Return tensors, and those of which the metadata of a safetensors file says that they are one of them.

    ``safetensors.torch.save_model`` writes a tensor that two names share once, and the other name into the metadata.

    Examples
    --------
    >>> import numpy as np
    >>> table = LazyTensor.of("lm_head.weight", np.ones((2, 3)))
    >>> sorted(with_aliases({"lm_head.weight": table}, {"embed.weight": "lm_head.weight", "format": "pt"}))
    ['embed.weight', 'lm_head.weight']
    """
    aliases = {alias: name for alias, name in metadata.items() if name in tensors and alias not in tensors}
    return {**tensors, **{alias: replace(tensors[name], name=alias) for alias, name in aliases.items()}}
