"""What llama.cpp has changed in the tensors of RWKV-6 and RWKV-7 files, undone: original names, layouts and scales.

A GGUF file states its architecture and sizes as metadata; where they disagree with the tensors, or say something that
is not known here, the file is refused.

References
----------
ggml-org/llama.cpp, ``convert_hf_to_gguf.py``, ``gguf-py/gguf/constants.py`` and ``src/llama-model.cpp``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..checkpoints import Container, LazyTensor
from ..checkpoints.naming import Renamed, Reshape, Rule, Scale, Transpose
from ..checkpoints.tensors import quoted
from ..errors import CheckpointError
from ._gguf_hugging_face import FORMS
from ._gguf_metadata import architecture_of, check_layers, check_sizes, settings_of
from .settings import Settings

_ROW = (Reshape((1, 1, -1)),)
_TRANSPOSE = (Transpose(),)

_BOTH = (
    Rule(r"token_embd\.weight", "emb.weight"),
    Rule(r"token_embd_norm\.(weight|bias)", r"blocks.0.ln0.\1"),
    Rule(r"output_norm\.(weight|bias)", r"ln_out.\1"),
    Rule(r"output\.weight", "head.weight"),
    Rule(r"blk\.(\d+)\.attn_norm\.(weight|bias)", r"blocks.\1.ln1.\2"),
    Rule(r"blk\.(\d+)\.attn_norm_2\.(weight|bias)", r"blocks.\1.ln2.\2"),
    Rule(r"blk\.(\d+)\.time_mix_ln\.(weight|bias)", r"blocks.\1.att.ln_x.\2"),
    Rule(r"blk\.(\d+)\.time_mix_(receptance|key|value|gate|output)\.weight", r"blocks.\1.att.\2.weight"),
    Rule(r"blk\.(\d+)\.channel_mix_(receptance|key|value)\.weight", r"blocks.\1.ffn.\2.weight"),
)

_RWKV7 = (
    *_BOTH,
    Rule(
        r"blk\.(\d+)\.time_mix_lerp_fused\.weight",
        tuple(rf"blocks.\1.att.x_{letter}" for letter in "rwkvag"),
        (Reshape((6, 1, -1)),),
    ),
    Rule(r"blk\.(\d+)\.time_mix_([wav]0|k_k|k_a)\.weight", r"blocks.\1.att.\2", _ROW),
    # Layer 0 has copies of its a0, a1, a2 under the names of v0, v1, v2; the model ignores them under any name.
    Rule(r"blk\.(\d+)\.time_mix_([wavg][12])\.weight", r"blocks.\1.att.\2", _TRANSPOSE),
    Rule(r"blk\.(\d+)\.channel_mix_lerp_k\.weight", r"blocks.\1.ffn.x_k", _ROW),
)

_RWKV6 = (
    *_BOTH,
    Rule(r"blk\.(\d+)\.time_mix_lerp_([xwkvrg])\.weight", r"blocks.\1.att.time_maa_\2", _ROW),
    Rule(
        r"blk\.(\d+)\.time_mix_lerp_fused\.weight",
        tuple(rf"blocks.\1.att.time_maa_{letter}" for letter in "wkvrg"),
        (Reshape((5, 1, -1)),),
    ),
    Rule(r"blk\.(\d+)\.time_mix_(w[12])\.weight", r"blocks.\1.att.time_maa_\2", _TRANSPOSE),
    Rule(r"blk\.(\d+)\.time_mix_decay\.weight", r"blocks.\1.att.time_decay", _ROW),
    Rule(r"blk\.(\d+)\.time_mix_decay_(w[12])\.weight", r"blocks.\1.att.time_decay_\2", _TRANSPOSE),
    Rule(r"blk\.(\d+)\.time_mix_first\.weight", r"blocks.\1.att.time_faaaa"),
    Rule(r"blk\.(\d+)\.channel_mix_lerp_([kr])\.weight", r"blocks.\1.ffn.time_maa_\2", _ROW),
)

# Metadata -> the tensor and the axis that have the same size.
_SIZES = {
    "rwkv6": {
        "vocab_size": ("emb.weight", 0),
        "embedding_length": ("emb.weight", 1),
        "feed_forward_length": ("blocks.0.ffn.key.weight", 0),
        "wkv.head_size": ("blocks.0.att.time_faaaa", 1),
        "time_mix_extra_dim": ("blocks.0.att.time_maa_w2", 1),
        "time_decay_extra_dim": ("blocks.0.att.time_decay_w2", 0),
    },
    "rwkv7": {
        "vocab_size": ("emb.weight", 0),
        "embedding_length": ("emb.weight", 1),
        "feed_forward_length": ("blocks.0.ffn.key.weight", 0),
        "wkv.head_size": ("blocks.0.att.r_k", 1),
        "attention.decay_lora_rank": ("blocks.0.att.w2", 0),
        "attention.iclr_lora_rank": ("blocks.0.att.a2", 0),
        "attention.gate_lora_rank": ("blocks.0.att.g2", 0),
        "attention.value_residual_mix_lora_rank": ("blocks.1.att.v2", 0),
    },
}
_HYBRID = "a hybrid with RMSNorm, biases, grouped keys and values and SwiGLU"
_RELATIVES = {"rwkv6qwen2": _HYBRID, "arwkv7": _HYBRID}


def original_tensors(container: Container) -> Mapping[str, LazyTensor]:
    """Return the tensors of a GGUF file of RWKV-6 or RWKV-7 in the names and layouts of the original authors.

    Parameters
    ----------
    container : Container
        A file whose format is ``"gguf"``.

    Returns
    -------
    mapping of str to LazyTensor

    Raises
    ------
    CheckpointError
        If it is of another architecture, a shape is impossible, or its metadata disagree with its tensors.
    """
    source = str(container.path)
    architecture = architecture_of(container)
    if architecture not in _SIZES:
        what = f" ({_RELATIVES[architecture]})" if architecture in _RELATIVES else ""
        raise CheckpointError(
            f"{source}: general.architecture must be one of {', '.join((*_SIZES, *FORMS))}; "
            f"got {quoted(architecture)}{what}"
        )
    settings = settings_of(container, architecture)
    check_layers(container, settings)
    settings.choice("attention.layer_norm_epsilon", (1e-5,), 1e-5)
    settings.choice("token_shift_count", (2,), 2)
    settings.ignore("context_length", "attention.head_count")  # unlimited, and always 0
    rules = _rwkv6(settings) if architecture == "rwkv6" else _rwkv7(settings)
    tensors = Renamed(container.tensors, rules, source=f"{source} (GGUF {architecture})")
    check_sizes(settings, tensors, _SIZES[architecture])
    settings.finish(remarks=False)
    return tensors


def _rwkv6(settings: Settings) -> tuple[Rule, ...]:
    """Return the rules, with those that undo what keeps float16 activations small: halving after every few layers."""
    period = settings.integer("rescale_every_n_layers", 0, least=0)

    def scale(match: re.Match[str]) -> tuple[Scale, ...]:
        exponent = int(match[1]) // period if period else 0
        return (Scale(exponent),) if exponent else ()

    return (
        Rule(r"blk\.(\d+)\.time_mix_output\.weight", r"blocks.\1.att.output.weight", scale),
        Rule(r"blk\.(\d+)\.channel_mix_value\.weight", r"blocks.\1.ffn.value.weight", scale),
        *_RWKV6,
    )


def _rwkv7(settings: Settings) -> tuple[Rule, ...]:
    head_size = settings.integer("wkv.head_size")
    return (Rule(r"blk\.(\d+)\.time_mix_r_k\.weight", r"blocks.\1.att.r_k", (Reshape((-1, head_size)),)), *_RWKV7)
