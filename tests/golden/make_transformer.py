"""Write the tiny Transformers and their logits: ``python tests/golden/make_transformer.py``.

Needs torch and transformers (5.23 was used), which the tests do not.
"""

import json
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from safetensors.numpy import save_file
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

HERE = Path(__file__).parent
SIZES = {"vocab_size": 53, "hidden_size": 28, "intermediate_size": 44, "rms_norm_eps": 1e-3}
LLAMA = {
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 10,
    "attention_bias": True,
    "mlp_bias": True,
    "tie_word_embeddings": True,
    "max_position_embeddings": 64,
}
MISTRAL = {
    "num_hidden_layers": 2,
    "num_attention_heads": 7,
    "num_key_value_heads": 1,
    "sliding_window": 11,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0},
}
QWEN2 = {
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "use_sliding_window": True,
    "sliding_window": 70,
    "max_window_layers": 1,
    "tie_word_embeddings": True,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
}
QWEN3 = {
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 12,
    "attention_bias": True,
    "use_sliding_window": True,
    "sliding_window": 5,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    "rope_parameters": {
        "rope_type": "yarn",
        "rope_theta": 100.0,
        "factor": 3.0,
        "original_max_position_embeddings": 20,
    },
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 6.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 24,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 24}
# What the model `llama` says with other scalings: as its configuration says it, and as transformers is told.
SCALINGS: dict[str, dict[str, Any]] = {
    "none": {"rope_type": "default"},
    "linear": {"rope_type": "linear", "factor": 2.5},
    "yarn": YARN,
    "yarn-of-max-position-embeddings": {"rope_type": "yarn", "factor": 4.0},
    "yarn-attention-factor": YARN | {"attention_factor": 0.7, "beta_fast": 5.0, "beta_slow": 0.5},
    "yarn-mscale": YARN | {"mscale": 1.2, "mscale_all_dim": 0.4},
    "yarn-factor-of-the-lengths": YARN | {"factor": None},
    "yarn-not-truncated": YARN | {"truncate": False, "beta_fast": 3.0},
}
THETA = 100.0


def logits_of(model: Any, tokens: np.ndarray, config: Any) -> np.ndarray:
    """Return what a model says in float64, with the rotation of a configuration."""
    # The modules cast to float32 here and there; what is wanted is what they mean.
    with (
        torch.no_grad(),
        patch.object(torch, "float32", torch.float64),
        patch.object(torch, "float", torch.float64),
        patch.object(torch.Tensor, "float", torch.Tensor.double),
    ):
        model.model.rotary_emb = type(model.model.rotary_emb)(config)
        return model(torch.tensor(tokens[None]), use_cache=False).logits[0].numpy()


def write(name: str, made: Any, kind: Any, fields: dict[str, Any], seed: int, length: int, rope: Any = None) -> None:
    """Write a model, all of whose numbers are drawn; `rope` is the rotation in the words of older configurations."""
    torch.manual_seed(seed)
    tokens = np.random.default_rng(seed).integers(0, SIZES["vocab_size"], length)
    told = {} if rope is None else {"rope_parameters": dict(rope) | {"rope_theta": THETA}}
    model = made(kind(**SIZES, **fields, **told, attn_implementation="eager")).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            spread = 0.3 if parameter.ndim < 2 else 1.2 * parameter.shape[-1] ** -0.5
            parameter.add_(torch.randn_like(parameter) * spread)
    folder = HERE / name
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink()
    expected = {"tokens": tokens, "logits": logits_of(model.double(), tokens, model.config)}
    if rope is not None:
        said = json.loads((folder / "config.json").read_text())
        del said["rope_parameters"]
        said |= {"rope_scaling": rope, "rope_theta": THETA}
        (folder / "config.json").write_text(json.dumps(said, indent=2) + "\n")
        (folder / "scalings.json").write_text(json.dumps(SCALINGS, indent=2) + "\n")
        for label, scaling in SCALINGS.items():
            other = kind(**SIZES, **fields, rope_parameters=dict(scaling) | {"rope_theta": THETA})
            expected[f"logits.{label}"] = logits_of(model, tokens, other)
    save_file(expected, folder / "expected.safetensors")


if __name__ == "__main__":
    write("llama", LlamaForCausalLM, LlamaConfig, LLAMA, 1, 30, LLAMA3)
    write("mistral", MistralForCausalLM, MistralConfig, MISTRAL, 2, 150)
    write("qwen2", Qwen2ForCausalLM, Qwen2Config, QWEN2, 3, 150)
    write("qwen3", Qwen3ForCausalLM, Qwen3Config, QWEN3, 4, 30)
