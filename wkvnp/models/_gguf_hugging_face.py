"""GGUF files of Transformers and Mambas under Hugging Face's names, with a configuration of its fields.

What llama.cpp's converter has changed is undone: the rows of LLaMA's queries and keys, which are in another order
there, and Mamba's decays. A metadata entry that changes numbers and has no field here is refused by name.

References
----------
ggml-org/llama.cpp, ``convert_hf_to_gguf.py`` and ``gguf-py/gguf/constants.py``; huggingface/transformers, the
configurations of ``llama``, ``qwen2``, ``qwen3``, ``mamba`` and ``mamba2``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from ..checkpoints import Container, LazyTensor
from ..checkpoints.naming import Deinterleave, Logarithm, Renamed, Reshape, Rule
from ..checkpoints.tensors import quoted
from ..errors import CheckpointError
from ._gguf_metadata import architecture_of, check_layers, check_sizes, settings_of
from .settings import Settings

Fields: TypeAlias = dict[str, Any]

_DECODER = (
    Rule(r"token_embd\.weight", "model.embed_tokens.weight"),
    Rule(r"output_norm\.weight", "model.norm.weight"),
    Rule(r"output\.weight", "lm_head.weight"),
    Rule(r"blk\.(\d+)\.attn_norm\.weight", r"model.layers.\1.input_layernorm.weight"),
    Rule(r"blk\.(\d+)\.ffn_norm\.weight", r"model.layers.\1.post_attention_layernorm.weight"),
    Rule(r"blk\.(\d+)\.attn_([qkv])\.(weight|bias)", r"model.layers.\1.self_attn.\2_proj.\3"),
    Rule(r"blk\.(\d+)\.attn_([qk])_norm\.weight", r"model.layers.\1.self_attn.\2_norm.weight"),
    Rule(r"blk\.(\d+)\.attn_output\.(weight|bias)", r"model.layers.\1.self_attn.o_proj.\2"),
    Rule(r"blk\.(\d+)\.ffn_(gate|up|down)\.(weight|bias)", r"model.layers.\1.mlp.\2_proj.\3"),
)

_BACKBONE = (
    Rule(r"token_embd\.weight", "backbone.embeddings.weight"),
    Rule(r"output_norm\.weight", "backbone.norm_f.weight"),
    Rule(r"output\.weight", "lm_head.weight"),
    Rule(r"blk\.(\d+)\.attn_norm\.weight", r"backbone.layers.\1.norm.weight"),
    Rule(r"blk\.(\d+)\.ssm_(in|out)\.(weight|bias)", r"backbone.layers.\1.mixer.\2_proj.\3"),
    Rule(r"blk\.(\d+)\.ssm_conv1d\.bias", r"backbone.layers.\1.mixer.conv1d.bias"),
)


def hugging_face_form(container: Container) -> tuple[Mapping[str, LazyTensor], Fields]:
    """Return the tensors of a GGUF file under Hugging Face's names, and the fields of its configuration.

    Parameters
    ----------
    container : Container
        A file whose format is ``"gguf"``, of an architecture in `FORMS`.

    Returns
    -------
    tensors : mapping of str to LazyTensor
        In Hugging Face's layouts. Tensors that have no name there keep theirs.
    fields : dict of str to object
        As a ``config.json`` has them.

    Raises
    ------
    CheckpointError
        If it is of another architecture, or its metadata say something that is not known here or not true.
    """
    architecture = architecture_of(container)
    if architecture not in FORMS:
        raise CheckpointError(
            f"{container.path}: general.architecture must be one of {', '.join(FORMS)}; got {quoted(architecture)}"
        )
    settings = settings_of(container, architecture)
    layers = check_layers(container, settings)
    source = f"{container.path} (GGUF {architecture})"
    tensors, fields = FORMS[architecture](container, settings, source)
    table = tensors.get("model.embed_tokens.weight", tensors.get("backbone.embeddings.weight"))
    if table is None or len(table.shape) != 2:
        raise CheckpointError(f"{source}: token_embd.weight is missing, or no matrix")
    check_sizes(settings, {table.name: table}, {"vocab_size": (table.name, 0), "embedding_length": (table.name, 1)})
    settings.finish(remarks=False)
    fields |= {"model_type": architecture, "num_hidden_layers": layers, "vocab_size": table.shape[0]}
    return tensors, fields | {"hidden_act": "silu", "tie_word_embeddings": "lm_head.weight" not in tensors}


def _transformer(container: Container, settings: Settings, source: str) -> tuple[Mapping[str, LazyTensor], Fields]:
    """Return the tensors and the fields of a Transformer: Qwen2 and Qwen3 keep their rows."""
    tensors, fields = dict(container.tensors), _transformer_fields(settings)
    fields["rope_scaling"] = _rope_scaling(settings)
    rules: tuple[Rule, ...] = _DECODER
    if architecture_of(container) == "llama":
        if (factors := tensors.pop("rope_freqs.weight", None)) is not None:
            if fields["rope_scaling"] is not None:
                raise CheckpointError(f"{source}: rope_freqs.weight and rope.scaling.type contradict each other")
            fields["rope_scaling"] = _llama3_scaling(factors, fields, source)
        fields["attention_bias"] = "blk.0.attn_q.bias" in tensors
        fields["mlp_bias"] = "blk.0.ffn_up.bias" in tensors
        rules = (*_interleaved(fields), *_DECODER)
    elif architecture_of(container) == "qwen3":
        fields["attention_bias"] = "blk.0.attn_q.bias" in tensors
    return Renamed(tensors, rules, source=source), fields


def _interleaved(fields: Fields) -> tuple[Rule, ...]:
    """Return the rules for rows that llama.cpp turns in neighbouring pairs, and Hugging Face in halves of a head."""
    return tuple(
        Rule(
            rf"blk\.(\d+)\.attn_{letter}\.(weight|bias)",
            rf"model.layers.\1.self_attn.{letter}_proj.\2",
            (Deinterleave(fields[heads]),),
        )
        for letter, heads in (("q", "num_attention_heads"), ("k", "num_key_value_heads"))
    )


def _transformer_fields(settings: Settings) -> Fields:
    heads, width = settings.integer("attention.head_count"), settings.integer("embedding_length")
    if width % heads and "attention.key_length" not in settings:
        raise settings.fault("attention.head_count", f"a divisor of embedding_length={width}")
    head_dim = settings.integer("attention.key_length", width // heads)
    settings.choice("attention.value_length", (head_dim,), head_dim)
    settings.choice("rope.dimension_count", (head_dim,), head_dim)
    settings.choice("attention.causal", (True,), True)
    settings.choice("use_parallel_residual", (False,), False)
    for none in ("expert_count", "expert_used_count", "attention.sliding_window", "pooling_type"):
        settings.choice(none, (0,), 0)
    settings.ignore("tensor_data_layout")  # of very old files: the order of rows that all files have
    return {
        "hidden_size": width,
        "intermediate_size": settings.integer("feed_forward_length"),
        "num_attention_heads": heads,
        "num_key_value_heads": settings.integer("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "rms_norm_eps": settings.number("attention.layer_norm_rms_epsilon"),
        "rope_theta": settings.number("rope.freq_base", 10000.0),
        "max_position_embeddings": settings.integer("context_length"),
    }


def _rope_scaling(settings: Settings) -> Fields | None:
    kind = settings.choice("rope.scaling.type", ("none", "linear", "yarn"), "none")
    settings.ignore("rope.scaling.finetuned")
    if kind == "none":
        settings.choice("rope.scaling.factor", (1.0,), 1.0)
        settings.ignore("rope.scaling.original_context_length")
        return None
    scaling: Fields = {"rope_type": kind, "factor": settings.number("rope.scaling.factor")}
    if kind == "yarn":
        settings.choice("rope.scaling.yarn_ext_factor", (1.0,), 1.0)
        scaling["original_max_position_embeddings"] = settings.integer("rope.scaling.original_context_length")
        for field in ("beta_fast", "beta_slow"):
            if f"rope.scaling.yarn_{field}" in settings:
                scaling[field] = settings.number(f"rope.scaling.yarn_{field}")
    else:
        settings.ignore("rope.scaling.original_context_length")
    return scaling


def _llama3_scaling(tensor: LazyTensor, fields: Fields, source: str) -> Fields:
    """Return the scaling of LLaMA 3.1 to 3.3 whose divisors of the rates a file holds instead of its parameters.

    Only the factor ever differed between those models, so it is read off, and the divisors computed anew must agree.
    """
    half = fields["head_dim"] // 2
    if tensor.shape != (half,) or tensor.dtype != "float32":
        raise CheckpointError(f"{source}: rope_freqs.weight must be float32 of shape ({half},); got {tensor}")
    stored = tensor.read().astype(np.float64)
    factor, low, high, context = float(stored.max()), 1.0, 4.0, 8192
    periods = context / (2 * math.pi * fields["rope_theta"] ** (np.arange(half) / half))
    smooth = np.clip((periods - low) / (high - low), 0, 1)
    with np.errstate(all="ignore"):
        agrees = np.allclose(stored, 1 / ((1 - smooth) / factor + smooth), rtol=1e-4, atol=0)
    if not agrees:
        raise CheckpointError(
            f"{source}: rope_freqs.weight must scale the rotation as LLaMA 3.1 does (low_freq_factor {low}, "
            f"high_freq_factor {high}, original_max_position_embeddings {context}); its numbers are others"
        )
    return {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": low,
        "high_freq_factor": high,
        "original_max_position_embeddings": context,
    }


def _mamba1(container: Container, settings: Settings, source: str) -> tuple[Mapping[str, LazyTensor], Fields]:
    fields = _mamba_fields(container, settings)
    fields["time_step_rank"] = settings.integer("ssm.time_step_rank")
    settings.choice("ssm.dt_b_c_rms", (False,), False)
    rules = (
        *_BACKBONE,
        _convolution(fields),
        Rule(r"blk\.(\d+)\.ssm_(x|dt)\.(weight|bias)", r"backbone.layers.\1.mixer.\2_proj.\3"),
        Rule(r"blk\.(\d+)\.ssm_a", r"backbone.layers.\1.mixer.A_log", (Logarithm("-exp(x)"),)),
        Rule(r"blk\.(\d+)\.ssm_d", r"backbone.layers.\1.mixer.D"),
    )
    return Renamed(container.tensors, rules, source=source), fields


def _mamba2(container: Container, settings: Settings, source: str) -> tuple[Mapping[str, LazyTensor], Fields]:
    fields = _mamba_fields(container, settings)
    heads, inner = settings.integer("ssm.time_step_rank"), fields.pop("intermediate_size")
    if inner % heads:
        raise settings.fault("ssm.time_step_rank", f"a divisor of ssm.inner_size={inner}")
    fields |= {"num_heads": heads, "head_dim": inner // heads, "n_groups": settings.integer("ssm.group_count", 1)}
    flat = Reshape((-1,))
    rules = (
        *_BACKBONE,
        _convolution(fields),
        Rule(r"blk\.(\d+)\.ssm_dt\.bias", r"backbone.layers.\1.mixer.dt_bias"),
        Rule(r"blk\.(\d+)\.ssm_a", r"backbone.layers.\1.mixer.A_log", (Logarithm("-exp(x)"), flat)),
        Rule(r"blk\.(\d+)\.ssm_d", r"backbone.layers.\1.mixer.D", (flat,)),
        Rule(r"blk\.(\d+)\.ssm_norm\.weight", r"backbone.layers.\1.mixer.norm.weight", (flat,)),
    )
    return Renamed(container.tensors, rules, source=source), fields


def _convolution(fields: Fields) -> Rule:
    taps = Reshape((-1, 1, fields["conv_kernel"]))
    return Rule(r"blk\.(\d+)\.ssm_conv1d\.weight", r"backbone.layers.\1.mixer.conv1d.weight", (taps,))


def _mamba_fields(container: Container, settings: Settings) -> Fields:
    """Return the fields that both Mambas have."""
    width, inner = settings.integer("embedding_length"), settings.integer("ssm.inner_size")
    if inner % width:
        raise settings.fault("ssm.inner_size", f"a multiple of embedding_length={width}")
    # Files say 0 of what a Mamba does not have, and a length that means nothing.
    settings.choice("feed_forward_length", (0,), 0)
    settings.choice("attention.head_count", (0,), 0)
    settings.ignore("context_length")
    return {
        "hidden_size": width,
        "intermediate_size": inner,
        "expand": inner // width,
        "state_size": settings.integer("ssm.state_size"),
        "conv_kernel": settings.integer("ssm.conv_kernel"),
        "layer_norm_epsilon": settings.number("attention.layer_norm_rms_epsilon"),
        "use_bias": "blk.0.ssm_in.bias" in container.tensors,
        "use_conv_bias": "blk.0.ssm_conv1d.bias" in container.tensors,
    }


FORMS = {"llama": _transformer, "qwen2": _transformer, "qwen3": _transformer, "mamba": _mamba1, "mamba2": _mamba2}
"""GGUF architecture, which is also Hugging Face's ``model_type`` -> what brings such a file to its form."""
