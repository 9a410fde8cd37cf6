"""What the loader does with every field of the configurations that it reads: three lists per model type.

`implemented` fields are read; `harmless` ones may say anything; `refused` ones may only have the values that change
nothing, of which some are given here, and a value that is refused.
"""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Fields:
    """The three lists of a model type, and the folders of golden files that its implemented fields are tested with."""

    implemented: str
    harmless: str
    refused: dict[str, tuple[list[Any], Any]]
    golden: tuple[str, ...]
    also: dict[str, Any] = field(default_factory=dict)


EVERYWHERE = (
    "architectures chunk_size_feed_forward dtype id2label is_encoder_decoder label2id output_hidden_states "
    "problem_type return_dict transformers_version torch_dtype _name_or_path name_or_path _attn_implementation "
    "attn_implementation _attn_implementation_autoset experts_implementation _commit_hash output_attentions "
    "num_labels torchscript use_bfloat16 tie_encoder_decoder is_decoder add_cross_attention "
    "cross_attention_hidden_size finetuning_task task_specific_params tokenizer_class prefix sep_token_id "
    "decoder_start_token_id tf_legacy_loss auto_map gradient_checkpointing tie_last_hidden_states bos_token_id "
    "eos_token_id pad_token_id use_cache initializer_range assistant_confidence_threshold assistant_lookbehind "
    "bad_words_ids begin_suppress_tokens diversity_penalty do_sample early_stopping encoder_no_repeat_ngram_size "
    "encoder_repetition_penalty epsilon_cutoff eta_cutoff exponential_decay_length_penalty forced_bos_token_id "
    "forced_eos_token_id length_penalty max_length min_length no_repeat_ngram_size num_assistant_tokens "
    "num_assistant_tokens_schedule num_beam_groups num_beams num_return_sequences output_scores "
    "remove_invalid_values repetition_penalty return_dict_in_generate suppress_tokens target_lookbehind "
    "temperature top_k top_p typical_p "
)
"""Harmless in every model type."""

_EVERY_REFUSED: dict[str, tuple[list[Any], Any]] = {
    "per_layer_config": ([{}, None], {"0": {"rms_norm_eps": 1.0}}),
    "pruned_heads": ([{}, None], {"0": [1]}),
    "quantization_config": ([None], {"bits": 4}),
    "compression_config": ([None], {"format": "pack-quantized"}),
    "is_causal": ([True], None),
    "attn_logit_softcapping": ([None], 50.0),
    "logit_scale": ([None], 0.5),
    "text_config": ([None], {"hidden_size": 8}),
}
_DECODER = (
    "hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads head_dim rms_norm_eps "
    "rope_parameters rope_scaling rope_theta max_position_embeddings original_max_position_embeddings "
    "tie_word_embeddings vocab_size "
)
_DECODER_REFUSED = _EVERY_REFUSED | {
    "hidden_act": (["silu", "swish", None], "gelu"),
    "rope_interleaved": ([False, None], True),
    "use_bidirectional_attention": ([False, None], True),
    "attention_chunk_size": ([None], 8),
    "kv_sharing_modes": ([None], ["reuse"]),
}
_WHOLE: dict[str, tuple[list[Any], Any]] = {"partial_rotary_factor": ([1.0, 1, None], 0.5)}
_NO_WINDOW: dict[str, tuple[list[Any], Any]] = {"use_sliding_window": ([False, None], True)}
_NO_BIAS: dict[str, tuple[list[Any], Any]] = {
    "attention_bias": ([False, None], True),
    "mlp_bias": ([False, None], True),
}
_YARN = {
    "rope_parameters": None,
    "rope_scaling": {"rope_type": "yarn", "factor": 2.0},
    "rope_theta": 100.0,
    "max_position_embeddings": 64,
}
_MAMBA = (
    "conv_kernel expand hidden_size layer_norm_epsilon num_hidden_layers state_size tie_word_embeddings use_bias "
    "use_conv_bias vocab_size intermediate_size "
)
_MAMBA_HARMLESS = (
    "residual_in_fp32 time_step_floor time_step_init_scheme time_step_max time_step_min time_step_scale "
    "use_associative_scan use_mambapy use_falcon_mambapy fused_add_norm pad_vocab_size_multiple "
)
_MAMBA_REFUSED = _EVERY_REFUSED | {
    "hidden_act": (["silu", "swish", None], "gelu"),
    "rescale_prenorm_residual": ([False, None], True),
    "rms_norm": ([True, None], False),
    "layer_types": ([None], ["full_attention"]),
}

