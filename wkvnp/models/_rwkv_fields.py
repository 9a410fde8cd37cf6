"""The configuration beside an RWKV under the names of Hugging Face or Flash Linear Attention (FLA).

The tensors describe the model but for one number, which is worked out here; what else the fields say must agree.

References
----------
huggingface/transformers, ``models/rwkv/configuration_rwkv.py``; the ``configuration_rwkv5.py`` and
``modeling_rwkv6.py`` beside the released RWKV-5 and RWKV-6; fla-org/flash-linear-attention, ``fla/layers/rwkv6.py``
and ``fla/layers/rwkv7.py``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .settings import Settings, agree

_TABLES = ("rwkv.embeddings.weight", "model.embeddings.weight")  # of the one scheme and the other
_MODEL_TYPES = {"rwkv4": ("rwkv",), "rwkv6": ("rwkv6",), "rwkv7": ("rwkv7", "rwkv7_fla")}
_SIZES = {
    "V": ("vocab_size",),
    "C": ("hidden_size",),
    "L": ("num_hidden_layers",),
    "A": ("attention_hidden_size",),
    "F": ("intermediate_size",),
    "H": ("num_heads",),
    "N": ("head_size", "head_dim"),
}
# How the same is computed or trained, and sizes that only the tensors know for sure. FLA's fused norms add 1e-6 where
# the original has a floor of 1e-12: the original is computed.
_NO_MATTER = (
    *("attn_mode", "context_length", "expand_k", "expand_v", "hidden_ratio", "max_context_length", "model_version"),
    *("num_attention_heads", "use_l2warp", "value_dim", "fuse_cross_entropy", "fuse_linear_cross_entropy", "fuse_norm"),
    *("a_low_rank_dim", "decay_low_rank_dim", "gate_low_rank_dim", "proj_low_rank_dim", "v_low_rank_dim"),
    "rescale_every",  # halves activations and matrices alike, for float16
)


def speaks_of(names: Iterable[str]) -> bool:
    """Say whether tensors have the names of a scheme that puts a configuration beside them."""
    return any(name in _TABLES for name in names)


def group_norm_eps(settings: Settings, architecture: str, names: Iterable[str], sizes: Mapping[str, int]) -> float:
    """Return what is added to the variance of each head's output.

    Parameters
    ----------
    settings : Settings
        The fields.
    architecture : str
        What the tensors are.
    names : iterable of str
        Their names in the file.
    sizes : mapping of str to int
        The size of every axis letter.

    Raises
    ------
    CheckpointError
        If a field says what wkvnp does not compute, or is not known, or the tensors disagree.
    """
    settings.choice("model_type", _MODEL_TYPES.get(architecture, ("rwkv5",)))
    settings.choice("tie_word_embeddings", (False,), False)
    settings.choice("attn", (None,))  # layers of attention among the others, in FLA
    settings.ignore(*_NO_MATTER)
    head = sizes["A"] // sizes["H"] if "H" in sizes else 0
    for letter, fields in _SIZES.items():
        for name in fields:
            if name in settings:
                stated = {letter: (name, settings.integer(name))}
                agree({**sizes, "N": head} if head else sizes, stated, settings.source)
    if _TABLES[0] in set(names):
        settings.choice("layer_norm_epsilon", (1e-5,), 1e-5)
        eps = 1e-5 * settings.number("head_size_divisor", 8) ** 2  # for dividing before the norm by that number
    else:
        settings.choice("norm_eps", (1e-5,), 1e-5)
        settings.choice("norm_first", (True,), True)
        settings.choice("norm_bias", (True,), True)
        settings.choice("hidden_act", ("sqrelu",), "sqrelu")
        eps = 1e-5 * head if architecture == "rwkv7" else 1e-5
    settings.finish()
    return eps
