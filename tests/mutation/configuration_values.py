"""Values that mean something in a ``config.json`` and the files beside it."""

from __future__ import annotations

from typing import Any

CONFIGURED: tuple[Any, ...] = (
    "llama", "mistral", "qwen2", "qwen3", "mamba", "mamba2", "falcon_mamba", "rwkv", "qwen3_next", "gpt2", "silu",
    "gelu",
    "float16", "bfloat16", "float64", "torch.float16", "default", "linear", "dynamic", "yarn", "longrope", "llama3",
    {"rope_type": "linear", "factor": 2.0}, {"type": "dynamic", "factor": 4.0}, {"rope_type": "default"}, {"factor": 2},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "beta_fast": 0, "beta_slow": 0},
    {"rope_type": "longrope", "short_factor": [1.0], "long_factor": [], "factor": 8.0},
    {"rope_type": "llama3", "factor": 0, "low_freq_factor": 4.0, "high_freq_factor": 4.0}, ["full_attention"], [1, 2],
    ["<s>"],
    {"content": "</s>", "lstrip": False}, {"content": 3}, "</s>", "auto", {"text_config": {}}, {"quant_method": "gptq"},
)  # fmt: skip