TABLE = {
    "llama": Fields(
        implemented=_DECODER + "attention_bias mlp_bias",
        harmless="attention_dropout pretraining_tp max_window_layers",
        refused=_DECODER_REFUSED
        | _WHOLE
        | _NO_WINDOW
        | {
            "sliding_window": ([None], 16),
            "layer_types": ([None, ["full_attention"] * 2, ["attention"] * 2], ["full_attention", "sliding_attention"]),
        },
        golden=("llama",),
        also=_YARN,
    ),
    "mistral": Fields(
        implemented=_DECODER + "sliding_window",
        harmless="attention_dropout max_window_layers",
        refused=_DECODER_REFUSED
        | _WHOLE
        | _NO_WINDOW
        | _NO_BIAS
        | {"layer_types": ([None, ["sliding_attention"] * 2], ["full_attention"] * 2)},
        golden=("mistral", "options/mistral"),
        also=_YARN,
    ),
    "qwen2": Fields(
        implemented=_DECODER + "use_sliding_window sliding_window max_window_layers layer_types",
        harmless="attention_dropout",
        refused=_DECODER_REFUSED | _WHOLE | _NO_BIAS,
        golden=("qwen2", "options/qwen2"),
        also=_YARN,
    ),
    "qwen3": Fields(
        implemented=_DECODER + "attention_bias use_sliding_window sliding_window max_window_layers layer_types",
        harmless="attention_dropout",
        refused=_DECODER_REFUSED | _WHOLE | {"mlp_bias": ([False, None], True)},
        golden=("qwen3", "options/qwen3"),
        also=_YARN,
    ),
    "qwen3_next": Fields(
        implemented=_DECODER + "attention_bias decoder_sparse_step full_attention_interval layer_types "
        "linear_conv_kernel_dim linear_key_head_dim linear_num_key_heads linear_num_value_heads linear_value_head_dim "
        "mlp_only_layers moe_intermediate_size norm_topk_prob num_experts num_experts_per_tok "
        "shared_expert_intermediate_size partial_rotary_factor",
        harmless="attention_dropout output_router_logits router_aux_loss_coef sliding_window max_window_layers",
        refused=_DECODER_REFUSED | _NO_WINDOW | {"mlp_bias": ([None], True)},
        golden=("qwen3_next", "qwen3_next_experts", "options/qwen3_next"),
        also=_YARN,
    ),
    "mamba": Fields(
        implemented=_MAMBA + "time_step_rank",
        harmless=_MAMBA_HARMLESS,
        refused=_MAMBA_REFUSED | {"mixer_rms_eps": ([None], 1e-3)},
        golden=("mamba1", "mamba1_untied"),
    ),
    "falcon_mamba": Fields(
        implemented=_MAMBA + "time_step_rank mixer_rms_eps",
        harmless=_MAMBA_HARMLESS,
        refused=_MAMBA_REFUSED,
        golden=("falcon_mamba", "options/falcon_mamba"),
    ),
    "mamba2": Fields(
        implemented=_MAMBA + "num_heads head_dim n_groups time_step_limit",
        harmless=_MAMBA_HARMLESS + "chunk_size norm_before_gate time_step_rank",
        refused=_MAMBA_REFUSED,
        golden=("mamba2", "mamba2_codestral"),
    ),
    "rwkv": Fields(
        implemented="vocab_size hidden_size num_hidden_layers attention_hidden_size intermediate_size",
        harmless="context_length max_position_embeddings rescale_every",
        refused=_EVERY_REFUSED
        | {
            "layer_norm_epsilon": ([1e-5, None], 1e-3),
            "tie_word_embeddings": ([False, None], True),
            "attn": ([None], {"layers": [1]}),
        },
        golden=("rwkv", "options/rwkv"),
    ),
}
"""Model type -> what is done with its fields, those of `EVERYWHERE` apart."""

ROPE = {
    "default": "rope_type type rope_theta",
    "linear": "rope_type type rope_theta factor",
    "llama3": "rope_type type rope_theta factor original_max_position_embeddings low_freq_factor high_freq_factor",
    "yarn": "rope_type type rope_theta factor original_max_position_embeddings attention_factor beta_fast beta_slow "
    "truncate mscale mscale_all_dim",
}
"""Scaling of positions -> what is read inside ``rope_scaling`` and ``rope_parameters``; null there says nothing."""

ROPE_HARMLESS = "mrope_section"

ROPE_REFUSED: dict[str, Any] = {
    "factor": 2.0,
    "original_max_position_embeddings": 16,
    "attention_factor": 0.5,
    "beta_fast": 8.0,
    "beta_slow": 2.0,
    "truncate": False,
    "mscale": 0.5,
    "mscale_all_dim": 0.5,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "short_factor": [1.0],
    "long_factor": [2.0],
    "alpha": 1000.0,
    "partial_rotary_factor": 0.5,
    "full_attention": {"rope_theta": 5.0},
}
"""A field that a scaling does not read -> a value with which it is refused."""
